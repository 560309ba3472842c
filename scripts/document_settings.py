#!/usr/bin/env python3
"""Write the table of docs/settings.md from the settings' own names, defaults and descriptions.

With --check nothing is written, and a table that is out of date is an error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv" / "bin" / "python"

try:
    from pydantic import AliasChoices
    from pydantic.fields import FieldInfo

    from quartapp.settings import WebSettings
except ModuleNotFoundError:
    if not ENVIRONMENT.exists() or Path(sys.prefix) == ENVIRONMENT.parent.parent:
        raise
    os.execv(ENVIRONMENT, [str(ENVIRONMENT), *sys.argv])  # noqa: S606 - our own interpreter

PAGE = ROOT / "docs" / "settings.md"
HEADING = "| Environment | Default | Meaning |\n|---|---|---|\n"
UNSET = "*unset*"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    current = with_table(page)
    if page == current:
        return 0
    if check:
        print(f"{PAGE.relative_to(ROOT)} is out of date: run scripts/document_settings.py")
        return 1
    PAGE.write_text(current, encoding="utf-8")
    return 0


def with_table(page: str) -> str:
    """The page with the table as it must be, in place of the one it has."""
    before, heading, after = page.partition(HEADING)
    if not heading:
        raise SystemExit(f"{PAGE} has no table that begins with the line {HEADING.splitlines()[0]}")
    rest = after.splitlines(keepends=True)
    while rest and rest[0].startswith("|"):
        del rest[0]
    return before + heading + "".join(rows()) + "".join(rest)


def rows() -> Iterator[str]:
    """A row for each setting: those of the platform first, then the others as the code has them."""
    fields = sorted(WebSettings.model_fields.items(), key=lambda item: is_ours(names(item[1])[0]))
    for name, field in fields:
        shown = " or ".join(f"`{each}`" for each in names(field))
        if not field.description:
            raise SystemExit(f"the setting {name} has no description")
        yield f"| {shown} | {default(field)} | {meaning(field)} |\n"


def names(field: FieldInfo) -> list[str]:
    """The environment variables of a setting; the first that is set counts."""
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [choice for choice in choices if isinstance(choice, str) and choice.isupper()]


def is_ours(name: str) -> bool:
    return name.startswith("QUARTAPP_")


def default(field: FieldInfo) -> str:
    """The default as it would stand in the environment."""
    value: Any = field.get_default()
    if value is None or value == "":
        return UNSET
    return f"`{value:.12g}`" if isinstance(value, float) else f"`{value}`"


def meaning(field: FieldInfo) -> str:
    """The description, and which values there are."""
    said = [field.description or ""]
    if get_origin(field.annotation) is Literal:
        said.append(" or ".join(f"`{value}`" for value in get_args(field.annotation)) + ".")
    said += bounds(field)
    return " ".join(said)


def bounds(field: FieldInfo) -> list[str]:
    """`From 0 to 32.`, or what there is of it."""
    found = {
        kind: getattr(bound, kind)
        for bound in field.metadata
        for kind in ("ge", "gt", "le")
        if getattr(bound, kind, None) is not None
    }
    match found:
        case {"ge": least, "le": most}:
            return [f"From {least:.12g} to {most:.12g}."]
        case {"ge": least}:
            return [f"At least {least:.12g}."]
        case {"gt": below}:
            return [f"More than {below:.12g}."]
        case _:
            return []


if __name__ == "__main__":
    sys.exit(main())
