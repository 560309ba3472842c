"""Children that wait to be used again: loading a model once is enough."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

from jobs.engines import ReadyEngine
from jobs.errors import RecogniserCrashed, RecogniserStalled, RecogniserUnavailable
from jobs.recogniser import Ask, Recogniser
from jobs.settings import JobSettings


@asynccontextmanager
async def answering(engine: ReadyEngine, settings: JobSettings) -> AsyncIterator[Ask | None]:
    """What children with this engine may ask for while the block runs; None for an engine that
    does everything itself."""
    if engine.name != "openai":
        yield None
        return
    # Only here: httpx comes with an extra.
    service = import_module("jobs.remote_transcription").RemoteTranscription(settings)
    async with service:
        yield service.answer


class RecogniserPool:
    """At most `size` children at a time; one that is not needed is kept for `idle_s` seconds.

    `engine` None makes children that only open and probe recordings, without a model.
    """

    def __init__(
        self,
        settings: JobSettings,
        *,
        engine: ReadyEngine | None,
        size: int,
        idle_s: float,
        ask: Ask | None = None,
    ) -> None:
        self._settings = settings
        self._idle_s = idle_s
        self._engine = engine
        self._ask = ask
        self._slots = asyncio.Semaphore(size)
        self._idle: list[tuple[Recogniser, asyncio.TimerHandle]] = []
        self._farewells: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def engine(self) -> str:
        """The name of the engine, as recorded with each session."""
        return self._engine.name if self._engine else "none"

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[Recogniser]:
        """A ready child, for the length of the block. One that was killed or left its block by an
        exception other than a refusal of the recording is not used again."""
        async with self._slots:
            recogniser = await self._take()
            try:
                yield recogniser
            finally:
                if not (recogniser.closed or self._closed):
                    self._keep(recogniser)
                else:
                    await asyncio.shield(recogniser.close())

    async def close(self) -> None:
        """End all idle children, and from now on every child after its use."""
        self._closed = True
        idle, self._idle = self._idle, []
        for recogniser, timer in idle:
            timer.cancel()
            await recogniser.close()
        if self._farewells:
            await asyncio.wait(self._farewells)

    async def _take(self) -> Recogniser:
        while self._idle:
            recogniser, timer = self._idle.pop()
            timer.cancel()
            if not recogniser.closed:
                return recogniser
            await recogniser.close()
        try:
            return await Recogniser.start(
                engine=self._engine.name if self._engine else None,
                engine_options=self._engine.options if self._engine else None,
                memory_limit_bytes=self._settings.recogniser_memory_bytes,
                start_timeout_s=self._settings.recogniser_start_timeout_s,
                stall_timeout_s=self._settings.stall_timeout_s,
                stall_factor=self._settings.stall_factor,
                ask=self._ask,
            )
        except (RecogniserCrashed, RecogniserStalled, OSError) as error:
            raise RecogniserUnavailable("The server is too busy to open recordings.") from error

    def _keep(self, recogniser: Recogniser) -> None:
        timer = asyncio.get_running_loop().call_later(self._idle_s, self._dismiss, recogniser)
        self._idle.append((recogniser, timer))

    def _dismiss(self, recogniser: Recogniser) -> None:
        self._idle = [(kept, timer) for kept, timer in self._idle if kept is not recogniser]
        task = asyncio.create_task(recogniser.close())
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)
