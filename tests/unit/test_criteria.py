"""`scripts/criteria` on small checkouts of our own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "criteria"

CRITERIA = """
["First"]
"AC-1.1.1" = "one thing"
"AC-1.1.2" = "another"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "criteria.toml").write_text(CRITERIA)
    return tmp_path


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--root", str(checkout), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def write_test(checkout: Path, text: str, name: str = "tests/unit/test_it.py") -> None:
    path = checkout / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_criterion_without_a_test_fails(checkout: Path) -> None:
    write_test(checkout, "@pytest.mark.criterion('AC-1.1.1')\ndef test_one(): pass\n")
    done = run(checkout)
    assert done.returncode == 1
    assert "1 of 2 have tests; open: AC-1.1.2" in done.stdout
    assert run(checkout, "--allow-open").returncode == 0


@pytest.mark.parametrize("option", [(), ("--allow-open",)])
def test_unknown_criterion_fails(checkout: Path, option: tuple[str, ...]) -> None:
    write_test(checkout, "@pytest.mark.criterion('AC-9.9.9')\ndef test_one(): pass\n")
    done = run(checkout, *option)
    assert done.returncode == 1
    assert "unknown criterion AC-9.9.9 in tests/unit/test_it.py::test_one" in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "@pytest.mark.criterion('AC-1.1.1')\n@pytest.mark.criterion('AC-1.1.2')\ndef test_a(): ...",
        "@mark.criterion('AC-1.1.1', 'AC-1.1.2')\nasync def test_a(): ...",
        "@pytest.mark.criterion('AC-1.1.1')\nclass TestA:\n"
        "    @pytest.mark.criterion('AC-1.1.2')\n    def test_a(self): ...",
        "pytestmark = [pytest.mark.criterion('AC-1.1.1'), pytest.mark.criterion('AC-1.1.2')]",
    ],
    ids=["two marks", "two ids", "class", "module"],
)
def test_all_forms_of_the_mark_count(checkout: Path, text: str) -> None:
    write_test(checkout, text)
    done = run(checkout)
    assert done.returncode == 0
    assert done.stdout.endswith("Criteria: 2 of 2 have tests\n")


def test_mention_outside_a_mark_does_not_count(checkout: Path) -> None:
    write_test(checkout, "# AC-1.1.1\nTEXT = 'criterion AC-1.1.2'\n")
    assert "0 of 2" in run(checkout).stdout


def test_titles_of_web_tests_count(checkout: Path) -> None:
    write_test(
        checkout,
        "describe('hook', () => {\n  it('opens (AC-1.1.1)', f);\n"
        '  it.each([1])(`other`, f); test("closes AC-1.1.2", f);\n})',
        name="quartapp/web/src/hook.test.ts",
    )
    write_test(checkout, "it('AC-9.9.9')", name="quartapp/web/node_modules/x/x.test.ts")
    done = run(checkout)
    assert done.returncode == 0
    assert "quartapp/web/src/hook.test.ts::opens (AC-1.1.1)" in done.stdout


def test_list_shows_text_and_tests_of_each(checkout: Path) -> None:
    write_test(checkout, "@pytest.mark.criterion('AC-1.1.2')\ndef test_one(): pass\n")
    lines = run(checkout).stdout.splitlines()
    assert lines[:4] == [
        "AC-1.1.1  one thing",
        "    open",
        "AC-1.1.2  another",
        "    tests/unit/test_it.py::test_one",
    ]


def test_our_own_tests_name_known_criteria() -> None:
    done = run(SCRIPT.parents[1], "--allow-open", "--brief")
    assert done.returncode == 0, done.stderr
