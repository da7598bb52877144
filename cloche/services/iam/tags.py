"""Tags of IAM's entities. Upper and lower case of keys are the same but for managed policies.

https://docs.aws.amazon.com/IAM/latest/UserGuide/id_tags.html
"""

from collections.abc import Callable, Iterable, Mapping

from cloche.core.errors import AwsError

Tag = Mapping[str, str]
Same = Callable[[str], str]  # of keys that are the same it returns the same
MOST = 50
IGNORING_CASE: Same = str.lower
EXACTLY: Same = str


def check(tags: Iterable[Tag], same: Same = IGNORING_CASE) -> None:
    """Raise InvalidInput when a tag key is there twice, or is one of AWS's own."""
    keys = [same(tag["Key"]) for tag in tags]
    if any(key.lower().startswith("aws:") for key in keys):
        message = "aws: prefixed tag key names are not allowed for external use."
        raise AwsError("InvalidInput", message)
    if len(keys) != len(set(keys)):
        note = " Please note that Tag keys are case insensitive." if same is IGNORING_CASE else ""
        raise AwsError("InvalidInput", f"Duplicate tag keys found.{note}")


def merged(
    tags: Iterable[Tag], new: Iterable[Tag], quota: str, same: Same = IGNORING_CASE
) -> tuple[Tag, ...]:
    """Return the tags with new ones over those of the same keys; LimitExceeded names the quota."""
    found = {same(tag["Key"]): tag for tag in tags} | {same(tag["Key"]): tag for tag in new}
    if len(found) > MOST:
        raise AwsError("LimitExceeded", f"Cannot exceed quota for {quota}: {MOST}", 409)
    return tuple(found.values())


def without(
    tags: Iterable[Tag], keys: Iterable[str], same: Same = IGNORING_CASE
) -> tuple[Tag, ...]:
    """Return the tags but for those with these keys."""
    gone = {same(key) for key in keys}
    return tuple(tag for tag in tags if same(tag["Key"]) not in gone)


def in_order(tags: Iterable[Tag]) -> list[Tag]:
    """Return the tags as the List operations show them: by key."""
    return sorted(tags, key=lambda tag: tag["Key"])
