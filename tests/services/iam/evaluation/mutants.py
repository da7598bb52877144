"""A package with one thing wrong: every branch, comparison and answer of its source, in turn.

Made from the source's tree, run beside the real package under the same names, which is put back.
"""

import ast
import copy
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
BORDER: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
OTHERS: dict[object, tuple[object, ...]] = {True: (False,), False: (True,), None: (True, False)}
Change = Callable[[Any], ast.AST]  # of a copy of the node


@dataclass(frozen=True)
class Mutant:
    """One change. place: the node's number in its module's tree."""

    module: str
    where: str
    what: str
    place: int
    change: Change

    def __str__(self) -> str:
        return f"{self.module}.{self.where}: {self.what}"


def mutants(folder: Path) -> list[Mutant]:
    """Return all mutants of a package's modules."""
    return [
        mutant
        for path in sorted(folder.glob("*.py"))
        if path.stem != "__init__"
        for mutant in of_module(path.stem, ast.parse(path.read_text()))
    ]


def of_module(module: str, tree: ast.Module) -> Iterator[Mutant]:
    scopes = dict(named(tree, ""))
    for place, node in enumerate(ast.walk(tree)):
        for what, change in changes(node):
            yield Mutant(module, scopes.get(node, "module"), what, place, change)


def named(node: ast.AST, scope: str) -> Iterator[tuple[ast.AST, str]]:
    """Yield each node inside functions and classes, with their names."""
    for child in ast.iter_child_nodes(node):
        inner = scope
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inner = f"{scope}.{child.name}" if scope else child.name
        if inner:
            yield child, inner
        yield from named(child, inner)


def changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Yield what can be wrong at a node, in words, and the change."""
    if isinstance(node, ast.If | ast.IfExp):
        for value in (True, False):
            yield f"if {ast.unparse(node.test)} -> {value}", always(value)
    if isinstance(node, ast.comprehension):
        for n, test in enumerate(node.ifs):
            yield f"for … if {ast.unparse(test)} -> True", unfiltered(n)
    if isinstance(node, ast.Compare):
        for n, operator in enumerate(node.ops):
            for table in (OPPOSITE, BORDER):
                if other := table.get(type(operator)):
                    words = f"{ast.unparse(node)} -> {other.__name__} {n}"
                    yield words, compared(n, other)
    if isinstance(node, ast.BoolOp):
        yield f"{ast.unparse(node)} -> the other of and, or", swapped
        for n in range(len(node.values)):
            yield f"{ast.unparse(node)} -> without {n}", without(n)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield f"{ast.unparse(node)} -> without not", lambda found: found.operand
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Constant):
        for value in {True: (False,), False: (True,), None: (True, False)}.get(
            node.value.value, ()
        ):
            yield f"{ast.unparse(node)} -> {value}", returning(value)
    if isinstance(node, ast.Dict):
        for n, key in enumerate(node.keys):
            if key is not None:
                yield f"{{{ast.unparse(key)}: …}} -> without it", without_key(n)


def always(value: bool) -> Change:
    def change(node: Any) -> ast.AST:
        node.test = ast.Constant(value)
        return node

    return change


def unfiltered(n: int) -> Change:
    def change(node: Any) -> ast.AST:
        del node.ifs[n]
        return node

    return change


def compared(n: int, operator: type[ast.cmpop]) -> Change:
    def change(node: Any) -> ast.AST:
        node.ops[n] = operator()
        return node

    return change


def swapped(node: Any) -> ast.AST:
    node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    return node


def without(n: int) -> Change:
    def change(node: Any) -> ast.AST:
        del node.values[n]
        return node if len(node.values) > 1 else node.values[0]

    return change


def without_key(n: int) -> Change:
    def change(node: Any) -> ast.AST:
        del node.keys[n], node.values[n]
        return node

    return change


def returning(value: object) -> Change:
    def change(node: Any) -> ast.AST:
        node.value = ast.Constant(value)
        return node

    return change


# ---------------------------------------------------------------------- running them


class Package:
    """A package's modules, each with the code that it is made of."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.trees = {path.stem: ast.parse(path.read_text()) for path in folder.glob("*.py")}
        self.codes = {stem: self._code(stem, tree) for stem, tree in self.trees.items()}

    def with_mutant(self, mutant: Mutant) -> ModuleType:
        """Return the package with one mutant; what it raises, it raises."""
        tree = copy.deepcopy(self.trees[mutant.module])
        node = list(ast.walk(tree))[mutant.place]
        Replaced(node, mutant.change(copy.deepcopy(node))).visit(tree)
        code = self._code(mutant.module, ast.fix_missing_locations(tree))
        return self.made(self.codes | {mutant.module: code})

    def made(self, codes: dict[str, CodeType]) -> ModuleType:
        """Return the package, made anew of some code; the real one stays where it was."""
        mine = [name for name in sys.modules if f"{name}.".startswith(f"{self.name}.")]
        kept = {name: sys.modules.pop(name) for name in mine}
        parent, _, last = self.name.rpartition(".")
        finder = Finder(self.name, self.folder, codes)
        sys.meta_path.insert(0, finder)
        try:
            return importlib.import_module(self.name)
        finally:
            sys.meta_path.remove(finder)
            for name in [name for name in sys.modules if f"{name}.".startswith(f"{self.name}.")]:
                del sys.modules[name]
            sys.modules |= kept
            setattr(sys.modules[parent], last, kept[self.name])

    def _code(self, stem: str, tree: ast.Module) -> CodeType:
        return compile(tree, f"<{stem}>", "exec")


class Replaced(ast.NodeTransformer):
    """Puts another node in a node's place."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


class Finder(MetaPathFinder, Loader):
    """Finds a package's modules in some code."""

    def __init__(self, name: str, folder: Path, codes: dict[str, CodeType]) -> None:
        self.name, self.folder, self.codes = name, folder, codes

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if not f"{fullname}.".startswith(f"{self.name}."):
            return None
        return ModuleSpec(fullname, self, is_package=fullname == self.name)

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        _, _, stem = module.__name__.removeprefix(self.name).rpartition(".")
        exec(self.codes[stem or "__init__"], module.__dict__)
