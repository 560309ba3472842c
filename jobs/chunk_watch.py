"""How long a recogniser may be waited for, and what it may ask for. Pure: told of what happens."""

from __future__ import annotations

from jobs.recogniser_wire import WireError

MAX_CHUNK_S = 60.0  # longer is nothing that a recogniser may announce
MAX_ASKS = 3  # for one chunk; whoever is asked may want to be paid


class ChunkWatch:
    """Two bounds: one of silence, and one of the work on a chunk, by its length.

    Only time spent waiting for the recogniser counts, not what others take to use what it said or
    to answer what it asked. WireError for what a recogniser that keeps its protocol does not do.
    """

    def __init__(self, silence_s: float, factor: float) -> None:
        self._silence_s = silence_s
        self._factor = factor
        self._chunk_s: float | None = None  # of the chunk under way
        self._left_s = 0.0
        self._reports = False
        self._asks_left = 0

    def begin(self, chunk_s: float, reports: bool) -> None:
        """Work on a chunk begins; `reports` says whether there will be progress within it."""
        if self._chunk_s is not None or not 0 < chunk_s <= MAX_CHUNK_S:
            raise WireError(f"no chunk of {chunk_s} s can begin")
        self._chunk_s, self._reports = chunk_s, reports is True
        self._left_s = self._allowed_s(chunk_s)
        self._asks_left = MAX_ASKS

    def progressed(self) -> None:
        if self._chunk_s is None:
            raise WireError("there is no chunk to have progress in")

    def asked(self) -> None:
        if self._chunk_s is None or not self._asks_left:
            raise WireError("there is nothing to ask")
        self._asks_left -= 1

    def end(self) -> None:
        """The chunk's result is there."""
        if self._chunk_s is None:
            raise WireError("there is no chunk to have a result")
        self._chunk_s = None

    def waited(self, waited_s: float) -> None:
        self._left_s -= waited_s

    @property
    def wait_s(self) -> float:
        """How long to wait for the next sign; nothing or less when the time is up."""
        if self._chunk_s is None:
            return self._silence_s
        return min(self._silence_s, self._left_s) if self._reports else self._left_s

    def stalled(self) -> str:
        """What is wrong after a wait in vain."""
        if self._chunk_s is None or (self._reports and self._left_s > self._silence_s):
            return f"gave no sign of life for {self._silence_s:g} seconds"
        allowed_s = self._allowed_s(self._chunk_s)
        return f"did not finish {self._chunk_s:.0f} seconds of sound within {allowed_s:.0f} seconds"

    def _allowed_s(self, chunk_s: float) -> float:
        return self._silence_s + chunk_s * self._factor
