"""Stops the steps of a cancelled run in whichever replica they are under way, and says when they have stopped."""

import asyncio
from collections.abc import Collection

import anyio
import structlog

from interhub.hub.bus import Bus

from .durable import Engine
from .journal import Journal
from .leaves import Leaves

log = structlog.get_logger()

_CANCEL = "cancel"
_STOPPED = "stopped"


class Canceller:
    """Stops runs."""

    def __init__(self, *, engine: Engine, leaves: Leaves, journal: Journal, bus: Bus, within_s: float) -> None:
        """`within_s` is how long steps may take to tell their agents."""
        self._engine = engine
        self._leaves = leaves
        self._journal = journal
        self._bus = bus
        self._within_s = within_s
        self._awaited: set[_Elsewhere] = set()
        self._asked: set[asyncio.Task[None]] = set()
        bus.hear(_CANCEL, self._cancel_for)
        bus.hear(_STOPPED, self._stopped)

    async def stop(self, run_id: str) -> None:
        """Cancel a run in the engine, and return when its steps have stopped, or their time is up."""
        others = await self._engine.executors(run_id) - {self._bus.origin, ""} if self._bus.origin else frozenset[str]()
        elsewhere = _Elsewhere(run_id, others)
        self._awaited.add(elsewhere)
        try:
            await self._engine.cancel(run_id)
            if others:
                await self._bus.say(_CANCEL, f"{self._bus.origin} {run_id}")
            await self._leaves.cancel(run_id, within_s=self._within_s)
            await self._engine.drop(run_id)
            with anyio.move_on_after(self._within_s):
                await elsewhere.stopped.wait()
            if not elsewhere.stopped.is_set():
                log.warning("cancelled_steps_not_heard_of", run=run_id, replicas=sorted(elsewhere.replicas))
        finally:
            self._awaited.discard(elsewhere)

    def _cancel_for(self, name: str) -> None:
        """Another replica cancels a run, some steps of which may be under way here."""
        task = asyncio.ensure_future(self._stop_here(name.partition(" ")[2]))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _stop_here(self, run_id: str) -> None:
        try:
            await self._leaves.cancel(run_id, within_s=self._within_s)
            await self._engine.drop(run_id)
            await self._journal.flush()  # what the steps told comes before the run's end
            await self._bus.say(_STOPPED, f"{self._bus.origin} {run_id}")
        except Exception:  # a notice that cannot be answered: whoever waits for it goes on when its time is up
            log.exception("cancelled_steps_not_answered_for", run=run_id)

    def _stopped(self, name: str) -> None:
        replica, _, run_id = name.partition(" ")
        for elsewhere in self._awaited:
            if elsewhere.run_id == run_id:
                elsewhere.note(replica)


class _Elsewhere:
    """The replicas that have not said yet that a run's steps have stopped there."""

    def __init__(self, run_id: str, replicas: Collection[str]) -> None:
        self.run_id = run_id
        self.replicas = set(replicas)
        self.stopped = anyio.Event()
        self.note("")

    def note(self, replica: str) -> None:
        self.replicas.discard(replica)
        if not self.replicas:
            self.stopped.set()
