"""Who can do it: the capabilities that fit a need best, by their words and by their meaning.

The index lives in memory and follows the registry: `put` an agent when it is added or changed, `remove` it when it
goes. A capability's raw score is the cosine of the embeddings plus 0.8 times the share of the query's words that it
covers. What comes out is that score on a scale where 0.5 is the floor: when the best is below it, nobody can do it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from math import exp, log
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from interhub.agent_cards import Capability, Kind

from .agent import Agent
from .embedding import Embedder, Matrix, WordLlama
from .lexical import LexicalIndex
from .words import spaced, term_counts, terms

FLOOR = 0.5
"""A score below this is no match."""

LEXICAL_WEIGHT = 0.8
"""On the routing data top-1 is 0.523, 0.526, 0.527 at 0.4, 0.8, 1.2: flat, so the middle."""

MAX_QUERY_CHARS = 4000
"""A longer goal is searched by its beginning."""

_FLOOR_OF_ONE = 0.115
_FLOOR_PER_LOG = 0.02
_WIDTH = 0.12
# The best of many is higher by chance alone, so the floor rises with the number of capabilities considered. Measured on
# random choices of 5, 20 and 199 tools of the routing data, 5 % of the queries that one of them can meet stay below a
# raw score of 0.13, 0.17 and 0.26, and 99 % of gibberish below 0.14, 0.18 and 0.25. `benchmarks/routing.py` prints
# what passes. Weight and floor were chosen on queries.jsonl (top-1 0.526, recall at 5 0.744, with the floor on);
# history.jsonl, which had no part in it, gives 0.519 and 0.746.

_BATCH = 256
"""Texts embedded at a time: it bounds the memory that is needed for a while."""

_KINDS = {kind: position for position, kind in enumerate(Kind)}


@dataclass(frozen=True, kw_only=True)
class Match:
    """A capability that fits a need, and how that was found."""

    agent_id: str
    capability: Capability
    score: float
    """0 to 1; from `FLOOR` on it is a match."""
    lexical: float
    """Share of the need's words that it covers, 0 to 1."""
    embedding: float
    """Cosine of the meanings, -1 to 1, times how much of the need the model knows the words of."""
    terms: tuple[str, ...] = ()
    """The need's words that it has, as they were written."""

    @property
    def is_match(self) -> bool:
        """True when it can be expected to do what was asked."""
        return self.score >= FLOOR

    @property
    def why(self) -> str:
        """The score explained in a line."""
        shared = f"shares {', '.join(repr(term) for term in self.terms)}" if self.terms else "shares no word"
        verdict = "" if self.is_match else f" (below {FLOOR:g}: no match)"
        return f"{shared} ({self.lexical:.2f}), meaning {self.embedding:.2f}, together {self.score:.2f}{verdict}"


