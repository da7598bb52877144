"""Cloche: a SageMaker-compatible machine-learning platform on your own machine."""
