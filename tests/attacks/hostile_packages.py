"""Packages that mean harm, and an index on this machine that has them."""

from __future__ import annotations

import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST = "127.0.0.2"  # not in NO_PROXY: pip goes through a proxy of the platform's
BACKEND = """
import zipfile
NAME, INFO = "{name}-1-py3-none-any.whl", "{name}-1.dist-info"
def attack():
{attack}
def get_requires_for_build_wheel(config_settings=None):
    return []
def build_wheel(folder, config_settings=None, metadata_directory=None):
    attack()
    with zipfile.ZipFile(folder + "/" + NAME, "w") as wheel:
        wheel.writestr("{name}.py", "VALUE = 42\\n")
        wheel.writestr(INFO + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1\\n")
        wheel.writestr(INFO + "/WHEEL",
            "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(INFO + "/RECORD", "")
    return NAME
"""
SYSTEM = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def wheel(name: str, files: Mapping[str, str | bytes]) -> bytes:
    """Return a wheel of version 1 with these files."""
    data, info = io.BytesIO(), f"{name}-1.dist-info"
    with zipfile.ZipFile(data, "w") as archive:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = (0o100755 if "/scripts/" in path else 0o100644) << 16
            archive.writestr(entry, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return data.getvalue()


def source(name: str, attack: str) -> bytes:
    """Return a source distribution of version 1 whose build backend does this."""
    body = "".join(f"    {line}\n" for line in attack.strip().splitlines())
    files = {
        "pyproject.toml": f'{SYSTEM}[project]\nname = "{name}"\nversion = "1"\n',
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n",
        "backend.py": BACKEND.replace("{name}", name).replace("{attack}\n", body),
    }
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for path, text in files.items():
            info = tarfile.TarInfo(f"{name}-1/{path}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


class HostileIndex:
    """A page with links to files; `files` may be added to, and made anew at each download."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | Callable[[], bytes]] = {}
        self.downloads: list[str] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                found = index.files.get(name, b"")
                if name:
                    index.downloads.append(name)
                page = "".join(f'<a href="/{each}">{each}</a>' for each in index.files).encode()
                body = (found if isinstance(found, bytes) else found()) if name else page
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer((HOST, 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> HostileIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def offer(self, name: str, files: Mapping[str, str | bytes]) -> str:
        """Offer a wheel; return the requirement that asks for it."""
        self.files[f"{name}-1-py3-none-any.whl"] = wheel(name, files)
        return f"{name}\n"

    def offer_source(self, name: str, attack: str) -> str:
        """Offer a source distribution; return the requirement that asks for it."""
        self.files[f"{name}-1.tar.gz"] = source(name, attack)
        return f"{name}\n"

    @property
    def settings(self) -> dict[str, str]:
        """What pip needs as settings."""
        return {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": f"http://{HOST}:{self.server.server_port}/",
            "PIP_TRUSTED_HOST": HOST,
            "PIP_RETRIES": "0",
            "PIP_NO_CACHE_DIR": "1",
        }
