"""A script in a fork finds what it would in an interpreter of its own: torch, scikit-learn, NumPy.

One probe takes a snapshot of all that it can reach, in two forks and in two fresh interpreters.
What is the same in both of the latter is the same in the forks; what is not, as it was drawn by
chance, differs between the forks too. Differences that are allowed have a name and a reason here.
"""

import json
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloche.engine.local.engine import LocalEngine
from cloche.engine.local.forking import SYSTEM_PATH
from cloche.engine.local.probe import probe
from cloche.testing.fork_lab import Stage
from cloche.testing.local_engine import local_lab

SANDBOXED = probe()
pytestmark = pytest.mark.skipif(SANDBOXED.isolation != "full", reason="needs sandboxes")
LIBRARIES = ("torch", "sklearn", "numpy")
# The environment of a job, as a training job's has them.
GIVEN = {
    "PATH": f"{sys.prefix}/bin:{SYSTEM_PATH}",
    "OMP_NUM_THREADS": "2",
    "TZ": "Asia/Tokyo",
    "SM_HP_LR": "1",
}
LOADS_WITHIN_S = 90.0
# What a script can tell a fork by. Everything else must be as in a fresh interpreter.
ALLOWED = {
    "parent": "the one that waits for it is outside of the sandbox's process IDs",
    "session": "who enters a sandbox has a session of its own",
    "group": "the same",
    "hash seed": "strings were hashed before the fork, so that all forks of a server share a seed",
    "command line": "the kernel has the fork server's; sys.argv and sys.orig_argv are the script's",
    "environ at start": "the kernel has the fork server's; os.environ and getenv are the job's",
    "modules loaded": "also those that other scripts imported, and the fork server's own",
    "warning filters": "also those that other scripts' modules added, after the script's own",
    "finders": "also those that other scripts' modules added, after the interpreter's",
    "native threads": "also those of numeric libraries that other scripts imported, asleep",
    "frozen objects": "what was there before the fork is no garbage (and stays shared)",
}
PROBE = """
import ctypes, email.utils, gc, hashlib, json, locale, logging, multiprocessing, os, pathlib
import random, resource, secrets, signal, ssl, sys, sysconfig, tempfile, threading, time, uuid
import warnings
import numpy as np
def digest(value):
    return hashlib.sha256(repr(value).encode()).hexdigest()
def read(path):
    return open("/proc/self/" + path).read()
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
context = multiprocessing.get_context("fork")
drawn = {
    "random": random.random(), "state": digest(random.getstate()),
    "another": random.Random().random(), "system": random.SystemRandom().random(),
    "numpy": float(np.random.rand()), "numpy state": digest(np.random.get_state()[1].tolist()),
    "numpy generator": float(np.random.default_rng().random()),
    "numpy seeded": float(np.random.default_rng(7).random()),
    "uuid1": str(uuid.uuid1()), "uuid4": str(uuid.uuid4()), "node": uuid.getnode(),
    "temporary name": next(tempfile._get_candidate_names()), "temporary": tempfile.mkdtemp(),
    "secret": secrets.token_hex(), "ssl": ssl.RAND_bytes(16).hex(), "urandom": os.urandom(8).hex(),
    "authkey": bytes(multiprocessing.current_process().authkey).hex(),
    "semaphore": context.Lock()._make_name(), "libc": [libc.rand() for _ in range(3)],
    "message": email.utils.make_msgid(domain="d").split(".")[2],
}
drawn["hash seed"] = hash("what")
status = dict(line.split(":", 1) for line in read("status").splitlines())
same = {
    "variables": dict(os.environ), "zone": [time.tzname, time.strftime("%Z %z"), time.timezone],
    "getenv": {name: str(libc.getenv(name.encode())) for name in os.environ},
    "age by clock": time.process_time() < 100, "log's age": time.time() - logging._startTime < 100,
    "clocks": [time.thread_time() < 100, all(t < 100 for t in os.times()[:4]),
               time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) <= time.time(),
               resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime < 100,
               abs(time.monotonic() - time.clock_gettime(time.CLOCK_MONOTONIC)) < 1],
    "kernel's age": time.clock_gettime(time.CLOCK_BOOTTIME) - int(read("stat").rpartition(")")[2]
                    .split()[19]) / os.sysconf("SC_CLK_TCK") < 100,
    "umask": [os.umask(0o22), os.umask(0o22)], "own entries": sorted(os.listdir("/proc/self")),
    "rlimits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource)
                if name.startswith("RLIMIT_")},
    "descriptors' positions": [read(f"fdinfo/{fd}").split()[:4] for fd in (0, 1, 2)],
    "threads": [t.name for t in threading.enumerate()],
    "main thread": threading.main_thread().native_id == os.getpid() == threading.get_native_id(),
    "descriptors": {fd: os.readlink("/proc/self/fd/" + fd).split(":")[0] for fd in
                    os.listdir("/proc/self/fd") if os.path.lexists("/proc/self/fd/" + fd)},
    "inheritable": [os.get_inheritable(fd) for fd in (0, 1, 2)],
    "limits": read("limits"), "status": {name: status[name] for name in status if name.startswith(
        ("Sig", "Shd", "Cap", "Uid", "Gid", "Groups", "NoNew", "Secc", "Umask", "Cpus_allowed"))},
    "handlers": {int(n): repr(signal.getsignal(n)).split(" at ")[0]
                 for n in signal.valid_signals()},
    "wakeup": signal.set_wakeup_fd(-1), "timers": signal.getitimer(signal.ITIMER_REAL),
    "locale": [locale.setlocale(6), locale.getlocale(), locale.getencoding()],
    "encodings": [(s.encoding, s.errors, s.line_buffering, s.write_through, s.seekable(), s.name,
                   s.mode, s.newlines) for s in (sys.stdin, sys.stdout, sys.stderr)],
    "buffers": [type(s.buffer).__name__ for s in (sys.stdin, sys.stdout, sys.stderr)],
    "filesystem": [sys.getfilesystemencoding(), tempfile.gettempdir(), os.getcwd()],
    "flags": str(sys.flags), "argv": [sys.argv, sys.orig_argv], "path": sys.path,
    "hooks": [sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__,
              sys.gettrace(), sys.getprofile(), len(sys.path_hooks), sys.unraisablehook.__name__],
    "interpreter": [sys.executable, sys.prefix, sys.base_prefix, sys.getrecursionlimit(),
                    sys.getswitchinterval(), sys.dont_write_bytecode, sys.pycache_prefix,
                    sys.warnoptions, sys._xoptions, sys.get_int_max_str_digits()],
    "main": sorted(vars(sys.modules["__main__"])), "file": __file__, "spec": __spec__,
    "loader": [type(__loader__).__name__, __loader__.path, __loader__.name],
    "collector": [gc.isenabled(), gc.get_threshold(), gc.get_debug(), len(gc.callbacks)],
    "cpus": [os.cpu_count(), sorted(os.sched_getaffinity(0))],
    "schedule": [os.sched_getscheduler(0), os.nice(0), read("timerslack_ns")
                 if os.path.exists("/proc/self/timerslack_ns") else ""],
    "namespaces": {n: os.readlink("/proc/self/ns/" + n) == os.readlink("/proc/1/ns/" + n)
                   for n in os.listdir("/proc/self/ns")},
    "proc": {name: read(name) for name in ("comm", "oom_score_adj", "cgroup", "uid_map", "gid_map",
             "coredump_filter", "personality", "loginuid") if os.path.exists("/proc/self/" + name)},
    "links": [os.readlink("/proc/self/" + name) for name in ("cwd", "root", "exe")],
    "logging": [logging.root.level, [type(h).__name__ for h in logging.root.handlers],
                logging.raiseExceptions, logging._srcfile is not None],
    "process": [multiprocessing.current_process().name, multiprocessing.current_process()._identity,
                multiprocessing.parent_process(), multiprocessing.get_start_method()],
}
same["blocked signals"] = sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))
"""
PROBES = {
    "torch": """
drawn |= {"torch": torch.rand(1).item(), "torch state": digest(torch.get_rng_state().tolist()),
          "torch seed": torch.initial_seed(), "layer": torch.nn.Linear(2, 1).weight.tolist(),
          "permutation": torch.randperm(40).tolist(), "dropout": torch.nn.functional.dropout(
              torch.ones(64)).tolist(), "torch generator": torch.Generator().initial_seed()}
loader = torch.utils.data.DataLoader(range(40), shuffle=True)
drawn["shuffle"] = [int(x) for x in loader]
same["torch"] = [torch.get_num_threads(), torch.get_num_interop_threads(),
                 torch.get_default_dtype().__str__(), torch.is_grad_enabled(),
                 torch.are_deterministic_algorithms_enabled(), torch.backends.mkldnn.enabled,
                 torch.__config__.parallel_info(), torch.multiprocessing.get_sharing_strategy()]
""",
    "sklearn": """
import joblib, threadpoolctl
from sklearn.model_selection import train_test_split
drawn["split"] = [int(x) for x in train_test_split(range(40))[0]]
same["pools"] = sorted((p["prefix"], p["user_api"], p["num_threads"], p.get("threading_layer"))
    for p in threadpoolctl.threadpool_info() if "torch" not in p["filepath"])
same["joblib"] = [joblib.cpu_count(), joblib.effective_n_jobs(2),
                  joblib._multiprocessing_helpers.mp is not None]
same["variables"] = dict(os.environ)
""",
    "numpy": "",
}
LAST = """
told = {
    "native threads": len(os.listdir("/proc/self/task")),
    "finders": [repr(f).split(" at ")[0] for f in sys.meta_path],
    "parent": os.getppid(), "session": os.getsid(0) == os.getpid(),
    "group": os.getpgrp() == os.getpid(), "command line": read("cmdline"),
    "environ at start": read("environ"), "frozen objects": gc.get_freeze_count() > 0,
    "modules loaded": sorted(sys.modules), "warning filters": [str(f) for f in warnings.filters],
}
print("SEEN " + json.dumps({"drawn": drawn, "same": same, "told": told}), flush=True)
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A fork server that has imported all of the libraries."""
    with local_lab(tmp_path_factory.mktemp("fresh"), SANDBOXED) as lab:
        stage = Stage(lab, LIBRARIES)
        script = f"import {', '.join(LIBRARIES)}"
        deadline = time.monotonic() + LOADS_WITHIN_S
        number = 0
        while stage.run(script, f"first-{number}", GIVEN)[0] != "hired":
            assert time.monotonic() < deadline
            number += 1
        yield stage
        assert isinstance(lab.engine, LocalEngine)
        for server in lab.engine.fork_servers.servers.values():
            server.end()
            server.process.wait(20)


