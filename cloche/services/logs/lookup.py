"""Finding the group and stream that a request names, with AWS's errors."""

from cloche.core.arn import parse_arn
from cloche.core.errors import AwsError
from cloche.operation import Call
from cloche.records.resource import Resource
from cloche.services.logs.logs import Logs


def invalid(message: str) -> AwsError:
    """Return InvalidParameterException."""
    return AwsError("InvalidParameterException", message)


def missing(what: str) -> AwsError:
    """Return ResourceNotFoundException of a group or stream."""
    return AwsError("ResourceNotFoundException", f"The specified {what} does not exist.")


def find_group(call: Call[Logs], name: str | None, identifier: str | None) -> Resource:
    """Return the group that is named by name or, as an identifier, by name or ARN."""
    if (name is None) == (identifier is None):
        raise invalid("Exactly one of logGroupName and logGroupIdentifier must be specified.")
    if identifier is not None:
        name = identifier
        if identifier.startswith("arn:"):
            try:
                arn = parse_arn(identifier)
            except ValueError as error:
                raise invalid("Invalid logGroupIdentifier") from error
            if (arn.account, arn.region) != (call.account, call.region):
                raise missing("log group")
            name = arn.resource.removeprefix("log-group:").removesuffix(":*")
    group = call.service.group(call.account, call.region, name or "")
    if group is None:
        raise missing("log group")
    return group


def find_stream(call: Call[Logs], group: Resource, name: str) -> Resource:
    """Return a stream of the group."""
    stream = call.service.stream(call.account, call.region, group.name, name)
    if stream is None:
        raise missing("log stream")
    return stream
