"""IAM's pages: IsTruncated, and the Marker that the next one begins behind."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar, overload

from cloche.core.errors import AwsError
from cloche.core.numbers import integer

T = TypeVar("T")
PAGE = 100  # entries of a list where MaxItems does not say
BEHIND = "behind "


class Numbered(Sequence[str]):
    """The numbers of a range as text, made when asked for."""

    def __init__(self, numbers: range) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        found = self.numbers[place]
        return Numbered(found) if isinstance(found, range) else str(found)

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Return where a number is; ValueError when it is not there."""
        return self.numbers.index(integer(value))


def paged(
    items: Sequence[T], keys: Sequence[str], marker: str | None, limit: int
) -> dict[str, Any]:
    """Return one page: `items` and IAM's IsTruncated and Marker (the key that the page ends at)."""
    start = 0
    if marker is not None:
        try:
            start = keys.index(marker) + 1
        except ValueError as error:
            raise invalid_marker() from error
    page: dict[str, Any] = {"items": items[start : start + limit], "IsTruncated": False}
    if start + limit < len(items):
        page |= {"IsTruncated": True, "Marker": keys[start + limit - 1]}
    return page


def first_page(keyed: Iterable[tuple[str, T]], limit: int) -> dict[str, Any]:
    """Return one page of what comes behind a marker, with its keys; no more of it is taken."""
    taken = list(islice(keyed, limit + 1))
    page: dict[str, Any] = {"items": [item for _, item in taken[:limit]], "IsTruncated": False}
    if len(taken) > limit:
        page |= {"IsTruncated": True, "Marker": marker_of(taken[limit - 1][0])}
    return page


def marker_of(key: str) -> str:
    """Return the marker of the page behind a key: it holds also when what has the key is gone."""
    return urlsafe_b64encode(f"{BEHIND}{key}".encode()).decode()


def key_of(marker: str | None) -> str | None:
    """Return the key that a marker stands behind; None: from the beginning."""
    if marker is None:
        return None
    try:
        text = urlsafe_b64decode(marker.encode()).decode()
    except ValueError as error:
        raise invalid_marker() from error
    if not text.startswith(BEHIND):
        raise invalid_marker()
    return text.removeprefix(BEHIND)


def invalid_marker() -> AwsError:
    """Return the refusal of a marker that no page ended at."""
    return AwsError("ValidationError", "Invalid Marker.")