def started(stage: Stage, script: str, env: dict[str, str] | None = None) -> list[str]:
    """Return a job's log; its script is alone."""
    for other in (stage.folder / "code").glob("*.py"):
        other.unlink()
    Path(stage.folder / "job.log").unlink(missing_ok=True)
    stage.lab.engine.forget("job")
    return stage.run(textwrap.dedent(script), "job", {**GIVEN, **(env or {})})


def fresh(stage: Stage, script: str, env: dict[str, str] | None = None) -> list[str]:
    """Return the log of a job that starts as an ordinary process."""
    before = stage.spec

    def cold(text: str, name: str, given: dict[str, str] | None = None) -> Any:
        gang = before(text, name, given)
        return replace(gang, processes=(replace(gang.processes[0], preload=None),))

    stage.spec = cold  # type: ignore[method-assign]
    try:
        return started(stage, script, env)
    finally:
        stage.spec = before  # type: ignore[method-assign]


def seen(log: list[str], start: str) -> Any:
    """Return what the probe found, where the script started as it should."""
    assert log[0] == start, log
    lines = [line.removeprefix("SEEN ") for line in log if line.startswith("SEEN ")]
    assert len(lines) == 1, log
    return json.loads(lines[0])


@pytest.mark.parametrize("library", LIBRARIES)
def test_as_in_a_fresh_interpreter(stage: Stage, library: str) -> None:
    """All that is not in ALLOWED is the same, and what is drawn is drawn anew."""
    script = f"import {library}\n" + PROBE + PROBES[library] + LAST
    forks = [seen(started(stage, script), "hired") for _ in range(2)]
    ordinary = [seen(fresh(stage, script), "ordinary") for _ in range(2)]
    assert ordinary[0]["same"] == ordinary[1]["same"]
    differences = {
        name: (value, fork["same"][name])
        for fork in forks
        for name, value in ordinary[0]["same"].items()
        if fork["same"][name] != value
    }
    assert not differences, json.dumps(differences)
    for name, value in ordinary[0]["drawn"].items():
        values = [json.dumps(each["drawn"][name]) for each in (*ordinary, *forks)]
        chance = value != ordinary[1]["drawn"][name]
        if name not in ALLOWED:
            assert (name, len(set(values))) == (name, 4 if chance else 1)
    told = {name for name, value in ordinary[0]["told"].items() if value != forks[0]["told"][name]}
    assert told <= ALLOWED.keys()
    for name in ("modules loaded", "warning filters", "finders"):
        assert set(ordinary[0]["told"][name]) <= set(forks[0]["told"][name])


