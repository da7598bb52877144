"""How the commands read their arguments: help and errors in the words of this command line.

What Typer itself says depends on its version, and names types of Python and of its validator.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

T = TypeVar("T", bound=str)


class PlainFlags:
    """Flags take no value, in the help too; all that is missing is named at once."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters; flags without a placeholder for a value."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; a usage error names each one that is missing."""
        given = list(args)  # reading consumes them
        try:
            rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        except typer.BadParameter as error:
            missing = self.missing(ctx, given)
            if getattr(error, "param", None) is not None and error.param in missing:
                ctx.fail(f"Missing: {', '.join(shown(param) for param in missing)}")
            raise
        return rest

    def missing(self, ctx: Any, args: list[str]) -> list[Any]:
        """Return the required parameters that the arguments lack."""
        values, _, _ = self.make_parser(ctx).parse_args(args=args)  # type: ignore[attr-defined]
        return [
            param
            for param in self.get_params(ctx)
            if param.required and values.get(param.name) in (None, [], ())
        ]


class Command(PlainFlags, TyperCommand):
    """A command."""


class CommandGroup(PlainFlags, TyperGroup):
    """A group of commands."""


def shown(param: Any) -> str:
    """Return a parameter as the usage has it: `NAME`, `--package PACKAGE`."""
    if param.param_type_name == "argument":
        return str(param.metavar or param.name.upper())
    return f"{param.opts[0]} {param.metavar or param.name.upper()}"


def number(least: int, most: int | None = None) -> Callable[[str | int], int]:
    """Return a parser of whole numbers from `least` to `most`."""
    allowed = f"of at least {least}" if most is None else f"from {least} to {most}"

    def parse(text: str | int) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least or (most is not None and value > most):
            raise typer.BadParameter(f"{text!r} is not a whole number {allowed}.")
        return value

    return parse


def choice(*allowed: T) -> Callable[[str], T]:
    """Return a parser that takes one of a few words."""

    def parse(text: str) -> T:
        for word in allowed:
            if text == word:
                return word
        raise typer.BadParameter(f"{text!r} is not one of: {', '.join(allowed)}.")

    return parse


PORT = number(1, 65534)  # the next one is the HTTPS proxy's
