"""Modules of AWS's images that no registry has for today's Python, under their own names.

They are copied into the environments that have AWS's toolkits (`environments.build`) and imported
in sandboxes only. What they build on, sagemaker_training, sagemaker_inference and flask, is
installed there from the registry.
"""
