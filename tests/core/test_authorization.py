"""Condition keys: what is nearer goes first, and what nobody asks for is never worked out."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cloche.core.authorization import (
    Actor,
    Context,
    Decision,
    Question,
    Values,
    principal_keys,
)
from cloche.core.clock import ManualClock, to_ms
from cloche.core.identity import Principal, Session

ROLE = Principal(
    kind="assumed-role",
    account="123456789012",
    arn="arn:aws:sts::123456789012:assumed-role/r/s",
    user_id="AROA:s",
    role_arn="arn:aws:iam::123456789012:role/r",
)


@dataclass
class Found:
    """Gives values, and counts how often."""

    values: Mapping[str, Values]
    asked: int = 0

    def __call__(self) -> Mapping[str, Values]:
        self.asked += 1
        return self.values


@dataclass
class Recorder:
    """Allows everything, and keeps the questions."""

    questions: list[Question] = field(default_factory=list)

    def decide(self, question: Question) -> Decision:
        self.questions.append(question)
        return Decision("allowed")


def test_a_value_is_looked_up_when_it_is_asked_for_and_once() -> None:
    tags, owner = Found({"aws:resourcetag/team": "a"}), Found({"s3:owner": "1"})
    context = Context({"s3:prefix": "x"}, {"aws:resourcetag/": tags, "s3:owner": owner})
    assert context["s3:prefix"] == "x" and (tags.asked, owner.asked) == (0, 0)
    assert [context["aws:resourcetag/team"] for _ in range(3)] == ["a"] * 3
    assert "aws:resourcetag/other" not in context and (tags.asked, owner.asked) == (1, 0)
    assert dict(context) == {"s3:prefix": "x", "aws:resourcetag/team": "a", "s3:owner": "1"}
    assert (tags.asked, owner.asked) == (1, 1)


def test_what_is_nearer_goes_first_through_three_layers() -> None:
    lowest = Found({"low": "3", "each": "3"})
    middle = Context({"middle": "2", "each": "2"})
    made = Context({"near": "1", "each": "1"}).over(lambda: middle)
    made = made.over(lambda: Context(lowest()))
    assert (made["near"], made["middle"], made["each"]) == ("1", "2", "1")
    assert lowest.asked == 0
    assert made["low"] == "3" and "none" not in made
    assert dict(made) == {"near": "1", "middle": "2", "each": "1", "low": "3"} and len(made) == 4


def test_what_is_true_of_every_request_is_worked_out_once_if_at_all() -> None:
    keys, recorder = Found({"aws:sourceip": "10.0.0.1"}), Recorder()
    actor = Actor(ROLE, recorder, ManualClock().now, keys)
    for number in range(3):
        actor.authorize("s3:GetObject", f"arn:aws:s3:::b/{number}", Context({"s3:prefix": "p"}))
    assert keys.asked == 0
    for question in recorder.questions:
        assert question.context["aws:sourceip"] == "10.0.0.1"
        assert question.context["aws:principalarn"] == ROLE.role_arn
        assert question.context["s3:prefix"] == "p"
        assert question.context["aws:currenttime"]
    assert keys.asked == 1


def test_what_a_session_carries_is_true_of_all_that_it_asks() -> None:
    clock = ManualClock()
    session = Session(
        issued_at_ms=to_ms(clock.now()),
        tags={"Team": "dogs"},
        source_identity="ann",
        mfa_at_ms=to_ms(clock.now()),
    )
    clock.advance(90)
    said = principal_keys(replace(ROLE, session=session), clock.now)
    assert said == {
        "aws:principaltype": "AssumedRole",
        "aws:principalaccount": "123456789012",
        "aws:principalarn": ROLE.role_arn,
        "aws:userid": "AROA:s",
        "aws:tokenissuetime": "2021-11-28T17:26:00Z",
        "aws:multifactorauthpresent": "true",
        "aws:multifactorauthage": "90",
        "aws:sourceidentity": "ann",
        "aws:principaltag/team": "dogs",
    }


def test_a_session_without_mfa_says_so_and_long_term_keys_say_nothing() -> None:
    clock = ManualClock()
    bare = principal_keys(replace(ROLE, session=Session(issued_at_ms=0)), clock.now)
    assert bare["aws:multifactorauthpresent"] == "false"
    assert "aws:multifactorauthage" not in bare
    assert not {"aws:multifactorauthpresent", "aws:tokenissuetime"} & set(
        principal_keys(ROLE, clock.now)
    )
