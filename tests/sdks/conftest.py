"""A platform that is up, and the stories, all running on it at once.

The SDKs sleep up to 30 s between two looks, so side by side they take as long as the longest.
"""

import subprocess
from collections.abc import Iterator

import pytest
from sdk_stories import CLOCHE, STORIES_RUN, Stories, python, run_story

from cloche.testing.platform import free_port


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stories]:
    """Run every story whose SDK is there."""
    folder = tmp_path_factory.mktemp("sdks")
    home = folder / "home"
    wanted = sorted(each for each in STORIES_RUN if python(each[0]).exists())
    if all(sdk == "2" for sdk, _ in wanted):  # the deploying one sleeps a minute: not by default
        wanted = [("2", "v2_tune")]
    up = [*CLOCHE, "up", "--detach", "--home", str(home), "--port", str(free_port())]
    subprocess.run(up, check=True, capture_output=True, timeout=120)
    running = {each: run_story(home, folder / "-".join(each), *each) for each in wanted}
    try:
        yield Stories(running)
    finally:
        for story in running.values():
            story.process.terminate()
            story.process.wait(30)
        down = [*CLOCHE, "down", "--home", str(home), "--stop-jobs"]
        subprocess.run(down, check=True, capture_output=True, timeout=120)
