"""Who fits beside whom, as tables."""

import pytest

from cloche.engine import Capacity, GangSpec, ProcessSpec
from cloche.engine.local.accounts import Accounts, Resources
from cloche.engine.local.sandbox import Claim

ACCOUNTS = Accounts(Resources(cpus=2, memory_mib=16000))


def gang(
    count: int, cpus: float, memory_mib: int, background: bool = False, counted: bool = True
) -> GangSpec:
    hosts = tuple(
        ProcessSpec(name=f"h{i}", argv=("x",), cpus=cpus, memory_mib=memory_mib)
        for i in range(count)
    )
    return GangSpec(name="g", processes=hosts, background=background, counted=counted)


@pytest.mark.parametrize(
    ("declared", "share"), [(0.25, 1), (1, 1), (1.5, 1), (2, 2), (8, 2), (96, 2)]
)
def test_share(declared: float, share: int) -> None:
    assert ACCOUNTS.share(declared) == share


@pytest.mark.parametrize(
    ("asked", "claim"),
    [
        (gang(1, 1, 4000), Claim(1, 4000)),
        (gang(4, 8, 32768), Claim(2, 16000)),
        (gang(2, 0.5, 100), Claim(2, 200)),
        (gang(1, 8, 32768, background=True), Claim(0, 1000, background=True)),
        (gang(2, 8, 500, background=True), Claim(0, 1000, background=True)),
        (gang(2, 8, 500, background=True, counted=False), Claim(0, 0, background=True)),
    ],
)
def test_claims(asked: GangSpec, claim: Claim) -> None:
    assert ACCOUNTS.claim(asked) == claim


REPLICA = Claim(0, 1000, background=True)


@pytest.mark.parametrize(
    ("claim", "taken", "refused"),
    [
        (Claim(2, 16000), [], False),
        (Claim(1, 4000), [Claim(1, 4000)], False),
        (Claim(1, 4000), [Claim(1, 4000)] * 2, True),  # CPUs
        (Claim(1, 9000), [Claim(1, 8000)], True),  # memory
        (Claim(2, 16000), [REPLICA] * 3, False),  # a job never waits for endpoints
        (Claim(1, 8000), [Claim(1, 7500), REPLICA], True),
        (REPLICA, [Claim(2, 16000)], False),  # nor an endpoint for jobs
        (REPLICA, [REPLICA] * 15, False),
        (REPLICA, [REPLICA] * 16, True),
    ],
)
def test_refusals(claim: Claim, taken: list[Claim], refused: bool) -> None:
    assert (ACCOUNTS.refusal(claim, taken) is not None) == refused


def test_a_refusal_says_what_is_needed_and_free() -> None:
    assert ACCOUNTS.refusal(Claim(2, 9000), [Claim(1, 8000)]) == (
        "needs 2 CPUs and 9000 MiB; 1 of 2 CPUs and 8000 of 16000 MiB are free"
    )


def test_capacity() -> None:
    assert ACCOUNTS.capacity([Claim(1, 500), REPLICA]) == Capacity(2, 16000, 1, 1500, 1000)
