"""What a fork makes new, so that a script finds what it would in an interpreter of its own.

Part of `fork_server.py`, which imports it by its bare name. Standard library only, Python 3.9 and
later.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

OPENBLAS = (
    "openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "scipy_openblas_set_num_threads64_",
)
# Modules through which others read the environment.
THROUGH = {"os", "_collections_abc", "collections.abc", "posixpath", "genericpath", "pathlib"}
# HOME leads nowhere in a fork server, on purpose; OMP_NUM_THREADS is set by `set_threads`.
APART = {"HOME", "OMP_NUM_THREADS"}


class ImportWatch:
    """What imports read of the environment, what they set there, and whom they seeded by chance.

    `with watch.importing(name)`: `os.environ` and `random.Random` are watched meanwhile.
    """

    def __init__(self) -> None:
        self.before = dict(os.environ)  # what this interpreter and its imports started with
        self.read: set[str] = set()
        self.prefixes: set[str] = set()  # of packages that looked through all variables
        self.written: dict[str, dict[str, str | None]] = {}  # by the module that was imported
        self.seeded: dict[int, random.Random] = {}

    @contextlib.contextmanager
    def importing(self, name: str) -> Iterator[None]:
        """Watch the import of a module."""
        kind: Any = type(os.environ)
        item, every, seed = kind.__getitem__, kind.__iter__, random.Random.seed
        earlier = dict(os.environ)
        kind.__getitem__, kind.__iter__ = self._items(item), self._all(every)
        random.Random.seed = self._seeds(seed)  # type: ignore[method-assign]
        try:
            yield
        finally:
            kind.__getitem__, kind.__iter__ = item, every
            random.Random.seed = seed  # type: ignore[method-assign]
            now = dict(os.environ)
            changed = {key for key in {*earlier, *now} if earlier.get(key) != now.get(key)}
            if changed:
                self.written[name] = {key: now.get(key) for key in changed}

    def _items(self, item: Callable[[Any, str], str]) -> Callable[[Any, str], str]:
        def read(environ: Any, key: str) -> str:
            self.read.add(key)
            return item(environ, key)

        return read

    def _all(self, every: Callable[[Any], Iterator[str]]) -> Callable[[Any], Iterator[str]]:
        def read(environ: Any) -> Iterator[str]:
            self.prefixes.add(importer().partition(".")[0].upper() + "_")
            return every(environ)

        return read

    def _seeds(self, seed: Callable[..., None]) -> Callable[..., None]:
        def seeds(generator: random.Random, a: Any = None, *rest: Any, **more: Any) -> None:
            if a is None:
                self.seeded[id(generator)] = generator
            else:
                self.seeded.pop(id(generator), None)
            seed(generator, a, *rest, **more)

        return seeds

    def differs(self, env: dict[str, str]) -> bool:
        """Return whether an import would have read another value in this environment."""
        names = self.read.union(name for name in (*env, *self.before) if self._by_prefix(name))
        return any(env.get(name) != self.before.get(name) for name in names - APART)

    def _by_prefix(self, name: str) -> bool:
        return any(name.startswith(prefix) for prefix in self.prefixes)

    def mentioned(self, code: str) -> bool:
        """Return whether code names a variable, as it may to set it, that imports have read."""
        words = [*map(re.escape, self.read - APART), *(rf"{word}\w+" for word in self.prefixes)]
        if not words:
            return False
        names = "|".join(sorted(words))
        return re.search(rf"""["'](?:{names})["']|\b(?:{names})=""", code) is not None

    def set_as_imports_did(self, imported: list[str]) -> None:
        """Set what the imports of these modules set, and what is not set otherwise."""
        for name in imported:
            for key, value in self.written.get(name, {}).items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ.setdefault(key, value)

    def refresh(self) -> None:
        """Make new what an interpreter has of its own: clocks, threads, names, randomness."""
        time.tzset()
        for descriptor, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
            reopen(stream, descriptor)
        tempfile.tempdir = None
        tempfile._name_sequence = None  # type: ignore[attr-defined]
        main: Any = threading.main_thread()
        main._set_native_id()
        given = os.environ.get("OMP_NUM_THREADS")
        set_threads(len(os.sched_getaffinity(0)) if given is None else int(given))
        for generator in self.seeded.values():
            generator.seed()
        for module, renew in RENEWED.items():
            if module in sys.modules:
                renew(sys.modules[module])


def reopen(stream: Any, descriptor: int) -> None:
    """Have a standard stream know the file that it has now (whether it can seek, its buffer).

    In place: modules have it already.
    """
    unbuffered = stream.write_through  # -u
    buffering = 0 if unbuffered and descriptor else -1
    raw = open(descriptor, stream.mode + "b", buffering, closefd=False)  # noqa: SIM115
    getattr(raw, "raw", raw).name = stream.name
    stream.__init__(
        raw,
        stream.encoding,
        stream.errors,
        None if descriptor == 0 else "\n",
        stream.line_buffering,
        unbuffered,
    )


def importer() -> str:
    """Return the name of the module that reads the environment."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name not in THROUGH and name != __name__:
            return name
        frame = frame.f_back
    return "os"


def renew_authkey(module: Any) -> None:
    """Have another key for connections between processes than all other jobs."""
    module.current_process().authkey = os.urandom(32)


def renew_uuid(module: Any) -> None:
    """Forget the network card, and the time that was given last."""
    module._node = module._last_timestamp = None


def renew_start(module: Any) -> None:
    """Have log records count from now."""
    nanoseconds = isinstance(module._startTime, int)  # Python 3.13
    module._startTime = time.time_ns() if nanoseconds else time.time()


RENEWED: dict[str, Callable[[Any], Any]] = {
    "numpy.random": lambda module: module.seed(),
    "torch": lambda module: module.default_generator.seed(),
    "multiprocessing.process": renew_authkey,
    "uuid": renew_uuid,
    "logging": renew_start,
}


def countable(threads: str | None) -> bool:
    """Return whether OMP_NUM_THREADS is a number, so that it can be set in a fork."""
    return threads is None or (threads.isascii() and threads.isdigit() and int(threads) > 0)


def libraries() -> set[str]:
    """Return the files of the libraries that are loaded."""
    with open("/proc/self/maps") as maps:
        return {line.split(None, 5)[5].strip() for line in maps if ".so" in line}


def name_libraries() -> None:
    """Have the loader know each library by its file's own path, as a sandbox finds it too.

    There, files have other numbers, and one that was loaded by another path would not be found
    again (by `set_threads`, by threadpoolctl).
    """
    for file in libraries():
        with contextlib.suppress(OSError):
            ctypes.CDLL(file, mode=os.RTLD_NOLOAD)


def set_threads(number: int) -> None:
    """Give the numeric libraries that are loaded the threads that OMP_NUM_THREADS asks for."""
    for file in libraries():
        name = os.path.basename(file)
        setters: tuple[str, ...] = ()
        if "gomp" in name or "iomp" in name or "libomp" in name:
            setters = ("omp_set_num_threads",)
        elif "openblas" in name:
            setters = OPENBLAS
        if setters:
            with contextlib.suppress(OSError):
                library = ctypes.CDLL(file, mode=os.RTLD_NOLOAD)
                for setter in setters:
                    if hasattr(library, setter):
                        getattr(library, setter)(number)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(number)
