"""The records of the durable engine, written by one thread, as many as wait in one transaction (ADR 0007).

A record is durable before whoever made it goes on. Those that are made meanwhile, by other branches and other runs,
share the next transaction: a disk that takes a millisecond to keep a thing takes as long to keep a hundred. Each is
fenced as the engine's own are: a run that another process has taken over takes no more records from this one.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast

import orjson
import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError

log = structlog.get_logger()

T = TypeVar("T")

Change: TypeAlias = Callable[[sa.Connection], object]
"""Something else to write. It raises before it has changed anything, or not at all; it may run twice."""


class OwnerLost(Exception):
    """Another execution has taken the run over, or it was cancelled: nothing this one does counts any more."""


class RecordedOtherwise(Exception):
    """There is another record under the number: the run does not do the same things in the same order."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What one recorded call of a run gave."""

    run_id: str
    """The run or child run."""
    owner: str
    """The token of the execution that makes it."""
    number: int
    """In the order of the run's calls, from 1."""
    name: str
    output: str
    """As JSON."""
    started_ms: int
    """Since the epoch, as `ended_ms`."""
    ended_ms: int


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a run or child run ended."""

    run_id: str
    owner: str
    status: str
    output: str | None
    error: str | None
    at_ms: int


@dataclass(frozen=True, kw_only=True)
class Known:
    """A record as it is found again."""

    name: str
    output: str | None
    error: str | None
    serialization: str | None


@dataclass(frozen=True)
class _Item:
    what: "Checkpoint | Change"
    settle: "Callable[[object, BaseException | None], None]"


class Checkpoints:
    """Writes and reads the records of runs in the engine's tables. Close it when nothing is executed any more."""

    def __init__(
        self,
        database: sa.Engine,
        *,
        serialization: str,
        application: str,
        passing: Callable[[Exception], bool],
    ) -> None:
        """`passing` says which errors a second try may not have."""
        self._database = database
        self._sqlite = database.dialect.name == "sqlite"
        self._serialization = serialization
        self._application = application
        self._passing = passing
        self._inbox: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="interhub-checkpoints", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and end. What the database does not take now is done again by the next process."""
        self._closing.set()
        self._inbox.put(None)
        self._thread.join()

    async def record(self, checkpoint: Checkpoint) -> None:
        """Keep a record, and return when it is durable.

        Raises:
            OwnerLost: the run is no longer this execution's.
            RecordedOtherwise: the number is taken.
        """
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()

        def settled(error: BaseException | None) -> None:
            if waiting.done():
                return
            if error is not None:
                waiting.set_exception(error)
                waiting.exception()  # looked at, as asyncio wants it: a caller that was cancelled does not
            else:
                waiting.set_result(None)

        def settle(result: object, error: BaseException | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settled, error)

        self._inbox.put(_Item(checkpoint, settle))
        # Shielded: a cancelled caller must not take back what is being written.
        await asyncio.shield(waiting)

    def write(self, change: Callable[[sa.Connection], T]) -> T:
        """Write something else with the records, and return what it gives. For threads other than the loop's."""
        waiting: Future[T] = Future()
        if self._closing.is_set():
            raise OwnerLost("the engine stops")

        def settle(result: object, error: BaseException | None) -> None:
            if error is not None:
                waiting.set_exception(error)
            else:
                waiting.set_result(cast("T", result))

        self._inbox.put(_Item(change, settle))
        return waiting.result()

    def end(self, connection: sa.Connection, ending: Ending) -> bool:
        """Write how a run ended, in a `write`; False when it is no longer this execution's."""
        at = ending.at_ms
        given = (ending.status, at, at, ending.run_id, ending.owner)
        if connection.exec_driver_sql(self._sql(_END), given).rowcount != 1:
            return False
        connection.exec_driver_sql(self._sql(_OUTPUT), (ending.run_id, ending.output, ending.error))
        return True

    def known(self, run_id: str) -> Mapping[int, Known]:
        """Return the records of a run by number; blocks."""
        while True:
            try:
                with self._database.connect() as connection:
                    rows = connection.exec_driver_sql(self._sql(_KNOWN), (run_id,)).all()
                break
            except Exception as error:
                if not self._passing(error) or self._closing.is_set():
                    raise
                self._closing.wait(_RETRY_S)
        return {row[0]: Known(name=row[1], output=row[2], error=row[3], serialization=row[4]) for row in rows}

    # The writer's thread

    def _write_all(self) -> None:
        ended = False
        while not ended:
            batch: list[_Item] = []
            item = self._inbox.get()
            while True:
                if item is None:
                    ended = True
                else:
                    batch.append(item)
                if len(batch) >= _BATCH or self._inbox.empty():
                    break
                item = self._inbox.get()
            if batch:
                self._commit(batch)
        while not self._inbox.empty():
            late = self._inbox.get()
            if late is not None and not isinstance(late.what, Checkpoint):
                late.settle(None, OwnerLost("the engine stops"))

    def _commit(self, batch: list[_Item]) -> None:
        tries = 0
        while True:
            try:
                outcomes = self._transaction(batch)
                break
            except Exception as error:
                if self._passing(error) and not self._closing.is_set():
                    tries += 1
                    log.warning(
                        "checkpoints_wait_for_the_database", items=len(batch), why=str(error).partition("\n")[0]
                    )
                    self._closing.wait(min(_RETRY_S * tries, _MOST_RETRY_S))
                    continue
                if self._passing(error):
                    log.warning("checkpoints_given_up", items=len(batch), why=_line(error))
                    # Whoever waits for a record is being stopped, and must not take this for the step's failure.
                    batch = [item for item in batch if not isinstance(item.what, Checkpoint)]
                    outcomes = [(None, error)] * len(batch)
                    break
                if len(batch) > 1:  # one of them is bad: the others must not suffer
                    for item in batch:
                        self._commit([item])
                    return
                outcomes = [(None, error)]
                break
        for item, (result, problem) in zip(batch, outcomes, strict=True):
            item.settle(result, problem)

    def _transaction(self, batch: Sequence[_Item]) -> list[tuple[object, BaseException | None]]:
        with self._database.connect() as connection, connection.begin():
            if self._sqlite:
                # The driver begins a transaction only at the first change, and the owners are read before.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            outcomes: list[tuple[object, BaseException | None]] = []
            changes = [item for item in batch if not isinstance(item.what, Checkpoint)]
            given: dict[int, tuple[object, BaseException | None]] = {}
            for item in changes:
                try:
                    given[id(item)] = (cast("Change", item.what)(connection), None)
                except Exception as error:
                    if isinstance(error, DBAPIError):  # the transaction itself may be broken by it
                        raise
                    given[id(item)] = (None, error)
            refused = self._insert(connection, [item.what for item in batch if isinstance(item.what, Checkpoint)])
            for item in batch:
                if isinstance(item.what, Checkpoint):
                    outcomes.append((None, refused.get((item.what.run_id, item.what.number))))
                else:
                    outcomes.append(given[id(item)])
        return outcomes

    def _insert(self, connection: sa.Connection, made: Sequence[Checkpoint]) -> dict[tuple[str, int], BaseException]:
        """Insert records, and return why some were refused."""
        refused: dict[tuple[str, int], BaseException] = {}
        if not made:
            return refused
        owners = self._owners(connection, sorted({one.run_id for one in made}))
        taken: list[Checkpoint] = []
        for one in made:
            if owners.get(one.run_id) == one.owner:
                taken.append(one)
            else:
                refused[one.run_id, one.number] = OwnerLost(one.run_id)
        if not taken:
            return refused
        rows = [
            (
                one.run_id,
                one.number,
                one.name,
                one.started_ms,
                one.ended_ms,
                one.output,
                self._serialization,
                self._application,
                one.ended_ms,
            )
            for one in taken
        ]
        written = connection.exec_driver_sql(self._sql(_INSERT), rows, execution_options={"preserve_rowcount": True})
        if written.rowcount == len(rows):
            return refused
        for one in taken:  # some were there: our own, of a commit whose answer was lost, or another's
            found = connection.exec_driver_sql(self._sql(_ENDED), (one.run_id, one.number)).one()
            if found != (one.name, one.ended_ms):
                refused[one.run_id, one.number] = RecordedOtherwise(one.run_id, one.number, one.name, found[0])
        return refused

    def _owners(self, connection: sa.Connection, run_ids: list[str]) -> Mapping[str, str | None]:
        """Return who owns runs."""
        statement = _OWNERS_SQLITE if self._sqlite else _OWNERS_POSTGRES
        given: tuple[object] = (orjson.dumps(run_ids).decode() if self._sqlite else run_ids,)
        rows = connection.exec_driver_sql(self._sql(statement), given)
        return {row[0]: row[1] for row in rows}

    def _sql(self, statement: str) -> str:
        return statement.replace("dbos.", "") if self._sqlite else statement.replace("?", "%s")


