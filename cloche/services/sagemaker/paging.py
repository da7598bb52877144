"""What the List operations share: filters, order, tokens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast

from cloche.core.errors import AwsError
from cloche.records.store import Listing, Resource, SortBy, Store

DESCENDING = "Descending"


def listing(
    kind: str,
    account: str,
    region: str,
    *,
    name_contains: str | None = None,
    statuses: Sequence[str] | None = None,
    document_has: tuple[tuple[str, ...], str] | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    modified_after: datetime | None = None,
    modified_before: datetime | None = None,
    sort_by: str = "created",
    descending: bool = False,
    limit: int = 10,
    after: str | None = None,
) -> Listing:
    """Return the listing of one kind; `sort_by` is a column of the resource table."""
    return Listing(
        kind=kind,
        account=account,
        region=region,
        name_contains=name_contains,
        statuses=statuses,
        document_has=document_has,
        created_after=created_after,
        created_before=created_before,
        modified_after=modified_after,
        modified_before=modified_before,
        sort_by=cast(SortBy, sort_by),
        descending=descending,
        limit=limit,
        after=after,
    )


def turn(store: Store, wanted: Listing) -> tuple[tuple[Resource, ...], str | None]:
    """Return one page and the next token; an AwsError for a token that is none of ours."""
    try:
        page = store.page(wanted)
    except (ValueError, TypeError) as error:
        raise AwsError("ValidationException", "Invalid NextToken.") from error
    return page.resources, page.next_token
