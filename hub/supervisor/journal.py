"""The journal: what happened in each run, numbered from 1 without gaps, each fact once however often it is told.

One thread writes, whatever waits in one transaction; a fact's identity is (run, step, attempt, kind, n), and a second
fact of the same identity is dropped. The `runs` row follows in the same transaction: its state, outcome and generation
are those of the last event. After a run's final event nothing is added. A commit wakes the readers, in this process and
in every other replica.
While the database's server is away all that is to be written waits, as the engine does.
"""

import asyncio
import queue
import threading
import weakref
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import TypeAlias, TypeVar, cast

import anyio.to_thread
import sqlalchemy as sa
import structlog
from sqlalchemy import Connection, Row, bindparam, select, text, update

from interhub.agent_cards import Json, JsonObject, empty_object
from interhub.hub.bus import Bus, NoBus
from interhub.registry import DatabaseAway
from interhub.registry.database import events, questions, reading, runs, waits, writing
from interhub.registry.tables import dump_json, load_json

from .recent import Recent, Written
from .run import Event, EventKind, RunState

log = structlog.get_logger()

T = TypeVar("T")

Change: TypeAlias = Callable[[Connection], object]
"""Something to write, in order with the facts. It may run twice, when the transaction it was in is rolled back."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """An event before it has a number."""

    run_id: str
    kind: EventKind
    step: str = ""
    attempt: int = 0
    n: int = 0
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    payload: JsonObject = field(default_factory=empty_object)


_FINAL = {
    EventKind.RUN_COMPLETED: RunState.COMPLETED,
    EventKind.RUN_FAILED: RunState.FAILED,
    EventKind.RUN_CANCELED: RunState.CANCELED,
}
_QUESTIONS = (EventKind.QUESTION_ASKED, EventKind.QUESTION_ANSWERED, EventKind.QUESTION_CLOSED)


class Journal:
    """Writes and reads events. Open it on the event loop whose tasks use it; close it when they have ended."""

    def __init__(self, database: sa.Engine, bus: Bus | None = None) -> None:
        """`bus` carries what changed to other replicas, and from them; it is opened after the journal is made."""
        self._database = database
        self._bus: Bus = bus or NoBus()
        self._bus.hear(_TOPIC, self._hear)
        self._bus.hear_gaps(self._wake_all)
        self._inbox: queue.SimpleQueue[list[_Item] | None] = queue.SimpleQueue()
        self._posted: list[_Item] = []
        """What the writer has not been handed yet: waking it costs more than the fact that it is woken for."""
        self._due = _Due.NEVER
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._recent = Recent()
        self._changed: weakref.WeakValueDictionary[str, asyncio.Event] = weakref.WeakValueDictionary()

    def open(self) -> None:
        """Begin to write, and to wake readers on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._closing.clear()
        self._thread = threading.Thread(target=self._write_all, name="interhub-journal", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Write what waits, and end. When the database's server is away, what waits is lost, and the log says so."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._closing.set()
            self._hand_over()
            self._inbox.put(None)
            await anyio.to_thread.run_sync(thread.join)

    # Writing

    def post(self, *facts: Fact) -> None:
        """Add facts, in order, without waiting. What is awaited later is written after them."""
        self._posted += [_Item(fact, None) for fact in facts]
        self._hand_over_in_time(_Due.LATER)

    def post_change(self, change: Change) -> None:
        """Write something else in order with the facts, without waiting."""
        self._posted.append(_Item(change, None))
        self._hand_over_in_time(_Due.LATER)

    async def append(self, *facts: Fact) -> None:
        """Add facts, and return when they are written.

        Raises:
            DatabaseUnusable: the database cannot be written.
        """
        waiting = [self._put(fact) for fact in facts]
        for one in waiting:
            await one

    def write(self, change: Callable[[Connection], T]) -> "asyncio.Future[T]":
        """Write something else in order with the facts; awaited, it gives what the change gave, when it is committed.

        Raises:
            DatabaseUnusable: the database cannot be written.
        """
        return cast("asyncio.Future[T]", self._put(change))

    async def flush(self) -> None:
        """Return when all that was posted is written."""
        await self._put(_nothing)

    def _put(self, what: "Fact | Change") -> "asyncio.Future[object]":
        assert self._loop is not None, "the journal was opened"
        future: asyncio.Future[object] = self._loop.create_future()
        if self._thread is None:  # nobody writes any more, and nobody would ever answer
            future.set_exception(DatabaseAway("of this hub", "the hub is stopping"))
        else:
            self._posted.append(_Item(what, future))
            self._hand_over_in_time(_Due.NOW)
        return future

    def _hand_over_in_time(self, due: "_Due") -> None:
        """Hand over what was posted: with all of this turn of the loop where somebody waits for it, else soon."""
        if due <= self._due or self._loop is None:
            return
        self._due = due
        if due is _Due.NOW:
            self._loop.call_soon(self._hand_over)
        else:
            self._loop.call_later(_LINGER_S, self._hand_over)

    def _hand_over(self) -> None:
        self._due = _Due.NEVER
        if self._posted:
            posted, self._posted = self._posted, []
            self._inbox.put(posted)

    # Reading

    async def read(self, run_id: str, *, after: int = 0, limit: int = 1000) -> tuple[Event, ...]:
        """Return a run's events after a number, in order."""
        recent = self._recent.events(run_id, after, limit)
        return recent or await anyio.to_thread.run_sync(self._read, run_id, after, limit)

    async def dialogue(self, run_id: str, *, upto: int | None = None) -> tuple[Event, ...]:
        """Return the events of a run's questions, up to a number, in order: asked, answered and closed."""
        whole = self._recent.events(run_id, 0, upto) if upto is not None else ()
        if upto is not None and len(whole) == upto:
            return tuple(event for event in whole if event.kind in _QUESTIONS)
        return await anyio.to_thread.run_sync(self._read_dialogue, run_id, upto)

    async def news(self, run_id: str, *, after: int, limit: int = 1000) -> tuple[Event, ...]:
        """Return a run's events after a number, without asking the database where nothing is known to follow.

        For who waits for more: take the subscription before, as what another replica writes later is news.
        """
        if self._recent.ends_at(run_id, after):
            return ()
        return await self.read(run_id, after=after, limit=limit)

    def state(self, run_id: str) -> RunState | None:
        """Return where a run stands after what was written here last; None when that is not known here.

        Take the subscription before: what another replica writes later is news.
        """
        return self._recent.state(run_id)

    def final(self, run_id: str) -> Event | None:
        """Return the final event of a run that was written here a moment ago; None when it is not known here."""
        last = self._recent.last(run_id)
        return last if last is not None and last.kind in _FINAL else None

    def subscription(self, run_id: str) -> asyncio.Event:
        """Return an event that is set at the next change of a run. Take it before reading: then nothing is missed."""
        return self._changed.setdefault(run_id, asyncio.Event())

    def _hear(self, run_id: str) -> None:
        """Take note that another replica has written."""
        self._recent.doubt(run_id)
        self._wake(run_id)

    def _wake(self, run_id: str) -> None:
        if (event := self._changed.pop(run_id, None)) is not None:
            event.set()

    def _wake_all(self) -> None:
        self._recent.clear()
        for run_id in tuple(self._changed.keys()):
            self._wake(run_id)

    def _read(self, run_id: str, after: int, limit: int) -> tuple[Event, ...]:
        query = (
            select(events).where(events.c.run_id == run_id, events.c.seq > after).order_by(events.c.seq).limit(limit)
        )
        with reading(self._database) as connection:
            return tuple(_event(row) for row in connection.execute(query))

    def _read_dialogue(self, run_id: str, upto: int | None) -> tuple[Event, ...]:
        query = select(events).where(events.c.run_id == run_id, events.c.kind.in_([kind.value for kind in _QUESTIONS]))
        if upto is not None:
            query = query.where(events.c.seq <= upto)
        with reading(self._database) as connection:
            return tuple(_event(row) for row in connection.execute(query.order_by(events.c.seq)))

    # The writer's thread

    def _write_all(self) -> None:
        ended = False
        while not ended:
            batch: list[_Item] = []
            items = self._inbox.get()
            while True:
                if items is None:
                    ended = True
                else:
                    batch += items
                if len(batch) >= _BATCH or self._inbox.empty():
                    break
                items = self._inbox.get()
            if batch:
                self._commit(batch)

    def _commit(self, batch: "list[_Item]") -> None:
        try:
            results, changed = self._patiently(batch)
        except DatabaseAway as error:
            log.error("journal_facts_lost", items=len(batch), why=error.why)
            self._call(self._settle, [(item.future, None, error) for item in batch], {})
            return
        except Exception as error:
            if len(batch) > 1:  # one of them is bad: the others must not suffer
                for item in batch:
                    self._commit([item])
                return
            log.exception("journal_write_failed", what=repr(batch[0].what)[:200])
            self._call(self._settle, [(batch[0].future, None, error)], {})
            return
        answers = [(item.future, result, None) for item, result in zip(batch, results, strict=True)]
        self._call(self._settle, answers, changed)

    def _patiently(self, batch: "list[_Item]") -> "tuple[list[object], dict[str, Written | None]]":
        """Write a batch, and wait for a server that is away, until the journal is closed."""
        tries = 0
        while True:
            try:
                results, changed = self._swiftly(batch)
            except DatabaseAway as error:
                tries += 1
                if self._closing.is_set():
                    raise
                log.warning("journal_waits_for_the_database", items=len(batch), why=error.why)
                self._closing.wait(_RETRY_S)
            else:
                if tries:
                    # The connection may have broken after the server committed: then these facts are known by now, and
                    # nobody has been woken for them.
                    for item in batch:
                        if isinstance(item.what, Fact):
                            changed.setdefault(item.what.run_id, None)
                    log.info("journal_goes_on", items=len(batch))
                return results, changed

    def _swiftly(self, batch: "list[_Item]") -> "tuple[list[object], dict[str, Written | None]]":
        """Write a batch without savepoints; with them, from its begin, when one of its facts turns out to be known."""
        try:
            return self._transaction(batch, careful=False)
        except _KnownFactError:
            return self._transaction(batch, careful=True)

    def _transaction(self, batch: "list[_Item]", *, careful: bool) -> "tuple[list[object], dict[str, Written | None]]":
        with writing(self._database) as connection:
            page = _Page(connection, careful=careful)
            page.look({item.what.run_id for item in batch if isinstance(item.what, Fact)})
            results: list[object] = []
            for item in batch:
                if isinstance(item.what, Fact):
                    page.add(item.what)
                    results.append(None)
                else:
                    page.finish()
                    results.append(item.what(connection))
            page.finish()
            self._bus.tell(connection, _TOPIC, page.changed)
        return results, page.changed

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(function, *arguments)

    def _settle(
        self,
        answers: "Sequence[tuple[asyncio.Future[object] | None, object, Exception | None]]",
        changed: "Mapping[str, Written | None]",
    ) -> None:
        """On the event loop: remember what was written, answer those who wait, and wake the readers."""
        for run_id, written in changed.items():
            self._recent.take(run_id, written)
        for future, result, error in answers:
            if future is None or future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)
        for run_id in changed:
            self._wake(run_id)


