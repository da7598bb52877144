"""What files and folders are by their names: for the server, which looks at no pixels."""

SPLITS = ("train", "valid", "test")
OTHER_NAMES = {"training": "train", "validation": "valid", "val": "valid", "testing": "test"}
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def split_named(folder: str) -> str:
    """Return the split that a folder (or channel) of this name holds; "" where it tells none."""
    name = OTHER_NAMES.get(folder.lower(), folder.lower())
    return name if name in SPLITS else ""


def hidden(name: str) -> bool:
    """Return whether a file or folder of this name is passed over."""
    return name.startswith(".")


def picture_named(name: str) -> bool:
    """Return whether a file is named like a picture."""
    return not hidden(name) and name.lower().endswith(SUFFIXES)


def printed(text: str) -> str:
    """Return a text on one line, with what can't be printed escaped: names are users'."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
