"""The recognising child process: `python -m jobs.recogniser_child`.

It decodes untrusted recordings and runs the speech engine, and knows nothing else: its bytes come
from its parent over stdin, its results go to the parent over stdout (frames of `recogniser_wire`).
It ends when stdin does, and on Linux is killed with its parent.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jobs.audio import SAMPLE_RATE_HZ, Recording, Samples
from jobs.chunking import LOOKAHEAD_S, chunk_length
from jobs.engines import Chunk, Engine, load
from jobs.engines.bounds import bounded
from jobs.errors import EngineError, JobError, job_error
from jobs.model import CONTEXT_S, Segment
from jobs.recogniser_wire import PREFIX_BYTES, Frame, decode, encode, lengths

BLOCK_BYTES = 256 * 1024
CACHED_BLOCKS = 8
READAHEAD_BLOCKS = 4  # at once, when blocks are asked for in order
CONTEXT_SAMPLES = round(CONTEXT_S * SAMPLE_RATE_HZ)
PROGRESS_INTERVAL_S = 0.25

_PR_SET_PDEATHSIG = 1


class ParentGone(Exception):
    """The pipe to the parent has ended."""


class Parent:
    """The pipe to the parent: whole frames, one after the other."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    def send(self, kind: str, **fields: Any) -> None:
        self._write(Frame(kind, fields))

    def ask(self, kind: str, fields: Mapping[str, Any], body: bytes) -> Frame:
        """What the engine may not do itself; waits for the answer. Raises JobError."""
        self._write(Frame("ask", {**fields, "kind": kind}, body))
        answer = self.receive()
        if answer.kind == "error":
            raise job_error(answer.fields["code"], answer.fields["message"])
        return answer

    def receive(self) -> Frame:
        header_bytes, body_bytes = lengths(self._read(PREFIX_BYTES))
        return decode(self._read(header_bytes), self._read(body_bytes))

    def _write(self, frame: Frame) -> None:
        try:
            self._outgoing.write(encode(frame))
            self._outgoing.flush()
        except BrokenPipeError as error:
            raise ParentGone from error

    def _read(self, length: int) -> bytes:
        data = self._incoming.read(length)
        if len(data) < length:
            raise ParentGone
        return data


class RemoteFile:
    """A recording that lives with the parent, as a file: read, seek, tell.

    Holds at most `CACHED_BLOCKS` blocks, the last used.
    """

    def __init__(self, parent: Parent, size_bytes: int) -> None:
        self._parent = parent
        self._size_bytes = size_bytes
        self._offset = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._last_fetched = -1

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; fewer at the end of a block, none at the end of the recording."""
        number, within = divmod(self._offset, BLOCK_BYTES)
        if self._offset >= self._size_bytes:
            return b""
        block = self._block(number)
        data = block[within:] if size < 0 else block[within : within + size]
        self._offset += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self._size_bytes}[whence]
        self._offset = max(0, base + offset)
        return self._offset

    def tell(self) -> int:
        return self._offset

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            self._fetch(number, READAHEAD_BLOCKS if number == self._last_fetched + 1 else 1)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _fetch(self, first: int, count: int) -> None:
        self._parent.send("read", offset=first * BLOCK_BYTES, length=count * BLOCK_BYTES)
        body = self._parent.receive().body
        for number in range(first, first + count):
            start = (number - first) * BLOCK_BYTES
            self._blocks[number] = body[start : start + BLOCK_BYTES]
            self._last_fetched = number
        while len(self._blocks) > CACHED_BLOCKS:
            self._blocks.popitem(last=False)


class Transcription:
    """One recording on its way through decoding, chunking and the engine."""

    def __init__(self, parent: Parent, engine: Engine, order: Mapping[str, Any]) -> None:
        self._parent = parent
        self._engine = engine
        self._size_bytes: int = order["size_bytes"]
        self._start = round(order["start_s"] * SAMPLE_RATE_HZ)
        self._idx: int = order["first_idx"]
        self._language: str | None = order["language"]
        self._reported_at = 0.0

    def run(self) -> None:
        with self._recording() as recording:
            info = recording.info
            if info.duration_s is None:
                info = replace(info, duration_s=recording.measured_s())
        self._parent.send("opened", info=asdict(info))
        with self._recording() as recording:
            self._engine.listen(recording.samples())
        with self._recording() as recording:
            start = self._start
            context = min(start, CONTEXT_SAMPLES)
            for chunk in chunks(recording.samples(start - context), context):
                self._recognise(chunk, start)
                start += chunk.core_samples
            self._parent.send(
                "ended",
                duration_s=recording.end / SAMPLE_RATE_HZ,
                stated_duration_s=recording.info.duration_s,
                skipped_packets=recording.skipped_packets,
                peak_rss_bytes=peak_rss_bytes(),
            )

    def _recording(self) -> Recording:
        return Recording(RemoteFile(self._parent, self._size_bytes))

    def _recognise(self, chunk: Chunk, start: int) -> None:
        start_s = start / SAMPLE_RATE_HZ

        def report(recognised_s: float) -> None:
            now = time.monotonic()
            if now - self._reported_at >= PROGRESS_INTERVAL_S:
                self._reported_at = now
                self._parent.send("progress", processed_s=start_s + recognised_s)

        chunk_s = len(chunk.samples) / SAMPLE_RATE_HZ
        self._parent.send("begin", chunk_s=chunk_s, reports=self._engine.reports)
        heard = self._engine.recognise(chunk, self._language, report)
        if heard.segments and self._language is None:
            self._language = heard.language  # and of all that follows
        placed = [_placed(each, start_s, self._idx) for each in bounded(heard.segments)]
        self._idx += len(placed)
        self._parent.send(
            "chunk",
            start_s=start_s,
            end_s=(start + chunk.core_samples) / SAMPLE_RATE_HZ,
            segments=[asdict(segment) for segment in placed],
            language=heard.language if placed else None,
            peak_rss_bytes=peak_rss_bytes(),
        )


def chunks(blocks: Iterator[Samples], before: int = 0) -> Iterator[Chunk]:
    """The same samples in chunks as `chunking` cuts them; holds little more than one chunk.

    The first `before` samples are only context of the first chunk.
    """
    # Enough for the choice of a cut and for the context after it, however the blocks fall: a run
    # that resumes must make the same chunks.
    lookahead = int(LOOKAHEAD_S * SAMPLE_RATE_HZ) + CONTEXT_SAMPLES
    held = np.zeros(0, np.int16)
    pending: list[Samples] = []
    count = 0
    for block in blocks:
        pending.append(block)
        count += len(block)
        while count - before >= lookahead:
            held = np.concatenate([held, *pending])
            chunk = _cut(held, before, at_end=False)
            yield chunk
            before, held = _rest(held, chunk)
            pending, count = [], len(held)
    held = np.concatenate([held, *pending])
    while len(held) > before:
        chunk = _cut(held, before, at_end=True)
        yield chunk
        before, held = _rest(held, chunk)


def _cut(held: Samples, before: int, *, at_end: bool) -> Chunk:
    length = chunk_length(held[before:], at_end=at_end)
    after = min(CONTEXT_SAMPLES, len(held) - before - length)
    return Chunk(held[: before + length + after], before, after)


def _rest(held: Samples, chunk: Chunk) -> tuple[int, Samples]:
    """What follows a chunk: the new context's length, and the samples from its start on."""
    end = chunk.before + chunk.core_samples
    before = min(end, CONTEXT_SAMPLES)
    return before, held[end - before :]


