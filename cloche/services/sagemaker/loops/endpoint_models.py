"""Models on the disk: unpacked once for a deployment's variant, then never changed.

User code comes in the model, as `code/`, or as an archive of its own that the variable
SAGEMAKER_SUBMIT_DIRECTORY names (the SDK's SKLearnModel and XGBoostModel): it is put there too.

Replicas see the folder at /opt/ml/model under an overlay, so each may write there.
"""

from __future__ import annotations

import asyncio
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.core.errors import AwsError
from cloche.services.sagemaker.loops.endpoint_plan import Models
from cloche.services.sagemaker.records_serving import Deployment, Variant
from cloche.services.sagemaker.training.channels import DownloadError, objects, split_uri

if TYPE_CHECKING:
    from cloche.services.s3 import S3

NOT_DOWNLOADED = (
    'Failed to download model data for container "container_1" from URL: "{uri}". Please ensure '
    "that there is an object located at the URL and that the role passed to CreateModel has "
    "permissions to download the object."
)
NOT_AN_ARCHIVE = (
    'Failed to extract model data archive for container "container_1" from URL "{uri}". Please '
    "ensure that the object located at the URL is a valid tar.gz archive."
)


class ModelDataError(Exception):
    """A model's data can't be had; the text is the endpoint's FailureReason."""


class ModelFolders:
    """Unpacks models in the background and knows how far each deployment is."""

    def __init__(self, s3: S3) -> None:
        self.s3 = s3
        self.tasks: dict[Path, asyncio.Task[None]] = {}

    def look(self, deployment: Deployment, root: Path) -> Models:
        """Return which models beneath `root` are there, starting to unpack those that are not."""
        ready: set[str] = set()
        failed: dict[str, str] = {}
        for variant in deployment.variants:
            folder = root / variant.name
            task = self.tasks.get(folder)
            if task is None and folder.is_dir():
                ready.add(variant.name)
            elif task is None:
                self.tasks[folder] = asyncio.create_task(self._place(variant, folder))
            elif task.done():
                error = task.exception()
                if error is None:
                    ready.add(variant.name)
                else:
                    failed[variant.name] = str(error) or type(error).__name__
        return Models(ready=frozenset(ready), failed=failed)

    def under_way(self, parent: Path) -> bool:
        """Return whether a model is being unpacked beneath `parent` now."""
        return any(
            not task.done() for folder, task in self.tasks.items() if parent in folder.parents
        )

    def forget(self, parent: Path) -> None:
        """Drop what is known of the folders beneath `parent`."""
        for folder in [folder for folder in self.tasks if parent in folder.parents]:
            del self.tasks[folder]

    async def _place(self, variant: Variant, folder: Path) -> None:
        try:
            async with asyncio.timeout(variant.download_timeout_s):
                await asyncio.to_thread(place, self.s3, variant, folder)
        except TimeoutError:
            text = NOT_DOWNLOADED.format(uri=variant.model_data)
            raise ModelDataError(
                f"{text} It took longer than {variant.download_timeout_s} seconds."
            ) from None


def place(s3: S3, variant: Variant, folder: Path) -> None:
    """Make `folder` hold the variant's model: whole or not at all. ModelDataError says why not."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if variant.model_data is not None:
        fetch(s3, variant.model_data, partial, archived=variant.archived)
    submitted = variant.environment.get("SAGEMAKER_SUBMIT_DIRECTORY", "")
    if submitted.startswith("s3://"):
        code = folder.with_name(f"{folder.name}.code")
        shutil.rmtree(code, ignore_errors=True)
        code.mkdir()
        fetch(s3, submitted, code, archived=True)
        shutil.copytree(code, partial / "code", dirs_exist_ok=True)
        shutil.rmtree(code)
    partial.rename(folder)


def fetch(s3: S3, uri: str, folder: Path, *, archived: bool) -> None:
    """Fill a folder from an archive, or from a prefix; ModelDataError says why not."""
    try:
        (unpack if archived else link_all)(s3, uri, folder)
    except (AwsError, DownloadError, FileNotFoundError) as error:
        raise ModelDataError(f"{NOT_DOWNLOADED.format(uri=uri)} ({error})") from error
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ModelDataError(f"{NOT_AN_ARCHIVE.format(uri=uri)} ({error})") from error


def unpack(s3: S3, uri: str, folder: Path) -> None:
    """Unpack an archive of S3 (gzip or plain); nothing of it can land outside the folder."""
    bucket, key = split_uri(uri)
    found = s3.find(bucket, key)
    if found is None:
        raise DownloadError(f"No such object: {uri}")
    archive = folder.with_name(f"{folder.name}.tar")
    archive.unlink(missing_ok=True)
    s3.link(found, archive)  # the object may be replaced meanwhile
    try:
        with tarfile.open(archive) as members:
            members.extractall(folder, filter=member)
    finally:
        archive.unlink()


def member(info: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Return a member as it may be unpacked; None leaves it out.

    The SDK's repacked archives have a member for the root, with an empty name.
    """
    if info.name in ("", ".", "./"):
        return None
    return tarfile.data_filter(info, folder)


def link_all(s3: S3, uri: str, folder: Path) -> None:
    """Link every object beneath a prefix into the folder."""
    for placed in objects(s3, {"S3DataType": "S3Prefix", "S3Uri": uri}, "File"):
        if not placed.path.endswith("/"):
            s3.link(placed.stored, folder / placed.path)
