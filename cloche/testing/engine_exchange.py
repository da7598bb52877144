"""What goes into gangs and comes out of them: a part of what every engine must do."""

import os
from dataclasses import replace
from functools import partial

import pytest

from cloche.engine import SOCKET_VARIABLE, EngineError, GangSpec
from cloche.testing.engine_lab import Lab, connected, outcomes, wait_until


class ExchangeContract:
    """Input is staged, output collected, a process that serves has an address, endings are told."""

    def test_a_socket_is_handed_in(self, lab: Lab) -> None:
        """Who connects to it reaches the process, after a restart too; nobody once it has ended."""
        script = f"""
            import os, socket
            server = socket.socket(fileno=int(os.environ["{SOCKET_VARIABLE}"]))
            for _ in range(2):
                line, _ = server.accept()
                line.sendall(line.recv(10) + b" heard")
                line.close()
        """
        process = replace(lab.python("h", script), serves=True)
        assert lab.engine.address("gang", "h") is None
        gang = GangSpec(name="gang", processes=(process,))
        lab.place(gang)
        for _ in range(2):
            with connected(lab.engine.address("gang", "h")) as line:
                line.sendall(b"hello")
                assert line.recv(20) == b"hello heard"
            lab.engine = lab.make()
            lab.place(gang)  # it runs already: the socket stays as it is
        assert outcomes(lab.finished()) == {"h": (0, None)}
        with pytest.raises(ConnectionRefusedError):
            connected(lab.engine.address("gang", "h"))

    def test_endings_are_pushed(self, lab: Lab) -> None:
        """Of each process, in a gang that was adopted too, and of one that was lost."""
        script = """
            while [ ! -e "/go/$HOSTNAME" ]; do sleep 0.02; done
        """
        (lab.folder / "go").mkdir()
        go = lab.mount(lab.folder / "go", "/go", "rw")
        hosts = [lab.process(name, script, go) for name in ("first", "second")]
        heard: list[str] = []
        lab.engine.on_ended(heard.append)
        lab.place(GangSpec(name="two", processes=tuple(hosts)))
        lab.place(GangSpec(name="lost", processes=(lab.process("h", "sleep 99"),), background=True))
        assert heard == []
        (lab.folder / "go/first").touch()
        wait_until(lambda: heard == ["two"])
        assert {n: one.state for n, one in (lab.engine.see("two") or {}).items()} == {
            "first": "exited",
            "second": "running",
        }
        lab.engine.close()
        lab.engine = lab.make()
        lab.engine.on_ended(heard.append)
        (lab.folder / "go/second").touch()
        wait_until(lambda: lab.finished("two")["second"].state == "exited")
        wait_until(lambda: heard.count("two") >= 3)  # "first" had ended when it was adopted
        assert "lost" not in heard
        lab.kill_supervisor("lost")
        wait_until(lambda: "lost" in heard)
        assert (lab.engine.see("lost") or {})["h"].state == "lost"

    def test_a_log_is_read(self, lab: Lab) -> None:
        """While the process runs and when it has ended; it goes with the gang."""
        script = "echo one; while [ ! -e /go/on ]; do sleep 0.02; done; echo three"
        (lab.folder / "go").mkdir()
        process = lab.process("h", script, lab.mount(lab.folder / "go", "/go", "rw"))
        lab.place(GangSpec(name="gang", processes=(replace(process, log=None),)))
        read = partial(lab.engine.read_log, "gang", "h")
        wait_until(lambda: read(0, 100).endswith(b" one\n"))
        first = read(0, 100)
        assert read(len(first), 100) == b""
        (lab.folder / "go/on").touch()
        assert outcomes(lab.finished()) == {"h": (0, None)}
        second = read(len(first), 100)
        assert second.endswith(b" three\n")
        assert (read(0, 5), read(-3, 2), read(-1000, 1000)) == (first[:5], b"ee", first + second)
        assert lab.engine.read_log("gang", "nobody", 0, 100) == b""
        lab.engine.forget("gang")
        assert read(0, 100) == b""

    def test_output_is_collected(self, lab: Lab) -> None:
        """It is there while the gang runs; when it has ended it can become the server's own."""
        out = lab.folder / "out"
        out.mkdir()
        (lab.folder / "go").mkdir()
        script = """
            echo early > /out/file; echo up; while [ ! -e /go/on ]; do sleep 0.02; done
            mkdir /out/folder; echo late > /out/folder/file; chmod 0 /out/folder/file
        """
        mounts = (
            lab.mount(out, "/out", "rw", volume=True),
            lab.mount(lab.folder / "go", "/go", "rw"),
        )
        lab.place(GangSpec(name="gang", processes=(lab.process("h", script, *mounts),)))
        wait_until(lambda: lab.said("h", "up"))
        lab.engine.collect("gang", out)
        assert (out / "file").read_text() == "early\n"
        with pytest.raises(EngineError, match="gang still runs: what it writes is its own"):
            lab.engine.collect("gang", out, own=True)
        (lab.folder / "go/on").touch()
        assert outcomes(lab.finished()) == {"h": (0, None)}
        lab.engine.collect("gang", out, own=True)
        late = out / "folder/file"
        assert {late.stat().st_uid, late.parent.stat().st_uid, out.stat().st_uid} == {os.getuid()}
        late.chmod(0o600)
        assert late.read_text() == "late\n"

    def test_changes_are_a_layer_of_others(self, lab: Lab) -> None:
        """What one gang changed in a folder another sees there, without a change of the folder."""
        if not lab.engine.layered:
            return
        source, changes = lab.folder / "source", lab.folder / "changes"
        source.mkdir()
        (source / "old").write_text("old")
        over = lab.mount(source, "/data", "overlay", changes=lab.engine.stage(changes))
        script = "rm /data/old; echo new > /data/new"
        assert outcomes(lab.run(lab.process("one", script, over), name="one")) == {"one": (0, None)}
        lab.engine.collect("one", changes, own=True)
        lab.engine.forget("one")
        over = lab.mount(source, "/data", "overlay", layers=(lab.engine.stage(changes),))
        lab.run(lab.process("two", "ls /data; cat /data/new", over), name="two")
        assert lab.log("two") == ["new", "new"]
        assert [path.name for path in source.iterdir()] == ["old"]

    def test_input_can_not_be_changed(self, lab: Lab) -> None:
        """A script may write, chmod and delete its input; the source never changes."""
        blob = lab.folder / "blob"
        blob.write_text("ORIGINAL")
        blob.chmod(0o444)
        channel = lab.folder / "channel"
        (channel / "sub").mkdir(parents=True)
        os.link(blob, channel / "a.jpg")
        os.link(blob, channel / "sub" / "b.jpg")
        script = """
            set -e; cd /opt/ml/input/data/train
            chmod 0644 a.jpg; echo HACK >> a.jpg; cat a.jpg; rm sub/b.jpg; rmdir sub; mkdir sub
            echo new > sub/new; mv a.jpg moved.jpg; ls -R
        """
        mount = lab.mount(channel, "/opt/ml/input/data/train", "overlay")
        (lab.folder / "ml").mkdir()
        outer = lab.mount(lab.folder / "ml", "/opt/ml", "rw")
        assert outcomes(lab.run(lab.process("h", script, mount, outer))) == {"h": (0, None)}
        assert lab.log("h")[0] == "ORIGINALHACK"
        assert blob.read_text() == "ORIGINAL" and blob.stat().st_mode & 0o777 == 0o444
        assert blob.stat().st_nlink == 3 and blob.stat().st_uid == os.getuid()
        assert sorted(path.name for path in channel.rglob("*")) == ["a.jpg", "b.jpg", "sub"]
        lab.engine.forget("gang")
        assert blob.read_text() == "ORIGINAL" and blob.stat().st_nlink == 3
