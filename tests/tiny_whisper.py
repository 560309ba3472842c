"""A Whisper model made on the spot: it hears nothing, and says pronounceable words all the same.

A directory as faster-whisper loads it, in a second and without a download. The weights are laid
out so that what a real model does can be tested: each window of 30 seconds is answered with
segments between timestamps; each word looks at its own place in the window, so that word times
rise; and which word it is follows from what is heard there. The same samples give the same words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.engines.languages import WHISPER_LANGUAGES

Matrix = npt.NDArray[np.float32]

FRAMES = 1500  # of the encoder, in a window of 30 seconds
MELS = 80
WIDTH = 64
PLACE, HEARD = slice(0, WIDTH // 2), slice(WIDTH // 2, WIDTH - 4)
HEARD_WIDTH = WIDTH // 2 - 4
KINDS = {name: WIDTH - 4 + n for n, name in enumerate(("word", "time", "end", "language"))}
POSITIONS = 448
WORDS = 2000
# CTranslate2 takes a vocabulary that has this token for that of a model of many languages.
MULTILINGUAL_TOKEN = ""
SPECIAL_BEFORE_LANGUAGES = ("<|endoftext|>", "<|startoftranscript|>")
SPECIAL_AFTER_LANGUAGES = (
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
LANGUAGES = tuple(code for code in WHISPER_LANGUAGES if code != "yue")  # as before Whisper large-v3


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model is like.

    `layers` decide how long a window takes: about 0.1 s of one core, and 0.006 s for each layer.
    `language` is what it detects, whatever it hears; None makes a model for English only.
    """

    layers: int = 1  # of the encoder
    segments: int = 4  # in a window
    words: int = 8  # in a segment
    language: str | None = "en"
    seed: int = 1


def make_tiny_whisper(directory: Path, shape: Shape = Shape()) -> Path:
    """Write the model into `directory`, which is made; returns it."""
    directory.mkdir(parents=True, exist_ok=True)
    tokens = _vocabulary(shape)
    _save_model(directory, shape, tokens)
    _save_tokenizer(directory, tokens)
    settings = {"feature_size": MELS, "sampling_rate": 16000, "hop_length": 160, "n_fft": 400}
    (directory / "preprocessor_config.json").write_text(json.dumps(settings))
    return directory


def _vocabulary(shape: Shape) -> list[str]:
    """Bytes, words, then the special tokens in Whisper's order, timestamps last."""
    languages = [f"<|{code}|>" for code in LANGUAGES]
    special = [*SPECIAL_BEFORE_LANGUAGES, *languages, *SPECIAL_AFTER_LANGUAGES]
    if shape.language is not None:
        special = [MULTILINGUAL_TOKEN, *special]
    times = [f"<|{number * 0.02:.2f}|>" for number in range(FRAMES + 1)]
    alphabet = sorted(import_module("tokenizers").pre_tokenizers.ByteLevel.alphabet())
    syllables = ["".join(pair) for pair in product("bdfghjklmnprstvwz", "aeiou")]
    words = ["Ġ" + "".join(parts) for parts in product(syllables, repeat=3)]
    np.random.default_rng(shape.seed).shuffle(words)
    return [*alphabet, *words[:WORDS], *special, *times]


def _save_tokenizer(directory: Path, tokens: list[str]) -> None:
    tokenizers = import_module("tokenizers")
    end = tokens.index(SPECIAL_BEFORE_LANGUAGES[0])
    vocabulary = {token: number for number, token in enumerate(tokens[:end])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [tokenizers.AddedToken(token, special=True, normalized=False) for token in tokens[end:]]
    )
    tokenizer.save(str(directory / "tokenizer.json"))


