"""The stories that the SDKs tell, in processes of their own as a user runs them."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

STORIES, ROOT = Path(__file__).parent / "stories", Path(__file__).parents[2]
CLOCHE = (sys.executable, "-m", "cloche")
STORIES_RUN = {  # SDK, story
    ("2.70.0", "v2_fit"),
    ("2.70.0", "v2_tune"),
    ("2.70.0", "v2_serve"),
    ("2", "v2_tune"),
    ("2", "v2_serve"),
    ("3.27.0", "v3_train"),
    ("3.27.0", "v3_torchrun"),
    ("3.27.0", "v3_tune"),
    ("3.27.0", "v3_serve"),
}
WITHIN_S = 280.0


def python(sdk: str) -> Path:
    """Return the interpreter that has this SDK: "2" is the latest 2.x, which .venv has."""
    return Path(sys.executable) if sdk == "2" else ROOT / f".venv-sdk/{sdk}/bin/python"


@dataclass
class Story:
    """A story that runs."""

    folder: Path
    process: "subprocess.Popen[bytes]"

    def report(self) -> dict[str, Any]:
        """Return what the story wrote down; AssertionError with its output when it failed."""
        code = self.process.wait(WITHIN_S)
        assert code == 0, (self.folder / "log").read_text(errors="replace")[-8000:]
        found: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        return found


class Stories:
    """The stories of the SDKs that are there."""

    def __init__(self, running: dict[tuple[str, str], Story]) -> None:
        self.running = running

    def report(self, sdk: str, name: str) -> dict[str, Any]:
        """Return a story's report once it has ended; skips where the SDK is not there."""
        if (sdk, name) not in self.running:
            pytest.skip(f"sagemaker {sdk} is not in .venv-sdk: run `make test-sdks`")
        return self.running[sdk, name].report()


def run_story(home: Path, folder: Path, sdk: str, name: str) -> Story:
    """Start a story in a folder of its own, as a user does."""
    folder.mkdir()
    command = [*CLOCHE, "run", "--home", str(home), "--", str(python(sdk)), f"{STORIES}/{name}.py"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    return Story(folder, process)
