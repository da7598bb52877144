"""A job's input: which host sees what of it, and whether it is what was put to S3.

Sizes are compared before the job starts, and contents that nobody looked at since the server
started, if there is little of that. Else a process of low priority reads them beside the job; a job
whose input is damaged fails, also when it has trained to its end by then.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.core.content import fault
from cloche.services.s3 import Inputs, PublicObject
from cloche.services.s3.verify import expected, identity, line
from cloche.services.sagemaker.s3_objects import (
    ChannelObject,
    DownloadError,
    Outside,
    Staged,
    explained,
    link,
    printed,
    split_uri,
)

if TYPE_CHECKING:
    from cloche.services.s3 import ForRoles

logger = logging.getLogger("cloche.sagemaker")
FEW, LITTLE = 1000, 32 << 20  # files and bytes that are read at once, in less than 0.1 s
NAME = "staged"  # the list in a job's folder; it stays until it was looked at


def write(folder: Path, staged: Sequence[Staged], s3: ForRoles) -> None:
    """Look at what nobody looked at yet, or write it down; DownloadError. Blocks."""
    unknown = [one for one in staged if not s3.verified.knows(one.path)]
    if len(unknown) <= FEW and sum(one.stored.size for one in unknown) <= LITTLE:
        for one in unknown:
            check(one)
        s3.verified.remember([identity(one.path.stat()) for one in unknown])
    else:
        keys = [f"s3://{one.stored.bucket}/{one.stored.key}" for one in unknown]
        (folder / f"{NAME}.keys").write_text(json.dumps(keys), "utf-8")
        text = "".join(line(one.path, one.stored) for one in unknown)
        (folder / NAME).write_text(text, "utf-8")


def check(one: Staged) -> None:
    """Raise DownloadError when a content is not what was put."""
    size, etag, parts = expected(one.stored)
    if text := fault(one.path, size, etag, parts):
        uri = printed(f"s3://{one.stored.bucket}/{one.stored.key}")
        raise DownloadError(f"The content of {uri} is damaged: {text}")


async def damage(folder: Path, s3: ForRoles) -> str | None:
    """Return why a job with this folder can't be trusted; None: its input is whole."""
    listed = folder / NAME
    if not listed.exists():
        return None
    try:
        faults = await s3.verified.look(listed)
    except OSError as error:
        logger.error("%s: the contents were not verified: %s", folder, error)
        return None
    if not faults:
        return None
    keys = json.loads((folder / f"{NAME}.keys").read_text("utf-8"))
    (number, text), more = faults[0], len(faults) - 1
    others = f" ({more:,} more are damaged, too)" if more else ""
    return (
        f"ClientError: Data download failed:The content of {printed(keys[number])} is damaged: "
        f"{text}{others}"
    )


def shard(
    placed: Sequence[ChannelObject], host: int, hosts: int, distribution: str
) -> Sequence[ChannelObject]:
    """Return what one host (0, 1, …) sees."""
    return placed[host::hosts] if distribution == "ShardedByS3Key" else placed


def archive(s3: Inputs, uri: str, target: Path, outside: Outside) -> list[Staged]:
    """Put a script's archive at a path; return it if it is an object that is here."""
    with explained(uri, uri):
        stored = s3.find(*split_uri(uri))
        if stored is None:
            raise DownloadError(f"Unable to find the script's archive {uri}")
        outside.take(f"The script's archive, {uri},", [stored])
        if isinstance(stored, PublicObject):
            s3.link(stored, target)
            return []
        return [link(s3, stored, target)]
