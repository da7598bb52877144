"""The decision: what all policies that apply to a request say together.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-denyallow.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic-cross-account.html
"""

from dataclasses import dataclass
from typing import NamedTuple

from cloche.core.authorization import Decision, PolicyKind, Question, Statement
from cloche.services.iam.evaluation.principals import Grant
from cloche.services.iam.evaluation.statements import Asked, Said, Statements

# What root may do in its account although the bucket's policy denies it, so that nobody locks
# himself out. https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketPolicy.html
ROOT_KEEPS = ("s3:getbucketpolicy", "s3:putbucketpolicy", "s3:deletebucketpolicy")
NOTHING = Said((), (), Grant.NONE)


@dataclass(frozen=True, slots=True)
class Applying:
    """The policies that apply to a request; None: there is none of that kind.

    resource_account: whose the resource is; None: the caller's own account.
    """

    identity: Statements
    boundary: Statements | None = None
    session: Statements | None = None
    resource: Statements | None = None
    resource_account: str | None = None


class Answers(NamedTuple):
    """What each kind of policy says. boundary and session: None where there is none."""

    resource: Said
    identity: Said
    boundary: Said | None
    session: Said | None

    def all(self) -> tuple[Said, ...]:
        """Return them in the order in which AWS looks at them."""
        found = (self.resource, self.identity, self.boundary, self.session)
        return tuple(said for said in found if said is not None)


def decide(applying: Applying, question: Question) -> Decision:
    """Return whether a request is allowed, by which statements, or what is lacking."""
    asked = Asked(question)
    answers = answered(applying, asked)
    missing = asked.missing()
    denies = tuple(by for said in answers.all() for by in said.denies)
    if denies and not kept(applying, question):
        return Decision("explicitDeny", denies, missing)
    lacking = lacked(applying, question, answers)
    if lacking is not None:
        return Decision("implicitDeny", (), missing, lacking)
    return Decision("allowed", allowing(applying, question, answers), missing)


def answered(applying: Applying, asked: Asked) -> Answers:
    """Return what each kind of policy says.

    Root has all permissions of its account; services and who is nobody have none of their own.
    """
    resource = NOTHING if applying.resource is None else applying.resource.said(asked)
    if asked.question.principal.kind not in ("user", "assumed-role"):
        return Answers(resource, NOTHING, None, None)
    boundary, session = applying.boundary, applying.session
    return Answers(
        resource,
        applying.identity.said(asked),
        None if boundary is None else boundary.said(asked),
        None if session is None else session.said(asked),
    )


def lacked(applying: Applying, question: Question, answers: Answers) -> PolicyKind | None:
    """Return the kind of policy that should have allowed it and didn't; None: it is allowed."""
    who, grant = question.principal, answers.resource.grant
    own = at_home(applying, question)
    of_resource = "resource-based policy" if applying.resource is None else applying.resource.kind
    must_name = not own or of_resource == "role trust policy"
    if who.kind in ("service", "anonymous"):
        return None if grant else of_resource
    if own and grant is Grant.DIRECT:
        return None
    if who.kind != "root":
        by_role = own and grant is Grant.ROLE
        if not answers.identity.allows and not by_role:
            return "identity-based policy"
        if answers.boundary is not None and not answers.boundary.allows:
            return "permissions boundary"
        if answers.session is not None and not answers.session.allows:
            return "session policy"
    return of_resource if must_name and not grant else None


def allowing(applying: Applying, question: Question, answers: Answers) -> tuple[Statement, ...]:
    """Return the statements that allow it."""
    if at_home(applying, question) and answers.resource.grant is Grant.DIRECT:
        return answers.resource.allows
    return tuple(by for said in answers.all() for by in said.allows)


def at_home(applying: Applying, question: Question) -> bool:
    """Tell whether the resource is of the caller's account."""
    return applying.resource_account in (None, question.principal.account)


def kept(applying: Applying, question: Question) -> bool:
    """Tell whether root may do it whatever its bucket's policy says."""
    root = question.principal.kind == "root" and at_home(applying, question)
    return root and question.action.lower() in ROOT_KEEPS
