"""Buckets of the real S3 that everybody may read and tutorials name.

Only these, and those that `cloche up --public-bucket` names, are read for who signs with a key of
this platform: a mistyped name of one's own bucket is asked for nowhere but here.
"""

import re
from collections.abc import Iterable

# Names as S3 has them; older ones have capitals and underscores, which no new one may.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
REGIONS = (
    *("us-east-1", "us-east-2", "us-west-1", "us-west-2", "us-gov-east-1", "us-gov-west-1"),
    *("ca-central-1", "ca-west-1", "mx-central-1", "sa-east-1"),
    *("eu-central-1", "eu-central-2", "eu-north-1", "eu-south-1", "eu-south-2"),
    *("eu-west-1", "eu-west-2", "eu-west-3", "af-south-1"),
    *("il-central-1", "me-central-1", "me-south-1", "ap-east-1", "ap-east-2"),
    *("ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-south-2"),
    *("ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5"),
    *("ap-southeast-6", "ap-southeast-7"),
)
IN_EACH_REGION = (
    "aws-ml-blog-{}",
    "jumpstart-cache-prod-{}",
    "sagemaker-example-files-prod-{}",
    "sagemaker-sample-data-{}",
)
ALONE = (
    # AWS's own, for SageMaker and its courses
    "amazon-berkeley-objects",
    "aws-bigdata-blog",
    "aws-ml-blog",
    "autogluon",
    "dlai-data-engineering",
    "dlai-generative-ai",
    "dlai-practical-data-science",
    "sagemaker-sample-files",
    # data sets and mirrors that libraries and notebooks download from
    "1000genomes",
    "datarobot_public_datasets",
    "fast-ai-coco",
    "fast-ai-imageclas",
    "fast-ai-imagelocal",
    "fast-ai-nlp",
    "fast-ai-sample",
    "ford-multi-av-seasonal",
    "gdelt-open-data",
    "inaturalist-open-data",
    "landsat-pds",
    "multimedia-commons",
    "ncbi-blast-databases",
    "ngi-igenomes",
    "noaa-ghcn-pds",
    "noaa-goes16",
    "noaa-himawari8",
    "open-images-dataset",
    "openneuro.org",
    "ossci-datasets",
    "redshift-downloads",
    "sentinel-cogs",
    "sevir",
    "sg-nex-data",
    "spacenet-dataset",
    "video.udacity-data.com",
)
TABLE = frozenset(ALONE).union(name.format(region) for name in IN_EACH_REGION for region in REGIONS)


class PublicBuckets:
    """The table, and what the user added to it."""

    def __init__(self, added: Iterable[str] = ()) -> None:
        self.names = TABLE.union(added)

    def has(self, bucket: str) -> bool:
        """Tell whether everybody may read the bucket, as far as is known."""
        return bucket in self.names
