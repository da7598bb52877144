"""The handlers by the name that they had before version 1.5."""

from .default_pytorch_inference_handler import DefaultPytorchInferenceHandler, ModelLoadError

__all__ = ["DefaultPytorchInferenceHandler", "ModelLoadError"]
