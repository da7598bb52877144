"""`cloche iam`: who did what."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from itertools import groupby
from typing import Annotated, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError

from cloche.cli import explanation
from cloche.cli.aws_client import AwsClient
from cloche.cli.grammar import Command, CommandGroup, number
from cloche.cli.options import HomeOption, home_of
from cloche.cli.output import Stop, count, err, out
from cloche.client import Client

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="See who did what, and what IAM answered.",
)
HEAD = ("time", "who", "call", "answer", "on")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
SUGGESTED = "cloche-suggested"  # the inline policy's name
SPAN = re.compile(r"([0-9]{1,6})([smhd])")


def span(text: str | timedelta) -> timedelta:
    """Return how long ago `15m`, `2h` or `7d` is."""
    if isinstance(text, timedelta):
        return text
    match = SPAN.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a span of time such as 15m, 2h or 7d.")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


@app.command(cls=Command)
def who(
    since: Annotated[
        timedelta,
        typer.Option(parser=span, metavar="SPAN", help="How far back to look: 15m, 2h, 7d."),
    ] = "1h",  # type: ignore[assignment]
    principal: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Only those whose ARN has this in it.", show_default=""),
    ] = "",
    action: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Only calls or permissions with this in their name: s3:PutObject.",
            show_default="",
        ),
    ] = "",
    refused: Annotated[bool, typer.Option("--refused", help="Only what IAM refused.")] = False,
    limit: Annotated[
        int,
        typer.Option(parser=number(1, 1000), metavar="NUMBER", help="How many, at the most."),
    ] = 50,
    home: HomeOption = None,
) -> None:
    """Show who did what: every call of the AWS APIs, and what the platform did for a role."""
    client = Client.of(home_of(home))
    query: dict[str, str | int] = {
        "since_ms": milliseconds_ago(since),
        "limit": limit,
        "principal": principal,
        "action": action,
    }
    if refused:
        query["refused"] = "true"
    try:
        answer = client.events(**query)
    except OSError as error:
        raise Stop(f"Cloche at {client.server.address} does not answer: {error}") from None
    show(answer["events"], limit, bool(answer["complete"]))


@app.command(cls=Command)
def suggest(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="A role's name or ARN.")],
    since: Annotated[
        timedelta,
        typer.Option(parser=span, metavar="SPAN", help="How far back to look: 2h, 30d."),
    ] = "30d",  # type: ignore[assignment]
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Give the role this policy, and detach what it has now."),
    ] = False,
    home: HomeOption = None,
) -> None:
    """Write the smallest policy that covers what a role really did."""
    client = AwsClient.of(home_of(home))
    try:
        found = client.suggestion(role, milliseconds_ago(since))
    except OSError as error:
        raise Stop(said(error)) from None
    if not found["policy"]["Statement"]:
        raise Stop(
            f"{found['name']} did nothing in that time that was allowed: there is nothing to "
            "suggest. Let it do its work first, or look further back: --since 90d"
        )
    print(json.dumps(found["policy"], indent=2))
    actions = sum(len(listed(each["Action"])) for each in found["policy"]["Statement"])
    err.print(
        f"{count(actions, 'action')}, from {count(found['events'], 'event')} of {found['name']}.",
    )
    for arn in found["attached"]:
        err.print(f"- {arn.rpartition('/')[2]} (attached)", markup=False)
    err.print(f"+ {SUGGESTED} (inline, as above)", markup=False)
    for each in found["refused"]["Statement"]:
        err.print(f"Refused meanwhile, and not in it: {', '.join(listed(each['Action']))}")
    if not found["complete"]:
        err.print("There are more events of that time than could be looked through: --since")
    if apply:
        apply_suggestion(client, found)
    else:
        err.print(f"Nothing was changed. To have it so: cloche iam suggest {found['name']} --apply")


@app.command(cls=Command)
def explain(
    request_id: Annotated[
        str,
        typer.Argument(
            metavar="REQUEST_ID|last",
            help="A request's id, as errors and the header x-cloche-explain have it; the last "
            "that was refused.",
        ),
    ] = "last",
    apply: Annotated[
        str | None,
        typer.Option(
            "--apply",
            metavar="ROLE",
            help="Give this role what is missing, as an inline policy.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Say why IAM answered a request as it did, and which statement would allow it."""
    client = AwsClient.of(home_of(home))
    try:
        found = client.explanation(request_id)
    except OSError as error:
        raise Stop(said(error)) from None
    explanation.show(found)
    missing = [
        each
        for each in found["questions"]
        if each["statement"] is not None and each["now"] != "allowed"
    ]
    if apply is not None:
        apply_explanation(client, missing, apply)
    elif any(each["lacking"] == "identity-based policy" for each in missing):
        role = (found["event"].get("role") or "").rpartition("/")[2]
        err.print("Either give it that statement, or act as somebody who may:", markup=False)
        err.print(
            f"  cloche iam explain {found['event']['id']} --apply {role or 'ROLE'}", markup=False
        )
        err.print("  cloche run --as admin -- …    cloche env --as admin", markup=False)


