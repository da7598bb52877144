"""A job's input is looked at while the job runs: whether it is what was put to S3.

Sizes are compared before the job starts. Contents that nobody looked at since the server started
are read by a process of the lowest priority; a job whose input is damaged fails, also when it has
trained to its end by then.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.services.s3.verify import line
from cloche.services.sagemaker.training.channels import Staged, printed

if TYPE_CHECKING:
    from cloche.services.s3 import S3

logger = logging.getLogger("cloche.sagemaker")
NAME = "staged"  # the list in a job's folder; it stays until it was looked at


def write(folder: Path, staged: Sequence[Staged], s3: S3) -> None:
    """Write down what nobody looked at yet."""
    unknown = [one for one in staged if not s3.verified.knows(one.path)]
    if unknown:
        keys = [f"s3://{one.stored.bucket}/{one.stored.key}" for one in unknown]
        (folder / f"{NAME}.keys").write_text(json.dumps(keys), "utf-8")
        text = "".join(line(one.path, one.stored) for one in unknown)
        (folder / NAME).write_text(text, "utf-8")


async def damage(folder: Path, s3: S3) -> str | None:
    """Return why a job with this folder can't be trusted; None: its input is whole."""
    listed = folder / NAME
    if not listed.exists():
        return None
    try:
        faults = await s3.verified.look(listed)
    except OSError as error:
        logger.error("%s: the contents were not looked at: %s", folder, error)
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
