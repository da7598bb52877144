"""What models, endpoint configurations and endpoints share: names, AWS's words, lists."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cloche.core.errors import AwsError, unsupported
from cloche.core.typed import readable
from cloche.operation import Call
from cloche.records.store import AlreadyExists, Document, Resource
from cloche.services.sagemaker.names import arn, desired
from cloche.services.sagemaker.paging import DESCENDING, listing, turn
from cloche.services.sagemaker.tags import checked

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

WORDS = {"endpoint-config": "endpoint configuration"}  # as AWS's messages name a kind
SORT_BY = {"Name": "name", "CreationTime": "created", "Status": "status"}


def find(call: Call[SageMaker], kind: str, name: str) -> Resource:
    """Return the caller's resource of this name, or AWS's refusal."""
    resource = call.store.get(kind, call.account, call.region, name)
    if resource is None:
        raise missing(call, kind, name)
    return resource


def missing(call: Call[SageMaker], kind: str, name: str) -> AwsError:
    """Return AWS's words for a name that is not there."""
    word = WORDS.get(kind, kind)
    where = arn(call.account, call.region, kind, name)
    return AwsError("ValidationException", f'Could not find {word} "{where}".')


async def insert(
    call: Call[SageMaker],
    kind: str,
    name: str,
    request: Mapping[str, Any],
    tags: Sequence[Mapping[str, str]],
    *,
    status: str = "",
    more: Document | None = None,
) -> str:
    """Add a resource and return its ARN; AWS's refusal when the name is taken."""
    checked(tags)
    resource = Resource(
        account=call.account,
        region=call.region,
        kind=kind,
        name=name,
        arn=arn(call.account, call.region, kind, name),
        status=status,
        created=call.now,
        modified=call.now,
        desired={**desired(request, tags), **(more or {})},
    )
    try:
        await call.store.insert(resource)
    except AlreadyExists as error:
        word = WORDS.get(kind, kind)
        raise AwsError(
            "ValidationException", f'Cannot create already existing {word} "{resource.arn}".'
        ) from error
    return resource.arn


def listed(
    call: Call[SageMaker],
    kind: str,
    summary: Callable[[Resource], Mapping[str, Any]],
    answer: str,
    *,
    name_contains: str | None,
    created: tuple[datetime | None, datetime | None],
    modified: tuple[datetime | None, datetime | None] = (None, None),
    status: str | None = None,
    document_has: tuple[tuple[str, ...], str] | None = None,
    sort_by: str,
    order: str,
    limit: int,
    after: str | None,
) -> dict[str, Any]:
    """Return one page of summaries under `answer`; what is damaged is left out.

    created, modified: (after, before).
    document_has: a path in what the loop wrote down, and the text that must be there.
    """
    wanted = listing(
        kind,
        call.account,
        call.region,
        name_contains=name_contains,
        statuses=None if status is None else (status,),
        document_has=document_has,
        created_after=created[0],
        created_before=created[1],
        modified_after=modified[0],
        modified_before=modified[1],
        sort_by=SORT_BY[sort_by],
        descending=order == DESCENDING,
        limit=limit,
        after=after,
    )
    resources, token = turn(call.store, wanted)
    page: dict[str, Any] = {answer: list(readable(summary, resources))}
    return page | ({"NextToken": token} if token else {})


def refuse_others(given: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Refuse, by name, members that ask for something Cloche does not do."""
    for name, value in given.items():
        if name not in known and value not in (None, False, "", [], {}):
            raise unsupported(f"{where}.{name}")
