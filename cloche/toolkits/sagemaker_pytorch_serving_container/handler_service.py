"""The service that a model server calls."""

from sagemaker_inference.default_handler_service import DefaultHandlerService
from sagemaker_inference.transformer import Transformer

from .default_pytorch_inference_handler import DefaultPytorchInferenceHandler


class HandlerService(DefaultHandlerService):
    """Answers by a user's functions, else by the default ones."""

    def __init__(self) -> None:
        handler = DefaultPytorchInferenceHandler()
        super().__init__(transformer=Transformer(default_inference_handler=handler))
