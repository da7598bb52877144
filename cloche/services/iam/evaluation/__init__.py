"""AWS's evaluation of policies: pure, compiled once, for every kind of policy."""

from cloche.services.iam.evaluation.conditions import known as known_operator
from cloche.services.iam.evaluation.documents import listed
from cloche.services.iam.evaluation.flow import Applying, decide
from cloche.services.iam.evaluation.patterns import like
from cloche.services.iam.evaluation.statements import (
    CompiledStatement,
    Statements,
    compiled,
    evaluate,
    together,
)

__all__ = [
    "Applying",
    "CompiledStatement",
    "Statements",
    "compiled",
    "decide",
    "evaluate",
    "known_operator",
    "like",
    "listed",
    "together",
]