async def outlasting(look: Callable[[], Awaitable[T]]) -> T:
    """Return what a look at the database gives; while its server is away, look again.

    For what runs read: they stand still meanwhile, as their engine and journal do, rather than fail.
    """
    while True:
        try:
            return await look()
        except DatabaseAway as error:
            log.warning("run_waits_for_the_database", why=error.why)
            await anyio.sleep(_RETRY_S)


_TOPIC = "run"
_BATCH = 500
_RETRY_S = 0.5
_LINGER_S = 0.002
"""How long a fact that nobody waits for may wait for others to be written with."""


class _Due(IntEnum):
    """When what was posted is handed to the writer."""

    NEVER = 0
    LATER = 1
    NOW = 2


@dataclass(frozen=True)
class _Item:
    what: Fact | Change
    future: "asyncio.Future[object] | None"


def state_after(final: Fact | Event) -> RunState:
    """Return how a run has ended, by its final event."""
    error = final.payload.get("error")
    if final.kind is EventKind.RUN_FAILED and isinstance(error, Mapping) and error.get("rejected") is True:
        return RunState.REJECTED
    return _FINAL[final.kind]


def _nothing(connection: Connection) -> None:
    return None


@dataclass
class _Head:
    """A run's row while a page is written."""

    generation: int
    state: RunState
    asks: bool = False
    final: Fact | None = None
    last: datetime | None = None
    events: "list[Event]" = field(default_factory=list["Event"])
    size: int = 0


