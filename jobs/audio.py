"""Opening and decoding an untrusted recording: any container in, 16 kHz mono samples out.

Child side only: this module loads the native decoders. Positions count samples of the output from
the first decoded sample of the recording, so that a run which resumes at a sample goes on with
exactly the samples that an undisturbed run would have had there.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, groupby
from math import gcd
from typing import Any, Protocol, cast

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from jobs.errors import DecodeError, EmptyAudioError, JobError, NoAudioStreamError, NotAudioError
from jobs.recogniser_wire import AudioInfo

SAMPLE_RATE_HZ = 16_000

# Containers of sound and film. Left out on purpose: whatever names other files or addresses (hls,
# dash, concat, sdp, image sequences), raw formats that any bytes would satisfy, text and subtitles.
FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,eac3,flac,flv,gsm,loas,"
    "mov,mp4,m4a,3gp,3g2,mj2,mp3,matroska,webm,mpc,mpc8,mpeg,mpegts,nistsphere,"
    "ogg,rm,tak,tta,voc,w64,wav,wv,xwma"
)
_CONTAINER_OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
# Formats found by a pattern of bits alone; of other data too, now and then.
_UNSIGNED_FORMATS = frozenset({"aac", "ac3", "eac3", "gsm", "loas", "mp3", "mpeg", "mpegts"})
# Here a seek is exact to the sample, and no decoder state crosses a frame. Lossy recordings, small
# beside these, are decoded from their start instead: a hundredth of the time recognition takes.
_SEEKABLE_FORMATS = frozenset({"aiff", "au", "caf", "flac", "w64", "wav"})

_BUFFER_BYTES = 64 * 1024
_PREROLL_S = 1  # decoded and dropped before a resume, to fill the resampler's memory
_MIN_GAP_S = Fraction(1, 4)  # shorter irregularities of timestamps are rounding
_MAX_GAP_S = 60  # longer ones are mistaken timestamps, not missing sound
_MAX_DEMUX_ERRORS = 50
_MIN_RATE_HZ, _MAX_RATE_HZ = 1_000, 768_000
_MAX_CREDIBLE_S = 30 * 86400.0
_GUESSED_DURATIONS = frozenset({"aac", "loas"})  # from the bit rate of the first frames

_NOT_AUDIO = "This file is not a recording in any format that can be opened."

Samples = npt.NDArray[np.int16]


class ReadableFile(Protocol):
    """What a recording is read from."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


