"""What an engine must do besides where the machine allows sandboxes."""

import socket
from contextlib import closing
from pathlib import Path

from cloche.engine import GangSpec
from cloche.testing.engine_contract import EngineContract
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


class IsolationContract(EngineContract):
    """Holds where the machine allows sandboxes."""

    def test_who_and_where(self, lab: Lab) -> None:
        """Root of a private machine with the host's name."""
        script = """
            id -u; hostname; echo $HOME; pwd; ls "$HOME" | wc -l; touch /etc/x /tmp/x /dev/shm/x
            chown 0:0 /tmp/x; cat /proc/1/comm; ls /proc | grep -c '^[0-9]'; id -un
        """
        assert outcomes(lab.run(lab.process("algo-7", script))) == {"algo-7": (0, None)}
        lines = lab.log("algo-7")
        assert lines[:5] == ["0", "algo-7", "/root", "/", "0"]
        assert lines[5] == "bwrap" and int(lines[6]) < 8 and lines[7] == "root"

    def test_children_of_a_lost_gang_end(self, lab: Lab) -> None:
        """What a process started dies with it, also when nobody is left to see to that."""
        marker = unique()
        script = f"setsid sleep {marker} & sleep {marker} & wait"
        lab.place(GangSpec(name="gang", processes=(lab.process("h", script),)))
        wait_until(lambda: running(marker))
        lab.kill_supervisor("gang")
        wait_until(lambda: not running(marker))

    def test_hosts_reach_one_another(self, lab: Lab) -> None:
        """Four hosts find each other by name, each at its own address."""
        script = """
            import socket, sys
            me, hosts = socket.gethostname(), [f"algo-{i}" for i in (1, 2, 3, 4)]
            server = socket.create_server((me, 7777))
            heard = set()
            def dial(host):
                while True:
                    try:
                        return socket.create_connection((host, 7777), 20)
                    except ConnectionRefusedError:
                        pass
            for host in hosts:
                with dial(host) as line: line.sendall(me.encode())
            while len(heard) < 4:
                line, _ = server.accept()
                heard.add(line.recv(64).decode())
            print(socket.gethostbyname(me), *sorted(heard))
        """
        hosts = [lab.python(f"algo-{i}", script) for i in (1, 2, 3, 4)]
        assert set(outcomes(lab.run(*hosts)).values()) == {(0, None)}
        for i in (1, 2, 3, 4):
            assert lab.log(f"algo-{i}") == [f"127.0.1.{i} algo-1 algo-2 algo-3 algo-4"]

    def test_what_is_out_of_reach(self, lab: Lab) -> None:
        """Not the machine's loopback, nor another gang's network, nor files that aren't mounted."""
        secret = lab.folder / "secret"
        secret.write_text("x")
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        other = """
            import socket, time
            server = socket.create_server(("127.0.1.1", 7777)); print("up", flush=True)
            time.sleep(60)
        """
        lab.place(GangSpec(name="other", processes=(lab.python("o", other),), background=True))
        wait_until(lambda: lab.said("o", "up"))
        script = f"""
            import os, socket
            for address in (("127.0.0.1", {port}), ("127.0.1.1", 7777), ("192.0.2.1", 80)):
                try:
                    socket.create_connection(address, 5); print("reached", address)
                except OSError as error:
                    print(error.strerror)
            for path in ({str(secret)!r}, {str(lab.folder)!r}, {str(Path.home() / ".")!r} + "/.."):
                print(os.path.exists(path) and os.listdir(path))
            print([p for p in os.listdir("/proc") if p.isdigit() and int(p) > 50])
        """
        with listener:
            lab.run(lab.python("h", script))
        assert lab.log("h")[:3] == [
            "Connection refused",
            "Connection refused",
            "Network is unreachable",
        ]
        assert lab.log("h")[3:5] == ["False", "False"]
        assert not any(str(secret.name) in line for line in lab.log("h"))
        assert lab.log("h")[-1] == "[]"

    def test_no_way_out_for_an_isolated_gang(self, lab: Lab) -> None:
        """Without egress there is no door at all: neither out nor to the platform."""
        hosts = [lab.python(f"h{port}", ASK.format(port=port)) for port in (PORT, PORT + 1)]
        for host in hosts:
            gang = f"gang-{host.name}"
            lab.place(GangSpec(name=gang, processes=(host,), egress=False))
            assert lab.engine.doors(gang) is None
            assert outcomes(lab.finished(gang)) == {host.name: (1, None)}
            assert "Connection refused" in lab.log(host.name)[-1]

    def test_the_proxy_door(self, lab: Lab) -> None:
        """The next port is the proxy's."""
        ask = lab.python("h", ASK.format(port=PORT + 1))
        lab.place(GangSpec(name="gang", processes=(ask,)))
        doors = lab.engine.doors("gang")
        assert doors is not None
        with closing(doors.proxy) as proxy:
            assert serve_once(proxy, b"out") == b"hello"
        shut(doors)
        assert outcomes(lab.finished()) == {"h": (0, None)}
        assert lab.log("h") == ["answer out"]

    def test_two_gangs_do_not_see_each_other(self, lab: Lab) -> None:
        """Each has its own /opt/ml and /tmp; what is written rw reaches the source."""
        for name in ("one", "two"):
            (lab.folder / name).mkdir()
            (lab.folder / name / "given").write_text(name)
            script = (
                f"ls -A /tmp; cat /opt/ml/given; echo {name} > /tmp/mine; cp /tmp/mine /opt/ml/"
            )
            mount = lab.mount(lab.folder / name, "/opt/ml", "rw")
            assert outcomes(lab.run(lab.process(name, script, mount), name=name)) == {
                name: (0, None)
            }
            assert lab.log(name) == [name]
            assert (lab.folder / name / "mine").read_text() == f"{name}\n"

    def test_read_only_means_it(self, lab: Lab) -> None:
        """A ro mount can't be changed, nor made writable; private files can be read."""
        (lab.folder / "given").write_text("text\n")
        (lab.folder / "given").chmod(0o600)
        mount = lab.mount(lab.folder / "given", "/etc/given")
        script = (
            "cat /etc/given; echo x > /etc/given; mount -o remount,rw /etc/given; rm /etc/given"
        )
        lab.run(lab.process("h", script, mount))
        assert lab.log("h")[0] == "text"
        assert (lab.folder / "given").read_text() == "text\n"
        assert "Read-only file system" in " ".join(lab.log("h"))

    def test_no_new_privileges(self, lab: Lab) -> None:
        """Set-user-id programs gain nothing, and root inside is nobody's root outside."""
        (lab.folder / "out").mkdir()
        script = """
            grep NoNewPrivs /proc/self/status; mount -t tmpfs none /mnt 2>/dev/null || echo refused
            touch /out/mine
        """
        mount = lab.mount(lab.folder / "out", "/out", "rw")
        assert outcomes(lab.run(lab.process("h", script, mount))) == {"h": (0, None)}
        lines = lab.log("h")
        assert lines[0].split() == ["NoNewPrivs:", "1"]
        assert lines[1] == "refused"
        assert (lab.folder / "out" / "mine").stat().st_uid != 0
