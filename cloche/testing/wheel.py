"""A tiny Python package as a wheel, so that tests of pip need no registry."""

import zipfile
from pathlib import Path


def write_wheel(folder: Path, name: str, version: str, code: str) -> Path:
    """Write `NAME-VERSION-py3-none-any.whl` with one module, `NAME.py`; return its path.

    pip finds it with PIP_NO_INDEX=1 and PIP_FIND_LINKS=FOLDER.
    """
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path