class Recording:
    """An opened recording, whose first frame has decoded. A context manager.

    Opening raises NotAudioError, NoAudioStreamError, EmptyAudioError or DecodeError, each with a
    sentence for the person who sent the file.
    """

    info: AudioInfo
    skipped_packets: int  # corrupt ones met so far
    end: int  # position reached by `samples`

    def __init__(self, file: ReadableFile) -> None:
        self.skipped_packets = 0
        self.end = 0
        self._container = _open_container(file)
        try:
            self._stream = _sound_track(self._container)
            self._frames = self._decoded_frames()
            first = next(self._frames, None)
            if first is None:
                raise self._nothing_decoded()
            self._frames = chain([first], self._frames)
            self._origin_s = _time_s(first) or Fraction(0)
            self.info = self._described(first)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def samples(self, start: int = 0) -> Iterator[Samples]:
        """The samples from position `start` to the end, in blocks of the decoder's size; once.

        Corrupt packets are skipped, and silence stands in for what they held.
        """
        position_s = self._seek(start)
        self.end = int(position_s * SAMPLE_RATE_HZ)
        for block in _resampled(self._without_gaps(position_s)):
            skip = max(0, start - self.end)
            self.end += len(block)
            if skip < len(block):
                yield block[skip:]

    def measured_s(self) -> float | None:
        """The length by the times of all packets, without decoding one; uses the recording up.

        For containers that state none, such as WebM as a browser records it. None when the packets
        carry no times either.
        """
        end: int | None = None
        time_base = self._stream.time_base
        try:
            for packet in self._container.demux(self._stream):
                if packet.pts is not None:
                    end = max(end or 0, packet.pts + (packet.duration or 0))
        except av.FFmpegError:
            pass  # damaged from here on: what decodes of it will tell
        if end is None or time_base is None:
            return None
        measured_s = float(end * time_base - self._origin_s)
        return measured_s if 0 < measured_s <= _MAX_CREDIBLE_S else None

    def _seek(self, start: int) -> Fraction:
        """Bring `_frames` to a place at or before `start`; its time from the origin in seconds.

        Anywhere but at the origin, that place falls on a sample of the output as well as of the
        input: only there a new resampler has the phase that the undisturbed one has.
        """
        if start <= _PREROLL_S * SAMPLE_RATE_HZ or not self._seeks_exactly():
            return Fraction(0)
        wanted_s = Fraction(start, SAMPLE_RATE_HZ) - _PREROLL_S
        if (found := self._frame_at(wanted_s)) is not None:
            frame, time_s = found
            index = int(time_s * frame.sample_rate)
            cut = -index % (frame.sample_rate // gcd(frame.sample_rate, SAMPLE_RATE_HZ))
            if cut < frame.samples and time_s <= wanted_s:
                self._frames = chain([_without_head(frame, cut)], self._frames)
                return Fraction(index + cut, frame.sample_rate)
        self._container.seek(self._stream.start_time or 0, stream=self._stream)
        self._frames = self._decoded_frames()
        return Fraction(0)

    def _seeks_exactly(self) -> bool:
        codec, time_base = self.info.codec, self._stream.time_base
        return (
            self.info.container in _SEEKABLE_FORMATS
            and (codec.startswith("pcm_") or codec == "flac")
            and time_base is not None
            and (1 / time_base) % self.info.sample_rate_hz == 0
        )

    def _frame_at(self, wanted_s: Fraction) -> tuple[AudioFrame, Fraction] | None:
        """Seek; the first frame from there and its time, if it has one."""
        time_base = self._stream.time_base or Fraction(1)
        try:
            timestamp = int((self._origin_s + wanted_s) / time_base)
            self._container.seek(timestamp, stream=self._stream)
        except FFmpegError:
            return None
        self._frames = self._decoded_frames()
        frame = next(self._frames, None)
        time_s = None if frame is None else _time_s(frame)
        return None if frame is None or time_s is None else (frame, time_s - self._origin_s)

    def _decoded_frames(self) -> Iterator[AudioFrame]:
        """Frames from the container's place to the end; what is corrupt is skipped."""
        for _ in range(_MAX_DEMUX_ERRORS):
            try:
                for packet in self._container.demux(self._stream):
                    yield from self._decoded(packet)
                return
            except FFmpegError:
                self.skipped_packets += 1
        yield from self._decoded(None)

    def _decoded(self, packet: Packet[AudioStream] | None) -> list[AudioFrame]:
        try:
            frames = self._stream.codec_context.decode(packet)
        except FFmpegError:
            self.skipped_packets += 1
            return []
        for frame in frames:
            if not _MIN_RATE_HZ <= frame.sample_rate <= _MAX_RATE_HZ:
                raise DecodeError(f"This file claims a sample rate of {frame.sample_rate} Hz.")
        return [frame for frame in frames if frame.samples]

    def _without_gaps(self, position_s: Fraction) -> Iterator[AudioFrame]:
        """The frames, with silence where timestamps leap over sound that is missing."""
        stated_s = self.info.duration_s or 0.0
        for frame in self._frames:
            time_s = _time_s(frame)
            if time_s is not None:
                gap_s = time_s - self._origin_s - position_s
                if _MIN_GAP_S <= gap_s <= _MAX_GAP_S and position_s + gap_s <= stated_s:
                    for silence in _silent_frames(frame, int(gap_s * frame.sample_rate)):
                        position_s += Fraction(silence.samples, silence.sample_rate)
                        yield silence
            position_s += Fraction(frame.samples, frame.sample_rate)
            yield frame

    def _described(self, first: AudioFrame) -> AudioInfo:
        stream, container = self._stream, self._container
        duration_s: float | None = None
        if stream.duration is not None and stream.time_base is not None:
            duration_s = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            duration_s = container.duration / av.time_base
        name = container.format.name.split(",")[0]
        credible = duration_s is not None and 0 < duration_s <= _MAX_CREDIBLE_S
        return AudioInfo(
            duration_s=duration_s if credible and name not in _GUESSED_DURATIONS else None,
            container=name,
            codec=stream.codec_context.codec.canonical_name,
            sample_rate_hz=first.sample_rate,
            channels=first.layout.nb_channels,
        )

    def _nothing_decoded(self) -> JobError:
        if self._container.format.name in _UNSIGNED_FORMATS:
            return NotAudioError(_NOT_AUDIO)
        if self.skipped_packets:
            return DecodeError("The sound in this file is damaged: none of it can be decoded.")
        return EmptyAudioError("This recording is empty: it holds no sound at all.")


def _open_container(file: ReadableFile) -> InputContainer:
    try:
        return av.open(
            file, mode="r", container_options=_CONTAINER_OPTIONS, buffer_size=_BUFFER_BYTES
        )
    except FFmpegError as error:
        raise NotAudioError(_NOT_AUDIO) from error


def _sound_track(container: InputContainer) -> AudioStream:
    """The best sound track; all other streams are left unread."""
    stream = container.streams.best("audio")
    if stream is None:
        films = [track for track in container.streams.video if not _is_cover(track)]
        kind = "video but no sound track" if films else "no sound track"
        raise NoAudioStreamError(f"This file has {kind}.")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    sound = cast(AudioStream, stream)
    if sound.codec_context is None:
        raise DecodeError("The sound in this file is in a format that cannot be decoded here.")
    sound.codec_context.thread_count = 1
    return sound


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition.value & Disposition.attached_pic.value)


