"""Pictures as the network wants them: the same steps in training and in serving."""

import random

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional


def to_rgb(image: Image.Image) -> Image.Image:
    """Return any picture (grey, 16 bit, palette, CMYK, see-through) as upright RGB.

    See-through parts become white; the hidden colour beneath them is often noise.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.getextrema()[1] > 255):
        # convert() clips 16-bit values to white instead of scaling them.
        grey = np.asarray(image).astype(np.float32) / 257
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def to_tensor(image: Image.Image, size: int) -> torch.Tensor:
    """Return the picture's middle square as a uint8 tensor of 3 x `size` x `size`."""
    image = functional.resize(to_rgb(image), size, antialias=True)
    return functional.pil_to_tensor(functional.center_crop(image, [size, size]))


def to_view(image: Image.Image, size: int, choice: random.Random) -> torch.Tensor:
    """Return a square part (70 to 100% of the side), flipped or not, as `to_tensor` does."""
    image = to_rgb(image)
    side = round(min(image.size) * choice.uniform(0.7, 1.0))
    left, top = (choice.randint(0, whole - side) for whole in image.size)
    part = functional.resized_crop(image, top, left, side, side, [size, size], antialias=True)
    return functional.pil_to_tensor(functional.hflip(part) if choice.random() < 0.5 else part)


def load(path: str) -> Image.Image:
    """Open a picture file; the error names the file that can't be read."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except OSError as error:
        raise OSError(f"{path} is not a picture that can be read: {error}") from error
