"""Opening and decoding an untrusted recording: any container in, 16 kHz mono samples out.

Child side only: this module loads the native decoders. Positions count samples of the output from
the first decoded sample of the recording, so that a run which resumes at a sample goes on with
exactly the samples that an undisturbed run would have had there.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import Protocol, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from jobs.decoding import Decoding, fault_of_the_file, missing_s
from jobs.errors import DecodeError, EmptyAudioError, JobError, NoAudioStreamError, NotAudioError
from jobs.frames import (
    SAMPLE_RATE_HZ,
    Samples,
    resampled,
    silent_frames,
    time_s,
    without_head,
)
from jobs.recogniser_wire import AudioInfo

__all__ = ["SAMPLE_RATE_HZ", "Recording", "Samples"]

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
# Here a seek is exact to the sample, and no decoder state crosses a frame. In other recordings,
# small beside these, packets are passed over one by one.
_SEEKABLE_FORMATS = frozenset({"aiff", "au", "caf", "flac", "w64", "wav"})

_BUFFER_BYTES = 64 * 1024
_PREROLL_S = 1  # decoded and dropped before a resume, to fill the resampler's memory
_MAX_CREDIBLE_S = 30 * 86400.0
_GUESSED_DURATIONS = frozenset({"aac", "loas"})  # from the bit rate of the first frames

_NOT_AUDIO = "This file is not a recording in any format that can be opened."


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
    end: int  # position reached by `samples`

    def __init__(self, file: ReadableFile) -> None:
        self.end = 0
        self._file = file
        self._open()

    @property
    def skipped_packets(self) -> int:
        """Corrupt packets met so far."""
        return self._decoding.skipped_packets

    @property
    def decoded_packets(self) -> int:
        """What it has cost so far."""
        return self._decoding.decoded_packets

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def samples(self, start: int = 0) -> Iterator[Samples]:
        """The samples from position `start` to the end, in blocks of the decoder's size; once.

        Corrupt packets are skipped, and silence stands in for what they held.
        """
        position_s, frames = self._from_before(start)
        self.end = int(position_s * SAMPLE_RATE_HZ)
        for block in resampled(frames):
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
        except FFmpegError as error:
            fault_of_the_file(error)  # damaged from here on: what decodes of it will tell
        if end is None or time_base is None:
            return None
        measured_s = float(end * time_base - self._origin_s)
        return measured_s if 0 < measured_s <= _MAX_CREDIBLE_S else None

    def _open(self) -> None:
        self._container = _open_container(self._file)
        try:
            self._stream = _sound_track(self._container)
            self._decoding = Decoding(self._container, self._stream)
            first = next(self._decoding, None)
            if first is None:
                raise self._nothing_decoded()
            self._first = first
            self._origin_s = time_s(first) or Fraction(0)
            self.info = self._described(first)
            self._decoding.learn_pace(first, self._origin_s, self.info.duration_s or 0.0)
        except BaseException:
            self._container.close()
            raise

    def _from_before(self, start: int) -> tuple[Fraction, Iterator[AudioFrame]]:
        """Frames from a place enough before `start`, and its time from the origin.

        It is a whole second: a sample of the output as well as of the input. Only from such a one
        on, a new resampler gives what the undisturbed one would have given.
        """
        wanted_s = start // SAMPLE_RATE_HZ - _PREROLL_S
        if wanted_s > 0:
            frames = self._seek(wanted_s * self.info.sample_rate_hz)
            if frames is not None:
                return Fraction(wanted_s), frames
            self._container.close()
            self._file.seek(0)
            self._open()
        frames = chain([self._first], self._decoding)
        return Fraction(0), self._without_gaps(frames, Fraction(0))

    def _seek(self, wanted: int) -> Iterator[AudioFrame] | None:
        """The frames from sample `wanted` of the input on. None when that place cannot be found
        exactly; the recording must then be opened anew."""
        exact = self._seeks_exactly()
        found = self._seek_in_container(wanted) if exact else self._pass_over(wanted)
        if found is None:
            return None
        index, frames = found
        position_s = Fraction(index, self.info.sample_rate_hz)
        return without_head(self._without_gaps(frames, position_s), wanted - index, self._first)

    def _pass_over(self, wanted: int) -> tuple[int, Iterator[AudioFrame]] | None:
        index = self._decoding.skip_to(wanted)
        if index is None:
            return None
        return index, self._decoding if index else chain([self._first], self._decoding)

    def _seeks_exactly(self) -> bool:
        codec, time_base = self.info.codec, self._stream.time_base
        return (
            self.info.container in _SEEKABLE_FORMATS
            and (codec.startswith("pcm_") or codec == "flac")
            and time_base is not None
            and (1 / time_base) % self.info.sample_rate_hz == 0
        )

    def _seek_in_container(self, wanted: int) -> tuple[int, Iterator[AudioFrame]] | None:
        time_base = self._stream.time_base or Fraction(1)
        wanted_s = Fraction(wanted, self.info.sample_rate_hz)
        try:
            timestamp = int((self._origin_s + wanted_s) / time_base)
            self._container.seek(timestamp, stream=self._stream)
        except FFmpegError as error:
            fault_of_the_file(error)
            return None
        self._decoding = Decoding(self._container, self._stream)
        frame = next(self._decoding, None)
        found_s = None if frame is None else time_s(frame)
        if frame is None or found_s is None or not 0 < found_s - self._origin_s <= wanted_s:
            return None
        index = int((found_s - self._origin_s) * frame.sample_rate)
        return index, chain([frame], self._decoding)

    def _without_gaps(
        self, frames: Iterator[AudioFrame], position_s: Fraction
    ) -> Iterator[AudioFrame]:
        """The frames, with silence where timestamps leap over sound that is missing."""
        stated_s = self.info.duration_s or 0.0
        for frame in frames:
            at_s = time_s(frame)
            if at_s is not None:
                gap_s = missing_s(at_s - self._origin_s, position_s, stated_s)
                for silence in silent_frames(frame, int(gap_s * frame.sample_rate)):
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
        fault_of_the_file(error)
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
