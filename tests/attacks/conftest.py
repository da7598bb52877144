"""What attacks share: each names its control, and the verdict is read from outside the sandbox.

    @pytest.mark.control("At 0e393ec the .pth of the wheel ran as root and wrote the canary.")
    def test_a_wheels_pth_runs_nowhere_outside(platform, canary): ...

The sentence says how the same attempt succeeds without the defence: in which test of the same
file (`test_without_…`), or at which commit. A test without one is not collected.
"""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse an attack that does not say what it proves."""
    for item in items:
        if HERE not in item.path.parents or item.name.startswith("test_without_"):
            continue
        control = item.get_closest_marker("control")
        if control is None or not control.args or not str(control.args[0]).strip():
            raise pytest.UsageError(f"{item.nodeid} names no control: @pytest.mark.control('…')")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A path outside every sandbox; it exists at the end if an attack got out."""
    return tmp_path / "canary"
