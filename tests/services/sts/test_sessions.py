"""Sessions through boto3: what they carry, what they may not, MFA codes."""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from string import ascii_letters
from typing import Any

import pytest
from people import codes, device_of, refused, user_with_keys, with_keys

from cloche.core.authorization import Decision, Question
from cloche.core.clock import ManualClock, SystemClock, to_ms
from cloche.core.identity import Session
from cloche.testing.platform import ACCOUNT, Platform, start

READ = "arn:aws:iam::aws:policy/ReadOnlyAccess"
STATEMENT = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [STATEMENT]})
ALL = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]


@dataclass
class Recorder:
    """Allows everything, and keeps the questions about sessions."""

    asked: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    def decide(self, question: Question) -> Decision:
        if question.action in ALL:
            self.asked.append((question.action, dict(question.context)))
        return Decision("allowed")


RECORDER = Recorder()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose clock stands still."""
    folder = tmp_path_factory.mktemp("home")
    with start(folder, clock=ManualClock(SystemClock().now()), authorizer=RECORDER) as running:
        yield running


@pytest.fixture(scope="module")
def iam(platform: Platform) -> Any:
    return platform.client("iam", as_="root")


def role(iam: Any, name: str, *actions: str, **statement: Any) -> str:
    """Return the ARN of a new role that the account's principals may assume with these actions."""
    said = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": list(actions or ALL)}
    policy = {"Version": "2012-10-17", "Statement": [{**said, **statement}]}
    made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(policy))
    return str(made["Role"]["Arn"])


def assumed(platform: Platform, sts: Any, arn: str, **more: Any) -> tuple[Any, Session]:
    """Return an STS client with a session of the role, and what the session carries."""
    keys = sts.assume_role(RoleArn=arn, RoleSessionName="test", **more)["Credentials"]
    found = platform.app.identity.find(keys["AccessKeyId"])
    assert found is not None and found.principal.session is not None
    return with_keys(platform, "sts", keys), found.principal.session


def pairs(**tags: str) -> list[dict[str, str]]:
    return [{"Key": name, "Value": value} for name, value in tags.items()]


# ---------------------------------------------------------------------- AssumeRole


def test_a_session_carries_what_was_given(platform: Platform, iam: Any) -> None:
    sts = with_keys(platform, "sts", user_with_keys(iam, "Ann"))
    arn = role(iam, "Carrier")
    RECORDER.asked.clear()
    answer = sts.assume_role(
        RoleArn=arn,
        RoleSessionName="test",
        Policy=POLICY,
        PolicyArns=[{"arn": READ}],
        Tags=pairs(team="dogs", cost="7"),
        TransitiveTagKeys=["team"],
        SourceIdentity="ann@work",
        ExternalId="ex",
    )
    assert answer["SourceIdentity"] == "ann@work"
    assert 0 < answer["PackedPolicySize"] < 100
    found = platform.app.identity.find(answer["Credentials"]["AccessKeyId"])
    assert found is not None
    assert found.principal.session == Session(
        issued_at_ms=to_ms(platform.app.clock.now()),
        policies=(POLICY,),
        policy_arns=(READ,),
        tags={"team": "dogs", "cost": "7"},
        transitive=("team",),
        source_identity="ann@work",
    )
    asked = dict(RECORDER.asked)
    assert list(asked) == ALL
    assume = asked["sts:AssumeRole"]
    assert (assume["sts:externalid"], assume["sts:rolesessionname"]) == ("ex", "test")
    assert assume["aws:requesttag/team"] == "dogs"
    assert assume["sts:transitivetagkeys"] == ("team",)
    assert asked["sts:SetSourceIdentity"]["sts:sourceidentity"] == "ann@work"


def test_a_plain_session_says_nothing_of_what_it_has_not(platform: Platform, iam: Any) -> None:
    sts = with_keys(platform, "sts", user_with_keys(iam, "Plain"))
    answer = sts.assume_role(RoleArn=role(iam, "PlainRole"), RoleSessionName="test")
    assert "PackedPolicySize" not in answer and "SourceIdentity" not in answer


