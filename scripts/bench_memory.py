#!/usr/bin/env python3
"""What memory a long recording takes: of the web process, of its child, of both.

Speech, repeated to the wanted length, is uploaded as WAV, MP3 and Opus to `quartapp serve` on a
PostgreSQL of its own. Three phases: the upload and its examination; the first minutes of
transcription; and, after a restart, the last minutes to the end, as a run that resumes there. Each
process is asked twenty times a second for the most it has held resident (VmHWM of /proc, which no
short peak escapes); `together` is the largest sum over the processes that were alive at a time.
Pages that processes share are counted in each. Linux only.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv" / "bin" / "python"
sys.path.insert(0, str(ROOT))

try:
    import httpx
    import psutil

    from jobs.embedded import EmbeddedPostgres
    from jobs.settings import MIB
    from tests import clips
    from tests.net import free_port
    from tests.product import Product
    from tests.sessions import SESSIONS, address, finished
except ModuleNotFoundError:
    if not ENVIRONMENT.exists() or Path(sys.prefix) == ENVIRONMENT.parent.parent:
        raise
    os.execv(ENVIRONMENT, [str(ENVIRONMENT), *sys.argv])  # noqa: S606 - our own interpreter

FORMATS = {
    "wav": ("wav", "pcm_s16le", 16_000),
    "mp3": ("mp3", "libmp3lame", 44_100),
    "opus": ("ogg", "libopus", 48_000),
}
SAMPLE_INTERVAL_S = 0.05
PATIENCE_S = 1200.0


@dataclass
class Peaks:
    """The most held in one phase, in bytes."""

    web: int = 0
    child: int = 0
    together: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def watch(self, pid: int) -> None:
        """Look at the process and its children until the phase has ended."""
        process = psutil.Process(pid)
        while not self._ended.wait(SAMPLE_INTERVAL_S):
            web = peak_bytes(pid)
            children = [peak_bytes(child.pid) for child in process.children(recursive=True)]
            self.web = max(self.web, web)
            self.child = max([self.child, *children])
            self.together = max(self.together, web + sum(children))

    def end(self) -> None:
        self._ended.set()


def peak_bytes(pid: int) -> int:
    """The most it has held; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    _, found, rest = status.partition("VmHWM:")
    return int(rest.split()[0]) * 1024 if found else 0


@contextmanager
def phase(name: str, product: Product) -> Iterator[None]:
    """Measure the block, and print what it took."""
    peaks = Peaks()
    watcher = threading.Thread(target=peaks.watch, args=(product.process.pid,))
    watcher.start()
    started = time.monotonic()
    try:
        yield
    finally:
        peaks.end()
        watcher.join()
    sizes = "".join(f"{size / MIB:10.0f}" for size in (peaks.web, peaks.child, peaks.together))
    print(f"  {name:<22}{sizes}   {time.monotonic() - started:6.1f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="of each recording (default 10)")
    parser.add_argument("--hour", action="store_true", help="recordings of a whole hour")
    parser.add_argument(
        "--transcribed", type=float, default=1, help="minutes, at either end (default 1)"
    )
    parser.add_argument("--formats", nargs="*", choices=FORMATS, default=list(FORMATS))
    arguments = parser.parse_args()
    minutes = 60.0 if arguments.hour else arguments.minutes
    print(
        f"{minutes:g} minutes of speech, {arguments.transcribed:g} transcribed at either end; MiB"
    )
    print(f"  {'':<22}{'web':>10}{'child':>10}{'together':>10}")
    with TemporaryDirectory(prefix="bench-") as directory:
        spoken = speech(60 * minutes, Path(directory))
        for name in arguments.formats:
            container, codec, rate_hz = FORMATS[name]
            path = Path(directory) / f"recording.{name}"
            path.write_bytes(clips.encoded(spoken, container, codec, sample_rate_hz=rate_hz))
            print(f"{name}, {path.stat().st_size / MIB:.1f} MiB", flush=True)
            measure(path, 60 * arguments.transcribed)
    return 0


def speech(duration_s: float, directory: Path) -> clips.Samples:
    once = clips.samples_of(clips.speech(clips.LONG_TEXT, directory))
    wanted = int(duration_s * clips.SAMPLE_RATE_HZ)
    return clips.joined([once] * (wanted // len(once) + 1))[:wanted]


def measure(recording: Path, transcribed_s: float) -> None:
    with TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        server = EmbeddedPostgres(directory / "database")
        port = free_port()
        server.start(tcp_port=port)
        product = Product(f"postgresql://quartapp@127.0.0.1:{port}/quartapp", directory)
        try:
            measure_with(product.start(), recording, transcribed_s)
        finally:
            product.end()
            server.stop()


def measure_with(product: Product, recording: Path, transcribed_s: float) -> None:
    email = address()
    with product.client(email) as client:
        with phase("upload", product), recording.open("rb") as file:
            answer = client.post(SESSIONS, files={"file": file}, timeout=PATIENCE_S)
        session_id = answer.raise_for_status().json()["id"]
        with phase("first minutes", product):
            wait_until(lambda: committed_s(product, session_id) >= transcribed_s)
    product.stop()
    product.rows(
        "UPDATE sessions SET committed_s = duration_s - %s WHERE id = %s RETURNING id",
        transcribed_s,
        session_id,
    )
    product.start()
    with phase("last minutes, resumed", product):
        token = product.sign_in(email)
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=product.url, headers=headers) as client:
            session = finished(client, session_id, PATIENCE_S)
    if session["status"] != "completed":
        raise SystemExit(f"not completed: {session}")


def committed_s(product: Product, session_id: str) -> float:
    [(found,)] = product.rows("SELECT committed_s FROM sessions WHERE id = %s", session_id)
    return float(found)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit("the transcription does not get on")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
