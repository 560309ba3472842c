"""Decoded sound in frames: cut, silenced, brought to 16 kHz mono samples."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, groupby
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.error import FFmpegError

from jobs.errors import DecodeError

SAMPLE_RATE_HZ = 16_000

Samples = npt.NDArray[np.int16]


def resampled(frames: Iterator[AudioFrame]) -> Iterator[Samples]:
    """The frames at 16 kHz, their channels averaged. Follows a change of rate or channels."""
    for _, alike in groupby(frames, shape):
        resampler = AudioResampler(format="s16p", rate=SAMPLE_RATE_HZ)
        for frame in chain(alike, [None]):
            if frame is not None:
                frame.pts = None
            try:
                pieces = resampler.resample(frame)
            except (FFmpegError, ValueError) as error:
                raise DecodeError("The sound in this file cannot be converted.") from error
            yield from (_averaged(piece) for piece in pieces)


def shape(frame: AudioFrame) -> tuple[str, str, int]:
    """What frames have in common that one resampler can take."""
    return frame.format.name, frame.layout.name, frame.sample_rate


def time_s(frame: AudioFrame) -> Fraction | None:
    """When it sounds, by the container's clock; None when it does not say."""
    if frame.pts is None or frame.time_base is None:
        return None
    return frame.pts * frame.time_base


def without_head(
    frames: Iterator[AudioFrame], count: int, like: AudioFrame
) -> Iterator[AudioFrame] | None:
    """The same sound without its first `count` samples, which are taken now; None when they are not
    all there in the form of `like`."""
    for frame in frames:
        if shape(frame) != shape(like):
            return None
        if count < frame.samples:
            return chain([_tail(frame, count)], frames)
        count -= frame.samples
    return None


def silent_frames(like: AudioFrame, count: int) -> Iterator[AudioFrame]:
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


def _tail(frame: AudioFrame, start: int) -> AudioFrame:
    if start == 0:
        return frame
    plane = _planes(frame)
    column = start if frame.format.is_planar else start * frame.layout.nb_channels
    rest = AudioFrame.from_ndarray(
        np.ascontiguousarray(plane[:, column:]), format=frame.format.name, layout=frame.layout.name
    )
    rest.sample_rate = frame.sample_rate
    return rest


def _averaged(frame: AudioFrame) -> Samples:
    channels = _planes(frame)
    if len(channels) == 1:
        return cast(Samples, channels[0])
    return cast(Samples, np.rint(channels.mean(axis=0)).astype(np.int16))


def _planes(frame: AudioFrame) -> npt.NDArray[Any]:
    return cast(npt.NDArray[Any], frame.to_ndarray())