def test_the_trust_policy_allows_tags_and_source_identity_apart(
    platform: Platform, iam: Any
) -> None:
    sts = with_keys(platform, "sts", user_with_keys(iam, "Tagger"))
    caller = f"arn:aws:iam::{ACCOUNT}:user/Tagger"
    arn = role(iam, "OnlyAssume", "sts:AssumeRole")
    who = {"RoleArn": arn, "RoleSessionName": "test"}
    for more, action in (
        ({"Tags": pairs(a="b")}, "sts:TagSession"),
        ({"SourceIdentity": "ann"}, "sts:SetSourceIdentity"),
    ):
        assert refused(sts.assume_role, **who, **more) == (
            403,
            "AccessDenied",
            f"User: {caller} is not authorized to perform: {action} on resource: {arn}",
        )
    sts.assume_role(**who)  # CONTROL


def test_tags_and_source_identity_go_down_a_chain(platform: Platform, iam: Any) -> None:
    sts = with_keys(platform, "sts", user_with_keys(iam, "Chainer"))
    first, second = role(iam, "First"), role(iam, "Second")
    given = {
        "Tags": pairs(team="dogs", own="1"),
        "TransitiveTagKeys": ["TEAM"],
        "SourceIdentity": "ann",
    }
    in_first, _ = assumed(platform, sts, first, **given)
    _, carried = assumed(platform, in_first, second, Tags=pairs(other="2"))
    assert carried.tags == {"team": "dogs", "other": "2"}
    assert (carried.transitive, carried.source_identity) == (("team",), "ann")
    again = {"RoleArn": second, "RoleSessionName": "test"}
    assert refused(in_first.assume_role, **again, Tags=pairs(Team="cats")) == (
        400,
        "InvalidParameterValue",
        "One of the specified transitive tag keys can't be set because it conflicts with a "
        "transitive tag key from the calling session.",
    )
    assert refused(in_first.assume_role, **again, SourceIdentity="bob")[:2] == (403, "AccessDenied")
    assert refused(in_first.assume_role, **again, DurationSeconds=3601)[1] == "ValidationError"
    in_first.assume_role(**again, SourceIdentity="ann", DurationSeconds=3600)


def test_what_is_not_valid_is_refused(platform: Platform, iam: Any) -> None:
    sts = with_keys(platform, "sts", user_with_keys(iam, "Wrong"))
    who = {"RoleArn": role(iam, "WrongRole"), "RoleSessionName": "test"}
    invalid = (400, "InvalidParameterValue")
    assert refused(sts.assume_role, **who, Tags=pairs(a="1"), TransitiveTagKeys=["b"]) == (
        *invalid,
        "The specified transitive tag key must be included in the requested tags.",
    )
    assert refused(sts.assume_role, **who, Tags=pairs(a="1", A="2")) == (
        *invalid,
        "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
    )
    assert refused(sts.assume_role, **who, Policy="{")[:2] == (400, "MalformedPolicyDocument")
    none = f"arn:aws:iam::{ACCOUNT}:policy/none"
    assert refused(sts.assume_role, **who, PolicyArns=[{"arn": none}])[1] == "ValidationError"
    for arn in ("nothing-valid-in-here", "arn::b:::something/test-role"):
        assert refused(sts.assume_role, RoleArn=arn, RoleSessionName="test") == (
            400,
            "ValidationError",
            f"{arn} is invalid",
        )


def test_what_a_session_carries_is_bounded(platform: Platform, iam: Any) -> None:
    sts = with_keys(platform, "sts", user_with_keys(iam, "Large"))
    who = {"RoleArn": role(iam, "LargeRole"), "RoleSessionName": "test"}
    resources = [f"arn:aws:s3:::bucket-{number}/*" for number in range(100)]
    large = json.dumps({"Statement": [{**STATEMENT, "Resource": resources}]})
    status, code, text = refused(sts.assume_role, **who, Policy=large)
    assert (status, code) == (400, "PackedPolicyTooLarge")
    assert text.startswith("Packed policy consumes ") and "please use smaller policy" in text
    draw = random.Random(1)
    values = ("".join(draw.choices(ascii_letters, k=60)) for _ in range(50))
    tags = [{"Key": f"key{number}", "Value": value} for number, value in enumerate(values)]
    text = refused(sts.assume_role, **who, Tags=tags)[2]
    assert text.startswith("Packed size of session tags consumes ")


# ---------------------------------------------------------------------- MFA


