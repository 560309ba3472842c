"""The parent's handle on one recognising child process.

The child opens untrusted recordings and runs native code; here are only its pipes. It is started
with an environment that holds no secret, in a session of its own, and reads a recording solely by
asking for byte ranges of an `AudioSource`. Whatever ends a call early (cancellation, an abandoned
iterator, a crash, a stall) ends the child too: there is no half-state to return to.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import structlog

from jobs.audio_source import AudioSource
from jobs.chunk_watch import ChunkWatch
from jobs.errors import JobError, RecogniserCrashed, RecogniserStalled, job_error
from jobs.model import Segment, Word
from jobs.recogniser_wire import (
    MAX_BODY_BYTES,
    PREFIX_BYTES,
    AudioInfo,
    Frame,
    WireError,
    decode,
    encode,
    lengths,
)

CHILD_MODULE = "jobs.recogniser_child"
CLOSE_TIMEOUT_S = 2.0
STDERR_LINES = 20  # kept for the error when the child crashes
STDERR_LINE_BYTES = 500

T = TypeVar("T")

# How what a child's engine may not do itself is done for it: an `ask` frame in, an `answer` out.
# Raises JobError, which the child is then told of; it is left free to go on.
Ask: TypeAlias = Callable[[Frame], Awaitable[Frame]]

_log = structlog.get_logger()

# All that the child may know of our environment.
_ENVIRONMENT = frozenset(
    {
        "PATH",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONPYCACHEPREFIX",
        "VIRTUAL_ENV",
    }
)
_ENVIRONMENT_PREFIXES = ("LC_", "COVERAGE_")


@dataclass(frozen=True, slots=True)
class AudioOpened:
    """The recording is one, and what it says of itself."""

    info: AudioInfo


@dataclass(frozen=True, slots=True)
class ChunkProgress:
    """Recognition has come this far into the recording, within a chunk not yet done."""

    processed_s: float


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """What was said between two times; a run may resume at `end_s`."""

    start_s: float
    end_s: float
    segments: tuple[Segment, ...]
    language: str | None = None  # as heard, in lower case; None when the engine does not tell


@dataclass(frozen=True, slots=True)
class AudioEnded:
    """The recording's real length, beside the one it states."""

    duration_s: float
    stated_duration_s: float | None


Event: TypeAlias = AudioOpened | ChunkProgress | ChunkDone | AudioEnded