class _KnownFactError(Exception):
    """One of several facts was known: the transaction is to be written again, carefully."""


class _Page:
    """The facts of one transaction."""

    def __init__(self, connection: Connection, *, careful: bool) -> None:
        """Careful, facts are inserted under savepoints; otherwise a known one among them ends the transaction."""
        self._connection = connection
        self._careful = careful
        self._heads: dict[str, _Head | None] = {}
        self._dirty: dict[str, None] = {}
        self._waiting: list[Fact] = []
        self.changed: dict[str, Written | None] = {}
        """The runs that have new events, and these."""

    def look(self, run_ids: Collection[str]) -> None:
        """Read the heads of runs together; those that are not there yet are looked for when a fact of theirs comes."""
        if run_ids:
            for row in self._connection.execute(_HEADS, {"ids": sorted(run_ids)}):
                self._heads[row.id] = _Head(row.generation, RunState(row.state))

    def add(self, fact: Fact) -> None:
        """Add one fact; it is dropped when it was known, or the run has ended, or was never begun."""
        self._waiting.append(fact)

    def finish(self) -> None:
        """Write what was added, and the runs' rows."""
        self._write(self._waiting)
        self._waiting = []
        steps: list[dict[str, object]] = []
        ended: list[dict[str, object]] = []
        for run_id in self._dirty:
            head = self._heads[run_id]
            assert head is not None, "only runs that exist become dirty"
            if head.asks and not head.state.ended:
                head.state = self._asking(run_id)
            values: dict[str, object] = {
                "run": run_id,
                "generation": head.generation,
                "state": head.state.value,
                "at": head.last,
            }
            if head.final is not None:
                ended.append({**values, "outcome": dict(head.final.payload), "ended_at": head.final.at})
            else:
                steps.append(values)
            known = self.changed.get(run_id)
            self.changed[run_id] = Written(
                head.state, (*(known.events if known else ()), *head.events), (known.size if known else 0) + head.size
            )
        if steps:
            self._connection.execute(_GONE_ON, steps)
        if ended:
            self._connection.execute(_ENDED, ended)
        self._dirty.clear()
        self._heads.clear()

    def _write(self, facts: Sequence[Fact]) -> None:
        """Insert facts; all at once where none of them was known, and no run ends that still asks.

        A run that ends waits for no event any more.
        """
        finals = sorted({fact.run_id for fact in facts if fact.kind in _FINAL})
        asking = {row.run_id for row in self._connection.execute(_OPEN, {"runs": finals})} if finals else set[str]()
        begin = 0
        for place, fact in enumerate(facts):
            if fact.kind in _FINAL and fact.run_id in asking:
                self._write_some(facts[begin:place])
                if (head := self._head(fact.run_id)) is not None and not head.state.ended:
                    self._close_questions(fact)
                self._write_some([fact])
                begin = place + 1
        self._write_some(facts[begin:])
        if finals:
            self._connection.execute(_WAIT_NO_MORE, {"runs": finals})

    def _write_some(self, facts: Sequence[Fact]) -> None:
        placed = self._place(facts)
        if placed and not self._insert(placed) and len(placed) > 1:
            for fact in facts:
                self._write_some([fact])

    def _place(self, facts: Sequence[Fact]) -> "list[_Placed]":
        """Number facts as they would be if they are all new; without those that come too late."""
        placed: list[_Placed] = []
        ahead: dict[str, int] = {}
        over: set[str] = set()
        for fact in facts:
            head = self._head(fact.run_id)
            if head is None or head.state.ended or fact.run_id in over:
                continue
            if fact.kind in _FINAL:
                over.add(fact.run_id)
            ahead[fact.run_id] = ahead.get(fact.run_id, head.generation) + 1
            placed.append(_Placed(fact, ahead[fact.run_id], dump_json(fact.payload)))
        return placed

    def _insert(self, placed: "Sequence[_Placed]") -> bool:
        """Insert events; False when one of them was known, and then none is inserted."""
        rows = [one.row() for one in placed]
        mark = self._connection.begin_nested() if self._careful and len(rows) > 1 else None
        written = self._connection.execute(_INSERT, rows, execution_options={"preserve_rowcount": True}).rowcount
        if written != len(rows):
            if len(rows) > 1 and not self._careful:
                raise _KnownFactError
            if mark is not None:
                mark.rollback()
            return False
        if mark is not None:
            mark.commit()
        for one in placed:
            self._note(one)
        return True

    def _note(self, one: "_Placed") -> None:
        fact, head = one.fact, self._head(one.fact.run_id)
        assert head is not None, "its run is there"
        head.generation = one.seq
        head.last = fact.at
        head.events.append(one.event())
        head.size += len(one.payload)
        if fact.kind in _FINAL:
            head.state = state_after(fact)
            head.final = fact
        elif fact.kind in _QUESTIONS:
            head.asks = True
        elif fact.kind is EventKind.RUN_STARTED and head.state is RunState.SUBMITTED:
            head.state = RunState.WORKING
        self._dirty[fact.run_id] = None

    def _head(self, run_id: str) -> _Head | None:
        if run_id not in self._heads:
            row = self._connection.execute(_HEADS, {"ids": [run_id]}).one_or_none()
            self._heads[run_id] = None if row is None else _Head(row.generation, RunState(row.state))
        return self._heads[run_id]

    def _asking(self, run_id: str) -> RunState:
        query = select(questions.c.asked).where(questions.c.run_id == run_id, questions.c.state == "open")
        asked = [cast("JsonObject", row.asked) for row in self._connection.execute(query)]
        if not asked:
            return RunState.WORKING
        return RunState.AUTH_REQUIRED if any(one.get("auth") for one in asked) else RunState.INPUT_REQUIRED

    def _close_questions(self, final: Fact) -> None:
        for row in self._connection.execute(_OPEN, {"runs": [final.run_id]}).all():
            self._connection.execute(update(questions).where(questions.c.id == row.id).values(state="closed"))
            payload: dict[str, Json] = {"question": row.id, "why": "the run has ended"}
            closed = Fact(
                run_id=final.run_id,
                kind=EventKind.QUESTION_CLOSED,
                step=row.step,
                attempt=row.attempt,
                at=final.at,
                payload=payload,
            )
            self._write_some([closed])


