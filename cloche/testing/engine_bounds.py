"""What an engine must do to processes that take more than they were given."""

import textwrap
from dataclasses import replace

from cloche.engine import GangSpec, ProcessSpec, Seen
from cloche.testing.engine_lab import Lab

MIB = 2**20
# Holds memory that it really has, step by step, so that a watch has its chance.
HOLD = """
    import time
    held = []
    for _ in range({mib}):
        held.append(b"x" * 2**20 * 1)
        time.sleep(0.002)
"""


class BoundsContract:
    """Holds for every engine; mix it into a class that has a `lab`."""

    at_once = 1  # how many times its processes a fork bomb may have before anybody looks
    refused: tuple[int, ...] = ()  # exit codes of one that the kernel refuses space first

    def ended(self, lab: Lab, process: ProcessSpec, **bounds: int) -> Seen:
        """Run one process with these bounds beside a neighbour that they are nothing to."""
        neighbour = lab.process("n", "sleep 99")
        lab.place(GangSpec(name="neighbour", processes=(neighbour,), background=True))
        process = replace(process, **bounds)  # type: ignore[arg-type]
        lab.place(GangSpec(name="gang", processes=(process,), background=True))
        seen = lab.finished()[process.name]
        beside = lab.engine.see("neighbour")
        assert beside is not None and beside["n"].state == "running"
        return seen

    def test_memory(self, lab: Lab) -> None:
        """Who takes more than it was given is ended, and both is told: how much, and of what."""
        seen = self.ended(lab, lab.python("h", HOLD.format(mib=600)), memory_mib=200)
        assert (seen.state, seen.exit_code, seen.reason) == ("exited", -9, "OutOfMemory")
        assert seen.detail.startswith("h held ") and seen.detail.endswith("; it may have 200 MiB")
        assert lab.log("h")[-1] == f"[cloche] OutOfMemory: {seen.detail}."

    def test_memory_of_a_child(self, lab: Lab) -> None:
        """What it starts counts."""
        hold = textwrap.indent(textwrap.dedent(HOLD.format(mib=600)), "    ")
        script = f"import os, sys\nif os.fork() == 0:\n{hold}\nsys.exit(os.wait()[1] and 1)"
        seen = self.ended(lab, lab.python("h", script), memory_mib=200)
        assert seen.exit_code in (1, -9) and seen.reason == "OutOfMemory"

    def test_memory_that_is_shared_counts_once(self, lab: Lab) -> None:
        """Workers forked from a large process are no reason to end it."""
        script = """
            import os, time
            held = b"x" * (120 * 2**20)
            for _ in range(4):
                if os.fork() == 0:
                    time.sleep(1.5); os._exit(0)
            for _ in range(4): os.wait()
            print("done")
        """
        seen = self.ended(lab, lab.python("h", script), memory_mib=300)
        assert (seen.exit_code, seen.reason, lab.log("h")) == (0, None, ["done"])

    def test_processes(self, lab: Lab) -> None:
        """A fork bomb stays in its bounds; where they are watched, in a few times that at first."""
        script = f"""
            import os, sys, time
            try:
                for n in range(300):
                    if os.fork() == 0:
                        time.sleep(60); os._exit(0)
            except OSError as error:
                print(n < {64 * self.at_once}, error.strerror, flush=True); sys.exit(9)
            time.sleep(60)
        """
        seen = self.ended(lab, lab.python("h", script), processes=64)
        if seen.reason is None:
            assert seen.exit_code == 9
            assert lab.log("h") == ["True Resource temporarily unavailable"]
        else:
            # 9: it met the backstop before the look that found too many.
            assert (seen.reason, seen.exit_code in (-9, 9)) == ("TooManyProcesses", True), seen
            assert seen.detail.endswith(" processes and threads; it may have 64")

    def test_disk(self, lab: Lab) -> None:
        """Wherever it writes: its private folders and those that it was given count together."""
        out = lab.folder / "out"
        out.mkdir()
        script = """
            exec 2>/dev/null
            for n in 1 2 3 4 5 6 7 8 9 10
            do head -c 8m /dev/urandom > ${TMPDIR:-/tmp}/$n; head -c 8m /dev/urandom > /out/$n
            sleep 0.2; done; sleep 60
        """
        seen = self.ended(lab, lab.process("h", script, lab.mount(out, "/out", "rw")), disk_mib=64)
        assert (seen.exit_code, seen.reason) == (-9, "DiskFull")
        assert seen.detail.startswith("h holds ") and seen.detail.endswith("; it may have 64 MiB")

    def test_files_without_a_name(self, lab: Lab) -> None:
        """What was unlinked and is open takes space all the same."""
        script = """
            import os, time
            folder = os.environ.get("TMPDIR", "/tmp")
            kept = []
            for n in range(10):
                kept.append(open(f"{folder}/f", "wb")); os.unlink(f"{folder}/f")
                kept[-1].write(os.urandom(16 * 2**20)); kept[-1].flush(); time.sleep(0.3)
            time.sleep(60)
        """
        seen = self.ended(lab, lab.python("h", script), disk_mib=64)
        if self.refused and seen.exit_code in self.refused:  # with it went what it held
            assert lab.log("h")[-1].endswith("No space left on device") or seen.reason
        else:
            assert (seen.exit_code, seen.reason) == (-9, "DiskFull")

    def test_files(self, lab: Lab) -> None:
        """Inodes are bounded as on a disk of that size."""
        script = """
            cd ${TMPDIR:-/tmp}; mkdir -p a/b/c; cd a/b/c; seq 3000 | xargs touch; sleep 60
        """
        seen = self.ended(lab, lab.process("h", script), disk_mib=20)
        assert (seen.exit_code, seen.reason) == (-9, "DiskFull")
        assert seen.detail.endswith(" files and folders; it may have 1280")

    def test_a_log_has_an_end(self, lab: Lab) -> None:
        """What follows is counted, not kept; and the process goes on."""
        seen = self.ended(lab, lab.process("h", "yes | head -c 20m; echo last"), log_mib=1)
        assert (seen.exit_code, seen.reason) == (0, None)
        lines = lab.log("h")
        assert (lab.folder / "h.log").stat().st_size < 2 * MIB
        assert "[cloche] This log has reached 1 MiB: what follows is not kept." in lines
        kept = lines.index("[cloche] This log has reached 1 MiB: what follows is not kept.")
        assert lines[-1] == f"[cloche] {10 * MIB + 1 - kept} lines were not kept."

    def test_no_core_dumps(self, lab: Lab) -> None:
        """Not even to a program of the machine that would take them."""
        seen = self.ended(lab, lab.process("h", "grep core /proc/self/limits; kill -SEGV $$"))
        assert seen.exit_code == -11
        assert lab.log("h")[0].split()[4:6] == ["1", "1"]
