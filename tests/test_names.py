"""A name means one thing: somebody who searches for a class finds one."""

import ast
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
# `runtime` is carried into sandboxes and `toolkits` stands in for AWS's packages: both answer to
# names that others chose.
APART = {"runtime", "toolkits"}


def test_no_class_name_is_defined_twice() -> None:
    sources = {
        str(path.relative_to(ROOT)): path.read_text()
        for path in sorted((ROOT / "cloche").rglob("*.py"))
        if not APART.intersection(path.relative_to(ROOT).parts)
    }
    assert len(sources) > 100
    assert twice(sources) == {}


def test_a_name_defined_twice_is_found() -> None:
    sources = {
        "a.py": "class Plan: ...\nclass _Own: ...\n",
        "b.py": "def f():\n    class Plan: ...\n",
        "c.py": "class Planned: ...\nclass _Own: ...\n",
    }
    assert twice(sources) == {"Plan": ["a.py:1", "b.py:2"]}


def twice(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """The public class names with more than one definition, each with the places of all."""
    places = defaultdict(list)
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source, path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{path}:{node.lineno}")
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def test_no_private_word_for_a_desired_state() -> None:
    """Migrations keep what a column was called before."""
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "cloche").rglob("*.py")
        if "migrations" not in path.parts and "toolkits" not in path.parts
        if re.search(r"(?i)(?<![a-z])(wish|mend)", path.read_text())
    }
    assert found == set()
    assert re.search(r"(?i)(?<![a-z])(wish|mend)", "the_wish")
