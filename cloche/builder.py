"""The process that builds one environment in the background (`environments.background`).

python -P -m cloche.builder HOME LOCK NAME OVER PACKAGE…

LOCK: the descriptor it inherited, locked; OVER: the environment it stands on, or empty

Packages that the platform's table does not name are installed in a sandbox: a package's build runs
code of whoever wrote it. In there are the new environment, the interpreter below it and what pip's
settings name; the way out is a proxy of this process, to public addresses and those settings'
hosts. Without sandboxes on this machine pip runs as it does in a terminal.
"""

import ast
import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import unquote, urlsplit

from cloche.core import log_lines
from cloche.core.config import Home
from cloche.engine import Doors, Engine, EngineError, GangSpec, Mount, ProcessSpec, Seen
from cloche.engine.local.engine import LocalEngine
from cloche.environments.background import Files, fail, say_of
from cloche.environments.build import (
    LAST_LINES,
    BuildError,
    build,
    install_command,
    outside,
)
from cloche.environments.ready import MANIFEST, folder_of
from cloche.environments.table import FRAMEWORKS, Framework
from cloche.gateway.egress import Destination, Fenced, Upstream, looked_up, route_of, upstream_of
from cloche.gateway.proxy import Proxy

HOST = "pip"
PORT = 4599  # of a door that nobody serves; the way out is the next one, inside
WITHIN_S = 3600.0
GRACE_S = 5.0
ENDS_WITHIN_S = 30.0
LOOK_AGAIN_S = 0.05
READ = 1 << 20  # bytes of pip's log at a time: more than its longest line has
MEMORY_MIB = 4096
CONFIGURED = ("global", "install", ":env:")  # sections of pip's configuration, the last one holds
# Settings that say where on this machine things go, or which proxy is its own.
OUTSIDE = (
    "cache-dir",
    "log",
    "prefix",
    "proxy",
    "python",
    "report",
    "root",
    "src",
    "target",
    "user",
)
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
SEEN_ANYWAY = ("/usr/", "/etc/ssl/", "/etc/pki/")
URL = re.compile(r"(?:git\+)?(https?|file)://[^\s'\"]+")


def main() -> None:
    """Build, and leave in files how it ended; SIGTERM ends it with nothing left."""
    path, descriptor, name, over, *packages = sys.argv[1:]
    signal.signal(signal.SIGTERM, asked_to_stop)
    with os.fdopen(int(descriptor), "r+") as lock:
        try:
            run(framework_of(name, over, tuple(packages)), Home(Path(path)))
        finally:
            say_of(lock, {})


def framework_of(name: str, over: str, packages: tuple[str, ...]) -> Framework:
    """Return the line of the platform's table, or one like it that a user added."""
    given = Framework(name, (), packages, over=over)
    own = (f for f in FRAMEWORKS if (f.name, f.over, f.packages) == (name, over, packages))
    return next(own, given)


def run(framework: Framework, home: Home) -> None:
    """Build; write down why it failed."""
    say, files = Voice(), Files(folder_of(framework, home))
    say(f"Building the environment {framework.name}: {', '.join(framework.packages)}")
    try:
        build(framework, home, say, Sandboxed(home))
    except BuildError as error:
        fail(files, str(error), error.lines)
    except (OSError, EngineError) as error:
        fail(files, str(error), ())


class Voice:
    """Prints records. No two have the same time: a reader knows by it how far it has read."""

    def __init__(self) -> None:
        self.last_ms = 0

    def __call__(self, line: str) -> None:
        """Print one line."""
        self.last_ms = max(time.time_ns() // 1_000_000, self.last_ms + 1)
        print(log_lines.line(self.last_ms, line), end="", flush=True)


@dataclass(frozen=True, slots=True)
class Sandboxed:
    """Installs packages from a sandbox into an environment (`environments.build.Pip`)."""

    home: Home

    def __call__(self, packages: Sequence[str], folder: Path, say: Callable[[str], None]) -> None:
        """Install; BuildError when pip fails. Whoever calls has the one lock of builds."""
        engine = LocalEngine(self.home.builds, port=PORT)
        if engine.machine.isolation != "full":
            outside(packages, folder, say)
            return
        end_all(engine)  # what a killed builder left
        settings = settings_of(folder)
        gang = spec(packages, folder, settings, self.home, engine)
        try:
            engine.launch(gang)
            with way_out(engine.doors(gang.name), fence(packages, settings)):
                ended, last = follow(engine, gang.name, say)
        finally:
            end_all(engine, folder)
            placeholder(folder).unlink(missing_ok=True)
        if ended.reason is not None:
            raise BuildError(f"pip was stopped after {WITHIN_S:.0f} s", last)
        if ended.exit_code != 0:
            raise BuildError(f"pip ended with exit code {ended.exit_code}", last)


def spec(
    packages: Sequence[str],
    folder: Path,
    settings: Mapping[str, str],
    home: Home,
    engine: Engine,
) -> GangSpec:
    """Return pip's gang."""
    proxy = f"http://127.0.0.1:{PORT + 1}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    trusted = {name: os.environ[name] for name in CERTIFICATES if name in os.environ}
    named = [*settings.values(), *packages, *trusted.values()]
    # The build can't say that the environment is whole: a file of ours lies over that place.
    placeholder(folder).write_bytes(b"")
    stage = engine.stage
    mounts = [
        Mount(stage(folder), str(folder), "rw"),
        Mount(stage(placeholder(folder)), str(folder / MANIFEST)),
    ]
    mounts += [Mount(stage(path), str(path)) for path in local_paths(named, home)]
    if not f"{sys.base_prefix}/".startswith(SEEN_ANYWAY):
        mounts.append(Mount(stage(Path(sys.base_prefix)), sys.base_prefix))
    variables = {f"PIP_{name.upper().replace('-', '_')}": v for name, v in settings.items()}
    process = ProcessSpec(
        name=HOST,
        argv=tuple(install_command(packages, folder)),
        env={
            "PATH": f"{folder}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
            **dict.fromkeys(names, proxy),
            **trusted,
            **variables,
        },
        mounts=tuple(mounts),
        memory_mib=MEMORY_MIB,
    )
    return GangSpec(
        name=folder.name,
        processes=(process,),
        max_run_s=WITHIN_S,
        stop_grace_s=GRACE_S,
        background=True,
    )


def placeholder(folder: Path) -> Path:
    """Return what a build sees in the place of what says that the environment is whole."""
    return folder.with_name(f"{folder.name}.whole")


def settings_of(folder: Path) -> dict[str, str]:
    """Return pip's settings for `install`: of its files, and over them of this environment.

    Nothing of anybody is installed in the folder yet.
    """
    command = [str(folder / "bin/python"), "-I", "-m", "pip", "config", "list"]
    listed = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd="/"
    )
    found: dict[str, dict[str, str]] = {section: {} for section in CONFIGURED}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in found and name not in OUTSIDE:
            found[section][name] = str(ast.literal_eval(value))
    return {name: value for section in CONFIGURED for name, value in found[section].items()}


