"""Which replicas share a database, each with a lease; and what becomes of the runs of one that is gone.

The durable engine executes a run in one process and fences every other off, but it never finds out that a process has
died. That is all that is decided here, by the clock of the database alone:

    lease       a row, written before the engine is launched, whose `beat` a thread renews every `beat_s`
    lost        a lease that was not renewed for its `ttl_s`: any replica marks it so, for good
    self-exit   a replica whose lease is marked ends itself at once: others do its work by now
    take-over   runs under way of executors without a lease go back to the queue, from which one replica takes each
    mending     then one replica compares journal and engine, and only then is the lease forgotten

All but the first is level-triggered: it looks at what is, again and again, so whoever dies in between is made up for.
The reaper has a thread of its own, since it may have to wait for a row that a frozen process holds; the heartbeat must
not. A replica that could not reach the database itself judges nobody until it has been steady for a lease's time.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import NoReturn, Protocol

import anyio
import anyio.to_thread
import sqlalchemy as sa
import structlog
from sqlalchemy import delete, event, insert, select, text, update
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from interhub.registry.database import database_errors, postgres_connector, replicas

log = structlog.get_logger()

EXIT_LEASE_LOST = 70
"""Exit code of a replica that ends itself because others have taken its runs."""


class Orphans(Protocol):
    """The runs under way of executors that have no lease. Both calls block."""

    def orphaned(self, connection: sa.Connection) -> Sequence[str]:
        """Return the ids of such executors."""
        ...

    def take_over(self, executor_ids: Sequence[str]) -> int:
        """Put their runs back to the queue, and return how many there were. May wait for rows that they hold."""
        ...


Mend = Callable[[], Awaitable[None]]
"""Brings journal and engine together after a replica was lost."""


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One hub of those that share a database."""

    executor_id: str
    """Of this process; never used again."""
    home: str
    """Names the place that one process at a time holds: what was there before is gone when another holds it."""
    url: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Member:
    """A replica as the database knows it."""

    replica: Replica
    joined_at: datetime
    age_s: float
    """Seconds since its last beat."""
    lost: bool


def connections_of(executor_id: str) -> str:
    """Return the name by which the server knows the connections of an executor."""
    return f"interhub-{executor_id}"


def exit_at_once() -> NoReturn:
    """End the process as it stands, as a crash would."""
    sys.stderr.flush()
    os._exit(EXIT_LEASE_LOST)


