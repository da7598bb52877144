"""What is kept with an object besides its content, and as what it is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

Texts = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of an object that was uploaded in parts."""

    size: int  # bytes
    checksums: Texts = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """An object's headers, metadata, tags, checksums; of an upload too, until it is complete.

    `headers` under the names of PutObject's parameters (`ContentType`), `checksums` by algorithm
    (`CRC32`) in base64, `encryption` what was asked for (nothing is encrypted; the SDKs send it
    as a matter of course and look for the echo).
    """

    headers: Texts = field(default_factory=dict)
    metadata: Texts = field(default_factory=dict)
    tags: Texts = field(default_factory=dict)
    checksums: Texts = field(default_factory=dict)
    checksum_type: str = ""  # FULL_OBJECT, COMPOSITE
    checksum_algorithm: str = ""  # of an upload: what was announced
    storage_class: str = "STANDARD"
    encryption: Mapping[str, str | bool] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    upload: str = ""  # the id of the upload that made the object

    @property
    def echo(self) -> dict[str, str | bool]:
        """The members that say how it is encrypted, except the context, which is not repeated."""
        kept = self.encryption or {"ServerSideEncryption": "AES256"}  # older objects have none
        return {k: v for k, v in kept.items() if k != "SSEKMSEncryptionContext"}


def dump(document: Document) -> str:
    """Return the JSON that is stored: members that say nothing are left out."""
    members: dict[str, object] = {
        name: getattr(document, name)
        for name in DEFAULTS
        if name != "parts" and getattr(document, name) != DEFAULTS[name]
    }
    if document.parts:
        members["parts"] = [[part.size, part.checksums] for part in document.parts]
    return json.dumps(members, separators=(",", ":"))


def load(text: str) -> Document:
    """Return what `dump` stored."""
    members = json.loads(text)
    if "parts" in members:
        members["parts"] = tuple(
            Part(size=size, checksums=checksums) for size, checksums in members["parts"]
        )
    return Document(**members)


DEFAULTS = {name: getattr(Document(), name) for name in Document.__dataclass_fields__}
