"""The one question of permissions: may this principal do this, on this resource, in this context?

Who asks has an `Actor`: a caller of the API, or a role that the platform works for. Who answers is
an `Authorizer` (the IAM service).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Literal, Protocol, TypeVar

from cloche.core.clock import from_ms, to_ms
from cloche.core.errors import AwsError
from cloche.core.identity import Principal, Session

C = TypeVar("C")
Values = str | tuple[str, ...]  # of a condition key: one, or a list
Later = Callable[[], Mapping[str, Values]]
Verdict = Literal["allowed", "explicitDeny", "implicitDeny"]
PolicyKind = Literal[
    "identity-based policy",
    "permissions boundary",
    "session policy",
    "resource-based policy",
    "role trust policy",
]
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
PRINCIPAL_TYPES = {
    "root": "Account",
    "user": "User",
    "assumed-role": "AssumedRole",
    "service": "Service",
    "anonymous": "Anonymous",
}
# Services whose refusals name no resource where the action has none ("*").
WITHOUT_STAR = ("cloudwatch", "ec2", "s3", "sagemaker")

TIME_KEYS = ("aws:currenttime", "aws:epochtime")


class Context(Mapping[str, Values]):
    """The condition keys of one question, in lower case, and their values.

    later: what gives values, by the key or by the folder of keys (`aws:resourcetag/`): asked only
    when a policy asks for such a key.
    """

    __slots__ = ("known", "later", "under")

    def __init__(
        self, known: Mapping[str, Values] = {}, later: Mapping[str, Later] | None = None
    ) -> None:
        self.known, self.later = dict(known), dict(later or {})
        self.under: Callable[[], Context] | None = None

    def __getitem__(self, key: str) -> Values:
        if key not in self.known and self.later:
            for name in (key, f"{key.partition('/')[0]}/"):
                if (find := self.later.get(name)) is not None:
                    # Known before it is no longer looked up: other threads may read, too.
                    self.known.update(find())
                    self.later.pop(name, None)
                    break
        if key in self.known or self.under is None:
            return self.known[key]
        return self.under()[key]

    def __iter__(self) -> Iterator[str]:
        for name, find in tuple(self.later.items()):
            self.known.update(find())
            self.later.pop(name, None)
        yield from tuple(self.known)
        if self.under is not None:
            yield from (key for key in self.under() if key not in self.known)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def over(self, under: "Callable[[], Context]") -> "Context":
        """Return these keys, and those of another, made when it is asked, not among them."""
        made, mine = Context.__new__(Context), self.under
        made.known, made.later = self.known, self.later
        made.under = under if mine is None else lambda: mine().over(under)
        return made


NOTHING = Context()


@dataclass(frozen=True, slots=True)
class Question:
    """May `principal` do this action on this resource ("*": on any), in this context?"""

    principal: Principal
    action: str  # "s3:GetObject"
    resource: str = "*"
    context: Context = field(default_factory=Context)


@dataclass(frozen=True, slots=True)
class Statement:
    """Which statement of which policy: its place in it, from 0, and its Sid."""

    policy: str  # the ARN or name
    kind: PolicyKind
    place: int
    sid: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to a question.

    by: the statements that decided; none where nothing allows, and where none was asked.
    missing: condition keys that statements on this action and resource name and the context lacks.
    lacking: of an implicit deny, the kind of policy that should have allowed it.
    """

    verdict: Verdict
    by: tuple[Statement, ...] = ()
    missing: tuple[str, ...] = ()
    lacking: PolicyKind = "identity-based policy"

    @property
    def allowed(self) -> bool:
        """Whether it may be done."""
        return self.verdict == "allowed"


@dataclass(frozen=True, slots=True)
class ResourcePolicy(Generic[C]):
    """Whose a resource is, and what its own policy says, as the authorizer compiled it.

    policy: None where it has none.
    for_others: what counts of it for whoever is neither a service nor of the owner's account;
    the same, unless public access is restricted.
    made_by: the actions that make such a resource, whose name may be somebody else's already.
    """

    account: str
    policy: C | None = None
    for_others: C | None = None
    made_by: frozenset[str] = frozenset()

    def concerns(self, question: Question) -> bool:
        """Tell whether it has to do with a question: not where the resource is to be made."""
        return question.action not in self.made_by

    def applying(self, question: Question) -> C | None:
        """Return what counts of the policy for who asks."""
        principal = question.principal
        if principal.kind == "service":
            return self.policy
        if principal.account != self.account:
            return self.for_others
        return self.policy


class Authorizer(Protocol):
    """Answers questions from memory, from any thread (implemented by the IAM service)."""

    def decide(self, question: Question) -> Decision:
        """Return whether it may be done, and what decided that."""


Note = Callable[[Question, Decision], None]


class Refused(AwsError):
    """A question was answered with no; the gateway gives it the code of the service's family."""

    def __init__(self, question: Question, decision: Decision) -> None:
        super().__init__("AccessDenied", refusal(question, decision), 403)
        self.question, self.decision = question, decision


