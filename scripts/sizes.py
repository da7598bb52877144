"""Hold the size rules: files under 500 lines, functions under 60, imports at the top, no cycles."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES, FUNCTION_LINES = 500, 60
ROOT = Path(__file__).resolve().parent.parent
DICTATED = ("operation", "app.command")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    """Print each breach; exit code 1 when there is one."""
    files = sorted((ROOT / "cloche").rglob("*.py"))
    trees = {path: ast.parse(path.read_text()) for path in files}
    breaches = [text for path, tree in trees.items() for text in breaches_of(path, tree)]
    graph = {module_of(path): imports(path, tree, set(trees)) for path, tree in trees.items()}
    breaches += [f"import cycle: {' -> '.join(cycle)}" for cycle in cycles(graph)]
    for text in breaches:
        print(text)
    sys.exit(1 if breaches else 0)


def breaches_of(path: Path, tree: ast.Module) -> Iterator[str]:
    """Yield what one file breaks."""
    name = path.relative_to(ROOT)
    lines = len(path.read_text().splitlines())
    if lines >= FILE_LINES:
        yield f"{name}: {lines} lines; a file has less than {FILE_LINES}"
    for node in ast.walk(tree):
        if not isinstance(node, Function):
            continue
        first = node.body[0] if is_dictated(node) else node
        length = (node.end_lineno or node.lineno) - first.lineno + 1
        if length >= FUNCTION_LINES:
            where = f"{name}:{node.lineno}: {node.name}"
            yield f"{where} has {length} lines; less than {FUNCTION_LINES} are allowed"
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                yield f"{name}:{inner.lineno}: import inside {node.name}"


def is_dictated(function: Function) -> bool:
    """Tell whether a table gives the signature, which doesn't count: an operation's, of botocore's
    model; a command's, of its options.
    """
    names = {ast.unparse(each).partition("(")[0] for each in function.decorator_list}
    return not names.isdisjoint(DICTATED)


def module_of(path: Path) -> str:
    """Return a file's dotted name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, tree: ast.Module, files: set[Path]) -> set[str]:
    """Return the modules of ours that a module imports when it runs (not for types alone)."""
    known = {module_of(file) for file in files}
    found: set[str] = set()
    for node in running(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from package import module` needs the module; a name needs the package.
            found |= inner & known
            if inner - known:
                found.add(node.module)
    return (found & known) - {module_of(path)}


def running(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield a module's own statements, without the blocks for type checkers."""
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from node.orelse
        else:
            yield node


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return each group of modules that import one another, in a circle (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in graph[module]:
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in order:
            visit(module)
    return found


if __name__ == "__main__":
    main()
