"""Runs that wait: for a time, or for an event that is delivered to each of them once.

An event reaches the steps that wait for it when it comes, and those that begin to within a minute, where their run was
there already: what a step has set going may answer before the next step waits for it. What each step got is written
before its run is told, and told again at start-up, so that a crash in between loses nothing.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import cast
from uuid import NAMESPACE_URL, uuid4, uuid5

import sqlalchemy as sa
import structlog
from sqlalchemy import Connection, select, update

from interhub.adapters import DataPart
from interhub.agent_cards import Json, JsonObject, empty_object
from interhub.registry.database import deliveries, insert_new, occurrences, reading, runs, waits

from .durable import Branch, Engine
from .envelope import StepValue, failed_because, mapping, succeeded
from .frame import Leaf
from .journal import Journal
from .model import LONGEST_S, WaitStep, read_moment
from .run import EventKind
from .scene import Scene
from .template import TemplateFailed, render, render_all

log = structlog.get_logger()

EVENT_WITHIN_S = 30 * 24 * 3600.0
"""How long a step waits for an event, where it says nothing else."""

EARLY_S = 60.0
"""How long before a step begins to wait an event may come that it gets all the same."""


@dataclass(frozen=True, kw_only=True)
class Signal:
    """Something that happened outside, which runs may wait for."""

    tenant: str
    """Whose runs are told."""
    name: str
    data: JsonObject = field(default_factory=empty_object)
    id: str = field(default_factory=lambda: str(uuid4()))
    """The same for the same occurrence."""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a step waits for, its templates rendered."""

    seconds: float
    """At most, or exactly where there is no event."""
    event: str = ""
    match: JsonObject = field(default_factory=empty_object)


def wanted(step: WaitStep, values: Mapping[str, object]) -> Wanted:
    """Return what a step waits for.

    Raises:
        TemplateFailed: a template cannot be rendered, or does not give a time.
    """
    spec = step.wait
    if spec.event:
        event = render(spec.event, values)
        match = mapping(render_all(cast("Json", spec.match), values))
        return Wanted(seconds=step.timeout_s or EVENT_WITHIN_S, event=str(event), match=match)
    if spec.until:
        given = render(spec.until, values)
        try:
            moment = read_moment(str(given))
        except ValueError as error:
            raise TemplateFailed(str(error)) from None
        return Wanted(seconds=_bounded((moment - datetime.now(UTC)).total_seconds()))
    found: Json = render(spec.seconds, values) if isinstance(spec.seconds, str) else spec.seconds
    try:
        seconds = float(cast("float", found))
    except (TypeError, ValueError):
        raise TemplateFailed(f"{str(found)[:40]!r} is no number of seconds") from None
    return Wanted(seconds=_bounded(seconds))


def received(step: WaitStep, result: Json) -> dict[str, Json]:
    """Return the envelope of a step that has waited."""
    if not step.wait.event:
        return succeeded(StepValue(), attempts=1)
    if result is None:
        return failed_because("STEP_TIMEOUT", f"the event {step.wait.event!r} did not come in time", attempts=1)
    data = mapping(result).get("data")
    return succeeded(StepValue(parts=(DataPart(data=data),), structured=data), attempts=1)


