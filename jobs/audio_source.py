"""What a store offers and a recogniser reads: the bytes of one recording, at random."""

from __future__ import annotations

from typing import Protocol


class AudioSource(Protocol):
    """Random access to one stored recording."""

    @property
    def size_bytes(self) -> int:
        """Length of the whole."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer only at the end. Raises AudioMissingError."""
        ...
