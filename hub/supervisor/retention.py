"""What is forgotten, and when: runs that have ended, with all that is theirs alone, large values, audit records.

A run that has not ended is never touched, however old it is. Of one that has, the engine's records go first: whatever
cuts the removal off leaves a run that is removed the next time. Then, in one transaction, whatever names the run: its
events, questions, delegations, waits, webhooks, and its use of large values. A large value goes when no run uses it,
and so does what was counted below the calls of agents (`guards`). Events from outside go with the runs of their age.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import anyio
import anyio.to_thread
import sqlalchemy as sa
import structlog
from sqlalchemy import Connection, delete, func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from interhub.registry import DatabaseError
from interhub.registry.database import (
    audit,
    blob_uses,
    blobs,
    database_errors,
    deliveries,
    metadata,
    occurrences,
    reading,
    runs,
    tree_accounts,
    writing,
)

from .durable import Engine
from .run import RunState

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is to be removed. A rule that is None removes nothing."""

    runs_days: float | None = None
    """Days after its end."""
    runs_per_tenant: int | None = None
    """Runs that have ended that are kept of each tenant, the newest."""
    audit_days: float | None = None

    @property
    def any(self) -> bool:
        """True when something may be removed."""
        return (self.runs_days, self.runs_per_tenant, self.audit_days) != (None, None, None)


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What was removed, or would be."""

    runs: int = 0
    events: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    audit: int = 0
    oldest: datetime | None = None
    """End of the run that ended first among them."""


class Retention:
    """Removes by rules."""

    def __init__(self, *, database: sa.Engine, engine: Engine) -> None:
        self._database = database
        self._engine = engine

    async def collect(self, rules: Rules, *, dry_run: bool = False) -> Removed:
        """Remove what the rules say, or only count it.

        Raises:
            DatabaseUnusable: the database cannot be read or written.
        """
        now = datetime.now(UTC)
        found = await anyio.to_thread.run_sync(self._found, rules, now)
        removed = await anyio.to_thread.run_sync(self._counted, found, rules, now)
        if dry_run:
            return removed
        for begin in range(0, len(found), _BATCH):
            part = found[begin : begin + _BATCH]
            await self._engine.forget(part)
            await anyio.to_thread.run_sync(self._forget, part)
        await anyio.to_thread.run_sync(self._sweep, rules, now)
        if removed.runs or removed.audit or removed.blobs:
            log.info("removed", runs=removed.runs, events=removed.events, blobs=removed.blobs, audit=removed.audit)
        return removed

    async def run(self, rules: Rules, every_s: float) -> None:
        """Remove again and again, until cancelled; of several replicas one at a time does it."""
        while True:
            try:
                turn = await anyio.to_thread.run_sync(_take_turn, self._database)
                if turn is not None:
                    try:
                        await self.collect(rules)
                    finally:
                        with anyio.CancelScope(shield=True):
                            await anyio.to_thread.run_sync(turn)
            except (DatabaseError, SQLAlchemyError) as error:
                log.warning("nothing_removed", why=str(error).partition("\n")[0])
            await anyio.sleep(every_s)

    def _found(self, rules: Rules, now: datetime) -> Sequence[str]:
        """Return the runs to remove, those that ended first before the others."""
        with reading(self._database) as connection:
            return list(connection.execute(_to_remove(rules, now).order_by(runs.c.ended_at, runs.c.id)).scalars())

    def _counted(self, found: Sequence[str], rules: Rules, now: datetime) -> Removed:
        events = metadata.tables["events"]
        told, oldest = 0, None
        with reading(self._database) as connection:
            for begin in range(0, len(found), _BATCH):
                part = found[begin : begin + _BATCH]
                told += connection.execute(
                    select(func.count()).select_from(events).where(events.c.run_id.in_(part))
                ).scalar_one()
            if found:
                oldest = connection.execute(select(runs.c.ended_at).where(runs.c.id == found[0])).scalar()
            # By the rules again, not by `found`: a statement has 65,535 parameters at most (PostgreSQL).
            used = select(blob_uses.c.blob_id).where(
                blob_uses.c.blob_id == blobs.c.id, blob_uses.c.run_id.not_in(_to_remove(rules, now))
            )
            query = select(func.count(), func.coalesce(func.sum(blobs.c.size), 0)).where(
                blobs.c.created_at < now - _GRACE, ~used.exists()
            )
            count, size = connection.execute(query).one() if rules.any else (0, 0)
            records = 0
            if rules.audit_days is not None:
                old = audit.c.at < now - timedelta(days=rules.audit_days)
                records = connection.execute(select(func.count()).select_from(audit).where(old)).scalar_one()
        return Removed(runs=len(found), events=told, blobs=count, blob_bytes=int(size), audit=records, oldest=oldest)

    def _forget(self, run_ids: Sequence[str]) -> None:
        with writing(self._database) as connection:
            still = select(runs.c.id).where(runs.c.id.in_(run_ids), runs.c.state.in_(_ENDED))
            gone = list(connection.execute(still).scalars())
            for table in metadata.sorted_tables:
                if "run_id" in table.c:
                    connection.execute(delete(table).where(table.c.run_id.in_(gone)))
            connection.execute(delete(runs).where(runs.c.id.in_(gone)))

    def _sweep(self, rules: Rules, now: datetime) -> None:
        with writing(self._database) as connection:
            if rules.any:
                self._sweep_blobs(connection, now)
                _sweep_accounts(connection, now)
            if rules.runs_days is not None:
                _sweep_events(connection, now - timedelta(days=rules.runs_days))
        if rules.audit_days is not None:
            self._sweep_audit(now - timedelta(days=rules.audit_days))

    def _sweep_audit(self, before: datetime) -> None:
        """Remove old records slice by slice, until none of a slice is: they are in the order of time, nearly."""
        after = 0
        while True:
            with writing(self._database) as connection:
                some = select(audit.c.id).where(audit.c.id > after).order_by(audit.c.id).limit(_SLICE).subquery()
                last = connection.execute(select(func.max(some.c.id))).scalar()
                if last is None:
                    return
                old = audit.c.id > after, audit.c.id <= last, audit.c.at < before
                if not connection.execute(delete(audit).where(*old)).rowcount:
                    return
            after = last

    def _sweep_blobs(self, connection: Connection, now: datetime) -> None:
        # One that is put again meanwhile has a new time, which is looked at again when its row is locked.
        used = select(blob_uses.c.blob_id).where(blob_uses.c.blob_id == blobs.c.id)
        connection.execute(delete(blobs).where(blobs.c.created_at < now - _GRACE, ~used.exists()))


def _to_remove(rules: Rules, now: datetime) -> sa.Select[str]:
    """Return the query for the ids of the runs to remove."""
    reasons: list[sa.ColumnElement[bool]] = [sa.false()]
    ended = runs.c.state.in_(_ENDED) & runs.c.ended_at.is_not(None)
    if rules.runs_days is not None:
        reasons.append(runs.c.ended_at < now - timedelta(days=rules.runs_days))
    if rules.runs_per_tenant is not None:
        newest = func.row_number().over(partition_by=runs.c.tenant, order_by=(runs.c.ended_at.desc(), runs.c.id))
        ranked = select(runs.c.id, newest.label("place")).where(ended).subquery()
        reasons.append(runs.c.id.in_(select(ranked.c.id).where(ranked.c.place > rules.runs_per_tenant)))
    return select(runs.c.id).where(ended, or_(*reasons))


def _sweep_accounts(connection: Connection, now: datetime) -> None:
    """Remove what was counted below calls of runs that are gone, and of direct calls that ended long ago."""
    run = select(runs.c.id).where(runs.c.id == func.substr(tree_accounts.c.key, 1, _RUN_ID))
    connection.execute(delete(tree_accounts).where(tree_accounts.c.updated_at < now - _ACCOUNT_GRACE, ~run.exists()))


def _sweep_events(connection: Connection, before: datetime) -> None:
    """Remove events from outside, and what was delivered of them; none that is still to be delivered."""
    old = deliveries.c.taken_at < before
    connection.execute(delete(deliveries).where(old, deliveries.c.state != "open"))
    left = select(deliveries.c.occurrence).where(
        deliveries.c.tenant == occurrences.c.tenant,
        deliveries.c.source == occurrences.c.source,
        deliveries.c.occurrence == occurrences.c.id,
    )
    connection.execute(delete(occurrences).where(occurrences.c.taken_at < before, ~left.exists()))


def _take_turn(database: sa.Engine) -> Callable[[], None] | None:
    """Return what ends this replica's turn, or None when it is another's: PostgreSQL takes it back from who dies."""
    if database.dialect.name != "postgresql":
        return lambda: None
    with database_errors(database):
        connection = database.connect()
        connection.detach()  # the lock is the connection's, so this one is not given back to the pool
        connection.execution_options(isolation_level="AUTOCOMMIT")
        if connection.execute(sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}).scalar():
            return connection.close
        connection.close()
        return None


_ENDED = [state.value for state in RunState if state.ended]
_BATCH = 200
_SLICE = 10_000
"""Audit records that one transaction removes: others that write wait for it."""
_GRACE = timedelta(hours=1)
"""A large value may be put before the run that uses it is on record as doing so; none is removed so soon."""
_ACCOUNT_GRACE = timedelta(days=1)
"""No direct call lasts as long."""
_RUN_ID = 36
"""Characters of a run's id, with which the keys of its calls begin."""
_LOCK = 0x696E7465726763
"""Key of the advisory lock under which one replica removes ("intergc")."""