# Over the engine's tables, as DBOS 3.4 lays them out. They are in its schema on PostgreSQL, in none on SQLite.
_INSERT = (
    "INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, function_name, started_at_epoch_ms, "
    "completed_at_epoch_ms, output, serialization, application_name, retention_timestamp) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_ENDED = (
    "SELECT function_name, completed_at_epoch_ms FROM dbos.operation_outputs "
    "WHERE workflow_uuid = ? AND function_id = ?"
)
_KNOWN = (
    "SELECT function_id, function_name, output, error, serialization FROM dbos.operation_outputs "
    "WHERE workflow_uuid = ?"
)
_END = (
    "UPDATE dbos.workflow_status SET status = ?, deduplication_id = NULL, owner_xid = NULL, updated_at = ?, "
    "completed_at = ? WHERE workflow_uuid = ? AND status = 'PENDING' AND owner_xid = ?"
)
_OUTPUT = (
    "INSERT INTO dbos.workflow_output (workflow_uuid, output, error) VALUES (?, ?, ?) "
    "ON CONFLICT (workflow_uuid) DO UPDATE SET output = excluded.output, error = excluded.error"
)
_OWNERS_SQLITE = (
    "SELECT workflow_uuid, owner_xid FROM dbos.workflow_status WHERE workflow_uuid IN (SELECT value FROM json_each(?))"
)
# Locked, so that nobody takes them over meanwhile, and in order, so that two processes cannot wait for each other.
_OWNERS_POSTGRES = (
    "SELECT workflow_uuid, owner_xid FROM dbos.workflow_status WHERE workflow_uuid = ANY(?) "
    "ORDER BY workflow_uuid FOR NO KEY UPDATE"
)

_BATCH = 200
_RETRY_S = 0.1
_MOST_RETRY_S = 1.0


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def now_ms() -> int:
    """Return the time in milliseconds since the epoch."""
    return int(time.time() * 1000)
