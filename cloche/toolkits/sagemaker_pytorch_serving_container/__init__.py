"""What AWS's PyTorch images serve with."""
