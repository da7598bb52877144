"""S3: buckets and objects, immutable blobs on the disk and an index in the records."""

from cloche.services.s3.storage import S3, StoredObject

__all__ = ["S3", "StoredObject"]
