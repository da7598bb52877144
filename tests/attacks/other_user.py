"""Another user of the machine: runs as `nobody`, in a place that both can reach."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

NOBODY = 65534
PYTHON = "/usr/bin/python3"  # the tests' own may lie in a folder of root's
NEEDS = os.geteuid() == 0 and os.access(PYTHON, os.X_OK)

READ_ALL = """
import os, sys
for folder, _, files in os.walk(sys.argv[1]):
    for name in files:
        try:
            loot.write(open(os.path.join(folder, name), "rb").read())
        except OSError:
            pass
"""


class OtherUser:
    """Tries things as `nobody`; what it gets hold of is in its loot, which the test looks into."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.own = place / "nobody"
        self.own.mkdir()
        os.chown(self.own, NOBODY, NOBODY)

    def tries(self, script: str, *arguments: object) -> bytes:
        """Run a script (`loot` is its file to write to) to its end; return the loot."""
        loot = self.own / "loot"
        loot.unlink(missing_ok=True)
        head = f"loot = open({str(loot)!r}, 'wb')\n"
        subprocess.run(
            [PYTHON, "-I", "-S", "-c", head + script, *map(str, arguments)],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            cwd="/",
            env={},
            timeout=60,
            check=False,
            capture_output=True,
        )
        return loot.read_bytes()

    def reads(self, *paths: Path) -> bytes:
        """Try to read files."""
        script = (
            "import sys\nfor path in sys.argv[1:]:\n try: loot.write(open(path, 'rb').read())\n"
            " except OSError: pass\n"
        )
        return self.tries(script, *paths)

    def reads_all(self, folder: Path) -> bytes:
        """Try to read every file below a folder."""
        return self.tries(READ_ALL, folder)


@contextmanager
def public_place() -> Iterator[Path]:
    """Give a folder that every user may look into (pytest's own are closed)."""
    place = Path(tempfile.mkdtemp(prefix="cloche-public-"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        rmtree(place, ignore_errors=True)


def root_secret(home: Path) -> bytes:
    """Return root's secret key, as the owner reads it."""
    return str(json.loads((home / "credentials.json").read_text())["secret_access_key"]).encode()
