"""Decoding one sound track packet by packet, and passing over packets without decoding them.

Lossy codecs remember what came before, some for good: AAC draws the noise it stands in for hiss
from one running generator. So the decoder is begun anew every `RENEWAL_S` of sound, and given the
packets of the `WARM_UP_S` before. Whatever it makes of a place then depends on a bounded stretch of
the recording, and a run that begins in the middle has the very samples of one that came from the
start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, islice
from typing import TypeAlias, cast

from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec import CodecContext
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet

from jobs.errors import DecodeError
from jobs.frames import shape, silent_frames

RENEWAL_S = 30
# Measured with speech: MP3 sounds the same 0.5 s after any start, Opus 1.4 s, AMR 1.9 s.
WARM_UP_S = 2

# Codecs in which each packet gives one frame. In the first group all are of one length, in the
# second each packet states its own.
_OF_ONE_LENGTH = frozenset({"aac", "amr_nb", "amr_wb", "mp3"})
_OF_STATED_LENGTH = frozenset({"alac", "flac", "opus", "vorbis"})
_LEAD_PACKETS = 3  # decoded to see whether the packets of a recording are as its codec promises

_MIN_GAP_S = Fraction(1, 4)  # shorter irregularities of timestamps are rounding
_NO_GAP_S = 0.2  # certainly less than that, whatever the rounding of floats
_MAX_GAP_S = 60  # longer ones are mistaken timestamps, not missing sound
_MAX_DEMUX_ERRORS = 50
_MIN_RATE_HZ, _MAX_RATE_HZ = 1_000, 768_000
_PLENTY_BYTES = 8 * 1024 * 1024  # more than a packet or a frame takes

Sound: TypeAlias = "Packet[AudioStream]"


def missing_s(time_s: Fraction | None, position_s: Fraction, stated_s: float) -> Fraction:
    """How much sound is missing before what is said to sound at `time_s` and would at `position_s`.

    `stated_s` is the length of the whole: no gap reaches beyond.
    """
    if time_s is None:
        return Fraction(0)
    gap_s = time_s - position_s
    credible = _MIN_GAP_S <= gap_s <= _MAX_GAP_S and time_s <= stated_s
    return gap_s if credible else Fraction(0)


class Pace:
    """How many samples each packet holds, known without decoding it."""

    def __init__(self, like: AudioFrame, time_base: Fraction, length: int | None) -> None:
        """`length` is that of every packet; None: each states its own."""
        self.like = like
        self.rate_hz = like.sample_rate
        self.tick_s = float(time_base)
        self._tick_samples = time_base * self.rate_hz
        self._length = length
        self._counts: dict[int, int | None] = {}  # by stated duration, of which there are few

    def samples_in(self, packet: Sound) -> int | None:
        """None when that cannot be told: the end, a trimmed packet, another encoding from here."""
        if packet.size == 0 or _is_irregular(packet):
            return None
        ticks = packet.duration or 0
        if ticks not in self._counts:
            self._counts[ticks] = self._count(ticks)
        return self._counts[ticks]

    def _count(self, ticks: int) -> int | None:
        stated = ticks * self._tick_samples
        if self._length is None:
            return int(stated) if stated and stated.denominator == 1 else None
        rounding = max(Fraction(1), self._tick_samples)
        return self._length if not stated or abs(stated - self._length) <= rounding else None


def _is_irregular(packet: Sound) -> bool:
    return (
        packet.has_sidedata("skip_samples")
        or packet.has_sidedata("new_extradata")
        or packet.has_sidedata("param_change")
    )


class Decoding:
    """The frames of a sound track from the container's place on; an iterator."""

    skipped_packets: int  # corrupt ones met so far
    decoded_packets: int

    def __init__(self, container: InputContainer, stream: AudioStream) -> None:
        self.skipped_packets = self.decoded_packets = 0
        self._stream = stream
        self._decoder = stream.codec_context
        self._packets = self._demuxed(container)
        self._pace: Pace | None = None
        self._origin_s, self._origin_s_near, self._stated_s = Fraction(0), 0.0, 0.0
        self._index = self._stretch = 0  # the next sample; the renewal it comes after
        self._recent: deque[tuple[Sound, int]] = deque()  # to warm a decoder up; where each ends
        self._frames: Iterator[AudioFrame] = self._decoded_frames()

    def __iter__(self) -> Iterator[AudioFrame]:
        return self

    def __next__(self) -> AudioFrame:
        return next(self._frames)

    def learn_pace(self, first: AudioFrame, origin_s: Fraction, stated_s: float) -> None:
        """See whether packets can be counted; `first` is the only frame taken so far."""
        if self._decoder.codec.canonical_name not in _OF_ONE_LENGTH | _OF_STATED_LENGTH:
            return
        self._origin_s, self._stated_s, self._index = origin_s, stated_s, first.samples
        self._origin_s_near = float(origin_s)
        lead = [(packet, self._decoded(packet)) for packet in islice(self._packets, _LEAD_PACKETS)]
        self._frames = chain([frame for _, frames in lead for frame in frames], self._frames)
        self._pace = self._pace_of(first, lead)
        if self._pace is not None:
            for packet, frames in lead:
                start = self._start_of(packet, self._pace)
                self._pass(packet, start, frames[0].samples, self._pace)

    def skip_to(self, index: int) -> int | None:
        """Pass over packets, so that the next frame begins at sample `index` or before.

        Returns where it begins. None: that cannot be told, and this object is of no use any more.
        Call it after `learn_pace`; only when it returns 0, frames taken before are still needed.
        """
        if (pace := self._pace) is None:
            return None
        held: list[Sound] = []
        begin, recent, after_lead = 0, self._recent.copy(), self._index
        while self._index <= index:
            packet = next(self._packets, None)
            count = None if packet is None else pace.samples_in(packet)
            if packet is None or count is None:
                return None
            start = self._start_of(packet, pace)
            if self._stretch_at(start, pace) != self._stretch:
                begin, recent, held = self._index, self._recent.copy(), []
            held.append(packet)
            self._pass(packet, start, count, pace)
        self._packets = chain(held, self._packets)
        self._recent = recent
        self._index = begin or after_lead
        if begin and not self._renew(pace):
            return None
        if begin:
            self._frames = self._decoded_frames()
        return begin

    def _demuxed(self, container: InputContainer) -> Iterator[Sound]:
        for _ in range(_MAX_DEMUX_ERRORS):
            try:
                yield from container.demux(self._stream)
                return
            except FFmpegError as error:
                fault_of_the_file(error)
                self.skipped_packets += 1

    def _decoded_frames(self) -> Iterator[AudioFrame]:
        """What is corrupt is skipped, with silence in its place where its length is known."""
        while (packet := next(self._packets, None)) is not None:
            pace = self._pace
            count = None if pace is None else pace.samples_in(packet)
            if pace is None or count is None:
                self._pace = None
                yield from self._decoded(packet)
                continue
            start = self._start_of(packet, pace)
            if self._stretch_at(start, pace) != self._stretch:
                self._renew(pace)
            self._pass(packet, start, count, pace)
            yield from self._decoded(packet) or silent_frames(pace.like, count)

    def _decoded(self, packet: Sound) -> list[AudioFrame]:
        self.decoded_packets += 1
        try:
            frames = self._decoder.decode(packet)
        except FFmpegError as error:
            fault_of_the_file(error)
            self.skipped_packets += 1
            return []
        for frame in frames:
            if not _MIN_RATE_HZ <= frame.sample_rate <= _MAX_RATE_HZ:
                raise DecodeError(f"This file claims a sample rate of {frame.sample_rate} Hz.")
        return [frame for frame in frames if frame.samples]

    def _pace_of(
        self, first: AudioFrame, lead: list[tuple[Sound, list[AudioFrame]]]
    ) -> Pace | None:
        """None when the lead shows that packets of this recording cannot be counted."""
        time_base = self._stream.time_base
        if len(lead) < _LEAD_PACKETS or time_base is None:
            return None
        alike = self._decoder.codec.canonical_name in _OF_ONE_LENGTH
        length = sum(frame.samples for frame in lead[0][1]) if alike else None
        pace = Pace(first, time_base, length)
        for packet, frames in lead:
            if [(shape(frame), frame.samples) for frame in frames] != [
                (shape(first), pace.samples_in(packet))
            ]:
                return None
        return pace

    def _start_of(self, packet: Sound, pace: Pace) -> int:
        """The packet's first sample, after the silence that stands for missing sound."""
        if packet.pts is None or packet.time_base is None:
            return self._index
        rate_hz = pace.rate_hz
        # Most packets follow on, and exact fractions take as long as all the rest.
        if packet.pts * pace.tick_s - self._origin_s_near < self._index / rate_hz + _NO_GAP_S:
            return self._index
        time_s = packet.pts * packet.time_base - self._origin_s
        gap_s = missing_s(time_s, Fraction(self._index, rate_hz), self._stated_s)
        return self._index + int(gap_s * rate_hz)

    def _stretch_at(self, index: int, pace: Pace) -> int:
        return index // (RENEWAL_S * pace.rate_hz)

    def _pass(self, packet: Sound, start: int, count: int, pace: Pace) -> None:
        self._stretch = self._stretch_at(start, pace)
        self._index = start + count
        self._recent.append((packet, self._index))
        while self._recent[0][1] <= self._index - WARM_UP_S * pace.rate_hz:
            self._recent.popleft()

    def _renew(self, pace: Pace) -> bool:
        """Go on with a new decoder; False, and no change, when it decodes to something else."""
        decoder = _decoder_like(self._stream.codec_context)
        frames: list[AudioFrame] = []
        for packet, _ in self._recent:
            self.decoded_packets += 1
            try:
                frames = decoder.decode(packet)
            except FFmpegError as error:
                fault_of_the_file(error)
        if not frames or shape(frames[-1]) != shape(pace.like):
            return False
        self._decoder = decoder
        return True


def fault_of_the_file(error: FFmpegError) -> None:
    """Raises MemoryError when it is ours: then nothing can be said of the file.

    FFmpeg complains of memory as well when a damaged file asks for absurd amounts of it.
    """
    if isinstance(error, MemoryError):
        bytearray(_PLENTY_BYTES)


def _decoder_like(old: AudioCodecContext) -> AudioCodecContext:
    decoder = cast(AudioCodecContext, CodecContext.create(old.codec, "r"))
    decoder.extradata = old.extradata
    decoder.sample_rate = old.sample_rate
    decoder.layout = old.layout
    decoder.thread_count = 1
    return decoder