class Waiting:
    """Lets the steps of one execution wait."""

    def __init__(self, scene: Scene, signals: "Signals") -> None:
        self._scene = scene
        self._signals = signals

    async def wait(self, leaf: Leaf, what: Wanted) -> Branch:
        """Begin to wait, and return what ends it."""
        scene = self._scene
        now = datetime.now(UTC)
        until = now + timedelta(seconds=what.seconds)
        wait_id = self._id(leaf)
        if what.event:
            row: dict[str, object] = {
                "id": wait_id,
                "run_id": scene.root,
                "step": scene.path(leaf),
                "workflow": scene.durable.id,
                "tenant": scene.principal.tenant,
                "event": what.event,
                "match": dict(what.match),
                "state": "open",
                "delivered": None,
                "since": now,
                "expires_at": until,
            }
            early = await scene.journal.write(lambda connection: _begin(connection, row))
            if early is not None:
                self._signals.tell(scene.durable.id, wait_id, early)
        scene.tell(
            EventKind.STEP_WAITING,
            scene.path(leaf),
            1,
            until=until.isoformat(),
            event=what.event,
            match=what.match,
        )
        return await scene.durable.begin_receive(wait_id, what.seconds)

    def close(self, leaf: Leaf) -> None:
        """Take note that nobody waits any more."""
        step = leaf.node.step
        if isinstance(step, WaitStep) and step.wait.event:
            wait_id = self._id(leaf)
            query = update(waits).where(waits.c.id == wait_id, waits.c.state == "open").values(state="closed")
            self._scene.journal.post_change(lambda connection: connection.execute(query))

    def close_within(self, leaf: Leaf) -> None:
        """Take note that the child run that a leaf was waits no more."""
        scene = self._scene
        within = f"{scene.path(leaf)}."

        def close(connection: Connection) -> None:
            query = select(waits.c.id, waits.c.step).where(waits.c.run_id == scene.root, waits.c.state == "open")
            found = [row.id for row in connection.execute(query) if row.step.startswith(within)]
            connection.execute(update(waits).where(waits.c.id.in_(found)).values(state="closed"))

        scene.journal.post_change(close)

    def _id(self, leaf: Leaf) -> str:
        return str(uuid5(NAMESPACE_URL, f"interhub:{self._scene.root}/{self._scene.path(leaf)}~wait"))


class Signals:
    """Delivers events to the runs that wait for them."""

    def __init__(self, *, journal: Journal, engine: Engine, database: sa.Engine) -> None:
        self._journal = journal
        self._engine = engine
        self._database = database
        self._telling: set[asyncio.Task[None]] = set()

    async def deliver(self, signal: Signal) -> tuple[str, ...]:
        """Deliver an event to every step that waits for it now; returns the ids of their runs.

        A step gets one event, the first that fits, and a run the same event once. Where a run cannot be told the others
        are, and then the engine's error is raised: it is told when the same event is delivered again.
        """
        shaped = _shaped(signal.id, signal.name, signal.data, signal.at)

        def take(connection: Connection) -> list[tuple[str, str, str]]:
            query = select(waits).where(
                waits.c.tenant == signal.tenant, waits.c.event == signal.name, waits.c.state.in_(("open", "untold"))
            )
            found: list[tuple[str, str, str]] = []
            _take_turns(connection, signal.tenant, signal.name)
            rows = connection.execute(query.order_by(waits.c.since, waits.c.id)).all()
            had = _had(connection, {row.run_id for row in rows})
            for row in rows:
                if row.state == "untold":
                    takes = mapping(row.delivered).get("id") == signal.id
                else:
                    takes = (row.run_id, signal.id) not in had and fits(cast("JsonObject", row.match), signal.data)
                if not takes:
                    continue
                taking = update(waits).where(waits.c.id == row.id, waits.c.state == row.state)
                if connection.execute(taking.values(state="delivered", delivered=shaped)).rowcount == 1:
                    found.append((row.id, row.run_id, row.workflow))
            return found

        taken = await self._journal.write(take)
        failures: list[Exception] = []
        for wait_id, run_id, workflow in taken:
            try:
                await self._engine.send(workflow, wait_id, shaped, key=wait_id)
            except Exception as error:  # whatever it is, the runs after this one are told
                log.warning("event_not_told", run=run_id, event_name=signal.name, error=repr(error))
                untold = update(waits).where(waits.c.id == wait_id, waits.c.state == "delivered")
                self._journal.post_change(partial(Connection.execute, statement=untold.values(state="untold")))
                failures.append(error)
        if failures:
            raise failures[0]
        return tuple(dict.fromkeys(run_id for _, run_id, _ in taken))

    async def redeliver(self, run_ids: Sequence[str]) -> None:
        """Tell runs again what came for them: at start-up, for events whose delivery a crash cut off."""
        came = waits.c.state.in_(("delivered", "untold"))
        query = select(waits).where(waits.c.run_id.in_(list(run_ids)), came)
        with reading(self._database) as connection:
            rows = connection.execute(query).all()
        for row in rows:
            await self._engine.send(row.workflow, row.id, row.delivered, key=row.id)

    def tell(self, workflow: str, wait_id: str, shaped: JsonObject) -> None:
        """Tell a run of an event that came before it waited; outside of the run's own context, and not awaited."""
        work = self._engine.send(workflow, wait_id, shaped, key=wait_id)
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