def local_paths(texts: Sequence[str], home: Home) -> list[Path]:
    """Return the files and folders of this machine that settings and packages name.

    Nothing in which the platform's own home lies, or that lies in it.
    """
    found: list[Path] = []
    for word in (word for text in texts for word in text.split()):
        url = URL.fullmatch(word)
        path = Path(unquote(urlsplit(word).path) if url and url[1] == "file" else word)
        if not path.is_absolute() or ".." in path.parts or str(path).startswith(SEEN_ANYWAY):
            continue
        own, named = home.path.resolve(), path.resolve()
        if named.exists() and named != own and not {named, own} & {*own.parents, *named.parents}:
            found.append(path)
    return list(dict.fromkeys(found))


def fence(packages: Sequence[str], settings: Mapping[str, str]) -> "PipFence":
    """Return what pip's sandbox reaches: public addresses, and hosts that the owner names."""
    urls = [urlsplit(m[0]) for t in (*settings.values(), *packages) for m in URL.finditer(t)]
    named = {
        Destination(url.hostname, url.port or (443 if "https" in url.scheme else 80))
        for url in urls
        if url.hostname
    }
    upstream, own = upstream_of(), os.environ.get("PIP_PROXY")
    if own:
        upstream = Upstream(route_of(own), route_of(own), upstream.no_proxy)
    return PipFence(upstream, (), 0, frozenset(named))


@dataclass(frozen=True, slots=True)
class PipFence(Fenced):
    """Like a job's fence, with doors for what pip's settings and the packages name."""

    named: frozenset[Destination]

    async def resolve(
        self, target: Destination, client: str | None, *, straight: bool
    ) -> list[tuple[str, int]]:
        """Return the target's addresses that are allowed; Refused when there is none."""
        if target not in self.named:
            return await Fenced.resolve(self, target, client, straight=straight)
        return [(str(each), target.port) for each in await looked_up(target)] if straight else []


@contextmanager
def way_out(doors: Doors | None, egress: Fenced) -> Iterator[None]:
    """Serve the proxy at a gang's door meanwhile, on a thread of its own."""
    if doors is None or doors.proxy is None:  # it has ended
        yield
        return
    doors.platform.close()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    proxy = Proxy(None, None, egress)
    asyncio.run_coroutine_threadsafe(proxy.listen(doors.proxy), loop).result()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(proxy.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def follow(engine: Engine, gang: str, say: Callable[[str], None]) -> tuple[Seen, Sequence[str]]:
    """Say what pip says until it has ended; return how, and its last lines."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    heard = 0
    while True:
        seen = (engine.see(gang) or {}).get(HOST, Seen("lost"))
        texts, length = log_lines.texts(engine.read_log(gang, HOST, heard, READ))
        heard += length
        for text in texts:
            last.append(text)
            say(text)
        if seen.state != "running" and not texts:
            return seen, tuple(last)
        time.sleep(LOOK_AGAIN_S)


def end_all(engine: LocalEngine, written: Path | None = None) -> None:
    """End what runs, and forget it; EngineError when it does not end. `written` is then ours."""
    for gang in engine.adopt():
        engine.stop(gang)
        until = time.monotonic() + ENDS_WITHIN_S
        while any(one.state == "running" for one in (engine.see(gang) or {}).values()):
            if time.monotonic() > until:
                raise EngineError(f"{gang} does not end")
            time.sleep(LOOK_AGAIN_S)
        if written is not None:
            engine.collect(gang, written, own=True)
        engine.forget(gang)


def asked_to_stop(_number: int, _frame: FrameType | None) -> None:
    """Leave by an exception, so that what was begun is removed."""
    sys.exit("asked to stop")


if __name__ == "__main__":
    main()
