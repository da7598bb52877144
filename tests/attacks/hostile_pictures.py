"""Pictures, and what is named like one, that are made to hurt whoever looks at them."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

TERABYTE = 1 << 40
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def picture(seed: int) -> bytes:
    rough = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(rough).resize((64, 64), Image.Resampling.BICUBIC).save(data, "JPEG")
    return data.getvalue()


def black(side: int, *, kind: int = 0, bytes_a_pixel: int = 1, rows: int | None = None) -> bytes:
    """Return a PNG of zeros, small as a file: grey (kind 0) or RGBA (6)."""
    packer = zlib.compressobj(1)
    row = bytes(1 + side * bytes_a_pixel)
    data = b"".join(packer.compress(row) for _ in range(side if rows is None else rows))
    head = struct.pack(">IIBBBBB", side, side, 8, kind, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", data + packer.flush()), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def leak(folder: Path) -> None:
    """Make a folder with one thing to find: the same picture for training and for testing."""
    for name in ("train/a/1.jpg", "test/a/1.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(1))


def slow(folder: Path) -> None:
    """Make a folder whose pictures take half a minute."""
    (folder / "train/a").mkdir(parents=True)
    first = folder / "train/a/0.png"
    first.write_bytes(black(8000))
    for number in range(1, 100):
        os.link(first, first.with_name(f"{number}.png"))
