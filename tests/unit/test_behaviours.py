"""Every behaviour of the streams has a test that holds it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tests.conformance.behaviours import ELSEWHERE, named_in, read_behaviours

TESTS = Path(__file__).parents[1]


def held() -> dict[str, list[str]]:
    """The tests of this checkout, by the behaviour they name."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for identifier, test in named_in(path.read_text(encoding="utf-8")):
            found[identifier].append(f"{path.relative_to(TESTS)}::{test}")
    return found


def test_every_behaviour_of_the_server_has_a_test() -> None:
    groups = read_behaviours()
    elsewhere = groups.pop(ELSEWHERE)
    of_server = {f"MD-{number}" for number in range(1, 60)}
    assert elsewhere & of_server == {"MD-18", "MD-46"}
    ours = set().union(*groups.values())
    assert ours | elsewhere >= of_server
    assert ours <= of_server
    assert not (ours | elsewhere) - {"MD-18"} - set(held())


def test_tests_name_known_behaviours() -> None:
    known = set().union(*read_behaviours().values())
    unknown = {identifier: tests for identifier, tests in held().items() if identifier not in known}
    assert not unknown


def test_marks_are_read_and_mentions_are_not() -> None:
    text = (
        "# MD-1\n"
        "NAME = 'MD-2'\n"
        "@pytest.mark.behaviour('MD-3')\n"
        "@pytest.mark.behaviour('MD-4')\n"
        "async def test_a(): pass\n"
        "@pytest.mark.criterion('MD-5')\n"
        "@pytest.mark.behaviour\n"
        "def test_b(): pass\n"
    )
    assert sorted(named_in(text)) == [("MD-3", "test_a"), ("MD-4", "test_a")]
