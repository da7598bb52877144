"""`cloche iam explain`: why IAM answered as it did, in words, and what would allow it."""

from __future__ import annotations

import json
from typing import Any

from cloche.cli.output import count, out

INLINE = "cloche-allow-{}"  # the inline policy that --apply puts, by the action's name


def show(found: dict[str, Any]) -> None:
    """Print the explanation of a request."""
    event = found["event"]
    say(f"{event['principal']} asked for {event['service']}:{event['operation']}:")
    if event.get("message"):
        say(f"  {event['message']}")
    for question in found["questions"]:
        show_question(question)


def show_question(question: dict[str, Any]) -> None:
    """Print what decided one question."""
    say("")
    say(f"{question['action']} on {question['resource']}: {verdict(question)}")
    looked = count(question["looked_at"], "statement")
    if not question["statements"]:
        say(f"  Of {looked} that apply, none speaks of {question['action']}.")
    for each in question["statements"]:
        say(f"  {name(each)}: {fate(each)}")
    if question["verdict"] == "allowed":
        return
    if question["now"] == "allowed":
        say("  The current policies allow it.")
        return
    if question["statement"] is None:
        say("  No further policy allows what a statement denies: narrow that statement, or take")
        say("  it out.")
        return
    say(f"This statement in {place(question)} would allow it:")
    out.print(json.dumps(question["statement"], indent=2), markup=False, highlight=False)


def verdict(question: dict[str, Any]) -> str:
    """Return how a question was answered, in words."""
    if question["verdict"] == "allowed":
        return "allowed"
    if question["verdict"] == "explicitDeny":
        return "denied by a statement"
    return f"refused, because no {question['lacking']} allows it"


def name(each: dict[str, Any]) -> str:
    """Return a statement's name: its policy, its place in it, its Sid."""
    policy = each["policy"].rpartition("/")[2] or each["kind"]
    sid = f" ({each['sid']})" if each["sid"] else ""
    return f"{policy}, statement {each['number']}{sid}"


def fate(each: dict[str, Any]) -> str:
    """Return what a statement does here, and if it does nothing, why."""
    if each["applies"]:
        return "denies it" if each["effect"] == "Deny" else "allows it"
    does = "denies" if each["effect"] == "Deny" else "allows"
    if not each["principal"]:
        return f"{does} it to others"
    if not each["resource"]:
        return f"{does} it on other resources"
    failing = [one for one in each["conditions"] if one["holds"] is not True]
    keys = ", ".join(
        f"{one['key']} (here: {', '.join(one['values']) or 'none'})" for one in failing
    )
    return f"{does} it under conditions that do not hold: {keys}"


def condition(one: dict[str, Any]) -> str:
    """Return a condition's key, and what the request has for it."""
    return f"{one['key']} (here: {', '.join(one['values']) or 'none'})"


def place(question: dict[str, Any]) -> str:
    """Return where the statement belongs."""
    lacking, who = question["lacking"], question["principal"].rpartition(":")[2]
    if lacking == "identity-based policy":
        return f"a policy of {who}"
    if lacking == "permissions boundary":
        return f"the permissions boundary of {who}"
    if lacking == "session policy":
        return "the session policy that the session was made with"
    if lacking == "role trust policy":
        return "the role's trust policy"
    return "the resource's own policy"


def say(line: str) -> None:
    """Print a line as it is, however long."""
    out.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """Return text without characters that a terminal obeys."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)
