#!/usr/bin/env python3
"""The command `quartapp watch`, also for a checkout whose environment is not activated."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv" / "bin" / "python"

# Where `scripts/start` keeps its data.
os.environ.setdefault("QUARTAPP_DATA_DIR", str(ROOT / ".data"))

try:
    from quartapp.cli import watch
except ModuleNotFoundError:
    if not ENVIRONMENT.exists() or Path(sys.prefix) == ROOT / ".venv":
        raise
    os.execv(ENVIRONMENT, [str(ENVIRONMENT), *sys.argv])  # noqa: S606 - our own interpreter

if __name__ == "__main__":
    watch()
