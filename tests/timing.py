"""What a part costs, measured from outside."""

from __future__ import annotations

import time
from typing import Any

from jobs.database import Pool
from jobs.model import StatusMessage
from jobs.publisher import StatusPublisher


class TimedPublisher(StatusPublisher):
    """Counts its calls and the time they take."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self.calls = 0
        self.spent_s = 0.0

    async def publish(self, *arguments: Any, **more: Any) -> StatusMessage | None:
        started = time.perf_counter()
        try:
            return await super().publish(*arguments, **more)
        finally:
            self.calls += 1
            self.spent_s += time.perf_counter() - started
