"""The clock of schedules: takes each of their moments as an event, also those that came while no hub ran.

Every hub of a database has one. A moment's id is the moment itself, so of several hubs one takes it.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import anyio
import structlog

from interhub.registry import RegistryError

from .cron import read_schedule
from .document import ScheduleSpec
from .events import Events
from .store import Occurrence, Registered, TriggerStore

log = structlog.get_logger()

LATE_S = 60.0
"""A moment that is longer ago was missed, and `missed` says what becomes of it."""
MOST_MISSED = 100
_LOOK_S = 30.0
"""How long at most nothing is looked at: a notice, or a step of the system's clock, may be missed."""


class Clock:
    """Ticks."""

    def __init__(
        self,
        store: TriggerStore,
        events: Events,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._events = events
        self._now = now
        self._changed = anyio.Event()

    def wake(self) -> None:
        """Have it look at the triggers again: they have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            self._changed = anyio.Event()
            wait_s = _LOOK_S
            try:
                soonest = await self.tick()
                if soonest is not None:
                    wait_s = min(wait_s, (soonest - self._now()).total_seconds())
            except RegistryError as error:
                log.warning("schedules_wait_for_the_database", why=str(error))
                wait_s = 1.0
            with anyio.move_on_after(max(0.0, wait_s)):
                await self._changed.wait()

    async def tick(self) -> datetime | None:
        """Take every moment that has come, and return the next one; None where there is no schedule.

        Raises:
            DatabaseUnusable: the database cannot be used; nothing is lost.
        """
        soonest: datetime | None = None
        for one in await self._store.all():
            timetable = one.trigger.timetable
            if timetable is None:
                continue
            coming = await self._tick(one, timetable)
            soonest = coming if soonest is None else min(soonest, coming)
        return soonest

    async def _tick(self, one: Registered, timetable: ScheduleSpec) -> datetime:
        """Take the moments of one schedule that have come, and return the next."""
        now = self._now()
        due: list[datetime] = []
        coming = now
        for moment in read_schedule(timetable.cron, timetable.timezone).after(datetime.fromisoformat(one.mark)):
            coming = moment
            if moment > now:
                break
            due = [*due[-MOST_MISSED:], moment]
        for moment in _counting(due, now, timetable.missed):
            await self._events.take(
                Occurrence(
                    tenant=one.tenant,
                    source=one.id,
                    id=moment_id(moment),
                    name=one.trigger.send or one.id,
                    data={"scheduled_at": moment.isoformat()},
                    at=moment,
                )
            )
        if due:
            await self._store.pass_by(one, moment_id(due[-1]))
        return coming


def moment_id(moment: datetime) -> str:
    """Write a moment so that later ones are greater."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _counting(due: list[datetime], now: datetime, missed: str) -> list[datetime]:
    """Return which of the moments that have come count, in order."""
    in_time = [moment for moment in due if now - moment <= timedelta(seconds=LATE_S)]
    match missed:
        case "all":
            return due[-MOST_MISSED:]
        case "latest":
            return in_time or due[-1:]
        case _:
            return in_time
