"""What a policy's JSON may leave open: one or a list, text or another scalar."""

from typing import Any

VARIABLES_SINCE = "2012-10-17"


def listed(value: Any) -> list[Any]:
    """Return what may be one or a list as a list."""
    return value if isinstance(value, list) else [value]


def as_text(value: object) -> str:
    """Return a condition's value as text; JSON's true is `true`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
