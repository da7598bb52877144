"""A look at an image folder before any training: what would spoil the result is reported.

Knows nothing of AWS or of the platform: paths and bytes in, findings out.
"""
