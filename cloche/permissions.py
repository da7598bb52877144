"""What an operation asks IAM before it runs: actions, resources, condition keys, as AWS has them.

A test holds all of them against AWS's Service Authorization Reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from cloche.core.arn import Arn
from cloche.core.authorization import Context, Later, Values
from cloche.operation import Asked, Call

Parameters = Mapping[str, Any]
Find = Callable[[Call[Any], Parameters], Iterable[str]]
NOBODY_IS_ASKED: tuple[Permission, ...] = ()
"""Of an operation that every principal may call, whatever policies say."""
Give = Callable[[Call[Any], Parameters, str], Mapping[str, Values]]  # of the ARN asked about


class ConditionKeys:
    """Condition keys by AWS's names, and what gives their values (by names in lower case).

    The values are worked out, or looked up, only when a policy asks for such a key.
    """

    __slots__ = ("entries", "names", "values")

    def __init__(self, *names: str, values: Give) -> None:
        self.names, self.values = names, values
        self.entries = tuple(entry(name) for name in names)


class Permission:
    """An action on resources: tails of ARNs with {Parameter} places, or what finds whole ones.

    keys: what conditions may ask about the request.
    when, unless: a parameter; asked only where it is given, or only where it is not.
    """

    __slots__ = ("action", "keys", "resources", "service", "unless", "when")

    def __init__(
        self,
        action: str,
        *resources: str | Find,
        keys: Iterable[ConditionKeys] = (),
        when: str | None = None,
        unless: str | None = None,
    ) -> None:
        self.action, self.resources, self.keys = action, resources or ("*",), tuple(keys)
        self.service = action.partition(":")[0]
        self.when, self.unless = when, unless

    def asked(self, call: Call[Any], parameters: Parameters) -> Iterator[Asked]:
        """Yield what is asked of a call with these parameters."""
        if self.when is not None and not parameters.get(self.when):
            return
        if self.unless is not None and parameters.get(self.unless):
            return
        for resource in self.resources:
            for arn in self._arns(resource, call, parameters):
                yield self.action, arn, context(call, parameters, self.keys, arn)

    def authorize(self, call: Call[Any], parameters: Parameters) -> None:
        """Ask it from within a handler; AccessDenied when it is not allowed."""
        for action, resource, keys in self.asked(call, parameters):
            call.authorize(action, resource, keys)

    def _arns(self, resource: str | Find, call: Call[Any], parameters: Parameters) -> Iterable[str]:
        if callable(resource):
            return resource(call, parameters)
        if resource == "*":
            return (resource,)
        return (arn(self.service, call, resource.format_map(parameters)),)


class PassRole(Permission):
    """That the caller may hand the roles at these parameters (`A.B`) to a service."""

    __slots__ = ()

    def __init__(self, *paths: str, to: str = "sagemaker.amazonaws.com") -> None:
        keys = (constant("iam:PassedToService", to),)
        super().__init__("iam:PassRole", arns_at(*paths), keys=keys)


def arn(service: str, call: Call[Any], tail: str) -> str:
    """Return the ARN of one of the caller's resources, as its service writes it."""
    if service == "s3":
        return f"arn:aws:s3:::{tail}"
    if service == "iam":
        return str(Arn("iam", "", call.account, tail))
    name = tail.lower() if service == "sagemaker" else tail
    return str(Arn(service, call.region, call.account, name))


def context(
    call: Call[Any], parameters: Parameters, keys: Iterable[ConditionKeys], arn: str = "*"
) -> Context:
    """Return the condition keys that a call has values for, when it asks about a resource."""
    later: dict[str, Later] = {}
    for each in keys:
        values = partial(each.values, call, parameters, arn)
        for name in each.entries:
            later[name] = values
    return Context(later=later)


def entry(name: str) -> str:
    """Return the name of a key in a context; of keys that end in a tag's, their folder."""
    folder, slash, _ = name.lower().partition("/")
    return folder + slash


# ---------------------------------------------------------------------- keys and resources


def key(
    name: str, *paths: str, convert: Callable[[Call[Any], str], str] | None = None
) -> ConditionKeys:
    """Return a key with one value: the first that is there, at parameters (`A.B`)."""

    def values(call: Call[Any], parameters: Parameters, _arn: str) -> Mapping[str, Values]:
        found = [text(value) for path in paths for value in at(parameters, path)][:1]
        return {name.lower(): convert(call, each) if convert else each for each in found}

    return ConditionKeys(name, values=values)


def constant(name: str, value: str) -> ConditionKeys:
    """Return a key that has the same value in every request."""
    return ConditionKeys(name, values=lambda _call, _parameters, _arn: {name.lower(): value})


def list_key(
    name: str, *paths: str, convert: Callable[[Call[Any], str], str] | None = None
) -> ConditionKeys:
    """Return a key with a list of values: all that are at parameters (`A.B`)."""

    def values(call: Call[Any], parameters: Parameters, _arn: str) -> Mapping[str, Values]:
        found = dict.fromkeys(text(each) for path in paths for each in at(parameters, path))
        listed = tuple(convert(call, each) if convert else each for each in found)
        return {name.lower(): listed} if listed else {}

    return ConditionKeys(name, values=values)


def arns_at(*paths: str) -> Find:
    """Return what finds the ARNs that parameters (`A.B`) hold, each once."""

    def find(_call: Call[Any], parameters: Parameters) -> Iterable[str]:
        return dict.fromkeys(value for path in paths for value in at(parameters, path))

    return find


def at(parameters: Parameters, path: str) -> list[Any]:
    """Return what is at a path of names; of lists, what is in each of their elements."""
    found: list[Any] = [parameters]
    for name in path.split("."):
        inside = [value[name] for value in found if value.get(name) is not None]
        found = []
        for value in inside:
            found += value if isinstance(value, (list, tuple)) else [value]
    return found


def text(value: object) -> str:
    """Return a parameter as conditions compare it."""
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def tag_keys(found: Iterable[Mapping[str, str]], kind: str = "aws:requesttag") -> dict[str, Values]:
    """Return what the keys of a kind say of tags as AWS writes them."""
    tags = {tag["Key"]: tag.get("Value", "") for tag in found}
    return {f"{kind}/{name.lower()}": value for name, value in tags.items()}


def request_tag_keys(_call: Call[Any], parameters: Parameters, _arn: str) -> dict[str, Values]:
    """Return what the keys say of the `Tags` of a request."""
    tags = parameters.get("Tags") or ()
    names = tuple(tag["Key"] for tag in tags)
    return {**tag_keys(tags), "aws:tagkeys": names} if names else {}


REQUEST_TAGS = ConditionKeys("aws:RequestTag/${TagKey}", "aws:TagKeys", values=request_tag_keys)