@dataclass(frozen=True)
class _Placed:
    """A fact with its number, and its payload as it is written."""

    fact: Fact
    seq: int
    payload: str

    def row(self) -> dict[str, object]:
        fact = self.fact
        return {
            "run_id": fact.run_id,
            "seq": self.seq,
            "step": fact.step,
            "attempt": fact.attempt,
            "kind": fact.kind.value,
            "n": fact.n,
            "at": fact.at,
            "payload": self.payload,
        }

    def event(self) -> Event:
        """Return it as it will be read: with the payload that the database keeps."""
        fact = self.fact
        payload = cast("JsonObject", load_json(self.payload))
        return Event(
            run_id=fact.run_id,
            seq=self.seq,
            step=fact.step,
            attempt=fact.attempt,
            kind=fact.kind,
            n=fact.n,
            at=fact.at,
            payload=payload,
        )


# Built once: SQLAlchemy keeps what it compiles of them, which it does not of an insert that says ON CONFLICT.
_INSERT = text(
    "INSERT INTO events (run_id, seq, step, attempt, kind, n, at, payload) "
    "VALUES (:run_id, :seq, :step, :attempt, :kind, :n, :at, :payload) ON CONFLICT DO NOTHING"
).bindparams(*(bindparam(name, type_=events.c[name].type) for name in ("run_id", "step", "at")))
_HEADS = (
    select(runs.c.id, runs.c.generation, runs.c.state)
    .where(runs.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(runs.c.id)
    .with_for_update()
)
_GONE_ON = (
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(generation=bindparam("generation"), state=bindparam("state"), updated_at=bindparam("at"))
)
_ENDED = _GONE_ON.values(outcome=bindparam("outcome"), ended_at=bindparam("ended_at"))
_OPEN = (
    select(questions)
    .where(questions.c.run_id.in_(bindparam("runs", expanding=True)), questions.c.state == "open")
    .order_by(questions.c.asked_at)
)
_WAIT_NO_MORE = (
    update(waits)
    .where(waits.c.run_id.in_(bindparam("runs", expanding=True)), waits.c.state.in_(("open", "untold")))
    .values(state="closed")
)


def _event(row: Row[tuple[object, ...]]) -> Event:
    return Event(
        run_id=row.run_id,
        seq=row.seq,
        step=row.step,
        attempt=row.attempt,
        kind=EventKind(row.kind),
        n=row.n,
        at=row.at,
        payload=row.payload,
    )
