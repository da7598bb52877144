"""AddTags, ListTags, DeleteTags: for every SageMaker resource that has an ARN."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from cloche.core.arn import parse_arn
from cloche.core.errors import AwsError
from cloche.operation import Call, operation
from cloche.permissions import REQUEST_TAGS, arns_at, list_key
from cloche.records.store import Conflict, Resource
from cloche.services.sagemaker.permissions import on_resource
from cloche.services.sagemaker.tags import added, removed, tag_list, tags_of

if TYPE_CHECKING:
    from cloche.services.sagemaker import SageMaker

PAGE = 50  # ListTags' default and largest page is the limit of tags a resource may have
TAG_KEYS = list_key("aws:TagKeys", "TagKeys")


@operation(
    permissions=[on_resource("sagemaker:AddTags", arns_at("ResourceArn"), keys=(REQUEST_TAGS,))]
)
async def add_tags(
    call: Call[SageMaker], *, ResourceArn: str, Tags: Sequence[Mapping[str, str]]
) -> dict[str, object]:
    """Add or overwrite tags; return all of the resource's."""
    new = await change(call, ResourceArn, lambda resource: added(resource, Tags))
    return {"Tags": tag_list(new)}


@operation(
    permissions=[on_resource("sagemaker:DeleteTags", arns_at("ResourceArn"), keys=(TAG_KEYS,))]
)
async def delete_tags(
    call: Call[SageMaker], *, ResourceArn: str, TagKeys: Sequence[str]
) -> dict[str, object]:
    """Remove tags; keys that are not there do not matter."""
    await change(call, ResourceArn, lambda resource: removed(resource, TagKeys))
    return {}


@operation(permissions=[on_resource("sagemaker:ListTags", arns_at("ResourceArn"))])
def list_tags(
    call: Call[SageMaker],
    *,
    ResourceArn: str,
    NextToken: str | None = None,
    MaxResults: int = PAGE,
) -> dict[str, object]:
    """Return a page of tags, in the order they were added."""
    tags = tag_list(tags_of(find(call, ResourceArn)))
    start = 0
    if NextToken is not None:
        if not (NextToken.isascii() and NextToken.isdigit() and len(NextToken) < 10):
            raise AwsError("ValidationException", "Invalid NextToken.")
        start = int(NextToken)
    page: dict[str, object] = {"Tags": tags[start : start + MaxResults]}
    if start + MaxResults < len(tags):
        page["NextToken"] = str(start + MaxResults)
    return page


def find(call: Call[SageMaker], arn: str) -> Resource:
    """Return the caller's resource with this ARN."""
    try:
        parts = parse_arn(arn)
    except ValueError as error:
        raise AwsError("ValidationException", f"Invalid ARN: {arn}") from error
    resource = call.store.find(arn)
    mine = (parts.service, parts.account) == ("sagemaker", call.account)
    if resource is None or not mine or "Tags" not in resource.desired:
        raise AwsError("ValidationException", f"Could not find resource with ARN: {arn}")
    return resource


async def change(
    call: Call[SageMaker], arn: str, make: Callable[[Resource], Mapping[str, str]]
) -> Mapping[str, str]:
    """Write what `make` gives as the resource's tags, over the newest record."""
    while True:
        resource = find(call, arn)
        tags = make(resource)
        try:
            await call.store.update(resource, desired={**resource.desired, "Tags": dict(tags)})
        except Conflict:
            continue
        return tags
