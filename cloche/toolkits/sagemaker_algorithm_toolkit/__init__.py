"""What AWS's XGBoost and scikit-learn images share."""
