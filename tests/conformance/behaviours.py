"""The list of behaviours, and which test names which."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

LIST = Path(__file__).parent / "behaviours.toml"
ELSEWHERE = "Held by the web client"


def read_behaviours(path: Path = LIST) -> dict[str, set[str]]:
    """The ids of each group."""
    groups = tomllib.loads(path.read_text(encoding="utf-8"))
    return {group: set(behaviours) for group, behaviours in groups.items()}


def named_in(text: str) -> Iterator[tuple[str, str]]:
    """Pairs of id and test, from the source of a test module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for mark in node.decorator_list:
                for identifier in _ids_of(mark):
                    yield identifier, node.name


def _ids_of(mark: ast.expr) -> Iterator[str]:
    match mark:
        case ast.Call(func=function, args=[ast.Constant(value=str(identifier))]):
            if ast.unparse(function) == "pytest.mark.behaviour":
                yield identifier
