"""The real S3: which of its buckets everybody may read, and how they are read, without a key."""

from cloche.outside.buckets import PublicBuckets
from cloche.outside.real_s3 import Answer, OutsideError, RealS3, Route

__all__ = ["Answer", "OutsideError", "PublicBuckets", "RealS3", "Route"]