class Membership:
    """This replica's lease, and its eye on the others'."""

    def __init__(
        self,
        database: sa.Engine,
        replica: Replica,
        *,
        ttl_s: float = 5.0,
        beat_s: float = 1.0,
        lost: Callable[[], None] = exit_at_once,
    ) -> None:
        """`lost` is called, on the heartbeat's thread, when others have taken over."""
        self.replica = replica
        self.ttl_s = ttl_s
        self._beat_s = beat_s
        self._lost = lost
        self._database = _engine(database, statement_s=max(1.0, ttl_s / 2))
        self._leaving = threading.Event()
        self._resting = threading.Event()
        self._heart: threading.Thread | None = None
        self._reaper: threading.Thread | None = None
        self._confirmed_at = self._steady_since = monotonic()
        self._mending = False
        self._loop: asyncio.AbstractEventLoop | None = None

    # The lease

    def join(self) -> None:
        """Take a lease and keep it: before the engine is launched. Blocks shortly.

        Raises:
            DatabaseUnusable: it cannot be written.
        """
        mine = self.replica
        with database_errors(self._database), self._database.begin() as connection:
            # Who holds this place now knows that its former holder is gone, and need not wait for its lease to end.
            connection.execute(update(replicas).where(replicas.c.home == mine.home).values(lost=True))
            connection.execute(
                insert(replicas).values(
                    executor_id=mine.executor_id,
                    home=mine.home,
                    url=mine.url,
                    version=mine.version,
                    joined_at=sa.func.clock_timestamp(),
                    beat=sa.func.clock_timestamp(),
                    ttl_s=self.ttl_s,
                    lost=False,
                )
            )
        self._confirmed_at = self._steady_since = monotonic()
        self._heart = threading.Thread(target=self._keep, name="interhub-lease", daemon=True)
        self._heart.start()
        log.info("replica_joined", replica=mine.executor_id, ttl_s=self.ttl_s)

    def leave(self) -> None:
        """Give the lease up, when the engine has stopped: the others take over at once. Blocks shortly."""
        self._leaving.set()
        if self._heart is not None:
            self._heart.join()
        try:
            with self._database.begin() as connection:
                mine = replicas.c.executor_id == self.replica.executor_id
                connection.execute(update(replicas).where(mine).values(lost=True))
        except SQLAlchemyError as error:
            log.warning("lease_not_given_up", why=_said(error), others_take_over_in_s=self.ttl_s)
        self._database.dispose()

    async def confirmed(self) -> None:
        """Return when this replica has lately been seen to hold its lease: before it does what others can see.

        A process that was frozen, or cut off from the database, is held here until it knows, or has ended itself.
        """
        while monotonic() - self._confirmed_at > self.ttl_s:  # noqa: ASYNC110  # a thread confirms it
            await anyio.sleep(_LOOK_S)

    def is_steady(self) -> bool:
        """Whether the lease was renewed within its time."""
        return monotonic() - self._confirmed_at <= self.ttl_s

    def members(self) -> list[Member]:
        """Return the replicas that the database knows, the oldest first. Blocks shortly.

        Raises:
            DatabaseUnusable: it cannot be read.
        """
        age = sa.extract("epoch", sa.func.clock_timestamp() - replicas.c.beat).label("age_s")
        query = select(replicas, age).order_by(replicas.c.joined_at, replicas.c.executor_id)
        with database_errors(self._database), self._database.connect() as connection:
            return [
                Member(
                    replica=Replica(executor_id=row.executor_id, home=row.home, url=row.url, version=row.version),
                    joined_at=row.joined_at,
                    age_s=float(row.age_s),
                    lost=row.lost,
                )
                for row in connection.execute(query)
            ]

    def _keep(self) -> None:
        failing = False
        while not self._leaving.wait(self._beat_s):
            try:
                held = self._beat()
            except SQLAlchemyError as error:
                if not failing:
                    log.warning("lease_not_renewed", why=_said(error))
                failing = True
                continue
            if not held:
                log.critical("lease_lost", replica=self.replica.executor_id, exit_code=EXIT_LEASE_LOST)
                self._lost()
                return
            now = monotonic()
            if failing or now - self._confirmed_at > self.ttl_s / 2:
                self._steady_since = now
            self._confirmed_at = now
            failing = False

    def _beat(self) -> bool:
        mine = (replicas.c.executor_id == self.replica.executor_id) & ~replicas.c.lost
        with self._database.begin() as connection:
            renewed = update(replicas).where(mine).values(beat=sa.func.clock_timestamp())
            return connection.execute(renewed).rowcount == 1

    # The others

    def watch(self, orphans: Orphans, mend: Mend) -> None:
        """Begin to look after the runs of replicas that are gone, once the engine is launched."""
        self._loop = asyncio.get_running_loop()
        self._reaper = threading.Thread(target=self._reap, args=(orphans, mend), name="interhub-reaper", daemon=True)
        self._reaper.start()

    async def rest(self) -> None:
        """End that, before the engine is stopped."""
        self._resting.set()
        if self._reaper is not None:
            await anyio.to_thread.run_sync(self._reaper.join)

    def _reap(self, orphans: Orphans, mend: Mend) -> None:
        failing = False
        while not self._resting.is_set():
            try:
                gone = self._look(orphans)
                failing = False
            except Exception as error:  # a background loop: it looks again
                if not failing:
                    log.warning("replicas_not_looked_after", why=_said(error), exc_info=not _of_database(error))
                failing, gone = True, []
            if gone and not self._mending and self._loop is not None and not self._loop.is_closed():
                self._mending = True
                asyncio.run_coroutine_threadsafe(self._mend(mend, gone), self._loop)
            self._resting.wait(self._beat_s)

    def _look(self, orphans: Orphans) -> list[str]:
        """Mark the leases that have run out, and take over; returns those whose end is still to be mended."""
        with self._database.begin() as connection:
            if monotonic() - self._steady_since >= self.ttl_s and self.is_steady():
                ran_out = replicas.c.beat < sa.func.clock_timestamp() - _seconds(replicas.c.ttl_s)
                other = replicas.c.executor_id != self.replica.executor_id
                expired = update(replicas).where(~replicas.c.lost, other, ran_out).values(lost=True)
                for row in connection.execute(expired.returning(replicas.c.executor_id, replicas.c.url)).all():
                    log.warning("replica_lost", replica=row.executor_id, url=row.url)
                    # A frozen process may hold locks in mid-statement, where no timeout of the server's reaches.
                    connection.execute(_DISCONNECT, {"name": connections_of(row.executor_id)})
        with self._database.connect() as connection:
            found = connection.execute(select(replicas.c.executor_id).where(replicas.c.lost))
            gone = [row.executor_id for row in found]
            orphaned = orphans.orphaned(connection)
        if orphaned:
            log.info("runs_taken_over", of=list(orphaned), runs=orphans.take_over(orphaned))
        return gone

    async def _mend(self, mend: Mend, gone: list[str]) -> None:
        try:
            await mend()
            await anyio.to_thread.run_sync(self._bury, gone)
        except Exception:  # a background loop: the leases stay marked, and it is done again
            log.exception("lost_replica_not_mended", replicas=gone)
            await anyio.sleep(self._beat_s)
        finally:
            self._mending = False

    def _bury(self, gone: list[str]) -> None:
        with self._database.begin() as connection:
            connection.execute(delete(replicas).where(replicas.c.lost, replicas.c.executor_id.in_(gone)))


_LOOK_S = 0.05
_DISCONNECT = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = :name AND datname = current_database() AND usename = current_user"
)


def _engine(database: sa.Engine, *, statement_s: float) -> sa.Engine:
    """Return connections of our own, so that a lease never waits for want of one."""
    url = database.url
    engine = sa.create_engine(url, creator=postgres_connector(url, patience_s=0.0), pool_size=3, max_overflow=0)

    @event.listens_for(engine, "connect")
    def on_connect(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:  # pyright: ignore[reportUnusedFunction]
        cursor = connection.cursor()
        try:
            cursor.execute(f"SET statement_timeout = {round(statement_s * 1000)}")
            cursor.execute(f"SET idle_in_transaction_session_timeout = {round(statement_s * 1000)}")
        finally:
            cursor.close()
        connection.commit()

    return engine


def _seconds(column: sa.Column[float]) -> sa.ColumnElement[float]:
    return column * text("interval '1 second'")


def _of_database(error: Exception) -> bool:
    return isinstance(error, SQLAlchemyError)


def _said(error: Exception) -> str:
    return str(error).partition("\n")[0]
