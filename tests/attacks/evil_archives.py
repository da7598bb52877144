"""Archives that try to write, or to be, more than they may."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

UP = "../" * 25  # from any folder to the root of the machine
LINK, HARD, PLAIN, FOLDER = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.REGTYPE, tarfile.DIRTYPE


class Maker:
    """Writes a tar entry by entry, whatever a decent program would say to it."""

    def __init__(self, canary: Path, pax: bool = False) -> None:
        self.canary = str(canary)
        self.folder, self.name = os.path.split(self.canary)
        self.stream = io.BytesIO()
        kind = tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT
        self.tar = tarfile.open(fileobj=self.stream, mode="w", format=kind)  # noqa: SIM115
        self.file("name", "innocent")

    def file(self, name: str, text: str = "got out", **more: object) -> None:
        self.add(name, PLAIN, text.encode(), **more)

    def link(self, name: str, target: str, kind: bytes = LINK) -> None:
        self.add(name, kind, linkname=target)

    def add(self, name: str, kind: bytes, data: bytes = b"", **more: object) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(data)
        for field, value in more.items():
            setattr(info, field, value)
        self.tar.addfile(info, io.BytesIO(data))

    def raw(self, data: bytes) -> None:
        assert self.tar.fileobj is not None
        self.tar.fileobj.write(data)

    def done(self) -> bytes:
        self.tar.close()
        return gzip.compress(self.stream.getvalue(), 1)


def header(name: bytes, kind: bytes, size: int) -> bytes:
    """Return a header with a right checksum, whatever the size says."""
    octal = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    head = bytearray(512)
    head[0 : len(name)] = name
    head[100:108], head[124:136], head[136:148] = b"0000644\0", octal, b"%011o\0" % 0
    head[156:157], head[257:265] = kind, b"ustar\00000"
    head[148:156] = b"%06o\0 " % (sum(head) + 8 * 32)
    return bytes(head)


def dotdot(m: Maker) -> None:
    m.file(UP + m.canary)


def dotdot_below(m: Maker) -> None:
    m.add("code/x", FOLDER)
    m.file("code/x/../../" + UP + m.canary[1:])


def absolute(m: Maker) -> None:
    m.file(m.canary)


def through_a_link(m: Maker) -> None:
    m.link("l", m.folder)
    m.file(f"l/{m.name}")


def through_a_relative_link(m: Maker) -> None:
    m.link("l", UP + m.folder)
    m.file(f"l/{m.name}")


def link_in_a_files_place(m: Maker) -> None:
    m.link("l", m.canary)
    m.file("l")


def link_then_folder(m: Maker) -> None:
    m.link("d", m.folder)
    m.add("d", FOLDER)
    m.file(f"d/{m.name}")


def folder_through_a_link(m: Maker) -> None:
    m.link("l", m.folder)
    m.add(f"l/{m.name}", FOLDER)


def long_chain(m: Maker) -> None:
    """CVE-2025-4517: what a path of more than 4,096 bytes leads to, realpath does not see."""
    part, steps, path = "d" * 247, "abcdefghijklmnop", ""
    for step in steps:
        m.add(os.path.join(path, part), FOLDER)
        m.link(os.path.join(path, step), part)
        path = os.path.join(path, part)
    far = os.path.join("/".join(steps), "l" * 254)
    m.link(far, "../" * len(steps))
    m.link("escape", far + "/" + "../" * len(steps) + m.folder[1:])
    m.file(f"escape/{m.name}")


def long_chain_to_a_hard_link(m: Maker) -> None:
    long_chain(m)
    m.link("flag", f"escape/{m.name}", HARD)
    m.file("flag")


def up_by_a_link(m: Maker) -> None:
    """`deep/er/up/..` is within the archive, as text."""
    m.add("deep/er", FOLDER)
    m.link("deep/er/up", "../..")
    m.link("esc", "deep/er/up/" + UP + m.folder)
    m.file(f"esc/{m.name}")


def hard_link(m: Maker) -> None:
    m.link("h", m.canary, HARD)
    m.file("h")


def hard_link_up(m: Maker) -> None:
    m.link("h", UP + m.canary, HARD)
    m.file("h")


def hard_link_to_a_link(m: Maker) -> None:
    m.link("s", m.canary)
    m.link("h", "s", HARD)
    m.file("h")


def pax_path(m: Maker) -> None:
    m.file("innocent", pax_headers={"path": UP + m.canary})


def pax_linkpath(m: Maker) -> None:
    m.add("l", LINK, linkname="innocent", pax_headers={"linkpath": m.folder})
    m.file(f"l/{m.name}")


def pax_for_all(m: Maker) -> None:
    record = f"path={UP}{m.canary}\n"
    length = len(record) + 4
    data = f"{length:3d} {record}".encode()
    m.raw(header(b"g", b"g", len(data)) + data + bytes(-len(data) % 512))
    m.file("innocent")


def gnu_long_name(m: Maker) -> None:
    data = (UP + m.canary).encode() + b"\0"
    m.raw(header(b"././@LongLink", b"L", len(data)) + data + bytes(-len(data) % 512))
    m.file("innocent")


# Those that write outside where paths are taken as they are written.
ESCAPES: dict[str, tuple[Callable[[Maker], None], str]] = {
    "dotdot": (dotdot, "points outside the archive"),
    "dotdot_below": (dotdot_below, "points outside the archive"),
    "absolute": (absolute, ""),
    "through_a_link": (through_a_link, "'l' is a link that points outside the archive"),
    "through_a_relative_link": (through_a_relative_link, "'l' points outside the archive"),
    "link_in_a_files_place": (
        link_in_a_files_place,
        "'l' is a link that points outside the archive",
    ),
    "link_then_folder": (link_then_folder, "'d' is a link that points outside the archive"),
    "folder_through_a_link": (
        folder_through_a_link,
        "'l' is a link that points outside the archive",
    ),
    "long_chain": (long_chain, "leads through something that is not a folder"),
    "long_chain_to_a_hard_link": (
        long_chain_to_a_hard_link,
        "through something that is not a folder",
    ),
    "up_by_a_link": (up_by_a_link, "'esc' points outside the archive"),
    "hard_link": (hard_link, "No such file or directory"),
    "hard_link_up": (hard_link_up, "'h' points outside the archive"),
    "hard_link_to_a_link": (hard_link_to_a_link, "'s' is a link that points outside the archive"),
    "pax_path": (pax_path, "points outside the archive"),
    "pax_linkpath": (pax_linkpath, "'l' is a link that points outside the archive"),
    "pax_for_all": (pax_for_all, "points outside the archive"),
    "gnu_long_name": (gnu_long_name, "points outside the archive"),
}


def device(m: Maker) -> None:
    m.add("code/inference.py", tarfile.BLKTYPE, devmajor=7, devminor=0)


def memory(m: Maker) -> None:
    m.add("code/inference.py", tarfile.CHRTYPE, devmajor=1, devminor=1)


def fifo(m: Maker) -> None:
    m.add("code/requirements.txt", tarfile.FIFOTYPE)


def pax_header_of_8_gib(m: Maker) -> None:
    m.raw(header(b"x", b"x", 8 << 30) + bytes(64 << 20))


def long_name_without_end(m: Maker) -> None:
    m.raw(header(b"././@LongLink", b"L", 1 << 30) + b"a" * (64 << 20))


def headers_without_end(m: Maker) -> None:
    m.raw((header(b"././@LongLink", b"L", 512) + b"a" * 512) * 1000)


def sparse(m: Maker) -> None:
    head = bytearray(header(b"hole", b"S", 512))
    head[257:265], head[386:410] = b"ustar  \0", b"%011o\0%011o\0" % (0, 512)
    head[483:495] = b"\x80" + (8 << 40).to_bytes(11, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    m.raw(bytes(head) + bytes(512))


def pax_sparse(m: Maker) -> None:
    size = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(8 << 40), "GNU.sparse.numblocks": "1"}
    m.file("hole", pax_headers=size)


def long_part(m: Maker) -> None:
    m.file("n" * 256)


def long_path(m: Maker) -> None:
    m.file("/".join(["n" * 250] * 17))


def nested(m: Maker) -> None:
    m.file("d/" * 2000 + "f")


def nul(m: Maker) -> None:
    data = b"17 path=a\0b/name\n"
    m.raw(header(b"x", b"x", len(data)) + data + bytes(-len(data) % 512))
    m.file("innocent")


def promised(m: Maker) -> None:
    m.raw(header(b"huge", b"0", 8 << 40) + bytes(512))


def no_pax(m: Maker) -> None:
    data = b"9" * 600 + b" path=x\n"
    m.raw(header(b"x", b"x", len(data)) + data + bytes(-len(data) % 512))
    m.file("innocent")


def file_in_a_folders_place(m: Maker) -> None:
    m.file("d/f")
    m.file("d")


# Those that are refused for what they are.
REFUSED: dict[str, tuple[Callable[[Maker], None], str]] = {
    "device": (device, "'code/inference.py' is a device"),
    "memory": (memory, "'code/inference.py' is a device"),
    "fifo": (fifo, "'code/requirements.txt' is a FIFO"),
    "pax_header_of_8_gib": (pax_header_of_8_gib, "a header of more than 65536 bytes"),
    "long_name_without_end": (long_name_without_end, "a header of more than 65536 bytes"),
    "headers_without_end": (headers_without_end, "more than 32 headers for one entry"),
    "sparse": (sparse, "'hole' is a sparse file"),
    "pax_sparse": (pax_sparse, "'hole' is a sparse file"),
    "long_part": (long_part, "has a part of more than 255 bytes"),
    "long_path": (long_path, "is longer than 4096 bytes"),
    "nested": (nested, "is nested deeper than 100 folders"),
    "nul": (nul, "contains a NUL"),
    "promised": (promised, "it is truncated"),
    "no_pax": (no_pax, "an invalid pax header"),
    "file_in_a_folders_place": (file_in_a_folders_place, "'d' would replace a folder"),
}
PAX = ("pax_path", "pax_linkpath", "pax_sparse")


def made(name: str, canary: Path) -> bytes:
    """Return the archive of that name."""
    maker = Maker(canary, pax=name in PAX)
    (ESCAPES | REFUSED)[name][0](maker)
    return maker.done()


def bomb(size: int) -> bytes:
    """Return a tar.gz with one file of zeros, a multiple of 4 MiB: a thousandth of its size."""
    zeros = gzip.compress(bytes(4 << 20), 9)
    return gzip.compress(header(b"zeros", b"0", size)) + zeros * (size >> 22)
