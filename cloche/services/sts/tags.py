"""Tags of sessions: given with AssumeRole, and those that go down a chain of roles.

https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html
"""

from collections.abc import Mapping, Sequence

from cloche.core.errors import AwsError
from cloche.core.identity import Session

TWICE = "Duplicate tag keys found. Please note that Tag keys are case insensitive."
NOT_GIVEN = "The specified transitive tag key must be included in the requested tags."
TAKEN = (
    "One of the specified transitive tag keys can't be set because it conflicts with a transitive "
    "tag key from the calling session."
)


def session_tags(
    caller: Session | None, tags: Sequence[Mapping[str, str]], transitive: Sequence[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the tags of a session that the caller asks for, and which of them go further."""
    given = {tag["Key"]: tag["Value"] for tag in tags}
    names = [tag["Key"].lower() for tag in tags]
    if len(set(names)) != len(names):
        raise invalid(TWICE)
    if not {name.lower() for name in transitive} <= set(names):
        raise invalid(NOT_GIVEN)
    inherited = {} if caller is None else {name: caller.tags[name] for name in caller.transitive}
    if {name.lower() for name in inherited} & set(names):
        raise invalid(TAKEN)
    asked = {name.lower() for name in transitive}
    further = (name for name in given if name.lower() in asked)
    return {**inherited, **given}, (*inherited, *further)


def invalid(message: str) -> AwsError:
    """Return the refusal of tags."""
    return AwsError("InvalidParameterValue", message)