class Recogniser:
    """One child process; one call at a time, any number of recordings one after the other.

    Every call raises the JobError of what is wrong with the recording, after which the child goes
    on (unless it ran out of memory); or RecogniserCrashed or RecogniserStalled, after which it is
    gone and `closed` is true.
    Leaving the context kills a child that is still at work.
    """

    peak_rss_bytes: int  # the last value the child reported

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        *,
        name: str,
        stall_timeout_s: float,
        stall_factor: float,
        ask: Ask | None,
    ) -> None:
        self._process = process
        self._name = name
        self._stall_timeout_s = stall_timeout_s
        self._stall_factor = stall_factor
        self._ask = ask
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._draining = asyncio.create_task(self._drain_stderr())
        self._busy = False
        self._killed = False
        self.peak_rss_bytes = 0

    @classmethod
    async def start(
        cls,
        *,
        engine: str | None,
        engine_options: Mapping[str, Any] | None = None,
        memory_limit_bytes: int | None = None,
        niceness: int = 10,
        start_timeout_s: float = 120.0,
        stall_timeout_s: float,
        stall_factor: float = 10.0,
        ask: Ask | None = None,
    ) -> Recogniser:
        """Start a child and wait until its model is loaded.

        `engine=None` starts one that only probes and loads no model. The memory limit counts the
        child's private memory. It is stalled when it is silent for `stall_timeout_s`, or has no
        result of a chunk after `stall_timeout_s` and `stall_factor` times the chunk's length.
        Raises EngineUnavailableError when the engine cannot be loaded.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            CHILD_MODULE,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=child_environment(os.environ),
            cwd="/",
            start_new_session=True,
        )
        recogniser = cls(
            process,
            name="The speech recogniser" if engine else "The program that opens recordings",
            stall_timeout_s=stall_timeout_s,
            stall_factor=stall_factor,
            ask=ask,
        )
        order = Frame(
            "configure",
            {
                "engine": engine,
                "engine_options": dict(engine_options or {}),
                "memory_limit_bytes": memory_limit_bytes,
                "niceness": niceness,
            },
        )
        try:
            async with asyncio.timeout(start_timeout_s):
                await recogniser._send(order)
                ready = await recogniser._receive()
            if ready.kind == "error":
                raise recogniser._understood(_job_error, ready)
        except TimeoutError as error:
            await recogniser._end()
            raise recogniser._stall(f"did not start within {start_timeout_s:g} seconds") from error
        except BaseException:
            await recogniser._end()
            raise
        _log.info("recogniser_ready", pid=process.pid, engine=engine)
        return recogniser

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def closed(self) -> bool:
        """The child is gone, or going."""
        return self._killed or self._process.returncode is not None

    async def __aenter__(self) -> Recogniser:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def probe(self, source: AudioSource) -> AudioInfo:
        """Open a recording and decode its first frame."""
        order = Frame("probe", {"size_bytes": source.size_bytes})
        async with aclosing(self._converse(order, source, last="info")) as frames:
            return [self._understood(_info, frame) async for frame in frames][-1]

    async def transcribe(
        self,
        source: AudioSource,
        *,
        start_s: float = 0.0,
        first_idx: int = 0,
        language: str | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Recognise a recording from `start_s` on (0, or the end of a chunk done before).

        Yields AudioOpened, then for each chunk ChunkProgress (a few a second) and ChunkDone, then
        AudioEnded. Segments are numbered from `first_idx`; times count from the recording's start.
        """
        order = Frame(
            "transcribe",
            {
                "size_bytes": source.size_bytes,
                "start_s": start_s,
                "first_idx": first_idx,
                "language": language,
            },
        )
        async with aclosing(self._converse(order, source, last="ended")) as frames:
            async for frame in frames:
                yield self._understood(_event, frame)

    def kill(self) -> None:
        """End the child at once, whatever it is doing."""
        self._killed = True
        if self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        """End the child: by closing its input when it is idle, else by a kill. Leaves no zombie."""
        try:
            if not self._busy and not self.closed and self._process.stdin is not None:
                self._process.stdin.close()
                with suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_TIMEOUT_S):
                        await self._process.wait()
        finally:
            await self._end()

    async def _end(self) -> None:
        self.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                # asyncio waits for the pipes too, and a full buffer would keep this one open.
                if self._process.stdout is not None:
                    while await self._process.stdout.read(65536):
                        pass
                await self._process.wait()
                await self._draining
        self._draining.cancel()

    async def _converse(
        self, order: Frame, source: AudioSource, *, last: str
    ) -> AsyncGenerator[Frame, None]:
        """Give an order and serve the child; what it has to say, until a `last` frame."""
        if self._busy:
            raise RuntimeError("the recogniser is at work on another recording")
        if self.closed:
            raise RecogniserCrashed(f"{self._name} has been closed.")
        self._busy, finished = True, False
        watch = ChunkWatch(self._stall_timeout_s, self._stall_factor)
        try:
            await self._send_in_time(order)
            while not finished:
                frame = await self._receive_in_time(watch)
                self._understood(_watched(watch), frame)
                if frame.kind in ("begin", "read", "ask"):
                    await self._serve(frame, source)
                    continue
                finished = frame.kind in (last, "error") and not frame.fields.get("spent")
                if frame.kind == "error":
                    raise self._understood(_job_error, frame)
                yield frame
        finally:
            self._busy = False
            if not finished:
                await self._end()

    async def _serve(self, frame: Frame, source: AudioSource) -> None:
        """Do for the child what it may not do itself."""
        match frame.kind:
            case "read":
                offset, length = self._understood(_byte_range, frame)
                data = await source.read(offset, length)
                await self._send_in_time(Frame("data", body=data))
            case "ask":
                await self._send_in_time(await self._answer(frame))

    async def _answer(self, frame: Frame) -> Frame:
        if self._ask is None:
            raise self._nonsense()
        try:
            return await self._ask(frame)
        except JobError as error:
            return Frame("error", {"code": error.code, "message": error.message})
        except WireError as error:
            raise self._nonsense() from error

    async def _send_in_time(self, frame: Frame) -> None:
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                await self._send(frame)
        except TimeoutError as error:
            raise self._stall(f"took nothing for {self._stall_timeout_s:g} seconds") from error

    async def _receive_in_time(self, watch: ChunkWatch) -> Frame:
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(watch.wait_s):
                frame = await self._receive()
        except TimeoutError as error:
            raise self._stall(watch.stalled()) from error
        watch.waited(time.monotonic() - began_at)
        return frame

    def _stall(self, what: str) -> RecogniserStalled:
        _log.warning("recogniser_stalled", pid=self.pid, what=what)
        return RecogniserStalled(f"{self._name} {what}.")

    def _nonsense(self) -> RecogniserCrashed:
        return RecogniserCrashed(f"{self._name} does not keep to its protocol.")

    def _understood(self, read: Callable[[Frame], T], frame: Frame) -> T:
        """What a frame says. The child has handled untrusted bytes: it may say anything."""
        try:
            return read(frame)
        except (KeyError, TypeError, ValueError) as error:
            raise self._nonsense() from error

    async def _send(self, frame: Frame) -> None:
        stdin = self._process.stdin
        if stdin is None or stdin.is_closing():
            raise await self._crash()
        try:
            stdin.write(encode(frame))
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise await self._crash() from error

    async def _receive(self) -> Frame:
        stdout = self._process.stdout
        if stdout is None:
            raise await self._crash()
        try:
            header_bytes, body_bytes = lengths(await stdout.readexactly(PREFIX_BYTES))
            frame = decode(
                await stdout.readexactly(header_bytes), await stdout.readexactly(body_bytes)
            )
        except asyncio.IncompleteReadError as error:
            raise await self._crash() from error
        except WireError as error:
            await self._end()
            raise self._nonsense() from error
        self.peak_rss_bytes = frame.fields.get("peak_rss_bytes", self.peak_rss_bytes)
        return frame

    async def _crash(self) -> RecogniserCrashed:
        """The error for a child that has closed its pipe; its last words are for the log."""
        # Let it be seen to end by itself: a signal to one that has just died takes its status away
        # from asyncio's watcher.
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._process.wait()
        await self._end()
        ending = _ending(self._process.returncode)
        _log.warning("recogniser_crashed", pid=self.pid, ending=ending, stderr=list(self._stderr))
        return RecogniserCrashed(f"{self._name} {ending}.")

    async def _drain_stderr(self) -> None:
        """Keep the last lines; read everything, so that the child never waits for us."""
        stderr, line = self._process.stderr, b""
        while stderr is not None and (data := await stderr.read(65536)):
            *lines, line = (line + data).split(b"\n")
            line = line[:STDERR_LINE_BYTES]
            self._keep(lines)
        self._keep([line])

    def _keep(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            if text := line[:STDERR_LINE_BYTES].decode(errors="replace").strip():
                self._stderr.append(text)


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a child gets of our environment: where to find things, nothing it could give away."""
    kept = {
        name: value
        for name, value in environment.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
    package_parent = str(Path(__file__).resolve().parent.parent)
    paths = [package_parent, *kept.get("PYTHONPATH", "").split(os.pathsep)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**kept, **threads, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _ending(returncode: int | None) -> str:
    """How a child ended that was not told to."""
    if returncode is None:
        return "does not answer"
    if returncode >= 0:
        return f"ended by itself (exit code {returncode})"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"crashed ({name})"


def _byte_range(frame: Frame) -> tuple[int, int]:
    offset, length = frame.fields["offset"], frame.fields["length"]
    if offset < 0 or not 0 < length <= MAX_BODY_BYTES:
        raise WireError(f"there is no range of {length} bytes at {offset}")
    return offset, length


def _watched(watch: ChunkWatch) -> Callable[[Frame], None]:
    """What a frame means for the bounds that its sender is held to."""

    def see(frame: Frame) -> None:
        match frame.kind:
            case "begin":
                watch.begin(frame.fields["chunk_s"], frame.fields["reports"])
            case "progress":
                watch.progressed()
            case "ask":
                watch.asked()
            case "chunk":
                watch.end()

    return see


def _event(frame: Frame) -> Event:
    fields = frame.fields
    match frame.kind:
        case "opened":
            return AudioOpened(_info(frame))
        case "progress":
            return ChunkProgress(fields["processed_s"])
        case "chunk":
            segments = tuple(_segment(segment) for segment in fields["segments"])
            language = _language(fields["language"])
            return ChunkDone(fields["start_s"], fields["end_s"], segments, language)
        case "ended":
            return AudioEnded(fields["duration_s"], fields["stated_duration_s"])
        case kind:
            raise WireError(f"there is no event {kind!r}")


def _info(frame: Frame) -> AudioInfo:
    return AudioInfo(**frame.fields["info"])


def _language(code: Any) -> str | None:
    if code is not None and not re.fullmatch("[a-z]{2,3}", code):
        raise WireError("there is no such language")
    return None if code is None else str(code)


def _segment(fields: Mapping[str, Any]) -> Segment:
    return Segment(**{**fields, "words": tuple(Word(**word) for word in fields["words"])})


def _job_error(frame: Frame) -> JobError:
    return job_error(frame.fields["code"], frame.fields["message"])