PRINTS = """
import os, sys, time
print("SEEN", time.strftime("%Z"), os.environ.get("KMP" + "_INIT_AT_FORK"))
from tqdm import tqdm
for _ in tqdm(range(3), desc="BAR"):
    pass
"""


@pytest.mark.parametrize(
    ("env", "start"),
    [
        ({"TZ": "America/New_York"}, "hired"),
        ({"TQDM_DISABLE": "1"}, "ordinary"),
        ({"TQDM_NCOLS": "40"}, "ordinary"),
        ({"SKLEARN_WORKING_MEMORY": "64"}, "ordinary"),
        ({"PATH": "/usr/bin"}, "ordinary"),
        ({"OMP_NUM_THREADS": "2,1"}, "ordinary"),
        ({"SM_HP_EPOCHS": "3"}, "hired"),
    ],
)
def test_variables_that_imports_read(stage: Stage, env: dict[str, str], start: str) -> None:
    """They are as the job has them: one that was read before the fork gets a start of its own."""
    log = started(stage, "import torch\n" + PRINTS, env)
    zone = {"America/New_York": ("EST", "EDT")}.get(env.get("TZ", ""), ("JST",))
    assert log[0] == start
    assert any(f"SEEN {name} None" in log for name in zone), log
    assert any(line.startswith("BAR") for line in log) == ("TQDM_DISABLE" not in env)


