"""Downloads against a real HTTP server that drops connections, changes files, or refuses."""

import hashlib
import random
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest

from cloche.tour.download import dogs, download, unpack
from cloche.tour.errors import TourError

CONTENT = random.Random(0).randbytes(5_000_000)


class Files(ThreadingHTTPServer):
    """Serves one file; `drops` says after how many bytes each of the next answers breaks off."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.drops: list[int] = []
        self.ranges = True
        self.asked: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/dogImages.zip"

    @property
    def tag(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'


class Handler(BaseHTTPRequestHandler):
    server: Files

    def do_GET(self) -> None:
        if not self.path.endswith("dogImages.zip"):
            self.send_error(404)
            return
        content, wanted = self.server.content, self.headers.get("Range")
        self.server.asked.append(wanted)
        start = 0
        if wanted and self.server.ranges and self.headers.get("If-Range") == self.server.tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if self.server.ranges:
            self.send_header("ETag", self.server.tag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        count = self.server.drops.pop(0) if self.server.drops else len(content)
        self.wfile.write(content[start : start + count])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def files() -> Iterator[Files]:
    server = Files()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ignore(done: int, total: int | None) -> None:
    pass


def test_a_download_tells_how_far_it_is(files: Files, tmp_path: Path) -> None:
    progress: list[tuple[int, int | None]] = []
    target = download(files.url, tmp_path / "new" / "file", lambda *now: progress.append(now))
    assert target.read_bytes() == CONTENT
    assert progress[0] == (0, len(CONTENT))
    assert progress[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    download(files.url, target, ignore)
    assert len(files.asked) == 1  # what is there is not fetched again


def test_dropped_connections_go_on_where_they_ended(files: Files, tmp_path: Path) -> None:
    files.drops = [1_500_000, 2_000_000]
    target = download(files.url, tmp_path / "file", ignore, attempts=1)
    assert target.read_bytes() == CONTENT
    assert files.asked == [None, "bytes=1500000-", "bytes=3500000-"]


def test_a_later_call_goes_on_too(files: Files, tmp_path: Path) -> None:
    files.drops = [2_000_000, 0, 0]
    with pytest.raises(TourError) as caught:
        download(files.url, tmp_path / "file", ignore, attempts=2)
    assert "2,000,000 bytes are kept in" in str(caught.value)
    assert "the connection ended after 2,000,000 of 5,000,000 bytes" in str(caught.value)
    download(files.url, tmp_path / "file", ignore)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert files.asked[-1] == "bytes=2000000-"


def test_a_file_that_changed_is_fetched_from_its_start(files: Files, tmp_path: Path) -> None:
    files.drops = [2_000_000, 0]
    with pytest.raises(TourError):
        download(files.url, tmp_path / "file", ignore, attempts=1)
    files.content = CONTENT[::-1]
    download(files.url, tmp_path / "file", ignore)
    assert (tmp_path / "file").read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges(files: Files, tmp_path: Path) -> None:
    files.ranges = False
    files.drops = [2_000_000]
    download(files.url, tmp_path / "file", ignore)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert files.asked == [None, None]


def test_a_part_that_was_whole_already(files: Files, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    (tmp_path / "file.part.etag").write_text(files.tag)
    download(files.url, tmp_path / "file", ignore)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert files.asked == ["bytes=5000000-"]


def test_a_refusal_is_told(files: Files, tmp_path: Path) -> None:
    with pytest.raises(TourError, match="HTTP 404 Not Found"):
        download(files.url + ".txt", tmp_path / "file", ignore)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TourError, match="Connection refused"):
        download("http://127.0.0.1:1/dogImages.zip", tmp_path / "file", ignore)


def archive(*names: str) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        for name in names:
            content.writestr(name, b"picture")
    return buffer.getvalue()


def test_the_dogs_are_downloaded_and_unpacked_once(files: Files, tmp_path: Path) -> None:
    files.content = archive("dogImages/train/001.A/1.jpg", "__MACOSX/dogImages/._x")
    folder = dogs(tmp_path, ignore, ignore, url=files.url)
    assert (folder / "train" / "001.A" / "1.jpg").read_bytes() == b"picture"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dogs"]
    assert not (tmp_path / "dogs" / "__MACOSX").exists()
    assert dogs(tmp_path, ignore, ignore, url=files.url) == folder
    assert len(files.asked) == 1


def test_a_damaged_archive_is_removed_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    whole = archive("a/1.jpg", "a/2.jpg")
    path.write_bytes(whole.replace(b"picture", b"damaged", 1))
    with pytest.raises(TourError, match="is damaged"):
        unpack(path, tmp_path / "x", ignore)
    assert not path.exists()
    assert not (tmp_path / "x").exists()
