"""Characters that a person does not see and a model reads: how text is smuggled into a definition.

Zero-width and bidirectional controls, tags, variation selectors, fillers, private use and control characters. What
scripts and emoji need is left alone: a joiner between two characters beyond ASCII, and one variation selector after a
symbol. Tabs and line breaks are no more than white space.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import orjson

from .capability import Capability
from .card import AgentCard
from .json_value import Json

MAX_SHOWN = 6
"""Different characters that one finding names."""
MAX_FINDINGS = 50
"""Findings told of one card."""

_ANY = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\ue000-\uf8ff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
_JOINERS = "\u200c\u200d"
_ESCAPED = re.compile(rb"\\[ubf]")
"""How JSON writes control characters, and some writers all that is not ASCII."""
_KEYCAPS = frozenset("0123456789#*")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A text of a card that holds what cannot be seen."""

    where: str
    """Whose text, and which: "tool 'read': description"."""
    characters: tuple[str, ...]
    """Which characters, as `U+200B`; the first few different ones."""

    def __str__(self) -> str:
        return f"{self.where} holds invisible characters ({', '.join(self.characters)})"


def invisible(text: str) -> tuple[str, ...]:
    """Return the different invisible characters of a text as `U+200B`, in their order; none when it has none."""
    return tuple(dict.fromkeys(f"U+{ord(found):04X}" for _, found in _found(text)))


def visible(text: str) -> str:
    """Return a text without its invisible characters."""
    places = {place for place, _ in _found(text)}
    return "".join(each for place, each in enumerate(text) if place not in places) if places else text


def visible_json(value: Json) -> Json:
    """Return a JSON value without invisible characters, in names as in strings."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(name): visible_json(each) for name, each in value.items()}
    if isinstance(value, Sequence):
        return [visible_json(each) for each in value]
    return value


def may_hide(written: bytes) -> bool:
    """Tell whether JSON in UTF-8 may hold invisible characters: a quick look that errs to yes."""
    if _ESCAPED.search(written):
        return True
    return (not written.isascii() and _ANY.search(written.decode()) is not None) or b"\x7f" in written


def findings(card: AgentCard) -> tuple[Finding, ...]:
    """Return what is hidden in the texts of a card and its capabilities, as many as are worth telling."""
    found: list[Finding] = []
    for name, text in (("name", card.name), ("description", card.description), ("instructions", card.instructions)):
        if hidden := invisible(text):
            found.append(Finding(where=name, characters=hidden[:MAX_SHOWN]))
    for capability in card.capabilities:
        found += hidden_in(capability)
        if len(found) >= MAX_FINDINGS:
            break
    return tuple(found[:MAX_FINDINGS])


def hidden_in(capability: Capability) -> tuple[Finding, ...]:
    """Return what is hidden in the texts of a capability."""
    label = f"{capability.kind.value} {capability.name!a}"
    texts: list[tuple[str, Json]] = [
        ("name", capability.name),
        ("title", capability.title),
        ("description", capability.description),
        ("tags", capability.tags),
        ("examples", capability.examples),
        ("input schema", capability.input_schema),
        ("output schema", capability.output_schema),
    ]
    found = [
        Finding(where=f"{label}: {what}", characters=hidden[:MAX_SHOWN])
        for what, value in texts
        if (hidden := _hidden_in_json(value))
    ]
    if not found and (hidden := _hidden_in_json(capability.raw)):
        found = [Finding(where=f"{label}: definition", characters=hidden[:MAX_SHOWN])]
    return tuple(found)


def _hidden_in_json(value: Json) -> tuple[str, ...]:
    if isinstance(value, str):
        return invisible(value)
    try:
        if not may_hide(orjson.dumps(value, default=_plain)):
            return ()
    except TypeError:  # a lone surrogate is no text
        pass
    return tuple(dict.fromkeys(each for text in _texts(value) for each in invisible(text)))


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield name
            yield from _texts(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from _texts(each)


def _plain(value: object) -> object:
    """Help orjson over mappings that are no dict."""
    return dict(cast("Mapping[str, object]", value)) if isinstance(value, Mapping) else str(value)


def _found(text: str) -> Iterator[tuple[int, str]]:
    for match in _ANY.finditer(text):
        place, character = match.start(), match.group()
        if character in _JOINERS:
            before = place - 1
            if _is_selector(text, before):  # an emoji's own, which may stand before a joiner
                before -= 1
            if _is_seen(text, before) and _is_seen(text, place + 1):
                continue
        elif _is_selector(text, place) and (_is_seen(text, place - 1) or text[place - 1 : place] in _KEYCAPS):
            continue
        yield place, character


def _is_selector(text: str, place: int) -> bool:
    return text[max(place, 0) : place + 1] in ("\ufe0e", "\ufe0f")


def _is_seen(text: str, place: int) -> bool:
    """Whether a character beyond ASCII that is seen stands at a place."""
    character = text[max(place, 0) : place + 1]
    return character > "\x7f" and _ANY.fullmatch(character) is None
