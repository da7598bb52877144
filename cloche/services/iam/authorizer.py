"""Who answers questions of permission until identities' policies are enforced."""

from collections.abc import Callable
from dataclasses import dataclass

from cloche.core.authorization import Decision, Question, ResourcePolicy
from cloche.services.iam.evaluate import CompiledStatement, evaluate

Statements = tuple[CompiledStatement, ...]


def no_policy(_arn: str) -> ResourcePolicy[Statements] | None:
    """Return that a resource has no policy of its own, and is whoever asks's."""
    return None


@dataclass(frozen=True, slots=True)
class IssuedKeys:
    """Lets whoever holds keys that the platform issued do anything in its account, unless a
    resource's own policy denies it; and others what such a policy allows.
    """

    resource_policies: Callable[[str], ResourcePolicy[Statements] | None] = no_policy

    def decide(self, question: Question) -> Decision:
        """Return whether it is allowed."""
        principal = question.principal
        found = self.resource_policies(question.resource)
        if found is not None and not found.concerns(question):
            found = None
        said = evaluate((found.applying(question) if found is not None else None) or (), question)
        if said.verdict == "explicitDeny":
            return said
        if principal.kind == "service" or principal.account == getattr(found, "account", None):
            return Decision("allowed")
        if found is None and principal.kind != "anonymous":
            return Decision("allowed")
        if said.allowed:
            return said
        return Decision("implicitDeny", lacking="resource-based policy")
