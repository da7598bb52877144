"""Completing an upload: which parts, in which order, and what the object is then. Pure."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cloche.core.errors import AwsError
from cloche.records.objects import PartRow
from cloche.services.s3.checksums import DEFAULT, WIDTHS, combined, composite
from cloche.services.s3.document import Document, Part
from cloche.services.s3.errors import bad_digest, invalid_request, malformed_xml

SMALLEST = 5 << 20  # bytes of a part, save the last


def invalid_part(upload: str, number: int | None = None, etag: str | None = None) -> AwsError:
    """Return the error for a part that is not there, or is another one by now."""
    text = (
        "One or more of the specified parts could not be found.  The part may not have been "
        "uploaded, or the specified entity tag may not match the part's entity tag."
    )
    sent = {"UploadId": upload, "PartNumber": number, "ETag": etag}
    fields = {name: str(value) for name, value in sent.items() if value is not None}
    return AwsError("InvalidPart", text, 400, fields=fields)


def choose(
    asked: Sequence[Mapping[str, Any]], there: Mapping[int, PartRow], announced: Document
) -> list[PartRow]:
    """Return the parts that the client lists; AwsError when the list does not fit what is there.

    MalformedXML: no parts. InvalidPartOrder, InvalidPart, EntityTooSmall, InvalidRequest: a
    composite checksum needs that of every part.
    """
    if not asked:
        raise malformed_xml()
    numbers = [part.get("PartNumber", 0) for part in asked]
    if any(a >= b for a, b in itertools.pairwise(numbers)):
        raise AwsError(
            "InvalidPartOrder",
            "The list of parts was not in ascending order. Parts must be ordered by part number.",
            400,
        )
    chosen = [chosen_part(part, there, announced) for part in asked]
    for part in chosen[:-1]:
        if part.size < SMALLEST:
            fields = {
                "ProposedSize": str(part.size),
                "MinSizeAllowed": str(SMALLEST),
                "PartNumber": str(part.number),
                "ETag": part.etag,
            }
            text = "Your proposed upload is smaller than the minimum allowed size"
            raise AwsError("EntityTooSmall", text, 400, fields=fields)
    return chosen


def chosen_part(
    asked: Mapping[str, Any], there: Mapping[int, PartRow], announced: Document
) -> PartRow:
    """Return one part that the client lists, if its tag and checksum are those of the part."""
    number, etag = asked.get("PartNumber", 0), str(asked.get("ETag", "")).strip('"')
    part = there.get(number)
    if part is None or part.etag != etag:
        upload = next(iter(there.values())).upload if there else ""
        raise invalid_part(upload, number, etag)
    checksums = json.loads(part.checksums)
    sent = {name: asked[f"Checksum{name}"] for name in WIDTHS if f"Checksum{name}" in asked}
    if any(checksums.get(name) != text for name, text in sent.items()):
        raise invalid_part(part.upload, number, etag)
    algorithm = announced.checksum_algorithm
    if algorithm and announced.checksum_type == "COMPOSITE" and algorithm not in sent:
        raise invalid_request(
            f"The upload was created using a {algorithm.lower()} checksum. The complete request "
            "must include the checksum for each part. It was missing for part "
            f"{number} in the request."
        )
    return part


def assemble(announced: Document, chosen: Sequence[PartRow], upload: str) -> Document:
    """Return what is kept with the object that the parts make."""
    algorithm = announced.checksum_algorithm or DEFAULT
    parts = [(json.loads(part.checksums)[algorithm], part.size) for part in chosen]
    if announced.checksum_type == "COMPOSITE":
        checksum = composite(algorithm, [text for text, _ in parts])
    else:
        checksum = combined(algorithm, parts)
    return announced.replace(
        checksums={algorithm: checksum},
        parts=tuple(
            Part(size=size, checksums={algorithm: text} if announced.checksum_algorithm else {})
            for text, size in parts
        ),
        upload=upload,
    )


def check_claims(
    document: Document,
    chosen: Sequence[PartRow],
    sums: Mapping[str, str],
    kind: str | None,
    size: int | None,
) -> None:
    """Raise unless what the client says of the whole is so."""
    if kind is not None and kind != document.checksum_type:
        raise invalid_request(
            "The upload was created using the "
            f"{document.checksum_type} checksum mode. The complete request must use the same "
            "checksum mode."
        )
    for algorithm, text in sums.items():
        whole = document.checksums.get(algorithm)
        if whole is None:
            expected = (document.checksum_algorithm or "null").lower()
            raise invalid_request(
                f"Checksum Type mismatch occurred, expected checksum Type: {expected}, "
                f"actual checksum Type: {algorithm.lower()}"
            )
        # The number of parts may be left out.
        if text not in (whole, whole.partition("-")[0]):
            raise bad_digest(algorithm)
    total = sum(part.size for part in chosen)
    if size is not None and size != total:
        raise invalid_request(
            f"The provided 'x-amz-mp-object-size' header value {size} does not match what was "
            f"computed: {total}"
        )
