"""The picture of the layers in docs/design/README.md, made from the code.

Its rows are the layers of pyproject.toml's import contract; under each package stands what it
really imports (grimp's graph, which import-linter looks at too).

    .venv/bin/python scripts/layers.py    writes it anew; scripts/docs.py fails when it is old
"""

import ast
import textwrap
import tomllib
from itertools import chain
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/design/README.md"
BEGIN, END = "<!-- layers: made by scripts/layers.py -->\n", "<!-- end of layers -->"
COMMAND = ".venv/bin/python scripts/layers.py"
NAMES, WIDTH = 19, 108  # columns: of names, of all
APART = ["cloche.runtime", "cloche.toolkits", "cloche.testing"]
LEFT_OUT = {"cloche.__main__"}
SAGEMAKER = "cloche.services.sagemaker"


def main() -> None:
    """Write the picture into the page."""
    before, _, after = parts()
    PAGE.write_text(f"{before}{BEGIN}{picture()}{END}{after}")


def is_old() -> bool:
    """Tell whether the page has another picture than the code would give."""
    return parts()[1] != picture()


def parts() -> tuple[str, str, str]:
    """Return the page before the picture, the picture, and what follows."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    found, _, after = rest.partition(END)
    return before, found, after


def picture() -> str:
    """Return the layers as they are now, in Markdown."""
    graph = grimp.build_graph("cloche", exclude_type_checking_imports=True)
    whole, inside = contracts()
    missing = graph.find_children("cloche") - {*chain(*whole), *APART, *LEFT_OUT}
    if missing:
        raise SystemExit(f"in no layer of pyproject.toml: {', '.join(sorted(missing))}")
    pictures = (
        rows(graph, whole),
        "In no layer: what runs in sandboxes, and what is for tests\n" + rows(graph, [APART]),
        "Inside services/sagemaker:\n" + rows(graph, inside),
    )
    return "```text\n" + "\n\n".join(pictures) + "\n```\n"


def contracts() -> tuple[list[list[str]], list[list[str]]]:
    """Return the layers of the package, and of SageMaker's, each from top to bottom."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    found = {}
    for contract in settings["contracts"]:
        if contract["type"] == "layers":
            container = contract.get("containers", [""])[0]
            prefix = f"{container}." if container else ""
            layers = [layer.split("|") for layer in contract["layers"]]
            found[container] = [[prefix + name.strip() for name in layer] for layer in layers]
    return found[""], found[SAGEMAKER]


def rows(graph: grimp.ImportGraph, layers: list[list[str]]) -> str:
    """Return layers as rows between lines."""
    names = [*chain(*layers)]
    line = "─" * WIDTH
    drawn = [line]
    for layer in layers:
        for name in layer:
            used = [other.rpartition(".")[2] for other in names if uses(graph, name, other)]
            drawn += row(name, f"→ {' '.join(used)}" if used else "")
        drawn.append(line)
    return "\n".join(drawn)


def row(name: str, arrow: str) -> list[str]:
    """Return the lines of one package: what it is, what it imports."""
    shown = name.rpartition(".")[2] + ("/" if module(name).name == "__init__.py" else ".py")
    text = textwrap.shorten(about(name), WIDTH - NAMES, placeholder=" …")
    others = textwrap.wrap(arrow, WIDTH - NAMES)
    return [f"{shown:{NAMES}}{text}", *(" " * NAMES + other for other in others)]


def uses(graph: grimp.ImportGraph, name: str, other: str) -> bool:
    """Tell whether something in one package imports something in another."""
    if name == other:
        return False
    return graph.direct_import_exists(importer=name, imported=other, as_packages=True)


def about(name: str) -> str:
    """Return the first sentence of a module's docstring, without its end."""
    text = ast.get_docstring(ast.parse(module(name).read_text())) or ""
    first = " ".join(text.partition("\n\n")[0].split())
    return first.partition(". ")[0].removesuffix(".")


def module(name: str) -> Path:
    """Return the file of a module or package."""
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


if __name__ == "__main__":
    main()
