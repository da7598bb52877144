"""What AWS's scikit-learn images serve with."""