class _Weights:
    """The parts of the width: a code of the place in the window, then what is heard, then four
    numbers that choose between kinds of tokens."""

    def __init__(self, shape: Shape) -> None:
        self.random = np.random.default_rng(shape.seed)
        angles = np.arange(FRAMES + 1)[:, None] / FRAMES * np.pi
        angles = angles * (2.0 ** np.linspace(0, 8, WIDTH // 4))[None, :]
        self.codes = np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def noise(self, *size: int, scale: float = 1.0) -> Matrix:
        drawn = self.random.standard_normal(size).astype(np.float32)
        return drawn * np.float32(scale / np.sqrt(size[-1]))

    def ffn(self, spec: Any, scale: float) -> None:
        _norm(spec.layer_norm)
        _linear(spec.linear_0, self.noise(4 * WIDTH, WIDTH))
        _linear(spec.linear_1, self.noise(WIDTH, 4 * WIDTH, scale=scale))


def _zeros(*size: int) -> Matrix:
    return np.zeros(size, np.float32)


def _select(part: slice, scale: float) -> Matrix:
    """Keeps a part of the WIDTH, and nothing else."""
    matrix = _zeros(WIDTH, WIDTH)
    matrix[part, part] = np.eye(part.stop - part.start) * scale
    return matrix


def _linear(spec: Any, weight: Matrix) -> None:
    spec.weight, spec.bias = weight, _zeros(weight.shape[0])


def _norm(spec: Any) -> None:
    spec.gamma, spec.beta = np.ones(WIDTH, np.float32), _zeros(WIDTH)


def _save_model(directory: Path, shape: Shape, tokens: list[str]) -> None:
    specs = import_module("ctranslate2").specs
    spec = specs.WhisperSpec(shape.layers, 1, 1, 1)
    weights = _Weights(shape)
    _fill_encoder(spec.encoder, weights)
    _fill_decoder(spec.decoder, weights, shape, tokens)
    spec.register_vocabulary(tokens)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = []
    spec.config.alignment_heads = [(0, 0)]
    spec.config.lang_ids = [tokens.index(f"<|{code}|>") for code in LANGUAGES]
    spec.validate()
    spec.optimize(quantization="float32")
    spec.save(str(directory))


def _fill_encoder(spec: Any, weights: _Weights) -> None:
    listening = _zeros(WIDTH, MELS, 3)
    heard = weights.noise(HEARD_WIDTH, MELS, 3, scale=2.0)
    # What is the same in all frequencies is loudness, and would drown the rest.
    listening[HEARD] = heard - heard.mean(axis=1, keepdims=True)
    passing = _zeros(WIDTH, WIDTH, 3)
    passing[HEARD, HEARD, 1] = np.eye(HEARD_WIDTH) * 4
    for conv, weight in ((spec.conv1, listening), (spec.conv2, passing)):
        conv.weight, conv.bias = weight, _zeros(WIDTH)
    spec.position_encodings.encodings = _zeros(FRAMES, WIDTH)
    spec.position_encodings.encodings[:, PLACE] = weights.codes[:FRAMES]
    for layer in spec.layer:
        attention = layer.self_attention
        _norm(attention.layer_norm)
        _linear(attention.linear[0], weights.noise(3 * WIDTH, WIDTH))
        _linear(attention.linear[1], weights.noise(WIDTH, WIDTH, scale=0.01))
        weights.ffn(layer.ffn, scale=0.01)
    _norm(spec.layer_norm)


def _fill_decoder(spec: Any, weights: _Weights, shape: Shape, tokens: list[str]) -> None:
    spec.embeddings.weight = _zeros(len(tokens), WIDTH)
    spec.position_encodings.encodings = _plan(weights, shape)
    (layer,) = spec.layer
    _norm(layer.self_attention.layer_norm)
    _linear(layer.self_attention.linear[0], _zeros(3 * WIDTH, WIDTH))
    _linear(layer.self_attention.linear[1], _zeros(WIDTH, WIDTH))
    attention = layer.attention
    _norm(attention.layer_norm)
    _linear(attention.linear[0], _select(PLACE, 6.0))
    keys, values = _select(PLACE, 1.0), _select(HEARD, 1.0)
    _linear(attention.linear[1], np.concatenate([keys, values]))
    _linear(attention.linear[2], _select(HEARD, 2.0))
    weights.ffn(layer.ffn, scale=0.0)
    _norm(spec.layer_norm)
    _linear(spec.projection, _projection(weights, shape, tokens))


def _plan(weights: _Weights, shape: Shape) -> Matrix:
    """What is said at each position of the answer, and where in the window it looks."""
    kinds = [("language", 0)] * (1 if shape.language is None else 3) + [("time", 0)]
    step = FRAMES // shape.segments
    for start in range(0, step * shape.segments, step):
        kinds += [("word", start + step * (n + 1) // (shape.words + 1)) for n in range(shape.words)]
        kinds += [("time", start + step)] * 2
    kinds = kinds[:-1] + [("end", 0)] * POSITIONS
    plan = weights.noise(POSITIONS, WIDTH, scale=4.0)
    for position, (kind, frame) in enumerate(kinds[:POSITIONS]):
        plan[position, PLACE] = weights.codes[frame]
        plan[position, KINDS[kind]] = 6.0
    return plan


def _projection(weights: _Weights, shape: Shape, tokens: list[str]) -> Matrix:
    """How much each token is meant by what is in the width."""
    meaning = _zeros(len(tokens), WIDTH)
    end = tokens.index(SPECIAL_BEFORE_LANGUAGES[0])
    words = weights.noise(WORDS, HEARD_WIDTH)
    meaning[256 : 256 + WORDS, HEARD] = 3.0 * words / np.linalg.norm(words, axis=1, keepdims=True)
    meaning[256 : 256 + WORDS, KINDS["word"]] = 8.0
    meaning[-FRAMES - 1 :, PLACE] = weights.codes
    meaning[-FRAMES - 1 :, KINDS["time"]] = 8.0
    meaning[end, KINDS["end"]] = 16.0
    if shape.language is not None:
        meaning[tokens.index(f"<|{shape.language}|>"), KINDS["language"]] = 8.0
    return meaning
