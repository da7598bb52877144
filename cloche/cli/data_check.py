"""What `cloche data check` runs: `python -m cloche.cli.data_check TARGET HOME`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cloche.cli.aws_client import AwsClient
from cloche.cli.output import Stop, count, err, out
from cloche.core.config import Home
from cloche.datacheck.findings import Finding
from cloche.datacheck.folder import (
    LARGEST,
    MOST,
    TooMany,
    check_files,
    class_folders,
    content,
    file_paths,
)

COLOURS = {"error": "red", "warning": "yellow"}


def check(target: str, home: Home) -> None:
    """Print what would spoil a training on `target`; Stop with code 1 when it surely would."""
    files, folders, total = objects(target, home) if target.startswith("s3://") else local(target)
    if not total:
        raise Stop(f"{target} has no files.")
    columns = (TextColumn("Checking pictures"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=total)
        findings = check_files(files, folders, lambda done: bar.update(task, completed=done))
    report(target, total, findings)


def report(target: str, total: int, findings: list[Finding]) -> None:
    """Print the findings, and whether to go on."""
    for finding in findings:
        colour = COLOURS[finding.severity]
        out.print(f"[{colour}]{finding.severity}[/]: ", end="")
        out.print(finding.text, markup=False)
    errors = sum(finding.severity == "error" for finding in findings)
    if errors:
        raise Stop(
            f"{target}: {count(errors, 'error')} in {count(total, 'file')}. Fix the folder before "
            "you train: a test on pictures that were trained on is worthless."
        )
    warnings = f", {count(len(findings), 'warning')}" if findings else ", nothing found"
    out.print(f"{target}: {count(total, 'file')} checked{warnings}.", markup=False)


def local(target: str) -> tuple[Iterator[tuple[str, bytes | None]], list[str], int]:
    """Return a folder's files, its class folders and the number of files."""
    root = Path(target).expanduser()
    if not root.is_dir():
        raise Stop(f"{target} is neither a folder nor an S3 URI (s3://BUCKET/PREFIX).")
    try:
        paths, folders = file_paths(root), class_folders(root)
    except TooMany:
        raise Stop(f"{target} has more than {MOST:,} files.") from None
    files = ((path.relative_to(root).as_posix(), content(path)) for path in paths)
    return files, folders, len(paths)


def objects(uri: str, home: Home) -> tuple[Iterator[tuple[str, bytes | None]], list[str], int]:
    """Return the objects beneath an S3 URI as files; Stop when they can't be listed."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    s3 = AwsClient.of(home).aws("s3")
    try:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    except (ClientError, BotoCoreError) as error:
        raise Stop(f"{uri} can't be listed: {error}") from None
    keys = [key for key in keys if not key.endswith("/")]
    return fetch(s3, bucket, prefix, keys), [], len(keys)


def fetch(s3: Any, bucket: str, prefix: str, keys: list[str]) -> Iterator[tuple[str, bytes | None]]:
    """Yield each object's key below the prefix and its bytes; None for what is too large."""
    for key in keys:
        with s3.get_object(Bucket=bucket, Key=key)["Body"] as body:
            data: bytes = body.read(LARGEST + 1)
        yield key.removeprefix(prefix), data if len(data) <= LARGEST else None


if __name__ == "__main__":
    try:
        check(sys.argv[1], Home(Path(sys.argv[2])))
    except Stop as stop:
        err.print(str(stop), markup=False)
        sys.exit(stop.code)
