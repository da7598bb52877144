"""The plain machine: an ordinary process, its CPU use, its failures."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from cloche.tour import plain
from cloche.tour.errors import TourError

SCRIPT = """
import os, time
print("Starting Model Training", sorted(os.listdir("dogImages")), os.environ["IMAGE_SIZE"])
assert not [name for name in os.environ if name.startswith("AWS_")]
end = time.process_time() + 1.2
while time.process_time() < end:
    pass
print("Testing Loss: 0.5, Testing Accuracy: 0.8125")
print("saved")
"""


def run(tmp_path: Path, script: str) -> tuple[plain.PlainRun, str]:
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "script.py").write_text(script)
    output = StringIO()
    console = Console(file=output, width=120)
    folder = tmp_path / "run"
    return plain.run(tmp_path / "script.py", tmp_path / "data", folder, 96, console), (
        output.getvalue()
    )


def test_it_runs_without_the_platform_and_its_cpu_use_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    found, printed = run(tmp_path, SCRIPT)
    assert found.test_accuracy == 0.8125
    assert found.folder == str(tmp_path / "run")
    assert "Starting Model Training ['train'] 96" in printed
    assert printed.rstrip().endswith("saved")
    assert len(found.cpu.seconds) == len(found.cpu.values) >= 2
    assert 0 < max(found.cpu.values) < 150
    assert list(found.cpu.seconds) == sorted(found.cpu.seconds)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("raise SystemExit(3)", r"script.py ended with exit code 3; see .*/run/log"),
        ("print('saved')", r"did not print its testing accuracy; see .*/run/log"),
    ],
)
def test_a_failure_says_where_to_look(tmp_path: Path, script: str, text: str) -> None:
    with pytest.raises(TourError, match=text):
        run(tmp_path, script)


def test_only_what_cloche_run_sets_is_left_out() -> None:
    given = {"PATH": "/bin", "AWS_REGION": "x", "HTTPS_PROXY": "x", "SAGEMAKER_X": "x", "LANG": "C"}
    kept = plain.environment(given, 96)
    assert kept == {
        "PATH": "/bin",
        "LANG": "C",
        "IMAGE_SIZE": "96",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
