"""Puts what a job made to S3: its model, and its output."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.core import executors
from cloche.records.errors import StorageFull, storage_full
from cloche.services.sagemaker.s3_objects import split_uri
from cloche.services.sagemaker.training.hosts import Ground
from cloche.services.sagemaker.training.output_archive import archive, key_of, open_sent, regular
from cloche.services.sagemaker.training.record import TrainingJob

if TYPE_CHECKING:
    from cloche.services.s3 import ActingS3


async def put(job: TrainingJob, ground: Ground, s3: ActingS3) -> None:
    """Archive `/opt/ml/model` and `/opt/ml/output/data` of all hosts and put them to S3; AwsError.

    An empty folder leaves no object. `CompressionType: NONE` puts the model's files one by one.
    """
    bucket, prefix = split_uri(job.artifacts)
    mls = [ground.ml(host) for host in job.hosts]
    key: str | None = job.request["OutputDataConfig"].get("KmsKeyId") or None
    for folder, name in (("model", "model.tar.gz"), ("output/data", "output.tar.gz")):
        if folder == "model" and job.model_uri.endswith("/"):
            await put_each(s3, bucket, f"{prefix}/model/", mls, folder, key)
            continue
        target = ground.folder / name
        if await packed(mls, folder, target):
            await s3.put_file(bucket, f"{prefix}/{name}", target, "application/x-gzip", key)


async def packed(mls: list[Path], folder: str, target: Path) -> bool:
    """Archive a folder of all hosts; whoever cancels this ends the thread, too."""
    stop = threading.Event()
    try:
        return await executors.FILES.run(archive, mls, folder, target, stop)
    except OSError as error:
        target.unlink(missing_ok=True)  # it would hold the space that is missing
        if storage_full(error):
            raise StorageFull from error
        raise
    finally:
        stop.set()


async def put_each(
    s3: ActingS3, bucket: str, prefix: str, mls: list[Path], folder: str, key: str | None
) -> None:
    """Put the plain files of a folder of all hosts."""
    for relative, ml in await executors.FILES.run(regular, mls, folder, prefix):
        descriptor = await executors.FILES.run(open_sent, ml, f"{folder}/{relative}")
        try:
            await s3.put_file(bucket, key_of(prefix, relative), descriptor, kms_key=key)
        finally:
            os.close(descriptor)