def _begin(connection: Connection, row: Mapping[str, object]) -> dict[str, Json] | None:
    """Write that a step waits; returns the event that it need not wait for any more."""
    tenant, name, run_id = cast("str", row["tenant"]), cast("str", row["event"]), cast("str", row["run_id"])
    _take_turns(connection, tenant, name)
    if not insert_new(connection, waits, row):
        return None  # it waited before a crash; what it got is told at start-up
    since = cast("datetime", row["since"]) - timedelta(seconds=EARLY_S)
    woke = select(deliveries.c.occurrence).where(
        deliveries.c.tenant == occurrences.c.tenant,
        deliveries.c.subscription == "",
        deliveries.c.source == occurrences.c.source,
        deliveries.c.occurrence == occurrences.c.id,
    )
    query = (
        select(occurrences)
        .join(runs, runs.c.id == run_id)
        .where(occurrences.c.tenant == tenant, occurrences.c.name == name, woke.exists())
        .where(occurrences.c.taken_at >= since, occurrences.c.taken_at >= runs.c.created_at)
        .order_by(occurrences.c.taken_at, occurrences.c.source, occurrences.c.id)
    )
    rows = connection.execute(query).all()
    had = _had(connection, {run_id}) if rows else frozenset[tuple[str, str]]()
    for early in rows:
        event_id = f"{early.source}/{early.id}"
        data = cast("JsonObject", early.data or {})
        if (run_id, event_id) in had or not fits(cast("JsonObject", row["match"]), data):
            continue
        shaped = _shaped(event_id, name, data, early.at)
        taking = update(waits).where(waits.c.id == row["id"])
        connection.execute(taking.values(state="delivered", delivered=shaped))
        return shaped
    return None


def _shaped(event_id: str, name: str, data: JsonObject, at: datetime) -> dict[str, Json]:
    return {"id": event_id, "name": name, "data": dict(data), "at": at.isoformat()}


def _had(connection: Connection, run_ids: Collection[str]) -> frozenset[tuple[str, str]]:
    """Return which events runs have had: run and event."""
    query = select(waits.c.run_id, waits.c.delivered).where(waits.c.run_id.in_(run_ids), waits.c.delivered.is_not(None))
    return frozenset((row.run_id, str(mapping(row.delivered).get("id"))) for row in connection.execute(query))


def _take_turns(connection: Connection, tenant: str, name: str) -> None:
    """Let an event of a name and a step that begins to wait for it see each other; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        key = int.from_bytes(sha256(f"{tenant}/{name}".encode()).digest()[:8], "big", signed=True)
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def fits(match: JsonObject, data: JsonObject) -> bool:
    """Return whether an event's data has all the values that are wanted."""
    return all(_field(data, path) == value for path, value in match.items())


class _Missing:
    """Stands for a field that is not there; equal to nothing."""


def _field(data: Json, path: str) -> object:
    here: object = data
    for part in path.split("."):
        if not isinstance(here, Mapping) or part not in here:
            return _Missing()
        here = cast("Mapping[str, object]", here)[part]
    return here


def _bounded(seconds: float) -> float:
    if seconds != seconds or seconds > LONGEST_S:
        raise TemplateFailed(f"a step may wait {LONGEST_S // 86400} days at most")
    return max(0.0, seconds)
