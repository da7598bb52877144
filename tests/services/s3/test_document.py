"""What is kept with an object: as releases before this one wrote it, and as a later one may."""

import json

import pytest

from cloche.core.typed import BadRecord
from cloche.services.s3.document import Document, Part, dump, load

OLD = {
    "headers": {"ContentType": "text/plain"},
    "metadata": {"a": "\u00fc \U0001f41f"},
    "tags": {"k": "v"},
    "checksums": {"CRC32": "AAAA"},
    "checksum_type": "COMPOSITE",
    "encryption": {"ServerSideEncryption": "aws:kms", "BucketKeyEnabled": True},
    "parts": [[5, {"CRC32": "AAAA"}], [3, {}]],
    "upload": "u",
}


def test_what_the_first_release_wrote_is_read_and_written_as_it_was() -> None:
    text = json.dumps(OLD, separators=(",", ":"))
    document = load(text)
    assert document.parts == (Part(size=5, checksums={"CRC32": "AAAA"}), Part(size=3))
    assert document.echo == {"ServerSideEncryption": "aws:kms", "BucketKeyEnabled": True}
    assert json.loads(dump(document)) == OLD
    assert load("{}") == Document() and dump(Document()) == "{}"


def test_what_a_later_release_wrote_stays_when_the_tags_change() -> None:
    document = load(json.dumps(OLD | {"lock": {"until": 3}}))
    assert json.loads(dump(document.replace(tags={}))) == {
        **{name: value for name, value in OLD.items() if name != "tags"},
        "lock": {"until": 3},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"tags": []}', "Expected `object`, got `array` - at `$.tags`"),
        ('{"parts": [["5", {}]]}', "Expected `int`, got `str` - at `$.parts[0][0]`"),
    ],
)
def test_a_wrong_one_says_where(text: str, said: str) -> None:
    with pytest.raises(BadRecord) as refused:
        load(text)
    assert str(refused.value) == f"an object's record: {said}"
