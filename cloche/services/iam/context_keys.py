"""Which condition keys policies name: in conditions, and as variables."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cloche.services.iam.evaluation import listed
from cloche.services.iam.policy_grammar import elements

VARIABLE = re.compile(r"\$\{([^{}]*)\}")
LITERALS = {"*", "?", "$"}


def context_keys(policies: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the keys that policies name, each once, as it was first written."""
    found: dict[str, str] = {}
    for policy in policies:
        for statement in listed(policy["Statement"]):
            for key in keys_of(statement):
                found.setdefault(key.lower(), key)
    return list(found.values())


def keys_of(statement: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys that a statement names."""
    for resource in elements(statement, "Resource", "NotResource"):
        yield from variables(resource)
    for keys in statement.get("Condition", {}).values():
        for key, values in keys.items():
            yield key
            for value in listed(values):
                yield from variables(str(value))


def variables(text: str) -> Iterator[str]:
    """Yield the keys of the `${key}` and `${key, 'default'}` in a text."""
    for name in VARIABLE.findall(text):
        key = name.partition(",")[0].strip()
        if key and key not in LITERALS:
            yield key