def _placed(segment: Segment, offset_s: float, first_idx: int) -> Segment:
    """A chunk's segment, in the times and the numbering of the recording."""
    words = tuple(
        replace(
            word,
            start_s=round(word.start_s + offset_s, 3),
            end_s=round(word.end_s + offset_s, 3),
        )
        for word in segment.words
    )
    return replace(
        segment,
        idx=segment.idx + first_idx,
        start_s=round(segment.start_s + offset_s, 3),
        end_s=round(segment.end_s + offset_s, 3),
        words=words,
    )


def peak_rss_bytes() -> int:
    """The most memory this process has held."""
    try:
        # Unlike ru_maxrss, this does not start from what the parent held when it forked.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def confine(niceness: int, memory_limit_bytes: int | None) -> None:
    """Take away what recognising does not need: priority, memory, files, core dumps."""
    os.nice(niceness)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not any(name.startswith("COVERAGE_") for name in os.environ):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if memory_limit_bytes is not None:
        limit = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
        resource.setrlimit(limit, (memory_limit_bytes, memory_limit_bytes))


def die_with_parent() -> None:
    """On Linux: be killed when the parent dies, whatever this process is busy with."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(parent: Parent) -> None:
    """Obey the parent until its pipe ends."""
    order = parent.receive().fields
    engine: Engine | None = None
    try:
        confine(order["niceness"], order["memory_limit_bytes"])
        if order["engine"] is not None:
            engine = load(order["engine"], order["engine_options"], parent.ask)
    except JobError as error:
        _refuse(parent, error)
        return
    parent.send("ready", peak_rss_bytes=peak_rss_bytes())
    while True:
        _obey(parent, engine, parent.receive())


def _obey(parent: Parent, engine: Engine | None, order: Frame) -> None:
    try:
        match order.kind:
            case "probe":
                with Recording(RemoteFile(parent, order.fields["size_bytes"])) as recording:
                    parent.send(
                        "info", info=asdict(recording.info), peak_rss_bytes=peak_rss_bytes()
                    )
            case "transcribe" if engine is not None:
                Transcription(parent, engine, order.fields).run()
            case kind:
                raise EngineError(f"This recogniser was not started to {kind}.")
    except JobError as error:
        _refuse(parent, error)
    except MemoryError:
        _refuse(parent, EngineError("This recording needs more memory than it is allowed."))


def _refuse(parent: Parent, error: JobError) -> None:
    parent.send(
        "error",
        code=error.code,
        message=error.message,
        # Not to be given another order: native code may have been left in the middle of anything.
        spent=isinstance(error, EngineError),
        peak_rss_bytes=peak_rss_bytes(),
    )


def main() -> None:
    die_with_parent()
    # Native libraries print to descriptor 1; the protocol gets a descriptor of its own.
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with suppress(ParentGone):
        serve(Parent(sys.stdin.buffer, outgoing))


if __name__ == "__main__":
    main()
