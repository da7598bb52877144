"""The words that users read are the field's: messages, help, logs, the report, documentation.

A short list of words that readers stumbled over, each with what to write instead. Docstrings and
comments are not looked at, except those that are a command's help.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTEAD = {
    r"drawn": "generated, chosen at random",
    r"wish(es|ed)?": "request, option, desired state",
    r"mend(s|ed|ing)?": "fix, repair",
    r"told": "reported, specified, given",
    r"anew": "again",
    r"rightly": "correctly",
    r"spares?|spared": "save",
    r"go(es)? on being": "is still",
    r"takes? (it |them |that )?back": "undo, remove",
    r"can't be had": "is not available, can't be downloaded",
    r"is no more": "no longer exists",
    r"of one's own": "custom",
    r"(?<!there )(is|are) no (?!longer\b|more than)\w+": "is not a",
    r"(is|are) none of": "is not one of",
    r"wants? to be": "must be",
    r"heeded": "used",
}
LISTED = re.compile(rf"(?i)(?<![\w`-])({'|'.join(INSTEAD)})(?![\w`-])")
# Documentation of the design is for those who change the code.
PAGES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
    ROOT / "cloche/tour/page.html",
    ROOT / "Makefile",
    *(ROOT / "scripts" / name for name in ("setup", "install", "test", "test-sdks")),
]
# Not read by users: what cloche.testing's assertions say.
CODE = [
    *(path for path in (ROOT / "cloche").rglob("*.py") if "testing" not in path.parts),
    *(ROOT / "examples").rglob("*.py"),
    ROOT / "scripts/install_packages.py",
]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages(page: Path) -> None:
    lines = enumerate(page.read_text().splitlines(), 1)
    assert [f"{n}: {found}" for n, line in lines for found in words(line)] == []


def test_messages() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in CODE
        for line, text in messages(ast.parse(path.read_text()))
        for word in words(text)
    ]
    assert found == []


def test_a_listed_word_is_found() -> None:
    tree = ast.parse('"""told"""\ndef f(x):\n    """drawn"""\n    raise E(f"{x} was told")\n')
    assert [(line, words(text)) for line, text in messages(tree)] == [
        (4, ["told (instead: reported, specified, given)"])
    ]
    assert words("It is no file, There is no file") == ["is no file (instead: is not a)"]
    help_of = ast.parse('@app.command()\ndef f():\n    """Mend it."""\n')
    assert [words(text) for _, text in messages(help_of)] == [["Mend (instead: fix, repair)"]]


def words(text: str) -> list[str]:
    """The listed words of a text, each with what to write instead."""
    found = []
    for match in LISTED.finditer(text):
        instead = next(i for p, i in INSTEAD.items() if re.fullmatch(rf"(?i){p}", match[1]))
        found.append(f"{match[1]} (instead: {instead})")
    return found


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The texts of a module that are sentences: no docstrings but those of commands, no keys."""
    docstrings, parts = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            decorators = getattr(node, "decorator_list", [])
            if isinstance(first, ast.Expr) and not any(
                "app." in ast.unparse(d) for d in decorators
            ):
                docstrings.add(first.value)
        if isinstance(node, ast.JoinedStr):
            parts.update(node.values)
    for node in ast.walk(tree):
        text = None
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        if text is not None and " " in text and node not in docstrings and node not in parts:
            yield node.lineno, text
