"""Texts as words to compare: names taken apart, endings of plurals cut, words that say nothing left out."""

import re
from collections import Counter
from sys import intern

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")

# fmt: off
_EMPTY_WORDS = frozenset((
    "a", "about", "am", "an", "and", "any", "are", "as", "at", "be", "been", "by", "can", "could", "do", "does", "for",
    "from", "get", "give", "has", "have", "help", "how", "i", "if", "in", "into", "is", "it", "its", "let", "like", "m",
    "make", "me", "my", "need", "of", "on", "or", "our", "please", "s", "should", "so", "some", "t", "tell", "that",
    "the", "their", "them", "there", "these", "they", "this", "to", "us", "was", "we", "what", "when", "where", "which",
    "who", "why", "will", "with", "would", "you", "your",
))
# fmt: on


def spaced(name: str) -> str:
    """Take a name apart: "getCurrentTime" and "get_current_time" are "get Current Time" and "get current time"."""
    return re.sub(r"[_\-./:]+", " ", _CAMEL.sub(" ", name)).strip()


def terms(text: str) -> dict[str, str]:
    """Return the terms of a text, and for each the word as it was first written."""
    found: dict[str, str] = {}
    for word, term in _terms(text):
        found.setdefault(term, word)
    return found


def term_counts(text: str) -> Counter[str]:
    """Return how often each term occurs in a text."""
    # One string for each term, however many texts have it: 7 MB less for 10,000 capabilities.
    return Counter(intern(term) for _, term in _terms(text))


def _terms(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for word in _WORD.findall(_CAMEL.sub(" ", text)):
        lowered = word.lower()
        if _UNSPACED.search(lowered):
            # Chinese, Japanese and Korean are written without spaces: pairs of characters stand for words.
            for run in _UNSPACED.findall(lowered):
                pairs = [run[at : at + 2] for at in range(len(run) - 1)] or [run]
                found.extend((pair, pair) for pair in pairs)
        elif lowered not in _EMPTY_WORDS:
            found.append((lowered, _singular(lowered)))
    return found


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        return word[:-1]
    return word
