"""Managed warm pools: what a training job leaves for the next one of its kind."""