def test_a_role_that_asks_for_mfa(platform: Platform, iam: Any) -> None:
    keys = user_with_keys(iam, "Mia")
    serial, seed = device_of(platform, iam, "Mia", "Mia")
    sts = with_keys(platform, "sts", keys)
    condition = {"Bool": {"aws:MultiFactorAuthPresent": "true"}}
    who = {"RoleArn": role(iam, "WithMfa", Condition=condition), "RoleSessionName": "test"}
    assert refused(sts.assume_role, **who)[1] == "AccessDenied"
    (code,) = codes(platform, seed, 0)
    mfa = {"SerialNumber": serial, "TokenCode": code}
    _, session = assumed(platform, sts, who["RoleArn"], **mfa)
    assert session.mfa_at_ms is None  # as on AWS: only GetSessionToken's says it
    denied = "MultiFactorAuthentication failed"
    assert refused(sts.assume_role, **who, **mfa) == (
        403,
        "AccessDenied",
        f"{denied} with invalid MFA one time pass code. ",
    )
    assert refused(sts.assume_role, **who, SerialNumber=serial) == (
        403,
        "AccessDenied",
        f"{denied}, must provide both MFA serial number and one time pass code.",
    )
    other = with_keys(platform, "sts", user_with_keys(iam, "NotMia"))
    (code,) = codes(platform, seed, 1)
    assert refused(other.assume_role, **who, SerialNumber=serial, TokenCode=code) == (
        403,
        "AccessDenied",
        f"{denied}, unable to validate MFA code.  Please verify your MFA serial number is valid "
        "and associated with this user.",
    )


def test_what_get_session_token_gives(platform: Platform, iam: Any) -> None:
    keys = user_with_keys(iam, "Toni")
    sts = with_keys(platform, "sts", keys)
    plain = sts.get_session_token()["Credentials"]
    lasts = plain["Expiration"] - platform.app.clock.now()
    assert lasts.total_seconds() == 43200
    own = with_keys(platform, "sts", plain)
    assert own.get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/Toni"
    own.assume_role(RoleArn=role(iam, "FromToken"), RoleSessionName="test", DurationSeconds=3600)
    for call in (own.get_session_token, own.get_access_key_info):
        more = {} if call == own.get_session_token else {"AccessKeyId": keys["AccessKeyId"]}
        _, code, text = refused(call, **more)
        assert code == "AccessDenied" and text.endswith("with session credentials")
    assert refused(with_keys(platform, "iam", plain).list_users) == (
        403,
        "InvalidClientTokenId",
        "The security token included in the request is invalid",
    )
    serial, seed = device_of(platform, iam, "Toni", "Toni")
    (code,) = codes(platform, seed, 0)
    with_mfa = sts.get_session_token(SerialNumber=serial, TokenCode=code, DurationSeconds=129600)
    with_mfa = with_mfa["Credentials"]
    with_keys(platform, "iam", with_mfa).list_users()
    found = platform.app.identity.find(with_mfa["AccessKeyId"])
    now = to_ms(platform.app.clock.now())
    assert found is not None
    assert found.principal.session == Session(issued_at_ms=now, mfa_at_ms=now, from_token=True)
    assert refused(sts.get_session_token, DurationSeconds=129601)[1] == "ValidationError"


def test_roots_token_lasts_an_hour_and_may_have_mfa(platform: Platform, iam: Any) -> None:
    sts = platform.client("sts", as_="root")
    serial, seed = device_of(platform, iam, "root", "root-account-mfa-device")
    (code,) = codes(platform, seed, 0)
    keys = sts.get_session_token(SerialNumber=serial, TokenCode=code)["Credentials"]
    assert (keys["Expiration"] - platform.app.clock.now()).total_seconds() == 3600
    assert with_keys(platform, "iam", keys).get_user()["User"]["UserId"] == ACCOUNT


def test_whose_a_key_is(platform: Platform, iam: Any) -> None:
    keys = user_with_keys(iam, "Asked")
    sts = with_keys(platform, "sts", keys)
    session = sts.get_session_token()["Credentials"]
    for key_id in (keys["AccessKeyId"], session["AccessKeyId"]):
        assert sts.get_access_key_info(AccessKeyId=key_id)["Account"] == ACCOUNT
    assert refused(sts.get_access_key_info, AccessKeyId="A" * 20)[1] == "ValidationError"


@pytest.mark.parametrize(
    ("service", "call", "more"),
    [
        ("sts", "get_federation_token", {"Name": "ann"}),
        ("sts", "decode_authorization_message", {"EncodedMessage": "a"}),
        ("iam", "generate_credential_report", {}),
        ("iam", "get_account_authorization_details", {}),
    ],
)
def test_what_is_not_here_is_refused_by_name(
    platform: Platform, service: str, call: str, more: dict[str, str]
) -> None:
    client = platform.client(service, as_="root")
    name = call.title().replace("_", "")
    assert name in refused(getattr(client, call), **more)[2]
