"""What is wrong with an image folder. Pure: pictures that were looked at in, findings out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from cloche.datacheck.names import SPLITS, printed, split_named
from cloche.datacheck.pictures import PictureHash, alike_pairs

UNEVEN = 10  # the largest class has so many times the pictures of the smallest
SHOWN = 3  # examples in a finding


@dataclass(frozen=True, slots=True)
class SeenFile:
    """One file: its path below the root, what its bytes are, what it looks like.

    look: None where it can't be read; `trouble` says why then. Without: it was not looked at.
    """

    path: str
    digest: str
    look: PictureHash | None
    trouble: str = ""

    @property
    def split(self) -> str:
        """Return `train`, `valid` or `test`, by one of the first two folders; "" where none is.

        In a job's input the first one is the channel: `test/…`, or `training/test/…`. The inner
        one counts.
        """
        folders = PurePosixPath(self.path).parts[:-1][:2]
        return next((name for folder in reversed(folders) if (name := split_named(folder))), "")

    @property
    def label(self) -> str:
        """Return the name of the class: the folder the file lies in."""
        return PurePosixPath(self.path).parent.name


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that spoils a result (`error`) or may (`warning`), in a sentence."""

    severity: str
    text: str


def find(files: Sequence[SeenFile], folders: Iterable[str] = ()) -> list[Finding]:
    """Return all findings, the worst first. `folders` are paths of class folders, empty or not."""
    found = [
        *twice(files),
        *alike(files),
        *unreadable(files),
        *empty(files, folders),
        *missing(files),
        *uneven(files),
    ]
    return [Finding(each.severity, printed(each.text)) for each in found]


def twice(files: Sequence[SeenFile]) -> list[Finding]:
    """Return the same bytes in more than one of train, valid and test."""
    by_digest: dict[str, list[SeenFile]] = defaultdict(list)
    for each in files:
        by_digest[each.digest].append(each)
    pairs = [pair for group in by_digest.values() for pair in across(group)]
    return overlaps(pairs, "the same file is in {one} and {other}")


def alike(files: Sequence[SeenFile]) -> list[Finding]:
    """Return pictures in more than one split that were only scaled or compressed again."""
    seen = [each for each in files if each.look is not None]
    looks = [each.look for each in seen if each.look is not None]
    pairs = [
        pair
        for i, j in alike_pairs(looks)
        if seen[i].digest != seen[j].digest
        for pair in across([seen[i], seen[j]])
    ]
    return overlaps(pairs, "the same picture, saved differently, is in {one} and {other}")


def across(group: Sequence[SeenFile]) -> list[tuple[SeenFile, SeenFile]]:
    """Return one pair for each two splits that a group of the same picture lies in."""
    first: dict[str, SeenFile] = {}
    for each in group:
        if each.split:
            first.setdefault(each.split, each)
    present = [first[name] for name in SPLITS if name in first]
    return [(a, b) for k, a in enumerate(present) for b in present[k + 1 :]]


def overlaps(pairs: Sequence[tuple[SeenFile, SeenFile]], text: str) -> list[Finding]:
    """Return one finding for each two splits that share pictures."""
    grouped: dict[tuple[str, str], list[tuple[SeenFile, SeenFile]]] = defaultdict(list)
    for a, b in pairs:
        grouped[a.split, b.split].append((a, b))
    findings = []
    for (one, other), found in sorted(grouped.items()):
        examples = [f"{a.path} = {b.path}" for a, b in found]
        sentence = text.format(one=one, other=other)
        count = f"{len(found):,} {'time' if len(found) == 1 else 'times'}"
        findings.append(Finding("error", f"{sentence} {count}: {shown(examples)}"))
    return findings


def unreadable(files: Sequence[SeenFile]) -> list[Finding]:
    """Return files that are no pictures, or end too early."""
    bad = [f"{each.path} {each.trouble}" for each in files if each.trouble]
    if not bad:
        return []
    count = "1 file" if len(bad) == 1 else f"{len(bad):,} files"
    return [Finding("error", f"{count} can't be used: {shown(bad)}")]


def empty(files: Sequence[SeenFile], folders: Iterable[str]) -> list[Finding]:
    """Return class folders that have no file."""
    full = {str(PurePosixPath(each.path).parent) for each in files}
    bare = sorted(set(folders) - full)
    return [Finding("warning", f"empty class folders: {shown(bare)}")] if bare else []


def missing(files: Sequence[SeenFile]) -> list[Finding]:
    """Return classes of one split that train lacks, and classes of train that others lack."""
    labels: dict[str, set[str]] = defaultdict(set)
    for each in files:
        labels[each.split].add(each.label)
    findings = []
    for name in ("valid", "test"):
        if not labels["train"] or not labels[name]:
            continue
        if unknown := sorted(labels[name] - labels["train"]):
            findings.append(
                Finding("error", f"classes of {name} that train does not have: {shown(unknown)}")
            )
        if absent := sorted(labels["train"] - labels[name]):
            findings.append(
                Finding("warning", f"classes of train that {name} does not have: {shown(absent)}")
            )
    return findings


def uneven(files: Sequence[SeenFile]) -> list[Finding]:
    """Return splits whose classes differ very much in size."""
    findings = []
    for name in (*SPLITS, ""):
        counts = Counter(each.label for each in files if each.split == name)
        if len(counts) < 2:
            continue
        (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
        if many >= UNEVEN * few:
            where = f"in {name} " if name else ""
            text = f"{where}class {most} has {many:,} pictures, class {least} has {few:,}"
            findings.append(Finding("warning", text))
    return findings


def shown(examples: Sequence[str]) -> str:
    """Return the first few of many."""
    more = len(examples) - SHOWN
    tail = f" and {more:,} more" if more > 0 else ""
    return "; ".join(examples[:SHOWN]) + tail
