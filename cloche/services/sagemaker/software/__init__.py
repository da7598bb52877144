"""What instances run: images and their environments, layers, requirements.txt, instance types."""
