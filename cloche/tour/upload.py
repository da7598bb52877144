"""Uploads of a folder to S3, several files at a time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

THREADS = 8


def upload_folder(
    s3: Any, bucket: str, prefix: str, root: Path, files: Sequence[Path], console: Console
) -> int:
    """Put `files`, all below `root`, to `bucket` under `prefix`; returns the bytes sent.

    s3: a boto3 client with at least THREADS connections. The first error ends the upload.
    """

    def put(path: Path) -> int:
        s3.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(root).as_posix()}")
        return path.stat().st_size

    sent = 0
    with (
        Progress(
            TextColumn("   Uploading"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("pictures"),
            TimeRemainingColumn(),
            console=console,
        ) as progress,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        task = progress.add_task("", total=len(files))
        pending = [pool.submit(put, path) for path in files]
        try:
            for done in as_completed(pending):
                sent += done.result()
                progress.advance(task)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return sent
