"""What is kept with an object besides its content, and as what it is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec

from cloche.core.typed import Record, decode, encode

Texts = Mapping[str, str]


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One part of an object that was uploaded in parts."""

    size: int  # bytes
    checksums: Mapping[str, str] = {}


class Document(Record, frozen=True, kw_only=True, omit_defaults=True):
    """An object's headers, metadata, tags, checksums; of an upload too, until it is complete.

    `headers` under the names of PutObject's parameters (`ContentType`), `checksums` by algorithm
    (`CRC32`) in base64, `encryption` what was asked for (nothing is encrypted; the SDKs send it
    as a matter of course and look for the echo).
    """

    headers: Mapping[str, str] = {}
    metadata: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    checksums: Mapping[str, str] = {}
    checksum_type: str = ""  # FULL_OBJECT, COMPOSITE
    checksum_algorithm: str = ""  # of an upload: what was announced
    storage_class: str = "STANDARD"
    encryption: Mapping[str, str | bool] = {}
    parts: tuple[Part, ...] = ()
    upload: str = ""  # the id of the upload that made the object

    @property
    def echo(self) -> dict[str, str | bool]:
        """The members that say how it is encrypted, except the context, which is not repeated."""
        kept = self.encryption or {"ServerSideEncryption": "AES256"}  # older objects have none
        return {k: v for k, v in kept.items() if k != "SSEKMSEncryptionContext"}


def dump(document: Document) -> str:
    """Return the JSON that is stored: members that say nothing are left out."""
    return json.dumps(encode(document), separators=(",", ":"))


def load(text: str) -> Document:
    """Return what `dump` stored; BadRecord when it is something else."""
    try:
        return DECODER.decode(text)
    except msgspec.MsgspecError:
        return decode(Document, json.loads(text), "an object's record")


DECODER = msgspec.json.Decoder(Document)  # quicker: a page has 1,000