@pytest.mark.parametrize(
    ("script", "start"),
    [
        ("import os, torch; os.environ['TQDM_DISABLE'] = '1'", "ordinary"),
        ("import os, torch; os.environ.update(SCIPY_ARRAY_API='1')", "ordinary"),
        ("import os, torch; os.environ['RESULT'] = '1'", "hired"),
    ],
)
def test_variables_that_a_script_sets(stage: Stage, script: str, start: str) -> None:
    """One that imports have read is set in time only in an interpreter of the script's own."""
    assert started(stage, script) == [start, "status 0"]


def test_what_an_import_set(stage: Stage) -> None:
    """A script that imports scikit-learn finds what it set; no other does, and all are forks."""
    for library, value in (("sklearn", "FALSE"), ("torch", "None"), ("sklearn", "FALSE")):
        script = f"import os, {library}; print(os.environ.get('KMP' + '_INIT_AT_FORK'))"
        assert started(stage, script) == ["hired", value, "status 0"]


def test_all_cpus_where_none_are_said(stage: Stage) -> None:
    """Without OMP_NUM_THREADS, as the libraries do it."""
    script = "import os, torch; print(torch.get_num_threads() == len(os.sched_getaffinity(0)))"
    given = dict(GIVEN)
    del GIVEN["OMP_NUM_THREADS"]
    try:
        assert started(stage, script) == ["hired", "True", "status 0"]
    finally:
        GIVEN.update(given)
