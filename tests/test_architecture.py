"""The structure that a newcomer meets: small files, short functions, imports that go downwards."""

from __future__ import annotations

import ast
import collections
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("bench", "cluster", "jobs")
MOST_LINES = 35_700  # what adds a feature may raise it, and says so; nothing else may
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60
MOST_PRIVATE_SHARE = 0.25
MOST_LEVELS_OF_BENCH = 6

Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def sources() -> dict[str, ast.Module]:
    """Every product module, parsed, by its path."""
    files = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text("utf-8")) for file in files}


def lines_of(path: str) -> int:
    """How long a file is."""
    return len((ROOT / path).read_text("utf-8").splitlines())


def functions() -> Iterator[tuple[str, Function]]:
    """Every function and method, with its file."""
    for path, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield path, node


def rooms() -> dict[str, set[str]]:
    """The folders and modules directly in bench, and which of them each imports."""

    def room(module: str) -> str:
        return module.split(".")[1]

    known = {Path(path).parts[1].removesuffix(".py") for path in sources() if path[:6] == "bench/"}
    found: dict[str, set[str]] = {name: set() for name in known - {"__init__"}}
    for path, tree in sources().items():
        if not path.startswith("bench/"):
            continue
        mine = Path(path).parts[1].removesuffix(".py")
        typing_only = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
            for node in ast.walk(block)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or id(node) in typing_only:
                continue
            module = node.module or ""
            names = [module] if module != "bench" else [f"bench.{a.name}" for a in node.names]
            for name in names:
                if name.startswith("bench.") and room(name) in found and room(name) != mine:
                    found.setdefault(mine, set()).add(room(name))
    return {name: needs for name, needs in found.items() if name != "__init__"}


def levels() -> dict[str, int]:
    """How many rooms lie on the longest way down from each; RecursionError in a circle."""
    below = rooms()

    @functools.cache
    def level(name: str) -> int:
        return 1 + max((level(other) for other in below[name]), default=0)

    return {name: level(name) for name in below}


def private_share() -> tuple[int, int]:
    """Private and all functions at the top of a module."""
    tops = [n for tree in sources().values() for n in tree.body if isinstance(n, Function)]
    return sum(node.name.startswith("_") for node in tops), len(tops)


def test_the_product_stays_small() -> None:
    assert sum(map(lines_of, sources())) <= MOST_LINES


def test_no_file_and_no_function_is_long() -> None:
    long_files = {path: n for path in sources() if (n := lines_of(path)) > MOST_LINES_OF_A_FILE}
    assert not long_files
    long_functions = {
        f"{path}: {node.name}": length
        for path, node in functions()
        if (length := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    }
    assert not long_functions


def test_no_class_name_stands_for_two_things() -> None:
    names = collections.Counter(
        node.name
        for tree in sources().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    )
    assert not [name for name, count in names.items() if count > 1]


def test_most_functions_are_for_others_to_use() -> None:
    private, every = private_share()
    assert private / every < MOST_PRIVATE_SHARE


def test_bench_has_few_levels_and_no_circle() -> None:
    assert max(levels().values()) <= MOST_LEVELS_OF_BENCH
