"""Models on the disk: unpacked once for a deployment's variant, then never changed.

User code comes in the model, as `code/`, or as an archive of its own that the variable
SAGEMAKER_SUBMIT_DIRECTORY names (the SDK's SKLearnModel and XGBoostModel): it is put there too.
Archives are unpacked by a child that can write nowhere else (`cloche.archives`), to the size of the
variant's volume at most; it ends when nobody wants the model any more.

Replicas see the folder at /opt/ml/model under an overlay, so each may write there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.archives.reader import BadArchive
from cloche.archives.unpacking import ArchiveBounds, Unpacking
from cloche.core import executors
from cloche.core.beneath import remove as remove_tree
from cloche.core.errors import AwsError
from cloche.outside import OutsideError
from cloche.services.sagemaker.s3_objects import (
    DownloadError,
    Outside,
    link_all,
    objects,
    split_uri,
)
from cloche.services.sagemaker.serving.decide import Models
from cloche.services.sagemaker.serving.record import Deployment, Variant

if TYPE_CHECKING:
    from cloche.services.s3 import Inputs

NOT_DOWNLOADED = (
    'Failed to download model data for container "container_1" from URL: "{uri}". Please ensure '
    "that there is an object located at the URL and that the role passed to CreateModel has "
    "permissions to download the object."
)
NOT_AN_ARCHIVE = (
    'Failed to extract model data archive for container "container_1" from URL "{uri}". Please '
    "ensure that the object located at the URL is a valid tar.gz archive."
)
LINKED = 1000  # objects linked between looks at whether anybody still wants them


class ModelDataError(Exception):
    """A model's data can't be had; the text is the endpoint's FailureReason."""


class ModelFolders:
    """Unpacks models in the background and knows how far each deployment is."""

    def __init__(self, sources_as: Callable[[str], Inputs]) -> None:
        self.sources_as = sources_as  # as whose role the model is read
        self.tasks: dict[Path, asyncio.Task[None]] = {}
        self.placing: dict[Path, Placing] = {}

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

    def stop(self, parent: Path) -> None:
        """End what is being unpacked beneath `parent`; soon it is no longer under way."""
        for folder, placing in self.placing.items():
            if parent in folder.parents:
                placing.stop()

    def forget(self, parent: Path) -> None:
        """Drop what is known of the folders beneath `parent`."""
        for folder in [folder for folder in self.tasks if parent in folder.parents]:
            del self.tasks[folder]

    async def _place(self, variant: Variant, folder: Path) -> None:
        placing = self.placing[folder] = Placing(self.sources_as(variant.role_arn), variant, folder)
        work = asyncio.create_task(executors.FILES.run(placing.run))
        try:
            done, _ = await asyncio.wait({work}, timeout=variant.download_timeout_s)
            if not done:
                placing.stop()
                await asyncio.wait({work})
                text = NOT_DOWNLOADED.format(uri=variant.model_data)
                raise ModelDataError(
                    f"{text} It took longer than {variant.download_timeout_s} seconds."
                )
            work.result()
        finally:
            placing.stop()
            del self.placing[folder]


class Placing:
    """A variant's model on its way into its folder."""

    def __init__(self, s3: Inputs, variant: Variant, folder: Path) -> None:
        self.s3, self.variant, self.folder = s3, variant, folder
        self.unpacking = Unpacking(ArchiveBounds(size=variant.volume_gb << 30))

    def stop(self) -> None:
        """End it, from any thread."""
        self.s3.halted.set()
        self.unpacking.stop()

    def run(self) -> None:
        """Make the folder hold the model: whole or not at all. ModelDataError says why not."""
        variant, folder = self.variant, self.folder
        partial = folder.with_name(f"{folder.name}.partial")
        remove_tree(partial)
        partial.mkdir(parents=True)
        try:
            if variant.model_data is not None:
                self.fetch(variant.model_data, partial, archived=variant.archived)
            submitted = variant.environment.get("SAGEMAKER_SUBMIT_DIRECTORY", "")
            if submitted.startswith("s3://"):
                self.fetch(submitted, partial, archived=True, into="code")
        except BaseException:
            remove_tree(partial)
            raise
        partial.rename(folder)

    def fetch(self, uri: str, folder: Path, *, archived: bool, into: str = "") -> None:
        """Fill a folder from an archive, or from a prefix; ModelDataError says why not."""
        try:
            if archived:
                self.unpack(uri, folder, into)
            else:
                self.link(uri, folder)
        except (AwsError, DownloadError, OutsideError, FileNotFoundError) as error:
            raise ModelDataError(f"{NOT_DOWNLOADED.format(uri=uri)} ({error})") from error
        except (BadArchive, OSError) as error:
            raise ModelDataError(f"{NOT_AN_ARCHIVE.format(uri=uri)} ({error})") from error

    def unpack(self, uri: str, folder: Path, into: str) -> None:
        """Unpack an archive of S3 (gzip or plain); nothing of it can land outside the folder."""
        found = self.s3.find(*split_uri(uri))
        if found is None:
            raise DownloadError(f"No such object: {uri}")
        Outside(self.unpacking.bounds.size).take(uri, [found])
        archive = folder.with_name(f"{folder.name}.tar")
        archive.unlink(missing_ok=True)
        self.s3.link(found, archive)  # the object may be replaced meanwhile
        try:
            self.unpacking.unpack(archive, folder, into)
        finally:
            archive.unlink()

    def link(self, uri: str, folder: Path) -> None:
        """Link every object beneath a prefix into the folder."""
        found = objects(self.s3, {"S3DataType": "S3Prefix", "S3Uri": uri}, "File")
        Outside(self.unpacking.bounds.size).take(uri, [item.stored for item in found])
        if len(found) > self.unpacking.bounds.entries:
            raise DownloadError(f"There are more than {self.unpacking.bounds.entries} objects")
        for start in range(0, len(found), LINKED):
            if self.unpacking.stopped:
                raise DownloadError("It was stopped")
            link_all(self.s3, found[start : start + LINKED], folder)
