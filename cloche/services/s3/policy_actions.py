"""Which actions a bucket's policy may name, on what, and with which condition keys of S3.

ActionFacts of AWS's Service Authorization Reference, which `scripts/s3_actions.py` writes down.
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
"""

import json
from functools import cache
from pathlib import Path
from typing import TypedDict

FILE = Path(__file__).with_name("actions.json")


class ActionFacts(TypedDict):
    """What the file holds: `keys` in lower case, of those that tags have the folder."""

    actions: dict[str, list[str]]  # its kinds of resource
    everywhere: list[str]  # keys that all requests have
    keys: dict[str, list[str]]  # the actions that a key is of


@cache
def facts() -> ActionFacts:
    """Return the facts, with actions in lower case."""
    found: ActionFacts = json.loads(FILE.read_text())
    return {
        "actions": {name.lower(): kinds for name, kinds in found["actions"].items()},
        "everywhere": found["everywhere"],
        "keys": {key: [name.lower() for name in of] for key, of in found["keys"].items()},
    }


def named(pattern: str) -> dict[str, list[str]]:
    """Return the actions, by name in lower case, that an `Action` names, and what each is on."""
    if pattern == "*":
        return facts()["actions"]
    service, _, name = pattern.lower().partition(":")
    if service != "s3":
        return {}
    if is_pattern(name):
        return {each: on for each, on in facts()["actions"].items() if fits(name, each)}
    kinds = facts()["actions"].get(name)
    return {name: kinds} if kinds is not None else {}


def is_pattern(text: str) -> bool:
    """Tell whether a text has wildcards."""
    return "*" in text or "?" in text


def fits(pattern: str, text: str) -> bool:
    """Tell whether a text fits a pattern: `*` any characters, `?` one.

    Never back beyond the last star: in time of the two lengths' product at the most.
    """
    at, here, star, resume = 0, 0, -1, 0
    while here < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, resume, at = at, here, at + 1
        elif at < len(pattern) and pattern[at] in ("?", text[here]):
            at, here = at + 1, here + 1
        elif star >= 0:
            resume += 1
            at, here = star + 1, resume
        else:
            return False
    return not pattern[at:].strip("*")


def key_entry(key: str) -> str:
    """Return a condition key as the facts have it."""
    folder, slash, _ = key.lower().partition("/")
    return folder + slash


def is_key(key: str) -> bool:
    """Tell whether a bucket's policy may ask for a condition key: any global one, and S3's."""
    entry = key_entry(key)
    known = facts()
    return entry.startswith("aws:") or entry in known["keys"] or entry in known["everywhere"]


def key_applies(key: str, action: str) -> bool:
    """Tell whether an action, which is none with wildcards, has a condition key."""
    of = facts()["keys"].get(key_entry(key))
    return of is None or action.lower().removeprefix("s3:") in of
