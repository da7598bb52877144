"""The real S3: which of its buckets everybody may read, and how they are read, without a key."""

from cloche.outside.buckets import PublicBuckets
from cloche.outside.real_s3 import OpenAnswer, OutsideError, RealS3, UpstreamProxy

__all__ = ["OpenAnswer", "OutsideError", "PublicBuckets", "RealS3", "UpstreamProxy"]
