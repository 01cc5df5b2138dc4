"""The audit log in the database: records are taken in memory and written in batches by a thread of their own."""

import sqlite3
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC
from types import TracebackType
from typing import Self, TypeAlias, cast

import orjson
import structlog
from sqlalchemy import Engine, insert
from sqlalchemy.exc import SQLAlchemyError

from interhub.registry import DatabaseError
from interhub.registry.database import audit, dump_json, keepable, writing

from .audit import AuditRecord

log = structlog.get_logger()


_Row: TypeAlias = tuple[object, ...] | dict[str, object]
"""A record as it is written: to SQLite by its values, else by its columns."""


class SqlAuditLog:
    """Keeps audit records in the table `audit`. A context manager; leaving it writes what is left.

    A record is in the database within `linger_s` of its call's end, or lost with the process. When the database cannot
    be written, records are kept and tried again, up to `capacity`; beyond that the oldest are dropped and the log says
    how many.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        batch: int = 2000,
        linger_s: float = 0.25,
        retry_s: float = 2.0,
        capacity: int = 100_000,
    ) -> None:
        self._engine = engine
        self._batch = batch
        self._linger_s = linger_s
        self._retry_s = retry_s
        self._on_sqlite = engine.dialect.name == "sqlite"
        self._waiting: deque[_Row] = deque(maxlen=capacity)
        self._capacity = capacity
        self._dropped = 0
        self._some = threading.Event()
        self._closing = threading.Event()
        self._idle = threading.Condition()
        self._writing = False
        # `__exit__` joins it; a daemon only so that a crash elsewhere does not hang the process.
        self._thread = threading.Thread(target=self._write_all, name="audit", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._some.set()
        self._thread.join(timeout=10.0)

    def append(self, record: AuditRecord) -> None:
        """Take one record: an append to a list in memory.

        What can be done here is not left to the thread that writes: one that waits for the interpreter's lock makes
        every system call of the loop's thread cost another, which wakes it in vain (docs/adr/0009).
        """
        if len(self._waiting) == self._capacity:
            self._dropped += 1
        self._waiting.append(_sqlite_row(record) if self._on_sqlite else _row(record))
        if not self._some.is_set():  # to set it takes a lock; whoever clears it looks for records after that
            self._some.set()

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until what was appended before has been written; False when the time was up first."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._waiting and not self._writing, timeout_s)

    def _write_all(self) -> None:
        while True:
            self._some.wait()
            if not self._closing.is_set():
                self._closing.wait(self._linger_s)  # let a batch gather
            self._some.clear()
            while self._waiting:
                self._writing = True
                taken = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
                if not self._written(taken):
                    # Put back, oldest first; what no longer fits is lost.
                    room = self._capacity - len(self._waiting)
                    self._dropped += max(0, len(taken) - room)
                    self._waiting.extendleft(reversed(taken[-room:] if room else []))
                    if self._closing.is_set():
                        log.error("audit_records_lost", records=len(self._waiting))
                        return
                    self._closing.wait(self._retry_s)
            with self._idle:
                self._writing = False
                self._idle.notify_all()
            if self._dropped:
                log.error("audit_records_dropped", records=self._dropped)
                self._dropped = 0
            if self._closing.is_set() and not self._waiting:
                return

    def _written(self, records: Sequence[_Row]) -> bool:
        try:
            if self._on_sqlite:
                # As one statement past SQLAlchemy, which is a transaction of its own: for each, sqlite3 lets go of the
                # interpreter's lock several times, and then waits for it (`append`).
                with closing(self._engine.raw_connection()) as connection:
                    connection.cursor().execute(_INTO_SQLITE, (orjson.dumps(records).decode(),))
            else:
                with writing(self._engine) as connection:
                    connection.execute(insert(audit), cast("Sequence[dict[str, object]]", records))
        except (DatabaseError, SQLAlchemyError, sqlite3.Error) as error:
            log.warning("audit_write_failed", records=len(records), why=str(error).partition("\n")[0])
            return False
        except Exception:  # a record that cannot be written must not end the thread that writes the others
            log.exception("audit_records_unwritable", records=len(records))
        return True


_INTO_SQLITE = """
INSERT INTO audit (at, tenant, subject, action, target, decision, outcome, duration_ms, detail)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
       json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
       json_extract(value, '$[6]'), json_extract(value, '$[7]'), json_extract(value, '$[8]')
FROM json_each(?)
"""
"""Inserts any number of rows, given as JSON."""


def _sqlite_row(record: AuditRecord) -> tuple[object, ...]:
    """Return a record as `_row` is bound, at half of the cost, which is that of every call (docs/adr/0009)."""
    return (
        record.at.astimezone(UTC).isoformat(" ", "microseconds")[:26],
        keepable(record.tenant),
        keepable(record.subject),
        record.action,
        keepable(record.target),
        record.decision,
        record.outcome,
        round(record.duration_ms),
        dump_json(dict(record.detail)),
    )


def _row(record: AuditRecord) -> dict[str, object]:
    return {
        "at": record.at,
        "tenant": record.tenant,
        "subject": record.subject,
        "action": record.action,
        "target": record.target,
        "decision": record.decision,
        "outcome": record.outcome,
        "duration_ms": round(record.duration_ms),
        "detail": dict(record.detail),
    }
