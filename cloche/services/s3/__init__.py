"""S3: buckets and objects, immutable blobs on the disk and an index in the records."""

from cloche.operation import Service, collect, service_model
from cloche.services.s3.acting import ActingS3, ForRoles
from cloche.services.s3.bucket_policies import BucketPolicies
from cloche.services.s3.inputs import Inputs, PublicObject, Sources
from cloche.services.s3.operations import (
    access,
    bucket,
    configuration,
    copying,
    listing,
    multipart,
    object,
    tagging,
    versions,
)
from cloche.services.s3.storage import S3, StoredObject

__all__ = [
    "S3",
    "ActingS3",
    "BucketPolicies",
    "ForRoles",
    "Inputs",
    "PublicObject",
    "Sources",
    "StoredObject",
    "service",
]


def service(s3: S3) -> Service:
    """Return S3's operations over an object store."""
    model = service_model("s3")
    operations = collect(
        model, access, bucket, configuration, object, copying, listing, multipart, tagging, versions
    )
    return Service(name="s3", operations=operations, api=s3)
