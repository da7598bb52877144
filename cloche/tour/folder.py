"""Image folders: `train`, `valid` and `test`, each with one folder of pictures a class."""

from dataclasses import dataclass
from pathlib import Path

from cloche.tour.errors import TourError

PARTS = ("train", "valid", "test")

# What torchvision's ImageFolder reads; other files would be uploaded for nothing.
SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))

EXPECTED = (
    "Expected is DIR/train/CLASS/*.jpg, DIR/valid/CLASS/*.jpg and DIR/test/CLASS/*.jpg, "
    "with the same classes and at least two of them."
)


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """An image folder that was looked through; pictures are sorted by path."""

    root: Path
    classes: tuple[str, ...]  # those of the train folder, in the order the network counts them
    pictures: dict[str, tuple[Path, ...]]  # of each part

    @property
    def files(self) -> tuple[Path, ...]:
        """All pictures of all parts."""
        return tuple(path for part in PARTS for path in self.pictures[part])

    @property
    def summary(self) -> str:
        """How many classes and pictures there are, in words."""
        counts = ", ".join(f"{len(self.pictures[part]):,} {part}" for part in PARTS)
        return f"{len(self.classes)} classes; pictures: {counts}"

    def label(self, picture: Path) -> str:
        """Return the class that a picture lies in."""
        return picture.relative_to(self.root).parts[1]


def read_folder(root: Path) -> ImageFolder:
    """Look through an image folder.

    Raises TourError, with what was found and what is expected, when training could not use it.
    """
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise TourError(f"There is {found} at {root}. {EXPECTED}")
    missing = [part for part in PARTS if not (root / part).is_dir()]
    if missing:
        raise TourError(
            f"{root} has no folder {' and no folder '.join(missing)}. "
            f"Found: {listing(root)}. {nested(root)}{EXPECTED}"
        )
    pictures = {part: find_pictures(root / part) for part in PARTS}
    classes = tuple(sorted({path.relative_to(root).parts[1] for path in pictures["train"]}))
    check(root, classes, pictures)
    return ImageFolder(root, classes, pictures)


def check(root: Path, classes: tuple[str, ...], pictures: dict[str, tuple[Path, ...]]) -> None:
    """Raise TourError when the pictures found are not enough, or don't fit one another."""
    empty = [part for part in PARTS if not pictures[part]]
    if empty:
        part = empty[0]
        raise TourError(
            f"{root / part} holds no pictures in class folders. "
            f"Found: {listing(root / part)}. {EXPECTED}"
        )
    if len(classes) < 2:
        raise TourError(f"{root / 'train'} has only one class, {classes[0]}. {EXPECTED}")
    hollow = sorted(
        path.name
        for path in (root / "train").iterdir()
        if path.is_dir() and path.name not in classes
    )
    if hollow:
        raise TourError(
            f"{root / 'train'} has class folders without a picture: {some(hollow)}. "
            "Remove them, or put pictures in."
        )
    for part in ("valid", "test"):
        unknown = sorted({path.relative_to(root).parts[1] for path in pictures[part]} - {*classes})
        if unknown:
            raise TourError(
                f"{root / part} has classes that the train folder lacks: {some(unknown)}."
            )


def find_pictures(part: Path) -> tuple[Path, ...]:
    """Return the pictures in the class folders of one part, sorted."""
    return tuple(
        sorted(
            path
            for path in part.glob("*/*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
    )


def listing(folder: Path) -> str:
    """Return the first names in a folder, in words."""
    names = sorted(f"{p.name}/" if p.is_dir() else p.name for p in folder.iterdir())
    return some(names) or "nothing"


def nested(root: Path) -> str:
    """Return a hint when the folder that is meant lies one deeper."""
    for inner in sorted(root.iterdir()):
        if all((inner / part).is_dir() for part in PARTS):
            return f"Perhaps you mean {inner}. "
    return ""


def some(names: list[str]) -> str:
    """Return up to five names, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
