"""Okapi BM25 over short texts that come and go one at a time."""

from array import array
from collections.abc import Iterable, Mapping
from math import log

import numpy as np
from numpy.typing import NDArray

_K1 = 1.2
_B = 0.75
# The usual values; on the routing data others (0.6 to 1.5, 0.3 to 0.75) change top-1 by less than 0.003.


class LexicalIndex:
    """Says how much of a query's words each text covers. Texts are numbered from 0 and never renumbered."""

    def __init__(self) -> None:
        self._rows: dict[str, array[int]] = {}
        """By term: the texts that it occurs in (removed ones included)."""
        self._counts: dict[str, array[float]] = {}
        """By term: how often it occurs in each of these."""
        self._frequency: dict[str, int] = {}
        """By term: in how many texts it occurs that were not removed."""
        self._lengths = array("f")
        self._total_length = 0.0
        self._live = 0

    def add(self, counts: Mapping[str, int]) -> int:
        """Take a text by its terms' counts and return its number."""
        row = len(self._lengths)
        length = float(sum(counts.values()))
        self._lengths.append(length)
        self._total_length += length
        self._live += 1
        for term, count in counts.items():
            self._rows.setdefault(term, array("i")).append(row)
            self._counts.setdefault(term, array("f")).append(count)
            self._frequency[term] = self._frequency.get(term, 0) + 1
        return row

    def remove(self, row: int, terms: Iterable[str]) -> None:
        """Forget a text with these terms. Its number stays taken, and the caller ignores its score."""
        self._total_length -= self._lengths[row]
        self._live -= 1
        for term in terms:
            self._frequency[term] -= 1

    def coverage(self, terms: Iterable[str]) -> NDArray[np.float32]:
        """Return for each text how much of the query it covers: 0 for none, near 1 for all, rare words counting more.

        It is the BM25 score divided by the highest that any text could get for these terms.
        """
        scores = np.zeros(len(self._lengths), dtype=np.float32)
        highest = 0.0
        if not self._live:
            return scores
        average = max(self._total_length / self._live, 1.0)
        lengths = np.frombuffer(self._lengths, dtype=np.float32)
        for term in terms:
            frequency = self._frequency.get(term, 0)
            rarity = log(1 + (self._live - frequency + 0.5) / (frequency + 0.5))
            highest += rarity * (_K1 + 1)
            if not frequency:
                continue
            rows = np.frombuffer(self._rows[term], dtype=np.int32)
            counts = np.frombuffer(self._counts[term], dtype=np.float32)
            scores[rows] += rarity * (_K1 + 1) * counts / (counts + _K1 * (1 - _B + _B * lengths[rows] / average))
        return scores / np.float32(highest) if highest else scores
