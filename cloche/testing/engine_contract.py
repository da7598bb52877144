"""What every engine must do: subclass `EngineContract` in a test module and give it a `lab`."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cloche.engine import (
    EngineError,
    GangSpec,
    Input,
    InsufficientCapacity,
    Mount,
    ProcessSpec,
)
from cloche.testing.engine_exchange import ExchangeContract
from cloche.testing.engine_lab import (
    ASK,
    PORT,
    Lab,
    outcomes,
    running,
    serve_once,
    shut,
    unique,
    wait_until,
)


class EngineContract(ExchangeContract):
    """Holds for every engine, also where it can't isolate."""

    @pytest.fixture
    def lab(self, tmp_path: Path) -> Iterator[Lab]:
        """Give each test a lab of the engine under test."""
        raise NotImplementedError

    def remove(self, folder: Path) -> None:
        """Remove a folder as somebody else on the machine does."""
        shutil.rmtree(folder)

    def test_a_gang_that_nobody_launched(self, lab: Lab) -> None:
        """An unknown name is no error."""
        assert lab.engine.see("nobody") is None
        assert lab.engine.doors("nobody") is None
        assert lab.engine.usage("nobody") == {}
        lab.engine.stop("nobody")
        lab.engine.forget("nobody")
        assert lab.engine.adopt() == ()

    def test_launch_twice_runs_once(self, lab: Lab) -> None:
        """The second launch changes nothing, also when the gang has ended."""
        gang = GangSpec(name="a/b..c", processes=(lab.process("h", "echo once"),))
        lab.place(gang)
        lab.place(gang)
        assert outcomes(lab.finished("a/b..c")) == {"h": (0, None)}
        lab.place(gang)
        assert lab.log("h") == ["once"]
        assert lab.engine.adopt() == ("a/b..c",)

    @pytest.mark.parametrize(
        ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -9), ("kill $$", -15)]
    )
    def test_exit_codes(self, lab: Lab, script: str, code: int) -> None:
        """The exit code is exact; the times are those of the run."""
        before = time.time()
        seen = lab.run(lab.process("h", script))["h"]
        assert (seen.state, seen.exit_code, seen.reason) == ("exited", code, None)
        assert seen.started is not None and seen.ended is not None
        assert before - 1 <= seen.started.timestamp() <= seen.ended.timestamp() <= time.time() + 1

    def test_environment_of_any_names(self, lab: Lab) -> None:
        """Also names that no shell can spell, or that shells take for their own."""
        names = (
            "A-B", "c.d", "1st", "name", "word", "IFS", "RANDOM", "UID", "BASH_ENV", "ENV", "SHLVL",
            "PS4", "LANG", "LC_ALL", "TMOUT", "_", "PWD", "__cloche_next", "__cloche_odd", "REPLY",
        )  # fmt: skip
        values = ("1", "", " two  words ", "a\nb", "'\"$(id)`id`\\", "=é", "*")
        wanted = {name: values[n % len(values)] for n, name in enumerate(names)}
        script = "import json, os; print(json.dumps(dict(os.environ)))"
        host = replace(lab.python("h", script), env=wanted)
        assert outcomes(lab.run(host)) == {"h": (0, None)}
        found = json.loads(lab.log("h")[-1])
        assert {name: found.get(name) for name in wanted} == wanted
        assert found.keys() - wanted.keys() <= {"PATH", "HOME", "HOSTNAME", "TMPDIR", "LC_CTYPE"}

    def test_environment_is_what_the_spec_says(self, lab: Lab) -> None:
        """Nothing is inherited; names that a shell can't spell arrive."""
        os.environ["CLOCHE_SECRET"] = "inherited"
        try:
            spec = lab.process("h", "exec env", env={"SM_HP_LEARNING-RATE": "1 2", "A": "b=c"})
            lab.run(ProcessSpec(name="h", argv=("env",), env=spec.env, log=spec.log))
        finally:
            del os.environ["CLOCHE_SECRET"]
        entries = dict(line.split("=", 1) for line in lab.log("h"))
        assert entries.pop("SM_HP_LEARNING-RATE") == "1 2"
        assert entries.pop("A") == "b=c"
        assert set(entries) <= {"HOME", "HOSTNAME", "PATH", "TMPDIR"}

    def test_all_or_none(self, lab: Lab) -> None:
        """When one process can't start none does, and the error names it."""
        good = lab.process("algo-1", "echo ran")
        bad = ProcessSpec(name="algo-2", argv=("no-such-program",), log=lab.log_for("2"))
        with pytest.raises(EngineError, match=r"algo-2: no-such-program: command not found"):
            lab.engine.launch(GangSpec(name="gang", processes=(good, bad)))
        assert lab.engine.see("gang") is None
        assert lab.engine.adopt() == ()
        assert lab.log("algo-1") == []
        assert lab.engine.capacity().cpus_taken == 0
        lab.place(GangSpec(name="gang", processes=(good,)))
        assert outcomes(lab.finished()) == {"algo-1": (0, None)}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"name": "no/host"}, "'no/host' is not a host name"),
            ({"argv": ()}, "argv is empty"),
            ({"mounts": (Mount(Input("/no/such"), "/opt/x"),)}, "/no/such .for /opt/x. is missing"),
            ({"mounts": (Mount(Input("/"), "opt"),)}, "'opt' is relative"),
            ({"workdir": "/no/such/folder"}, "/no/such/folder"),
        ],
    )
    def test_specs_that_can_not_run(
        self, lab: Lab, change: Mapping[str, object], message: str
    ) -> None:
        """The error says what is wrong."""
        settings = {"name": "h", "argv": ("true",), "log": lab.log_for("h")} | dict(change)
        process = ProcessSpec(**settings)  # type: ignore[arg-type]
        with pytest.raises(EngineError, match=message):
            lab.engine.launch(GangSpec(name="gang", processes=(process,)))
        assert lab.engine.adopt() == ()

    def test_stop_is_polite_first(self, lab: Lab) -> None:
        """SIGTERM reaches the process, which may take its time; stop may be said twice."""
        script = "trap 'echo saved; exit 7' TERM; echo up; while :; do sleep 0.05; done"
        lab.place(GangSpec(name="gang", processes=(lab.process("h", script),)))
        wait_until(lambda: lab.said("h", "up"))
        lab.engine.stop("gang")
        lab.engine.stop("gang")
        assert outcomes(lab.finished()) == {"h": (7, "Stopped")}
        lines = lab.log("h")
        assert (lines[0], lines[-1]) == ("up", "saved")
        lab.engine.stop("gang")

    def test_stop_asks_the_first_process_alone_and_once(self, lab: Lab) -> None:
        """As a container's: what it started (a data loader's workers) is its own to end."""
        child = "trap 'echo child' TERM; echo up; while :; do sleep 0.05; done"
        ends = "n=0; while [ $n -lt 20 ]; do sleep 0.05; n=$((n+1)); done; exit 0"
        script = f"trap 'echo asked; {ends}' TERM; ({child}) & while :; do sleep 0.05; done"
        lab.place(GangSpec(name="gang", processes=(lab.process("h", script),)))
        wait_until(lambda: lab.said("h", "up"))
        lab.engine.stop("gang")
        assert outcomes(lab.finished()) == {"h": (0, "Stopped")}
        assert lab.log("h") == ["up", "asked"]

    def test_stop_kills_after_the_grace(self, lab: Lab) -> None:
        """A process that ignores SIGTERM gets SIGKILL."""
        script = "trap '' TERM; echo up; while :; do sleep 0.05; done"
        processes = (lab.process("h", script),)
        lab.place(GangSpec(name="gang", processes=processes, stop_grace_s=0.3))
        wait_until(lambda: lab.said("h", "up"))
        lab.engine.stop("gang")
        assert outcomes(lab.finished()) == {"h": (-9, "Stopped")}

    def test_maximum_run_time(self, lab: Lab) -> None:
        """A gang that runs too long is ended, and the reason says so."""
        lab.place(GangSpec(name="gang", processes=(lab.process("h", "sleep 99"),), max_run_s=0.2))
        assert outcomes(lab.finished()) == {"h": (-15, "MaxRuntimeExceeded")}

    def test_the_first_failure_ends_the_gang(self, lab: Lab) -> None:
        """Who failed has no reason and ended first; a success ends nobody else."""
        wait = "trap 'sleep 0.1; exit 1' TERM; while :; do sleep 0.02; done"
        done = lab.process("algo-1", "exit 0")
        fails = lab.process("algo-2", "sleep 0.2; exit 5")
        seen = lab.run(done, fails, lab.process("algo-3", wait))
        ends = {"algo-1": (0, None), "algo-2": (5, None), "algo-3": (1, "Stopped")}
        assert outcomes(seen) == ends
        first, second = seen["algo-2"].ended, seen["algo-3"].ended
        assert first is not None and second is not None and first < second

    def test_a_gang_outlives_the_server(self, lab: Lab) -> None:
        """After kill -9 of who launched it the gang is adopted: exact exit code, whole log."""
        script = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); sleep 0.002; done; exit 4"
        gang = GangSpec(name="gang", processes=(lab.process("h", script),))
        told, tells = os.pipe()
        server = os.fork()
        if server == 0:
            try:
                lab.make().launch(gang)
                os.write(tells, b"launched")
                signal.pause()
            finally:
                os._exit(1)
        os.close(tells)
        with open(told, "rb") as answers:
            assert answers.read(8) == b"launched"
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        lab.engine = lab.make()
        assert lab.engine.adopt() == ("gang",)
        assert outcomes(lab.finished()) == {"h": (4, None)}
        assert lab.log("h") == [f"line {i}" for i in range(200)]

    def test_a_server_killed_while_it_launches(self, lab: Lab) -> None:
        """Whenever it is killed: the next one launches again, and the gang runs once."""
        delays_ms = range(0, 240, 20)
        for delay_ms in delays_ms:
            process = lab.process(f"h{delay_ms}", "echo once")
            gang = GangSpec(name=f"gang-{delay_ms}", processes=(process,), background=True)
            server = os.fork()
            if server == 0:
                signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
                signal.setitimer(signal.ITIMER_REAL, (delay_ms + 0.01) / 1000)
                try:
                    lab.make().launch(gang)
                    signal.pause()
                finally:
                    os._exit(1)
            assert os.waitpid(server, 0)[1] == signal.SIGKILL
            lab.engine = lab.make()
            lab.place(gang)
        for delay_ms in delays_ms:
            name = f"h{delay_ms}"
            assert outcomes(lab.finished(f"gang-{delay_ms}")) == {name: (0, None)}
            assert lab.log(name) == ["once"]

    def test_lost_when_the_supervisor_is_killed(self, lab: Lab) -> None:
        """Nobody knows how the gang ended, and nothing of it goes on."""
        marker = unique()
        lab.place(GangSpec(name="gang", processes=(lab.process("h", f"exec sleep {marker}"),)))
        wait_until(lambda: running(marker))
        lab.kill_supervisor("gang")
        wait_until(lambda: not running(marker))
        seen = wait_until(lambda: lab.engine.see("gang"))
        assert {name: one.state for name, one in seen.items()} == {"h": "lost"}
        assert lab.engine.doors("gang") is None
        assert lab.engine.capacity().cpus_taken == 0
        lab.engine.stop("gang")
        lab.engine.forget("gang")
        assert lab.engine.see("gang") is None

    def test_nothing_is_left_of_a_gang(self, lab: Lab) -> None:
        """What a process left running in the background dies with it."""
        marker = unique()
        script = f"setsid sleep {marker} & sleep {marker}1 & sleep 0.2; exit 0"
        assert outcomes(lab.run(lab.process("h", script))) == {"h": (0, None)}
        wait_until(lambda: not running(marker))

    def test_a_gang_whose_home_is_gone_ends(self, lab: Lab) -> None:
        """Who removes the platform's folder leaves nothing running that nobody can find."""
        marker = unique()
        lab.place(GangSpec(name="gang", processes=(lab.process("h", f"exec sleep {marker}"),)))
        wait_until(lambda: running(marker))
        self.remove(lab.folder)
        wait_until(lambda: not running(marker))
        lab.folder.mkdir()
        lab.engine = lab.make()

    def test_log_records(self, lab: Lab) -> None:
        """Every line of both outputs is a record of its own, whatever bytes it has."""
        script = r"""
            import os, time
            def say(data): os.write(1, data)
            os.write(2, b"to stderr\n")
            say(b"\n")
            say(b"10%\r50%\r100%\r\n")
            say(b"bad \xff\xfe\n")
            say("half ".encode()); say("é\n".encode()[:1]); say("é\n".encode()[1:])
            say(b"x" * 600_000 + b"\n")
            say(b"partial"); time.sleep(1.5); say(b" rest\nno end")
        """
        assert outcomes(lab.run(lab.python("h", script))) == {"h": (0, None)}
        lines = lab.log("h")
        long = [line for line in lines if line.startswith("xx")]
        assert "".join(long) == "x" * 600_000 and max(map(len, long)) == 256 * 1024
        others = ["to stderr", "", "10%", "50%", "100%", "bad \ufffd\ufffd", "half é"]
        others += ["partial", " rest", "no end"]
        assert [line for line in lines if line not in long] == others
        raw = (lab.folder / "h.log").read_bytes()
        assert re.search(rb"\n\d{13}\+ partial\n\d{13}&  rest\n\d{13} no end\n$", raw), raw[-99:]

    def test_doors_after_a_restart(self, lab: Lab) -> None:
        """A door waits for its server: what was asked meanwhile is answered by the next one."""
        asks = lab.python("h", ASK.format(port=PORT))
        lab.place(GangSpec(name="gang", processes=(asks,)))
        doors = lab.engine.doors("gang")
        assert doors is not None
        shut(doors)
        lab.engine = lab.make()
        again = lab.engine.doors("gang")
        assert again is not None
        with closing(again.platform) as platform:
            assert serve_once(platform, b"42") == b"hello"
        shut(again)
        assert outcomes(lab.finished()) == {"h": (0, None)}
        assert lab.log("h") == ["answer 42"]
        wait_until(lambda: lab.engine.doors("gang") is None)

    def test_usage(self, lab: Lab) -> None:
        """CPU time and memory count children, too; an ended gang uses nothing."""
        script = """
            import os, sys, time
            data = bytearray(64 * 2**20)
            if os.fork() == 0:
                until = time.process_time() + 0.3
                while time.process_time() < until: pass
                os._exit(0)
            os.wait(); print("worked", flush=True); time.sleep(60)
        """
        lab.place(GangSpec(name="gang", processes=(lab.python("h", script),)))
        wait_until(lambda: lab.said("h", "worked"))
        used = lab.engine.usage("gang")["h"]
        assert 0.3 <= used.cpu_s < 10
        assert 64 <= used.memory_mib < 512
        lab.engine.stop("gang")
        lab.finished()
        assert lab.engine.usage("gang") == {}

    def test_capacity(self, lab: Lab) -> None:
        """Work beyond the machine is refused until there is room; accounts survive a restart."""

        def gang(name: str, cpus: float, memory_mib: int, **more: bool) -> GangSpec:
            process = ProcessSpec(
                name="h",
                argv=("sleep", "99"),
                log=lab.log_for(name),
                cpus=cpus,
                memory_mib=memory_mib,
            )
            return GangSpec(name=name, processes=(process,), stop_grace_s=0.1, **more)

        assert [lab.engine.share(cpus) for cpus in (0.5, 1, 2, 8)] == [1, 1, 2, 2]
        lab.place(gang("replica", 8, 32768, background=True))
        big = gang("big", 8, 32768)
        lab.place(big)
        lab.engine = lab.make()
        taken = lab.engine.capacity()
        assert (taken.cpus, taken.memory_mib, taken.cpus_taken) == (2, 8192, 2)
        refused = lab.engine.launch(gang("next", 1, 1024))
        assert isinstance(refused, InsufficientCapacity)
        assert refused.message == (
            "next needs 1 CPUs and 1024 MiB; 0 of 2 CPUs and 0 of 8192 MiB are free"
        )
        assert lab.engine.see("next") is None
        assert lab.engine.room(gang("next", 1, 1024)) == refused
        assert lab.engine.room(big) is None  # it has its room
        lab.place(gang("another replica", 8, 32768, background=True))
        lab.place(big)
        lab.engine.stop("big")
        lab.finished("big")
        wait_until(lambda: lab.engine.capacity().cpus_taken == 0)
        first, second, third = (gang(name, 1, 1024) for name in ("next", "beside it", "third"))
        assert lab.engine.room(second, [first]) is None
        assert lab.engine.room(third, [first, second]) == InsufficientCapacity(  # both are to come
            "third needs 1 CPUs and 1024 MiB; 0 of 2 CPUs and 5120 of 8192 MiB are free",
            ("next", "beside it", "replica", "another replica"),
        )
        lab.place(first)
        assert lab.engine.room(second, [first]) is None  # nobody counts twice
        lab.place(second)
        assert isinstance(lab.engine.launch(gang("third", 1, 1024)), InsufficientCapacity)

    def test_what_is_not_counted(self, lab: Lab) -> None:
        """The platform's own short work takes no capacity, is never refused, and never named."""
        process = lab.process("own", "sleep 99")
        own = GangSpec(
            name="own", processes=(process,), background=True, counted=False, stop_grace_s=0.1
        )
        lab.place(own)
        lab.engine = lab.make()
        taken = lab.engine.capacity()
        assert (taken.cpus_taken, taken.memory_mib_taken) == (0, 0)
        big = replace(lab.process("big", "sleep 99"), cpus=8, memory_mib=32768)
        lab.place(GangSpec(name="big", processes=(big,), stop_grace_s=0.1))
        refused = lab.engine.launch(GangSpec(name="next", processes=(process,)))
        assert isinstance(refused, InsufficientCapacity) and refused.holders == ("big",)
        lab.place(replace(own, name="own, too"))

    def test_forget_removes_everything(self, lab: Lab) -> None:
        """Also what has odd modes; a gang that runs is not forgotten."""
        (lab.folder / "in").mkdir()
        mount = lab.mount(lab.folder / "in", "/data", "overlay")
        script = """
            mkdir -p "$HOME/x/y" && touch "$HOME/x/y/z" && chmod 0 "$HOME/x/y" "$HOME/x"
            mkdir /data/d; touch /data/d/f; chmod 000 /data/d; echo up; while [ ! -e /data/go ]
            do sleep 0.02; done
        """
        gang = GangSpec(
            name="gang",
            processes=(lab.process("h", script, mount),),
            stop_grace_s=0.1,
        )
        before = sorted(path for path in lab.folder.rglob("*"))
        lab.place(gang)
        wait_until(lambda: lab.said("h", "up"))
        with pytest.raises(EngineError, match="gang still runs"):
            lab.engine.forget("gang")
        lab.engine.stop("gang")
        lab.finished()
        lab.engine.forget("gang")
        lab.engine.forget("gang")
        after = sorted(path for path in lab.folder.rglob("*"))
        assert after == sorted([*before, lab.folder / "h.log"])
