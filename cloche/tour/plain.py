"""The plain machine: ec2_train.py as an ordinary process, with nothing of the platform about it."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
from rich.console import Console

from cloche.tour.errors import TourError
from cloche.tour.facts import PlainRun, Use

SAMPLE_S = 0.5
# What `cloche run` sets; a plain machine has none of it.
OURS = ("AWS_", "SAGEMAKER_", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")


def run(script: Path, data: Path, folder: Path, image_size: int, console: Console) -> PlainRun:
    """Run the script in `folder`, which it finds `data` in as dogImages; return what came of it.

    Its lines are printed, and kept in `folder`/log. Raises TourError when it fails.
    """
    folder.mkdir(parents=True)
    (folder / "dogImages").symlink_to(data, target_is_directory=True)
    log = folder / "log"
    begun = time.monotonic()
    with log.open("w") as output:
        child = subprocess.Popen(
            [sys.executable, "-u", str(script)],
            cwd=folder,
            env=environment(os.environ, image_size),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        cpu = sample(child, log, begun, console)
    finally:
        child.kill()
        child.wait()
    text = log.read_text()
    if child.returncode != 0:
        raise TourError(f"{script.name} ended with exit code {child.returncode}; see {log}")
    found = re.search(r"Testing Accuracy: ([0-9.]+)", text)
    if found is None:
        raise TourError(f"{script.name} did not print its testing accuracy; see {log}")
    return PlainRun(time.monotonic() - begun, cpu, float(found[1]), str(folder))


def environment(given: Mapping[str, str], image_size: int) -> dict[str, str]:
    """Return the variables of a plain machine's shell."""
    kept = {name: value for name, value in given.items() if not name.startswith(OURS)}
    return kept | {"IMAGE_SIZE": str(image_size), "PYTHONDONTWRITEBYTECODE": "1"}


def sample(child: "subprocess.Popen[bytes]", log: Path, begun: float, console: Console) -> Use:
    """Print what the process says until it has ended; return its CPU use, 100 is one CPU."""
    seconds, values = [], []
    process = psutil.Process(child.pid)
    at, used = begun, 0.0
    with log.open() as lines:
        while child.poll() is None:
            try:
                child.wait(SAMPLE_S)
            except subprocess.TimeoutExpired:
                now, total = time.monotonic(), cpu_s(process)
                seconds.append(now - begun)
                values.append(max(0.0, 100 * (total - used) / (now - at)))
                at, used = now, total
            for line in lines:
                text = f"   {line.rstrip()}"
                console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)
    return Use(tuple(seconds), tuple(values))


def cpu_s(process: psutil.Process) -> float:
    """Return the CPU seconds that a process and all below it have used; 0 when it has ended."""
    total = 0.0
    try:
        for each in (process, *process.children(recursive=True)):
            times = each.cpu_times()
            total += times.user + times.system
    except psutil.NoSuchProcess:
        pass  # it ended meanwhile
    return total
