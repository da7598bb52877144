"""The checksums that S3 keeps with an object, and how those of parts make that of the whole.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol, TypedDict

from awscrt import checksums as crt

Kind = Literal["FULL_OBJECT", "COMPOSITE"]
DEFAULT = "CRC64NVME"  # what S3 computes when the client asks for nothing


class Fields(TypedDict, total=False):
    """The checksum members of a result."""

    ChecksumCRC32: str
    ChecksumCRC32C: str
    ChecksumCRC64NVME: str
    ChecksumSHA1: str
    ChecksumSHA256: str
    ChecksumType: str


class Sum(Protocol):
    """A checksum in the making."""

    def update(self, data: bytes, /) -> None:
        """Take in more."""

    def digest(self) -> bytes:
        """Return the checksum of what was taken in."""


class Crc:
    """A cyclic redundancy check of `width` bytes."""

    def __init__(self, function: Callable[[bytes, int], int], width: int) -> None:
        self.function, self.width, self.value = function, width, 0

    def update(self, data: bytes, /) -> None:
        """Take in more."""
        self.value = self.function(data, self.value)

    def digest(self) -> bytes:
        """Return the value, most significant byte first."""
        return self.value.to_bytes(self.width, "big")


SUMS: Mapping[str, Callable[[], Sum]] = {
    "CRC32": lambda: Crc(crt.crc32, 4),
    "CRC32C": lambda: Crc(crt.crc32c, 4),
    "CRC64NVME": lambda: Crc(crt.crc64nvme, 8),
    "SHA1": lambda: hashlib.sha1(usedforsecurity=False),
    "SHA256": hashlib.sha256,
}
WIDTHS = {"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8, "SHA1": 20, "SHA256": 32}
COMBINE: Mapping[str, Callable[[int, int, int], int]] = {
    "CRC32": crt.combine_crc32,
    "CRC32C": crt.combine_crc32c,
    "CRC64NVME": crt.combine_crc64nvme,
}
# Which types an upload in parts may have; the first is what it has unless it says.
TYPES: Mapping[str, tuple[Kind, ...]] = {
    "CRC32": ("COMPOSITE", "FULL_OBJECT"),
    "CRC32C": ("COMPOSITE", "FULL_OBJECT"),
    "CRC64NVME": ("FULL_OBJECT",),
    "SHA1": ("COMPOSITE",),
    "SHA256": ("COMPOSITE",),
}


def encode(digest: bytes) -> str:
    """Return a checksum as headers carry it."""
    return base64.b64encode(digest).decode()


def valid(algorithm: str, text: str) -> bool:
    """Tell whether a text is a checksum of this algorithm in base64."""
    try:
        return len(base64.b64decode(text, validate=True)) == WIDTHS[algorithm]
    except ValueError:  # not ASCII, or not base64
        return False


def given(
    CRC32: str | None,
    CRC32C: str | None,
    CRC64NVME: str | None,
    SHA1: str | None,
    SHA256: str | None,
) -> dict[str, str]:
    """Return the checksums that a request carries, by algorithm."""
    named = {
        "CRC32": CRC32,
        "CRC32C": CRC32C,
        "CRC64NVME": CRC64NVME,
        "SHA1": SHA1,
        "SHA256": SHA256,
    }
    return {algorithm: text for algorithm, text in named.items() if text is not None}


def members(checksums: Mapping[str, str], kind: str = "") -> Fields:
    """Return checksums as members of a result, with their type where there is one."""
    fields = Fields()
    for algorithm, text in checksums.items():
        match algorithm:
            case "CRC32":
                fields["ChecksumCRC32"] = text
            case "CRC32C":
                fields["ChecksumCRC32C"] = text
            case "CRC64NVME":
                fields["ChecksumCRC64NVME"] = text
            case "SHA1":
                fields["ChecksumSHA1"] = text
            case "SHA256":
                fields["ChecksumSHA256"] = text
    if checksums and kind:
        fields["ChecksumType"] = kind
    return fields


def composite(algorithm: str, parts: Iterable[str]) -> str:
    """Return the checksum of the parts' checksums, with their number."""
    total, count = SUMS[algorithm](), 0
    for text in parts:
        total.update(base64.b64decode(text))
        count += 1
    return f"{encode(total.digest())}-{count}"


def combined(algorithm: str, parts: Sequence[tuple[str, int]]) -> str:
    """Return the checksum of the whole from the parts' (checksum, size): nothing is read again."""
    value = 0
    for text, size in parts:
        piece = int.from_bytes(base64.b64decode(text), "big")
        value = COMBINE[algorithm](value, piece, size)
    return encode(value.to_bytes(WIDTHS[algorithm], "big"))
