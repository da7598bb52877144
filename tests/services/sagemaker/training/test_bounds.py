"""What a job may take of the machine, through boto3."""

import re

import pytest
from training_client import Trainer

from cloche.engine.local.probe import probe
from cloche.testing.platform import Platform

FILLS = """
import os, time
with open("/opt/ml/model/large", "wb") as file: os.posix_fallocate(file.fileno(), 0, 1200 << 20)
time.sleep(60)
"""


@pytest.mark.skipif(probe().isolation != "full", reason="the script names /opt/ml")
def test_a_job_that_fills_its_volume(platform: Platform) -> None:
    """VolumeSizeInGB is what it may have; its end is told in the reason and in the log."""
    trainer = Trainer(platform)
    job = trainer.train(FILLS)
    reason = job["FailureReason"]
    assert job["TrainingJobStatus"] == "Failed"
    # A volume has no more than 1026; where files are watched, all were written.
    told = re.search(r"algo-1 holds (1026|1200) MiB of files; it may have 1024 MiB", reason)
    assert told is not None
    assert reason == f"ClientError: Artifact upload failed:Insufficient disk space. ({told[0]})"
    assert trainer.log(job["TrainingJobName"]).splitlines()[-1] == f"[cloche] DiskFull: {told[0]}."
