"""Folders and files that are for one user alone: checked by their descriptors, through no link."""

import errno
import os
import pwd
import stat
from pathlib import Path

FOLDER, FILE = 0o700, 0o600
OPEN_TO_OTHERS = 0o077
NO_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO)  # a link, a folder, a socket
MOST_LINKS = 40  # as the kernel counts: a loop of links has no end


class NotPrivate(Exception):
    """Another user of the machine could read or change it; the text says why, and what to do."""


def private_folder(path: Path) -> int:
    """Make sure that the folder is this user's and nobody else's; return the mode that it had.

    A mode that lets others in is corrected. NotPrivate: what a mode can't repair. FileNotFoundError
    when there is none.
    """
    check_way(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise NotPrivate(
                f"{path} belongs to another user ({user_name(found.st_uid)}), who could read and "
                "change all that is kept there. Nothing was changed. Choose another --home, or "
                "run cloche as that user."
            )
        check_entries(path, descriptor)
        had = stat.S_IMODE(found.st_mode)
        if had & OPEN_TO_OTHERS or had & FOLDER != FOLDER:
            os.fchmod(descriptor, FOLDER)
            if stat.S_IMODE(os.fstat(descriptor).st_mode) & OPEN_TO_OTHERS:
                raise NotPrivate(
                    f"{path} is on a file system without file permissions: it stays open to every "
                    "user of the machine. Choose a --home on another one."
                )
        return had
    finally:
        os.close(descriptor)


def check_entries(path: Path, descriptor: int) -> None:
    """NotPrivate when what lies in the folder is a link, or another user's: others put it there."""
    for entry in sorted(os.listdir(descriptor)):
        try:
            found = os.stat(entry, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            continue  # a server that is starting has renamed what it had written
        if stat.S_ISLNK(found.st_mode):
            raise NotPrivate(
                f"{path / entry} is a symbolic link. What Cloche keeps lies in its home folder "
                "itself. Nothing was changed. Replace it by its target, or choose another --home."
            )
        if found.st_uid not in (os.geteuid(), 0):
            raise NotPrivate(
                f"{path / entry} belongs to another user ({user_name(found.st_uid)}). Nothing was "
                "changed. Remove it, or choose another --home."
            )


def check_way(path: Path) -> None:
    """NotPrivate when another user could put another folder in this one's place.

    That is: a folder above can be written by everybody and is not sticky, or a link on the way
    is another user's. What is yours to arrange (a group's folder, a folder of root's) is let be.
    """
    todo, here, links = list(path.absolute().parts[1:]), Path("/"), 0
    while todo:
        above = os.stat(here)
        if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
            raise NotPrivate(
                f"{here}, above {path}, can be written by every user of the machine, who could put "
                f"another folder in its place. Run: chmod o-w {here} (or chmod +t), or choose "
                "another --home."
            )
        part = todo.pop(0)
        inner = here.parent if part == ".." else here / part
        try:
            found = os.lstat(inner)
        except FileNotFoundError:
            return
        if not stat.S_ISLNK(found.st_mode):
            here = inner
            continue
        links += 1
        if found.st_uid not in (os.geteuid(), 0) or links > MOST_LINKS:
            raise NotPrivate(
                f"{inner} is another user's link ({user_name(found.st_uid)}), who could turn it "
                "elsewhere. Choose another --home."
            )
        leads = Path(os.readlink(inner))
        todo = [part for part in leads.parts if part != "/"] + todo
        here = Path("/") if leads.is_absolute() else here


def private_file(path: Path) -> None:
    """Make the file if need be, and sure that only this user may open it; NotPrivate if not so."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, FILE)
    except OSError as error:
        if error.errno not in NO_FILE:
            raise  # a full disk, say
        raise NotPrivate(f"{path} can't be used: {error.strerror}. Nothing was changed.") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise NotPrivate(f"{path} is not a regular file. Nothing was changed.")
        if found.st_uid != os.geteuid():
            name = user_name(found.st_uid)
            raise NotPrivate(f"{path} belongs to another user ({name}). Nothing was changed.")
        if stat.S_IMODE(found.st_mode) != FILE:
            os.fchmod(descriptor, FILE)
    finally:
        os.close(descriptor)


def user_name(uid: int) -> str:
    """Return the user's name, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
