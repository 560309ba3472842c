"""The parent's handle on one recognising child process.

The child opens untrusted recordings and runs native code; here are only its pipes. It is started
with an environment that holds no secret, in a session of its own, and reads a recording solely by
asking for byte ranges of an `AudioSource`. Whatever ends a call early (cancellation, an abandoned
iterator, a crash, a stall) ends the child too: there is no half-state to return to.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import structlog

from jobs import errors
from jobs.audio_source import AudioSource
from jobs.errors import JobError, RecogniserCrashed, RecogniserStalled
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

START_TIMEOUT_S = 120.0  # to import, and to load a model from a slow disk
CLOSE_TIMEOUT_S = 2.0
STDERR_LINES = 20  # kept for the error when the child crashes
STDERR_LINE_BYTES = 500

T = TypeVar("T")

_NONSENSE = "The recogniser sent what is not its protocol."
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

    def __init__(self, process: asyncio.subprocess.Process, *, stall_timeout_s: float) -> None:
        self._process = process
        self._stall_timeout_s = stall_timeout_s
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
        stall_timeout_s: float,
    ) -> Recogniser:
        """Start a child and wait until its model is loaded.

        `engine=None` starts one that only probes and loads no model. The memory limit counts the
        child's private memory. Raises EngineUnavailableError when the engine cannot be loaded.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "jobs.recogniser_child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=child_environment(os.environ),
            cwd="/",
            start_new_session=True,
        )
        recogniser = cls(process, stall_timeout_s=stall_timeout_s)
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
            async with asyncio.timeout(START_TIMEOUT_S):
                await recogniser._send(order)
                ready = await recogniser._receive()
            if ready.kind == "error":
                raise _understood(_job_error, ready)
        except TimeoutError as error:
            await recogniser._end()
            raise RecogniserStalled("The recogniser did not start in time.") from error
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
            return [_understood(_info, frame) async for frame in frames][-1]

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
                yield _understood(_event, frame)

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
        """Give an order and serve the child's reads; what else it says, until a `last` frame."""
        if self._busy:
            raise RuntimeError("the recogniser is at work on another recording")
        if self.closed:
            raise RecogniserCrashed("The recogniser has been closed.")
        self._busy, finished = True, False
        try:
            await self._send_in_time(order)
            while not finished:
                frame = await self._receive_in_time()
                if frame.kind == "read":
                    offset, length = _understood(_byte_range, frame)
                    data = await source.read(offset, length)
                    await self._send_in_time(Frame("data", body=data))
                    continue
                finished = frame.kind in (last, "error") and not frame.fields.get("spent")
                if frame.kind == "error":
                    raise _understood(_job_error, frame)
                yield frame
        finally:
            self._busy = False
            if not finished:
                await self._end()

    async def _send_in_time(self, frame: Frame) -> None:
        with self._stalling():
            async with asyncio.timeout(self._stall_timeout_s):
                await self._send(frame)

    async def _receive_in_time(self) -> Frame:
        with self._stalling():
            async with asyncio.timeout(self._stall_timeout_s):
                return await self._receive()

    @contextmanager
    def _stalling(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            _log.warning("recogniser_stalled", pid=self.pid, stall_timeout_s=self._stall_timeout_s)
            raise RecogniserStalled(
                f"The recogniser gave no sign of life for {self._stall_timeout_s:g} seconds."
            ) from error

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
            raise RecogniserCrashed(_NONSENSE) from error
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
        return RecogniserCrashed(f"The recogniser ended unexpectedly: {ending}.")

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
    if returncode is None:
        return "it does not answer"
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def _understood(read: Callable[[Frame], T], frame: Frame) -> T:
    """What a frame says. The child has handled untrusted bytes: it may say anything."""
    try:
        return read(frame)
    except (KeyError, TypeError, ValueError) as error:
        raise RecogniserCrashed(_NONSENSE) from error


def _byte_range(frame: Frame) -> tuple[int, int]:
    offset, length = frame.fields["offset"], frame.fields["length"]
    if offset < 0 or not 0 < length <= MAX_BODY_BYTES:
        raise WireError(f"there is no range of {length} bytes at {offset}")
    return offset, length


def _event(frame: Frame) -> Event:
    fields = frame.fields
    match frame.kind:
        case "opened":
            return AudioOpened(_info(frame))
        case "progress":
            return ChunkProgress(fields["processed_s"])
        case "chunk":
            segments = tuple(_segment(segment) for segment in fields["segments"])
            return ChunkDone(fields["start_s"], fields["end_s"], segments)
        case "ended":
            return AudioEnded(fields["duration_s"], fields["stated_duration_s"])
        case kind:
            raise WireError(f"there is no event {kind!r}")


def _info(frame: Frame) -> AudioInfo:
    return AudioInfo(**frame.fields["info"])


def _segment(fields: Mapping[str, Any]) -> Segment:
    return Segment(**{**fields, "words": tuple(Word(**word) for word in fields["words"])})


def _job_error(frame: Frame) -> JobError:
    return _ERRORS[frame.fields["code"]](frame.fields["message"])


_ERRORS: Mapping[str, type[JobError]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, JobError)
}
