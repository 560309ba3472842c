#!/usr/bin/env python3
"""Write the API's description, as /openapi.json answers it, without a database.

To standard output, or to a file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv" / "bin" / "python"
sys.path.insert(0, str(ROOT))

try:
    from quartapp.app import create_app
    from quartapp.services import Services
    from quartapp.settings import WebSettings
except ModuleNotFoundError:
    if not ENVIRONMENT.exists() or Path(sys.prefix) == ENVIRONMENT.parent.parent:
        raise
    os.execv(ENVIRONMENT, [str(ENVIRONMENT), *sys.argv])  # noqa: S606 - our own interpreter


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="where to write it")
    file: Path | None = parser.parse_args().file
    text = json.dumps(asyncio.run(document()), indent=2, ensure_ascii=False) + "\n"
    if file is None:
        sys.stdout.write(text)
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return 0


async def document() -> dict[str, Any]:
    """The OpenAPI document of the app, whatever its settings."""
    settings = WebSettings(database_url="postgresql://x/y", secret_key="x" * 20)  # type: ignore[arg-type]
    services = SimpleNamespace(settings=settings, drain=asyncio.Event())
    answer = await create_app(cast(Services, services)).test_client().get("/openapi.json")
    described: dict[str, Any] = await answer.get_json()
    return described


if __name__ == "__main__":
    sys.exit(main())