class Index:
    """Every tenant's capabilities, kept apart. Safe to use from several threads."""

    def __init__(self, embedder: Embedder | None = None) -> None:
        self._embedder: Embedder = embedder or WordLlama()
        self._shelves: dict[str, _Shelf] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return sum(len(shelf) for shelf in self._shelves.values())

    def put(self, agent: Agent) -> None:
        """Take an agent's capabilities, in the place of those it had. Cheap: embedding waits for the next search."""
        with self._lock:
            shelf = self._shelves.setdefault(agent.tenant, _Shelf(self._embedder))
            shelf.remove(agent.id)
            shelf.add(agent)
            self._tidy(agent.tenant, shelf)

    def remove(self, tenant: str, agent_id: str) -> None:
        """Forget an agent; one that is not there is not an error."""
        with self._lock:
            shelf = self._shelves.get(tenant)
            if shelf is not None:
                shelf.remove(agent_id)
                self._tidy(tenant, shelf)

    def warm(self) -> None:
        """Load the embedding model and embed what waits, so that the next search need not. For a background thread."""
        with self._lock:
            self._embedder.embed([""])
            for shelf in self._shelves.values():
                shelf.embed_waiting()

    def search(
        self,
        query: str,
        *,
        tenant: str,
        limit: int = 5,
        agents: Collection[str] | None = None,
        kinds: Collection[Kind] | None = None,
        among: Callable[[str, Capability], bool] | None = None,
        floor: float = FLOOR,
    ) -> tuple[Match, ...]:
        """Return the capabilities that fit best, the best first; none when even the best is below the floor.

        `agents`, `kinds` and `among` (of agent id and capability) restrict who is considered. Those behind the best may
        themselves be below the floor (`Match.is_match`): when the need is vague, the right one is often among them.
        With `floor=0` something comes whenever there is anything, to be shown with its reasons.
        """
        with self._lock:
            shelf = self._shelves.get(tenant)
            if shelf is None or limit < 1:
                return ()
            return shelf.search(query[:MAX_QUERY_CHARS], limit, shelf.eligible(agents, kinds, among), floor)

    def _tidy(self, tenant: str, shelf: "_Shelf") -> None:
        if not len(shelf):
            del self._shelves[tenant]
        elif shelf.mostly_dead:
            self._shelves[tenant] = shelf.compacted()


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One capability on its shelf."""

    agent_id: str
    capability: Capability
    counts: Counter[str]


class _Shelf:
    """One tenant's capabilities. Rows are numbered as they come; those of removed ones are dropped now and then."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._lexical = LexicalIndex()
        self._entries: list[_Entry | None] = []
        self._rows_of: dict[str, list[int]] = {}
        self._waiting: dict[int, str] = {}
        """Texts by row that are not embedded yet."""
        self._live = np.zeros(0, dtype=np.bool_)
        self._kinds = np.zeros(0, dtype=np.uint8)
        self._vectors: Matrix = np.zeros((0, embedder.dimensions), dtype=np.float32)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows_of.values())

    def add(self, agent: Agent) -> None:
        self._append(
            agent.id,
            [
                (
                    _Entry(agent_id=agent.id, capability=each, counts=term_counts(_words(agent, each))),
                    _meaning(agent, each),
                )
                for each in agent.card.capabilities
            ],
        )

    def remove(self, agent_id: str) -> None:
        for row in self._rows_of.pop(agent_id, ()):
            entry = self._entries[row]
            if entry is not None:
                self._lexical.remove(row, entry.counts)
            self._entries[row] = None
            self._live[row] = False
            self._waiting.pop(row, None)

    @property
    def mostly_dead(self) -> bool:
        """True when it is time to start anew without the rows of removed ones."""
        dead = len(self._entries) - len(self)
        return dead > 256 and dead > len(self)

    def compacted(self) -> "_Shelf":
        """Return a shelf with the same capabilities and no dead rows."""
        shelf = _Shelf(self._embedder)
        for row, entry in enumerate(self._entries):
            if entry is None:
                continue
            shelf._append(entry.agent_id, [(entry, self._waiting.get(row, ""))])
            if row not in self._waiting:
                new_row = len(shelf._entries) - 1
                shelf._vectors[new_row] = self._vectors[row]
                del shelf._waiting[new_row]
        return shelf

    def embed_waiting(self) -> None:
        waiting = list(self._waiting.items())
        for start in range(0, len(waiting), _BATCH):
            batch = waiting[start : start + _BATCH]
            self._vectors[[row for row, _ in batch]] = self._embedder.embed([text for _, text in batch])
        self._waiting.clear()

    def search(self, query: str, limit: int, eligible: NDArray[np.bool_], floor: float) -> tuple[Match, ...]:
        considered = int(np.count_nonzero(eligible))
        asked = terms(query)
        if not considered or not query.strip():
            return ()
        self.embed_waiting()
        count = len(self._entries)
        # Row by row, on this thread: OpenBLAS splits a product of matrix and vector over all cores, and then spins for
        # those that are busy (10,000 rows on 2 loaded cores: p95 8 ms; so, 0.2 ms).
        meaning = np.vecdot(self._vectors[:count], self._embedder.embed([query])[0])
        meaning *= np.float32(self._embedder.familiarity(query))
        words = self._lexical.coverage(asked)
        raw = np.where(eligible, meaning + LEXICAL_WEIGHT * words, -np.inf)
        best = np.argpartition(-raw, min(limit, considered) - 1)[: min(limit, considered)]
        matches: list[Match] = []
        for row in (int(each) for each in best):
            entry = self._entries[row]
            score = _scaled(float(raw[row]), considered)
            if entry is None:
                continue
            matches.append(
                Match(
                    agent_id=entry.agent_id,
                    capability=entry.capability,
                    score=score,
                    lexical=float(words[row]),
                    embedding=float(meaning[row]),
                    terms=tuple(word for term, word in asked.items() if term in entry.counts),
                )
            )
        matches.sort(key=lambda match: (-match.score, match.agent_id, match.capability.name))
        return tuple(matches) if matches[0].score >= floor else ()

    def eligible(
        self,
        agents: Collection[str] | None,
        kinds: Collection[Kind] | None,
        among: Callable[[str, Capability], bool] | None,
    ) -> NDArray[np.bool_]:
        """Return which rows are considered."""
        eligible = self._live[: len(self._entries)].copy()
        if agents is not None:
            named = np.zeros_like(eligible)
            for agent_id in agents:
                named[self._rows_of.get(agent_id, [])] = True
            eligible &= named
        if kinds is not None:
            eligible &= np.isin(self._kinds[: len(self._entries)], [_KINDS[kind] for kind in kinds])
        if among is not None:
            for row in np.flatnonzero(eligible):
                entry = self._entries[row]
                eligible[row] = entry is not None and among(entry.agent_id, entry.capability)
        return eligible

    def _append(self, agent_id: str, entries: Iterable[tuple[_Entry, str]]) -> None:
        rows = self._rows_of.setdefault(agent_id, [])
        for entry, text in entries:
            row = self._lexical.add(entry.counts)
            self._entries.append(entry)
            self._grow(row + 1)
            self._live[row] = True
            self._kinds[row] = _KINDS[entry.capability.kind]
            self._waiting[row] = text
            rows.append(row)

    def _grow(self, rows: int) -> None:
        if rows <= len(self._live):
            return
        more = max(64, len(self._live) // 2)
        self._live = np.concatenate([self._live, np.zeros(more, dtype=np.bool_)])
        self._kinds = np.concatenate([self._kinds, np.zeros(more, dtype=np.uint8)])
        self._vectors = np.concatenate([self._vectors, np.zeros((more, self._embedder.dimensions), dtype=np.float32)])


def _scaled(raw: float, considered: int) -> float:
    """Put a raw score on the scale of 0 to 1 whose middle is the floor for so many capabilities."""
    floor = _FLOOR_OF_ONE + _FLOOR_PER_LOG * log(considered)
    return 1 / (1 + exp(-(raw - floor) / _WIDTH))


def _meaning(agent: Agent, capability: Capability) -> str:
    """What is embedded: the capability in its own words; where these are few, its agent's description too."""
    name = spaced(capability.name)
    title = capability.title if capability.title.lower() != name.lower() else ""
    described = capability.description
    if len(described) < 40 and agent.card.description not in described:
        described = f"{described} {agent.card.description}".strip()
    heading = " ".join(part for part in (name, title) if part)
    return ". ".join(
        part for part in (f"{heading}: {described}", " ".join(capability.tags), *capability.examples[:5]) if part
    )


def _words(agent: Agent, capability: Capability) -> str:
    """What is compared by words: that, the name once more, since it says what matters, and the agent's names."""
    return f"{spaced(capability.name)} {_meaning(agent, capability)} {agent.id} {agent.card.name}"