@app.command(cls=Command)
def lint(home: HomeOption = None) -> None:
    """Name what is wider, older or less safe than it needs to be. Exit code 1: there is some."""
    client = Client.of(home_of(home))
    try:
        found = client.findings()
    except OSError as error:
        raise Stop(said(error)) from None
    for about, each in groupby(found, key=lambda one: str(one["about"])):
        explanation.say(about)
        for one in each:
            explanation.say(f"  {one['what']}")
            if one["fix"]:
                explanation.say(f"    {one['fix']}")
    if found:
        raise Stop(f"{count(len(found), 'finding')}.", code=1)
    out.print("Nothing was found.")


def apply_explanation(client: AwsClient, missing: list[dict[str, Any]], role: str) -> None:
    """Put an inline policy for what an identity lacks."""
    wanted = [each for each in missing if each["lacking"] == "identity-based policy"]
    if not wanted:
        raise Stop("Nothing was changed: no statement in a policy of the role would help here.")
    iam, name = client.aws("iam"), role.rpartition("/")[2]
    for each in wanted:
        policy = explanation.INLINE.format(each["action"].replace(":", "-"))
        try:
            statements = inline_statements(iam, name, policy)
            if each["statement"] not in statements:
                statements.append(each["statement"])
            document = json.dumps({"Version": "2012-10-17", "Statement": statements})
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=document)
        except (BotoCoreError, ClientError) as error:
            raise Stop(f"The policy could not be put: {error}") from None
        err.print(f"{name} has the inline policy {policy} now. To remove it:", markup=False)
        err.print(
            f"  cloche run --as root -- aws iam delete-role-policy --role-name {name} "
            f"--policy-name {policy}",
            markup=False,
            soft_wrap=True,
        )


def inline_statements(iam: Any, role: str, policy: str) -> list[Any]:
    """Return the statements of a role's inline policy; none where there is no such policy."""
    try:
        found = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
    except iam.exceptions.NoSuchEntityException:
        return []
    return listed(found["Statement"])


def apply_suggestion(client: AwsClient, found: dict[str, Any]) -> None:
    """Give a role the policy that was suggested, and detach the managed ones that it had."""
    iam, name = client.aws("iam"), found["name"]
    try:
        iam.put_role_policy(
            RoleName=name, PolicyName=SUGGESTED, PolicyDocument=json.dumps(found["policy"])
        )
        for arn in found["attached"]:
            iam.detach_role_policy(RoleName=name, PolicyArn=arn)
    except (BotoCoreError, ClientError) as error:
        raise Stop(f"The policy could not be applied: {error}") from None
    err.print(f"{name} now has {SUGGESTED} and no attached policy. To go back:")
    for arn in found["attached"]:
        err.print(
            f"  cloche run --as root -- aws iam attach-role-policy --role-name {name} "
            f"--policy-arn {arn}",
            markup=False,
            soft_wrap=True,
        )


def milliseconds_ago(since: timedelta) -> int:
    """Return a time so long ago, in milliseconds since 1970."""
    return int((datetime.now().astimezone() - since).timestamp() * 1000)


def listed(value: Any) -> list[Any]:
    """Return what may be one or several as a list."""
    return value if isinstance(value, list) else [value]


def said(error: OSError) -> str:
    """Return the server's own message in an answer that is no success."""
    try:
        return str(json.loads(str(error).partition(": ")[2])["message"])
    except (ValueError, KeyError, TypeError):
        return f"Cloche does not answer: {error}"


def show(events: list[dict[str, Any]], limit: int, complete: bool) -> None:
    """Print events, the oldest first, a line each."""
    lines = [HEAD, *(tuple(map(explanation.printable, row(event))) for event in reversed(events))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if not events:
        out.print("Nothing was asked for in that time that fits.")
        return
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        explanation.say("  ".join(cells).rstrip())
    if len(events) == limit:
        out.print(f"These are the newest {limit}; more with: --limit, --since, --principal")
    if not complete:
        out.print("There is more of that time than can be looked through at once: shorten --since")
    if refused := sum(map(is_refused, events)):
        out.print(f"IAM refused {count(refused, 'call')}.")


def row(event: dict[str, Any]) -> tuple[str, ...]:
    """Return an event's columns."""
    at = datetime.fromtimestamp(event["time_ms"] / 1000).astimezone()
    resources = dict.fromkeys(each.get("resource", "*") for each in event.get("asked", ()))
    first = next(iter(resources), "")
    more = f" and {len(resources) - 1} more" if len(resources) > 1 else ""
    return (
        f"{at:%Y-%m-%d %H:%M:%S}",
        event["principal"].split(":", 5)[-1],
        f"{event['service']}:{event['operation']}",
        outcome(event),
        first + more,
    )


def outcome(event: dict[str, Any]) -> str:
    """Return how a call ended."""
    if is_refused(event):
        return f"refused ({event.get('code', 'in part')})"
    return str(event.get("code") or "ok")


def is_refused(event: dict[str, Any]) -> bool:
    """Tell whether IAM said no to any of it."""
    return any(each.get("verdict", "allowed") != "allowed" for each in event.get("asked", ()))
