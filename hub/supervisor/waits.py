"""Runs that wait: for a time, or for an event that is delivered to each of them once.

An event reaches the steps that wait for it when it comes; one that nobody waits for is gone. What each step got is
written before its run is told, and told again at start-up, so that a crash in between loses nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import NAMESPACE_URL, uuid4, uuid5

import sqlalchemy as sa
from sqlalchemy import Connection, select, update

from interhub.adapters import DataPart
from interhub.agent_cards import Json, JsonObject, empty_object
from interhub.registry.database import insert_new, reading, waits

from .durable import Branch, Engine
from .envelope import StepValue, failed_because, mapping, succeeded
from .frame import Leaf
from .journal import Journal
from .model import LONGEST_S, WaitStep
from .run import EventKind
from .scene import Scene
from .template import TemplateFailed, render, render_all

EVENT_WITHIN_S = 30 * 24 * 3600.0
"""How long a step waits for an event, where it says nothing else."""


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
            moment = datetime.fromisoformat(str(given).strip())
        except ValueError:
            raise TemplateFailed(f"{str(given)[:40]!r} is no time; write it as 2030-01-31T12:00:00Z") from None
        if moment.tzinfo is None:
            raise TemplateFailed(f"{str(given)[:40]!r} does not say its offset from UTC; end it with Z or +01:00")
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

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

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
            await scene.journal.write(lambda connection: insert_new(connection, waits, row))
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

    def _id(self, leaf: Leaf) -> str:
        return str(uuid5(NAMESPACE_URL, f"interhub:{self._scene.root}/{self._scene.path(leaf)}~wait"))


class Signals:
    """Delivers events to the runs that wait for them."""

    def __init__(self, *, journal: Journal, engine: Engine, database: sa.Engine) -> None:
        self._journal = journal
        self._engine = engine
        self._database = database

    async def deliver(self, signal: Signal) -> tuple[str, ...]:
        """Deliver an event to every step that waits for it now; returns the ids of their runs.

        A step gets one event, the first that fits. The same event again finds nobody whom it has reached before.
        """
        shaped: dict[str, Json] = {
            "id": signal.id,
            "name": signal.name,
            "data": dict(signal.data),
            "at": signal.at.isoformat(),
        }

        def take(connection: Connection) -> list[tuple[str, str, str]]:
            query = select(waits).where(
                waits.c.tenant == signal.tenant, waits.c.event == signal.name, waits.c.state == "open"
            )
            found: list[tuple[str, str, str]] = []
            for row in connection.execute(query.order_by(waits.c.since, waits.c.id)).all():
                if not fits(cast("JsonObject", row.match), signal.data):
                    continue
                taking = update(waits).where(waits.c.id == row.id, waits.c.state == "open")
                if connection.execute(taking.values(state="delivered", delivered=shaped)).rowcount == 1:
                    found.append((row.id, row.run_id, row.workflow))
            return found

        taken = await self._journal.write(take)
        for wait_id, _, workflow in taken:
            await self._engine.send(workflow, wait_id, shaped, key=wait_id)
        return tuple(dict.fromkeys(run_id for _, run_id, _ in taken))

    async def redeliver(self, run_ids: Sequence[str]) -> None:
        """Tell runs again what came for them: at start-up, for events whose delivery a crash cut off."""
        query = select(waits).where(waits.c.run_id.in_(list(run_ids)), waits.c.state == "delivered")
        with reading(self._database) as connection:
            rows = connection.execute(query).all()
        for row in rows:
            await self._engine.send(row.workflow, row.id, row.delivered, key=row.id)


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
