"""The handlers that answer where a user writes none."""

import os
from typing import Any

import torch
from sagemaker_inference import content_types, decoder, encoder, errors, utils
from sagemaker_inference.default_inference_handler import DefaultInferenceHandler

DEFAULT_MODEL_FILENAME = "model.pt"


class ModelLoadError(Exception):
    """A model's file is no TorchScript."""


class DefaultPytorchInferenceHandler(DefaultInferenceHandler):
    """Load TorchScript, take JSON, CSV and NPY, predict without gradients."""

    VALID_CONTENT_TYPES = (content_types.JSON, content_types.NPY)

    def default_model_fn(self, model_dir: str) -> Any:
        """Load `model.pt`, or the only .pt or .pth file."""
        path = os.path.join(model_dir, DEFAULT_MODEL_FILENAME)
        if not os.path.exists(path):
            names = (os.path.join(model_dir, name) for name in os.listdir(model_dir))
            files = [n for n in names if n.endswith((".pt", ".pth")) and os.path.isfile(n)]
            if len(files) != 1:
                raise ValueError(
                    f"Exactly one .pth or .pt file is required for PyTorch models: {files}"
                )
            path = files[0]
        try:
            return torch.jit.load(path, map_location=torch.device("cpu"))
        except RuntimeError as error:
            raise ModelLoadError(
                f"Failed to load {path}. Please ensure model is saved using torchscript."
            ) from error

    def default_input_fn(self, input_data: Any, content_type: str) -> Any:
        """Decode to a tensor; of floats from text."""
        array = decoder.decode(input_data, content_type)
        text = content_type in content_types.UTF8_TYPES
        return torch.FloatTensor(array) if text else torch.from_numpy(array)

    def default_predict_fn(self, data: Any, model: Any) -> Any:
        """Call the model."""
        with torch.no_grad():
            model.eval()
            return model(data)

    def default_output_fn(self, prediction: Any, accept: str) -> Any:
        """Encode in the first accepted type that has an encoder."""
        if isinstance(prediction, torch.Tensor):
            prediction = prediction.detach().cpu().numpy().tolist()
        for content_type in utils.parse_accept(accept):
            if content_type in encoder.SUPPORTED_CONTENT_TYPES:
                encoded = encoder.encode(prediction, content_type)
                return encoded.encode() if content_type == content_types.CSV else encoded
        raise errors.UnsupportedFormatError(accept)
