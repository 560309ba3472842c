"""Puts the web client into every wheel, wherever that is built."""

from __future__ import annotations

import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))

build_web = import_module("build_web")  # beside this file, wherever the build runs


class WebClientHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds the client first when it is not there, or is not made from these sources."""

    def dependencies(self) -> list[str]:
        """Node, where it will be needed and the machine has none."""
        if build_web.up_to_date() or build_web.node_is_good(None):
            return []
        return [build_web.node_requirement()]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        packages = build_web.WEB / "node_modules"
        kept = packages.exists()
        build_web.build(say=self.app.display_info)
        if not kept:  # platforms keep the checkout, and count its size
            shutil.rmtree(packages, ignore_errors=True)
