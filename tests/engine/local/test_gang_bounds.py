"""Bounds of memory, processes, disk and log: by control groups and by watching."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloche.engine.local.cgroups import Groups
from cloche.engine.local.engine import LocalEngine
from cloche.engine.local.probe import probe, reduced
from cloche.engine.local.sandbox import ResourceLimits
from cloche.engine.local.supervisor.process import SHARED
from cloche.testing.engine_bounds import BoundsContract
from cloche.testing.engine_lab import Lab
from cloche.testing.local_engine import local_lab

SANDBOXED = probe()
full = pytest.mark.skipif(SANDBOXED.isolation != "full", reason=" ".join(SANDBOXED.advice))


@full
class TestByControlGroups(BoundsContract):
    refused = (1,)

    @pytest.fixture
    def lab(self, tmp_path: Path) -> Iterator[Lab]:
        with local_lab(tmp_path, SANDBOXED) as lab:
            assert isinstance(lab.engine, LocalEngine)
            if lab.engine.groups is None:
                pytest.skip("no control groups may be written here")
            yield lab

    def test_a_childs_end_is_told_though_all_went_well(self, lab: Lab) -> None:
        """On AWS such a job has Completed; here its log says what happened in it."""
        script = """
            import os
            if os.fork() == 0:
                held = [b"x" * 2**20 for n in range(600)]
            print(os.waitstatus_to_exitcode(os.wait()[1]))
        """
        seen = self.ended(lab, lab.python("h", script), memory_mib=200)
        assert (seen.exit_code, seen.reason) == (0, None)
        told = "[cloche] OutOfMemory: h held 200 MiB of memory at its peak; it may have 200 MiB."
        assert lab.log("h") == ["-9", told]

    def test_all_together_leave_the_server_its_part(self, lab: Lab) -> None:
        assert isinstance(lab.engine, LocalEngine) and lab.engine.groups is not None
        self.ended(lab, lab.process("h", "true"))
        top = lab.engine.groups.tops["memory"]
        bounds = [top / name for name in ("memory.limit_in_bytes", "memory.max")]
        (told,) = [path.read_text() for path in bounds if path.exists()]
        assert int(told) == (8192 - 1024) << 20

    def test_nothing_is_left_of_a_group(self, lab: Lab) -> None:
        """Not when a gang has ended, nor when its supervisor was killed."""
        assert isinstance(lab.engine, LocalEngine) and lab.engine.groups is not None
        tops = set(lab.engine.groups.tops.values())
        self.ended(lab, lab.process("h", "true"))
        lab.kill_supervisor("neighbour")
        assert any(folder.is_dir() for top in tops for folder in top.iterdir())
        lab.engine.forget("neighbour")
        lab.engine.forget("gang")
        assert not any(top.exists() for top in tops)

    def test_what_a_killed_server_left_is_removed_at_the_next_start(self, lab: Lab) -> None:
        assert isinstance(lab.engine, LocalEngine) and lab.engine.groups is not None
        lab.engine.groups.make("never started", "h", ResourceLimits(100, 10), 1)
        lab.make()
        assert not any(top.exists() for top in lab.engine.groups.tops.values())

    def test_what_an_engine_left_that_is_gone(self, lab: Lab, tmp_path: Path) -> None:
        """Its home was removed while something ran: groups without processes go, when old."""
        assert isinstance(lab.engine, LocalEngine) and lab.engine.groups is not None
        most, cpus = ResourceLimits(100, 10), 1
        other = Groups.found(tmp_path / "other", most, cpus)
        assert other is not None
        left = other.make("gang", "h", ResourceLimits(100, 10), 1)
        tops = dict.fromkeys(map(str, other.tops.values()))
        folders = [Path(path) for path in (*dict.fromkeys(left.values()), *tops)]
        lab.engine.groups.sweep_others()
        assert all(folder.is_dir() for folder in folders), "one may be about to start"
        for folder in folders:  # the lower ones first: they make the upper ones young again
            os.utime(folder, (1, 1))
            lab.engine.groups.sweep_others()
            assert not folder.exists()


@full
class TestByWatching(BoundsContract):
    at_once = SHARED  # the backstop, which may be reached between two looks

    @pytest.fixture
    def lab(self, tmp_path: Path) -> Iterator[Lab]:
        with local_lab(tmp_path, SANDBOXED, grouped=False, mounted=False) as lab:
            yield lab

    def test_files_in_memory_count(self, lab: Lab) -> None:
        """Wherever a sandbox can write what is no disk."""
        script = "head -c 300m /dev/zero > /dev/not-a-device; sleep 60"
        seen = self.ended(lab, lab.process("h", script), memory_mib=200)
        assert (seen.exit_code, seen.reason) == (-9, "OutOfMemory")


class TestWithoutSandbox(BoundsContract):
    @pytest.fixture
    def lab(self, tmp_path: Path) -> Iterator[Lab]:
        with local_lab(tmp_path, reduced("for this test"), grouped=False) as lab:
            yield lab


@pytest.mark.parametrize(
    ("grouped", "text"),
    [
        (True, "Bounds: memory and processes by control groups; disk by watching."),
        (False, "Bounds: memory and processes and disk by watching."),
    ],
)
def test_it_says_what_bounds_are_in_force(tmp_path: Path, grouped: bool, text: str) -> None:
    engine = LocalEngine(tmp_path / "runs", machine=reduced("for this test"), grouped=grouped)
    if grouped and engine.groups is None:
        pytest.skip("no control groups may be written here")
    assert text in engine.isolation


def test_no_groups_where_nothing_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = {"memory": tmp_path / "none"}
    monkeypatch.setattr("cloche.engine.local.cgroups.read_own", lambda: none)
    assert Groups.found(tmp_path, ResourceLimits(100, 10), 2) is None
    monkeypatch.setattr("cloche.engine.local.cgroups.read_own", dict)
    assert Groups.found(tmp_path, ResourceLimits(100, 10), 2) is None
