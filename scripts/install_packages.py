"""Install Cloche with the extras EXTRAS into the venv that runs this, and show how far that is.

pip is silent for minutes while it unpacks large packages; what it says is kept in .venv/pip.log.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(sys.prefix)
LOG = VENV / "pip.log"
NEEDED_GB = 7.8  # with PyTorch's CUDA build, which is what pip finds by default
TERMINAL_S, ELSEWHERE_S = 0.5, 15.0  # between two lines of progress
# What proves that an extra is there.
PROOFS = {
    "pytorch": ("torch", "torchvision", "efficientnet_lite_pytorch"),
    "tour": ("boto3", "sagemaker", "matplotlib"),
    "dev": ("pytest", "hypothesis", "mypy"),
}
STEPS = {"Collecting": "finding", "Downloading": "downloading", "Using": "reading"}
FAILURE_LINES = 20


class Progress:
    """One line that says what pip is doing, for how long, and how much is installed."""

    def __init__(self) -> None:
        self.step = "starting pip"
        self.begun = time.monotonic()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.show, daemon=True)

    def hear(self, line: str) -> None:
        """Note what a line of pip's says it is doing."""
        word, _, rest = line.strip().partition(" ")
        if word in STEPS:
            name, size = re.match(r"(?:cached )?([^ ]*)(.*)", rest).groups()  # type: ignore[union-attr]
            package = re.split(r"[<>=!~;\[]|-\d", name.rsplit("/", 1)[-1])[0]
            self.step = f"{STEPS[word]} {package}{size if word != 'Collecting' else ''}"
        elif line.startswith("Installing collected packages"):
            self.step = f"installing {line.count(',') + 1} packages"

    def show(self) -> None:
        """Print the line until it is over."""
        terminal = sys.stdout.isatty()
        while not self.over.wait(TERMINAL_S if terminal else ELSEWHERE_S):
            text = f"  {self.elapsed()}  {self.step}"
            if self.step.startswith("installing"):
                text += f": {folder_gb(VENV):.1f} GB in .venv"
            if terminal:
                width = shutil.get_terminal_size().columns - 1
                print(f"\r\x1b[K{text[:width]}", end="", flush=True)
            else:
                print(text, flush=True)
        if terminal:
            print("\r\x1b[K", end="", flush=True)

    def elapsed(self) -> str:
        """Return the time since the start as `1:05`."""
        minutes, seconds = divmod(round(time.monotonic() - self.begun), 60)
        return f"{minutes}:{seconds:02}"


def main() -> None:
    """Install; exit code 1 when it failed."""
    extras = sys.argv[1]
    print("Installing packages into .venv: some minutes the first time", flush=True)
    if "pytorch" in extras and importlib.util.find_spec("torch") is None:
        warn_of_size()
    progress = Progress()
    progress.thread.start()
    try:
        code = run_pip(extras, progress)
        complaint = "" if code else missing(extras, progress)
    finally:
        progress.over.set()
        progress.thread.join()
    if code != 0:
        lines = LOG.read_text(errors="replace").splitlines()[-FAILURE_LINES:]
        sys.exit("\n".join([*lines, f"pip failed (exit code {code}); all it said is in {LOG}"]))
    if complaint:
        sys.exit(
            f"{complaint}\nPackages are missing in .venv: remove it (make clean) and try again"
        )
    print(f"Installed in {progress.elapsed()}; .venv has {folder_gb(VENV):.1f} GB", flush=True)


def warn_of_size() -> None:
    """Say what it takes, and how it takes less, before it is taken."""
    free = shutil.disk_usage(VENV).free / 1e9
    print(
        f"  They take {NEEDED_GB} GB of disk, 4.1 GB of it for GPUs; {free:.1f} GB are free.\n"
        "  Without that part: PIP_EXTRA_INDEX_URL=URL make …, with the URL of an index that has\n"
        "  PyTorch's CPU-only wheels (pytorch.org names one).",
        flush=True,
    )


def missing(extras: str, progress: Progress) -> str:
    """Return why the extras can't be imported; "" when they can.

    A venv that cannot import them is not set up, whatever pip said.
    """
    progress.step = "importing the packages for the first time"
    proofs = [name for extra in extras.split(",") for name in PROOFS[extra]]
    program = f"import cloche, {', '.join(proofs)}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return ""
    return done.stderr.strip() or f"`{program}` ended with exit code {done.returncode}"


def run_pip(extras: str, progress: Progress) -> int:
    """Run pip and return its exit code; its output goes to the log and the progress."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", "--editable", f".[{extras}]"]
    with (
        LOG.open("w") as log,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as pip,
    ):
        assert pip.stdout is not None
        for line in pip.stdout:
            log.write(line)
            progress.hear(line)
    return pip.returncode


def folder_gb(folder: Path) -> float:
    """Return what the files below a folder hold, in GB."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # pip moved it meanwhile
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
    return total / 1e9


if __name__ == "__main__":
    main()
