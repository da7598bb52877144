"""The whole tour as a user runs it, on a few pictures; and Ctrl-C in the middle."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cloche.tour.digits import write_digits

COMMAND = [sys.executable, "-m", "cloche", "tour"]


def leftovers(home: Path) -> list[str]:
    """The processes that have to do with a home folder and don't end."""
    deadline = time.monotonic() + 20
    found = [""]
    while found and time.monotonic() < deadline:
        time.sleep(0.1)
        found = [
            " ".join(process.info["cmdline"])
            for process in psutil.process_iter(["cmdline"])
            if any(str(home) in word for word in process.info["cmdline"] or ())
        ]
    return found


def wait(condition: Callable[[], bool], within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "this takes too long"
        time.sleep(0.05)


@pytest.mark.torch
@pytest.mark.timeout(600)  # on a busy machine; a minute and a half is the SDK waiting
def test_the_tour_from_start_to_end(tmp_path: Path) -> None:
    home, data = tmp_path / "home", tmp_path / "data"
    write_digits(data, per_class=12)
    program = (
        "import sys; from pathlib import Path; from cloche.tour import main; "
        f"sys.exit(main(home=Path({str(home)!r}), data=Path({str(data)!r}), "
        "epochs=2, trials=3, instances=2))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
        cwd=tmp_path,
    )
    log = result.stdout
    assert result.returncode == 0, log + result.stderr
    for text in (
        "120 objects",
        "3 trials, 3 at a time",
        "completed best",
        "Epoch 2/2: Training Loss: ",  # the job's log, streamed
        "Rank 1 of 2 (gloo)",
        "is InService: the model of 1 instance",
        "is InService: the model of 2 instances",
        "True class: digit ",
        "the same 10 scores",
        "Both endpoints named the same class for ",
        "Starting Model Training: 80 pictures of 10 classes",
        "The whole tour",
        "plain machine",
        "The platform is down, everything is kept.",
    ):
        assert text in log, log
    (report,) = (home / "tour").glob("report-*.html")
    page = report.read_text()
    printed = re.search(r"1 instance +[^%]* ([0-9.]+%)", log)
    assert printed is not None
    assert f"<b>{printed[1]}</b>" in page
    assert page.count("data:image/jpeg;base64,") == 7
    for chart in ("Objective by trial", "Learning rate, batch size", "CPU use of the training job"):
        assert chart in page
    (plain,) = (home / "tour").glob("plain-*")
    assert (plain / "TrainedModels" / "model.pth").is_file()
    assert leftovers(home) == []


def test_ctrl_c_shuts_the_platform_down(tmp_path: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "log"
    with log.open("w") as file:
        child = subprocess.Popen(
            [*COMMAND, "--home", str(home)],
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            start_new_session=True,
            # As in a terminal, though the tests may run where it is ignored (`nohup … &`).
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    try:
        wait(lambda: "1  Pictures in a bucket" in log.read_text() or child.poll() is not None)
        os.killpg(child.pid, signal.SIGINT)
        code = child.wait(180)
    finally:
        child.kill()
    text = log.read_text()
    assert code == 130, text
    assert "Interrupted." in text
    assert "Traceback" not in text
    assert "All that the tour created is in a home folder of its own: " in text
    assert leftovers(home) == []
