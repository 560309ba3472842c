"""The wheel holds all that an installed product needs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from importlib.metadata import requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    return zipfile.ZipFile(next(folder.glob("quartapp-*.whl")))


@pytest.fixture(scope="module")
def names(wheel: zipfile.ZipFile) -> set[str]:
    return set(wheel.namelist())


def files_under(folder: str, pattern: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob(pattern)}


def test_all_code_is_in_the_wheel(names: set[str]) -> None:
    code = files_under("jobs", "*.py") | files_under("quartapp", "*.py")
    assert code - files_under("quartapp/web", "*.py") <= names


def test_migrations_are_in_the_wheel(names: set[str]) -> None:
    migrations = files_under("migrations", "*.sql")
    assert migrations
    assert {f"jobs/{name}" for name in migrations} <= names


def test_built_web_client_is_in_the_wheel(names: set[str]) -> None:
    static = {name for name in files_under("quartapp/static", "*") if (ROOT / name).is_file()}
    assert static <= names
    (script,) = (name for name in names if re.search(r"static/assets/index-[^/]+\.js$", name))
    assert {"quartapp/static/index.html", f"{script}.br", f"{script}.gz"} <= names


def test_nothing_else_is_in_the_wheel(names: set[str]) -> None:
    assert {name.split("/")[0] for name in names} <= {
        "jobs",
        "quartapp",
        "quartapp-0.1.0.dist-info",
    }
    assert not [name for name in names if name.startswith("quartapp/web/")]
    assert not [name for name in names if "__pycache__" in name or "node_modules" in name]


def test_command_is_declared(wheel: zipfile.ZipFile) -> None:
    parser = ConfigParser()
    parser.read_string(wheel.read("quartapp-0.1.0.dist-info/entry_points.txt").decode())
    assert dict(parser["console_scripts"]) == {"quartapp": "quartapp.cli:main"}


def test_every_dependency_of_every_dependency_is_pinned() -> None:
    pins = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    todo = {_name(requirement) for requirement in wanted}
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        seen.add(name)
        unconditional = {_name(text) for text in requires(name) or () if ";" not in text}
        todo |= unconditional - seen
    assert seen <= pins


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()
