"""Rules that hold for the whole repository."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PURE_CODECS = [
    "jobs/chunking.py",
    "jobs/recogniser_wire.py",
    "jobs/subtitles.py",
    "jobs/progress.py",
    "quartapp/streaming/encoder.py",
]
KNOW_SAQ = {"jobs/queue.py", "jobs/worker.py"}

# Written apart, so that this file keeps its own rule.
FORBIDDEN = [
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "npmjs" + ".org",
    "npmjs" + ".com",
    "yarnpkg" + ".com",
    "deb" + ".debian.org",
    "/wo" + "rk/",
    "/tmp/" + "scratch",
]


def tracked_files() -> list[Path]:
    """Files under version control and those about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


def imports(path: Path) -> set[str]:
    """Absolute dotted names that a file imports, wherever in it; `from a import b` gives `a.b`."""
    return set(_imports(ast.parse(path.read_text()), path.relative_to(ROOT).parent.parts))


def _imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = package[: len(package) - level + 1] if level else ()
                start = ".".join((*base, *(module.split(".") if module else ())))
                yield from (f"{start}.{alias.name}" for alias in names)


def of_package(names: set[str], package: str) -> set[str]:
    return {name for name in names if name == package or name.startswith(package + ".")}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_imports_are_read_in_every_form() -> None:
    text = "import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\ndef h(): import i"
    found = set(_imports(ast.parse(text), ("quartapp", "api")))
    assert found == {"a.b", "c.d", "quartapp.api.e", "quartapp.f.g", "i"}


def test_jobs_never_imports_the_web_face() -> None:
    assert sources("jobs")
    offenders = {str(path) for path in sources("jobs") if of_package(imports(path), "quartapp")}
    assert not offenders


def test_saq_stays_behind_two_modules() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for path in (*sources("jobs"), *sources("quartapp"))
        if of_package(imports(path), "saq")
    }
    assert users <= KNOW_SAQ


@pytest.mark.parametrize("name", PURE_CODECS)
def test_codecs_import_nothing_of_ours_but_the_model(name: str) -> None:
    path = ROOT / name
    found = imports(path) if path.exists() else set()
    ours = of_package(found, "jobs") | of_package(found, "quartapp")
    assert ours <= of_package(found, "jobs.model")


def test_no_file_names_a_registry_or_a_place_of_one_machine() -> None:
    pattern = re.compile("|".join(map(re.escape, FORBIDDEN)).encode())
    offenders = [
        f"{path.relative_to(ROOT)}: {found[0].decode()}"
        for path in tracked_files()
        if (found := pattern.search(path.read_bytes()))
    ]
    assert not offenders


def test_lock_files_hold_no_addresses() -> None:
    names = {"constraints.txt", "requirements.txt", "package-lock.json"}
    locks = [path for path in tracked_files() if path.name in names]
    assert ROOT / "constraints.txt" in locks
    # npm also notes home pages of packages there; only "resolved" says where to fetch from.
    address = {".txt": re.compile("://"), ".json": re.compile(r'"resolved":\s*"[\w+]+://')}
    assert not [path for path in locks if address[path.suffix].search(path.read_text())]


def test_pins_are_plain_and_cover_every_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert not [line for line in pins if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", line)]
    assert pins == sorted(set(pins))


def test_commands_are_executable() -> None:
    for name in ("start", "test", "check", "criteria"):
        assert (ROOT / "scripts" / name).stat().st_mode & 0o111 == 0o111
