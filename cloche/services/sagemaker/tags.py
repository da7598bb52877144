"""Tags live with the resource they hang on: `desired["Tags"]`, key to value, in the order added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cloche.core.errors import AwsError
from cloche.records.store import Resource

LIMIT = 50  # per resource (Amazon SageMaker endpoints and quotas, "Tags")


def tags_of(resource: Resource) -> dict[str, str]:
    """Return a resource's tags."""
    return dict(resource.desired.get("Tags", {}))


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as the API gives them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def checked(tags: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return tags as a mapping; an AwsError for a reserved or repeated key."""
    found: dict[str, str] = {}
    for tag in tags:
        if tag["Key"].lower().startswith("aws:"):
            raise AwsError(
                "ValidationException",
                "aws: prefixed tag key names are not allowed for external use.",
            )
        if tag["Key"] in found:
            raise AwsError("ValidationException", "Duplicate tag keys are not allowed.")
        found[tag["Key"]] = tag["Value"]
    return found


def added(resource: Resource, tags: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the tags with these on top; an AwsError when they are too many."""
    new = tags_of(resource) | checked(tags)
    if len(new) > LIMIT:
        raise AwsError(
            "ValidationException",
            f"The number of tags on the resource exceeds the limit of {LIMIT}.",
        )
    return new


def removed(resource: Resource, keys: Iterable[str]) -> dict[str, str]:
    """Return the tags without those of these keys."""
    gone = set(keys)
    return {key: value for key, value in tags_of(resource).items() if key not in gone}