def _time_s(frame: AudioFrame) -> Fraction | None:
    if frame.pts is None or frame.time_base is None:
        return None
    return frame.pts * frame.time_base


def _resampled(frames: Iterator[AudioFrame]) -> Iterator[Samples]:
    """The frames at 16 kHz, their channels averaged. Follows a change of rate or channels."""
    for _, alike in groupby(frames, _frame_shape):
        resampler = AudioResampler(format="s16p", rate=SAMPLE_RATE_HZ)
        for frame in chain(alike, [None]):
            if frame is not None:
                frame.pts = None
            try:
                resampled = resampler.resample(frame)
            except (FFmpegError, ValueError) as error:
                raise DecodeError("The sound in this file cannot be converted.") from error
            yield from (_averaged(piece) for piece in resampled)


def _frame_shape(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _averaged(frame: AudioFrame) -> Samples:
    channels = _planes(frame)
    if len(channels) == 1:
        return cast(Samples, channels[0])
    return cast(Samples, np.rint(channels.mean(axis=0)).astype(np.int16))


def _planes(frame: AudioFrame) -> npt.NDArray[Any]:
    return cast(npt.NDArray[Any], frame.to_ndarray())


def _without_head(frame: AudioFrame, count: int) -> AudioFrame:
    """The frame without its first `count` samples."""
    if count == 0:
        return frame
    plane = _planes(frame)
    start = count if frame.format.is_planar else count * frame.layout.nb_channels
    rest = AudioFrame.from_ndarray(
        np.ascontiguousarray(plane[:, start:]), format=frame.format.name, layout=frame.layout.name
    )
    rest.sample_rate = frame.sample_rate
    if frame.pts is not None and frame.time_base is not None:
        rest.time_base = frame.time_base
        rest.pts = frame.pts + int(Fraction(count, frame.sample_rate) / frame.time_base)
    return rest


def _silent_frames(like: AudioFrame, count: int) -> Iterator[AudioFrame]:
    """`count` samples of silence in frames of at most a second, of the form of `like`."""
    template = np.zeros_like(_planes(like)[:, :1])
    if like.format.name.startswith("u8"):
        template += 128
    width = 1 if like.format.is_planar else like.layout.nb_channels
    while count > 0:
        length = min(count, like.sample_rate)
        silence = AudioFrame.from_ndarray(
            np.repeat(template, length * width, axis=1),
            format=like.format.name,
            layout=like.layout.name,
        )
        silence.sample_rate = like.sample_rate
        yield silence
        count -= length
