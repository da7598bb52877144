"""What AWS's XGBoost images have for scripts: readers, checkpoints, training on several hosts."""
