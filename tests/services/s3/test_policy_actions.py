"""The facts about S3's actions are AWS's: the file is what its script writes."""

from __future__ import annotations

import runpy
from pathlib import Path

from cloche.services.s3.policy_actions import FILE, is_key, key_applies, named

SCRIPT = Path(__file__).parents[3] / "scripts" / "s3_actions.py"


def test_the_file_is_as_the_script_writes_it() -> None:
    assert FILE.read_text() == runpy.run_path(str(SCRIPT))["text"]()


def test_actions_and_their_keys() -> None:
    assert named("s3:getobject") == {"getobject": ["object"]}
    assert {*named("s3:*BucketPolicy")} == {
        "getbucketpolicy",
        "putbucketpolicy",
        "deletebucketpolicy",
    }
    assert "listallmybuckets" not in named("*") and named("ec2:*") == {}
    assert is_key("s3:ExistingObjectTag/x") and not is_key("s3:ExistingObjectTag")
    assert key_applies("s3:prefix", "s3:ListBucket")
    assert not key_applies("s3:prefix", "s3:GetObject")
    assert key_applies("aws:Referer", "s3:GetObject") and key_applies("s3:TlsVersion", "s3:Any")
