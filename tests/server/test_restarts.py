"""When a server that died is started again."""

import signal

import pytest

from cloche.server.restarts import LONGEST_PAUSE_S, STEADY_S, Deaths, ServerExit


def test_pauses_grow_until_it_is_started_no_more() -> None:
    deaths, pauses = Deaths(), list[float | None]()
    while not pauses or pauses[-1] is not None:
        deaths = deaths.after(STEADY_S / 2)
        pauses.append(deaths.pause_s())
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, None]
    assert max(pause for pause in pauses if pause is not None) == LONGEST_PAUSE_S


def test_one_that_lived_did_not_die_of_its_start() -> None:
    deaths = Deaths()
    for _ in range(100):
        deaths = deaths.after(STEADY_S)
        assert deaths.pause_s() == 0.0
    assert deaths.after(STEADY_S - 1).pause_s() == 0.5


@pytest.mark.parametrize(
    ("status", "text", "code", "asked"),
    [
        (0, "ended with code 0", 0, True),
        (1 << 8, "ended with code 1", 1, False),
        (signal.SIGKILL, "was killed by SIGKILL", 137, False),
        (signal.SIGSEGV | 0x80, "was killed by SIGSEGV", 139, False),  # with a core
        (signal.SIGTERM, "was killed by SIGTERM", 143, True),
        (signal.SIGINT, "was killed by SIGINT", 130, True),
        (signal.SIGHUP, "was killed by SIGHUP", 129, True),
    ],
)
def test_how_it_ended(status: int, text: str, code: int, asked: bool) -> None:
    end = ServerExit(status)
    assert (str(end), end.code, end.asked) == (text, code, asked)
    assert end.exited == text.startswith("ended")
