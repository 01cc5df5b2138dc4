"""Texts as vectors, by the WordLlama model that comes inside its wheel: no network, no model server, numpy only.

The package's own loader is not used. It looks for the tokenizer in a folder that its wheel does not have and then
downloads it, it configures the root logger when it is imported, and it holds the weights twice over in memory. Here
the file of weights is mapped, so that only the rows of words that occur are ever read.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

Matrix = NDArray[np.float32]

MAX_CHARS = 2000
"""A text's beginning that counts: a description which goes on longer says nothing new about the capability."""


class Embedder(Protocol):
    """Turns texts into vectors whose dot product says how near their meanings are."""

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        ...

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Return one unit vector for each text, as rows; a text that says nothing is a row of zeros."""
        ...

    def familiarity(self, text: str) -> float:
        """Return how much of a text the model knows the words of, 0 to 1: near 0 for gibberish."""
        ...


class WordLlama:
    """The model `l2_supercat` with 256 dimensions, loaded when it is first used."""

    dimensions = 256

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Return for each text the mean of its words' vectors, as written and in lower case, made one long."""
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            # The vocabulary tells "Time" from "time"; both readings together find more than either (routing data:
            # top-1 0.526 instead of 0.519 with the lexical half, recall at 5 0.754 instead of 0.746).
            row += self._mean(text)
            row += self._mean(text.lower())
        return _unit(rows)

    def familiarity(self, text: str) -> float:
        """Return how long the pieces are into which the vocabulary cuts the text, from 3 letters on as 1.

        Words that the model knows are one or two pieces, gibberish falls to crumbs. Measured on the routing data, 95 of
        100 queries have over 2.5 letters a piece, random letters 1.5, and 95 of 100 of those have under 1.9. A
        character of Chinese, Japanese or Korean, which may be two pieces, counts as a word.
        """
        text = text[:MAX_CHARS]
        pieces = len(self._tokenizer.encode(text, add_special_tokens=False).ids)
        letters = sum(4 if character >= "\u3040" else 1 for character in text if character.isalnum())
        return min(1.0, letters / (3 * pieces)) if pieces else 0.0

    def _mean(self, text: str) -> Matrix:
        # One by one: the tokenizer's own batches start a pool of threads, which then live as long as the process.
        ids = self._tokenizer.encode(text[:MAX_CHARS], add_special_tokens=False).ids
        if not ids:
            return np.zeros(self.dimensions, dtype=np.float32)
        mean: Matrix = self._weights[ids].astype(np.float32).mean(axis=0, keepdims=True)
        unit: Matrix = _unit(mean)[0]
        return unit

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_file(str(_package() / "tokenizers" / "l2_supercat_tokenizer_config.json"))
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _weights(self) -> NDArray[np.float16]:
        return _mapped(_package() / "weights" / f"l2_supercat_{self.dimensions}.safetensors", "embedding.weight")


def _unit(rows: Matrix) -> Matrix:
    """Make every row one long; zeros stay zeros."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Matrix = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit


def _package() -> Path:
    """Return the folder of the installed package without importing it."""
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the package wordllama is not installed; install interhub with its requirements")
    return Path(spec.origin).parent


def _mapped(path: Path, tensor: str) -> NDArray[np.float16]:
    """Map one half-precision tensor of a safetensors file into memory.

    The format: eight bytes with the length of a JSON header, the header, then the tensors' bytes at its offsets.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[tensor]
    if entry["dtype"] != "F16":
        raise ValueError(f"{path}: {tensor} is {entry['dtype']}, not F16")
    start, _ = entry["data_offsets"]
    rows, columns = entry["shape"]
    return np.memmap(path, dtype="<f2", mode="r", offset=8 + length + start, shape=(rows, columns))