class Actor:
    """Who asks, whom, and what is true of all that it asks."""

    __slots__ = ("authorizer", "keys", "made", "note", "now", "principal")

    def __init__(
        self,
        principal: Principal,
        authorizer: Authorizer,
        now: Callable[[], datetime],
        keys: Later = dict,
        note: Note | None = None,
    ) -> None:
        """keys: gives what else is true; asked when a policy asks for the first such key.

        note: hears every question and its answer.
        """
        self.principal, self.authorizer, self.now, self.keys = principal, authorizer, now, keys
        self.note = note
        self.made: Context | None = None

    def decide(self, action: str, resource: str, context: Context = NOTHING) -> Decision:
        """Return whether it may do this, and what decided that."""
        return self._answer(self.question(action, resource, context))

    def authorize(self, action: str, resource: str, context: Context = NOTHING) -> Decision:
        """Return what allows it to do this; Refused when nothing does."""
        question = self.question(action, resource, context)
        decision = self._answer(question)
        if not decision.allowed:
            raise Refused(question, decision)
        return decision

    def question(self, action: str, resource: str, context: Context = NOTHING) -> Question:
        """Return the question, with what is true of all that it asks."""
        return Question(self.principal, action, resource, context.over(self.general))

    def _answer(self, question: Question) -> Decision:
        decision = self.authorizer.decide(question)
        if self.note is not None:
            self.note(question, decision)
        return decision

    def general(self) -> Context:
        """Return the condition keys of all that it asks."""
        if self.made is None:
            known = {**principal_keys(self.principal, self.now), **self.keys()}
            self.made = Context(known, dict.fromkeys(TIME_KEYS, self._time))
        return self.made

    def _time(self) -> Mapping[str, Values]:
        now = self.now()
        return dict(zip(TIME_KEYS, (iso(now), str(to_ms(now) // 1000)), strict=True))


def principal_keys(principal: Principal, now: Callable[[], datetime]) -> dict[str, Values]:
    """Return what the global condition keys say of a principal, and of its session."""
    keys: dict[str, Values] = {
        "aws:principaltype": PRINCIPAL_TYPES[principal.kind],
        "aws:principalaccount": principal.account or "anonymous",
    }
    if principal.kind == "service":
        return {**keys, "aws:principalservicename": principal.arn}
    if principal.kind == "anonymous":
        return {**keys, "aws:userid": principal.user_id}
    keys["aws:principalarn"] = principal.role_arn or principal.arn
    keys["aws:userid"] = principal.user_id
    if principal.kind == "user":
        keys["aws:username"] = principal.arn.rpartition("/")[2]
    return keys if principal.session is None else keys | session_keys(principal.session, now)


def session_keys(session: Session, now: Callable[[], datetime]) -> dict[str, Values]:
    """Return what the global condition keys say of a session: long-term keys have none of these.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
    """
    keys: dict[str, Values] = {
        "aws:tokenissuetime": iso(from_ms(session.issued_at_ms)),
        "aws:multifactorauthpresent": "false" if session.mfa_at_ms is None else "true",
    }
    if session.mfa_at_ms is not None:
        keys["aws:multifactorauthage"] = str(max(to_ms(now()) - session.mfa_at_ms, 0) // 1000)
    if session.source_identity is not None:
        keys["aws:sourceidentity"] = session.source_identity
    for name, value in session.tags.items():
        keys[f"aws:principaltag/{name.lower()}"] = value
    return keys


def iso(moment: datetime) -> str:
    """Return a UTC time as conditions compare it."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def refusal(question: Question, decision: Decision) -> str:
    """Return why a question was answered with no, in AWS's words.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
    """
    action, resource = question.action, question.resource
    if action.startswith("s3:") and is_from_outside(question):
        return "Access Denied"
    service = action.partition(":")[0]
    where = f' on resource: "{resource}"' if service == "s3" else f" on resource: {resource}"
    if resource == "*" and service in WITHOUT_STAR:
        where = ""
    text = f"User: {question.principal.arn} is not authorized to perform: {action}{where}"
    if decision.verdict == "implicitDeny" and action == "sts:AssumeRole":
        return text  # whether there is such a role, and whom it trusts, is not told
    return f"{text} {reason(question, decision)}"


def reason(question: Question, decision: Decision) -> str:
    """Return the end of AWS's refusals: what allows too little, or denies."""
    if decision.verdict == "implicitDeny":
        return f"because no {decision.lacking} allows the {question.action} action"
    denying = decision.by[0]
    article = {"identity-based policy": "an", "role trust policy": "the"}.get(denying.kind, "a")
    policy = f": {denying.policy}" if denying.policy.startswith("arn:") else ""
    return f"with an explicit deny in {article} {denying.kind}{policy}"


def is_from_outside(question: Question) -> bool:
    """Tell whether somebody asks who is not of the resource's account: S3 tells them no reason.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/troubleshoot-403-errors.html
    """
    principal = question.principal
    owner = question.context.get("aws:resourceaccount", principal.account)
    return principal.kind == "anonymous" or owner != principal.account
