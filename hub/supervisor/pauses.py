"""Runs that are paused: what is under way in them ends, and nothing new begins until they are resumed.

A paused run's execution stands before its next step, in whichever process it is; nothing of that is recorded, so a
replay does the same as if nobody had paused. That a run is paused is in the database, so a restart changes nothing.
"""

import asyncio
from datetime import UTC, datetime

import anyio.to_thread
import sqlalchemy as sa
import structlog
from sqlalchemy import Connection, delete, func, select

from interhub.adapters import Principal
from interhub.hub.bus import Bus
from interhub.registry.database import events, insert_new, pauses, reading, runs

from .journal import Fact, Journal, outlasting
from .run import EventKind, RunState

log = structlog.get_logger()


class Pauses:
    """Pauses runs, and lets them go on."""

    def __init__(self, *, journal: Journal, database: sa.Engine, bus: Bus) -> None:
        """`bus` is opened after this is made."""
        self._journal = journal
        self._database = database
        self._bus = bus
        self._gates: dict[str, asyncio.Event] = {}
        """Of the runs that are paused; set when they go on, or have ended."""
        self._looking: set[asyncio.Task[None]] = set()
        bus.hear(_TOPIC, self._hear)
        bus.hear_gaps(lambda: self._hear(""))

    async def load(self) -> None:
        """Take note of the runs that are paused: before any is executed, and when notices may have been missed."""
        found = await anyio.to_thread.run_sync(self._read)
        for run_id in found - self._gates.keys():
            self._gates[run_id] = asyncio.Event()
        for run_id in self._gates.keys() - found:
            self._gates.pop(run_id).set()

    def paused(self, run_id: str) -> bool:
        """Whether a run is paused."""
        return run_id in self._gates

    async def passed(self, run_id: str) -> None:
        """Return when a run may begin a step: at once, unless it is paused.

        Raises:
            CancelledError: it was cancelled meanwhile.
        """
        waited = False
        while (gate := self._gates.get(run_id)) is not None:
            waited = True
            await gate.wait()
        if waited and await outlasting(lambda: anyio.to_thread.run_sync(self._ended, run_id)):
            raise asyncio.CancelledError

    async def pause(self, run_id: str, by: Principal) -> None:
        """Pause a run; one that is paused stays so."""

        def write(connection: Connection) -> int | None:
            values = {"run_id": run_id, "by": by.key, "since": datetime.now(UTC)}
            self._bus.tell(connection, _TOPIC, [run_id])
            return _count(connection, run_id, EventKind.RUN_PAUSED) if insert_new(connection, pauses, values) else None

        # Before it is written: no step may begin once whoever asked is answered.
        self._gates.setdefault(run_id, asyncio.Event())
        number = await self._journal.write(write)
        if number is not None:
            await self._journal.append(Fact(run_id=run_id, kind=EventKind.RUN_PAUSED, n=number, payload={"by": by.key}))

    async def resume(self, run_id: str, by: Principal) -> None:
        """Let a run go on; one that is not paused goes on as it does."""
        number = await self._release(run_id)
        if number is not None:
            await self._journal.append(
                Fact(run_id=run_id, kind=EventKind.RUN_RESUMED, n=number, payload={"by": by.key})
            )
        self._open(run_id)

    async def drop(self, run_id: str) -> None:
        """Forget that a run was paused, as it has ended."""
        if run_id in self._gates:
            await self._release(run_id)
            self._open(run_id)

    async def _release(self, run_id: str) -> int | None:
        def write(connection: Connection) -> int | None:
            self._bus.tell(connection, _TOPIC, [run_id])
            gone = connection.execute(delete(pauses).where(pauses.c.run_id == run_id)).rowcount
            return _count(connection, run_id, EventKind.RUN_RESUMED) if gone else None

        return await self._journal.write(write)

    def _open(self, run_id: str) -> None:
        if (gate := self._gates.pop(run_id, None)) is not None:
            gate.set()

    def _hear(self, run_id: str) -> None:
        task = asyncio.ensure_future(self._look())
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _look(self) -> None:
        try:
            await self.load()
        except Exception:  # a notice that cannot be followed: what is known here stays
            log.exception("pauses_not_read")

    def _read(self) -> set[str]:
        ended = [state.value for state in RunState if state.ended]
        query = select(pauses.c.run_id).join(runs, runs.c.id == pauses.c.run_id).where(runs.c.state.not_in(ended))
        with reading(self._database) as connection:
            return set(connection.execute(query).scalars())

    def _ended(self, run_id: str) -> bool:
        with reading(self._database) as connection:
            state = connection.execute(select(runs.c.state).where(runs.c.id == run_id)).scalar()
        return state is None or RunState(state).ended


_TOPIC = "pause"


def _count(connection: Connection, run_id: str, kind: EventKind) -> int:
    """Return how often a run's events tell of a thing."""
    query = select(func.count()).where(events.c.run_id == run_id, events.c.kind == kind.value)
    return int(connection.execute(query).scalar_one())
