"""The durable engine: DBOS Transact behind our port. The only file that imports it (ADR 0002).

What is relied on beside its documentation is proved by the kill test: a call's number is drawn in the first slice of
its coroutine; `asyncio_wait` records which tasks had ended.
"""

import asyncio
import logging
import os
import sqlite3
import sys
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, ClassVar, cast

import anyio.to_thread
import psycopg
import sqlalchemy as sa
import structlog
from dbos import (
    DBOS,
    DBOSConfig,
    DBOSPortableJSONSerializer,
    SetWorkflowID,
    StepOptions,
)
from dbos import _migration as dbos_migration  # pyright: ignore[reportPrivateUsage] -- see _suit_old_sqlite
from dbos import _serialization as dbos_serialization  # pyright: ignore[reportPrivateUsage] -- see _refuse_pickle
from dbos import _sys_db as dbos_sys_db  # pyright: ignore[reportPrivateUsage] -- see _suit_old_sqlite
from dbos import error as dbos_error

from interhub.agent_cards import Json, JsonObject
from interhub.registry.database import postgres_connector

from .durable import Body, Branch, Crashed, EngineState, Execute, TaskBranch

APPLICATION_VERSION = "interhub-plan-1"
"""Of the interpreter: runs of another one are left alone. DBOS's own default changes with every edit of the code."""

_ENDING_S = 0.1

log = structlog.get_logger()


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what DBOS logs as an error when a run is cancelled: that is no error, and the journal tells it."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, dbos_error.DBOSAwaitedWorkflowCancelledError)


def _refuse_pickle(serializer: object, data: str) -> Any:
    raise ValueError("the engine's database holds a pickled value; interhub writes none and reads none")


# Every row names its serializer, and DBOS would unpickle a row that says so: whoever can write the file could run code.
dbos_serialization.DefaultSerializer.deserialize = _refuse_pickle  # type: ignore[method-assign,assignment] # on purpose


def _suit_old_sqlite() -> None:
    """Have DBOS tell the time as SQLite before 3.42 can.

    It should look at SQLite's version, but takes Python 3.12 for a sign of SQLite 3.42: `unixepoch('subsec')` is NULL
    before that, and no table of its takes NULL for a time. What it does below Python 3.12 is right for these.
    """
    new, old = "(unixepoch('subsec') * 1000)", "(strftime('%s','now') * 1000)"
    dbos_migration.sqlite_migrations[:] = [
        migration.replace(new, old) for migration in dbos_migration.sqlite_migrations
    ]

    def now_ms(self: dbos_sys_db.SystemDatabase) -> sa.ColumnElement[int]:
        if self.engine.dialect.name == "sqlite":
            return sa.cast(sa.func.strftime("%s", "now") * 1000, sa.BigInteger)
        return sa.cast(sa.func.extract("epoch", sa.func.now()) * 1000, sa.BigInteger)

    dbos_sys_db.SystemDatabase._now_ms_sql = now_ms  # type: ignore[method-assign]  # see above


if sys.version_info >= (3, 12) and sqlite3.sqlite_version_info < (3, 42):
    _suit_old_sqlite()


class _Execution:
    """One execution of a workflow."""

    def __init__(self, run_id: str, *, recovered: bool) -> None:
        self._id = run_id
        self._recovered = recovered
        self._open: list[TaskBranch] = []

    @property
    def id(self) -> str:
        return self._id

    @property
    def recovered(self) -> bool:
        return self._recovered

    async def step(self, name: str, body: Body) -> Json:
        async def run() -> Json:
            return await body()

        options = StepOptions(name=name, preemptible=True)
        return await DBOS.run_step_async(options, run)

    async def begin_step(self, name: str, body: Body) -> Branch:
        return await self._begin(self.step(name, body))

    async def begin_child(self, child_id: str, given: JsonObject) -> Branch:
        async def child() -> Json:
            try:
                with SetWorkflowID(child_id):
                    return cast("Json", await _workflow()(dict(given)))
            except dbos_error.DBOSAwaitedWorkflowCancelledError:
                return {"ok": False, "error": {"reason": "CANCELED", "message": "it was cancelled"}}
            except Exception as error:
                # Told by class only: on a replay the engine gives another class and text for the same failure.
                log.warning("child_run_broke", run=child_id, error=repr(error))
                return {"ok": False, "error": {"reason": "INTERNAL", "message": "the hub failed; its log says why"}}

        return await self._begin(child())

    async def begin_receive(self, topic: str, timeout_s: float) -> Branch:
        return await self._begin(DBOS.recv_async(topic, timeout_seconds=timeout_s))

    async def wait(self, branches: Sequence[Branch]) -> tuple[Branch, ...]:
        tasks = [cast("TaskBranch", branch).task for branch in branches]
        done, _ = await DBOS.asyncio_wait(list(tasks), return_when=asyncio.FIRST_COMPLETED)
        return tuple(branch for branch, task in zip(branches, tasks, strict=True) if task in done)

    async def cancel_child(self, child_id: str) -> None:
        await DBOS.cancel_workflow_async(child_id, cancel_children=True)

    async def close(self) -> None:
        for branch in self._open:
            await branch.drop()

    async def _begin(self, work: Coroutine[Any, Any, Json]) -> Branch:
        branch = TaskBranch(work)
        self._open.append(branch)
        await asyncio.sleep(0)  # its first slice, in which it draws its number, comes before anything else
        return branch


class DbosEngine:
    """Runs as DBOS workflows, in one SQLite file or a Postgres database. One at a time in a process.

    On SQLite one process at a time may use the file: the hub holds a lock on its data directory.
    """

    _running: ClassVar["DbosEngine | None"] = None

    def __init__(self, url: str, *, executor_id: str = "local", threads: int = 16) -> None:
        """`executor_id` names the process whose runs are taken up again at launch."""
        self.url = url
        """Of the engine's database, as SQLAlchemy writes it."""
        self._executor_id = executor_id
        self._threads = threads
        self._execute: Execute | None = None
        self._crashed: Crashed | None = None
        self._stopping = False
        self._own: set[str] = set()
        self._executing: set[asyncio.Task[Any]] = set()

    async def launch(self, execute: Execute, crashed: Crashed) -> None:
        """Begin, on the running event loop."""
        assert DbosEngine._running is None, "one engine at a time in a process"
        self._execute, self._crashed = execute, crashed
        self._stopping = False
        sqlite = self.url.startswith("sqlite")
        if sqlite:
            await anyio.to_thread.run_sync(_prepare_file, self.url)
        config = DBOSConfig(
            name="interhub",
            system_database_url=self.url,
            executor_id=self._executor_id,
            application_version=APPLICATION_VERSION,
            serializer=DBOSPortableJSONSerializer(),
            sys_db_idle_transaction_timeout_sec=5.0,
            notification_listener_polling_interval_sec=0.05 if sqlite else 1.0,
            scheduler_polling_interval_sec=60.0,
            max_executor_threads=self._threads,
            log_level="ERROR",
        )
        if not sqlite:
            config["db_engine_kwargs"] = {"creator": self._connector()}
        _workflow()
        DBOS(config=config)
        logger = logging.getLogger("dbos")
        logger.setLevel(logging.CRITICAL)  # what launching raises is said by who catches it, not by DBOS as well
        logger.addFilter(_is_news)
        DbosEngine._running = self
        # On this loop, so that runs which are taken up share it with the connections they use.
        DBOS.launch()
        logger.setLevel(logging.ERROR)

    async def start(self, run_id: str, given: JsonObject) -> None:
        """Start a run. The same id again changes nothing."""
        self._own.add(run_id)
        with SetWorkflowID(run_id):
            await DBOS.start_workflow_async(_workflow(), dict(given))

    async def send(self, run_id: str, topic: str, message: Json, key: str) -> None:
        """Send a message to a run or child run; the same key again changes nothing."""
        await DBOS.send_async(run_id, message, topic, idempotency_key=key)

    async def cancel(self, run_id: str) -> None:
        """Cancel a run and its children."""
        await DBOS.cancel_workflow_async(run_id, cancel_children=True)

    async def states(self, run_ids: Collection[str]) -> Mapping[str, EngineState]:
        """Return how runs stand; those it has never heard of are missing."""
        known: dict[str, EngineState] = {}
        ids = list(run_ids)
        for begin in range(0, len(ids), 200):
            part = ids[begin : begin + 200]
            for status in await DBOS.list_workflows_async(workflow_ids=part, load_input=False, load_output=False):
                known[status.workflow_id] = _STATES.get(status.status, EngineState.BROKEN)
        return known

    async def result(self, run_id: str) -> JsonObject | None:
        """Return what a run that is done returned; None for any other."""
        found = await DBOS.list_workflows_async(workflow_ids=[run_id], load_input=False)
        if not found or found[0].status != "SUCCESS":
            return None
        return cast("JsonObject", found[0].output)

    async def stop(self) -> None:
        """End. Runs under way stay so and are taken up by the next process."""
        self._stopping = True
        if self._executing:
            # A run whose last step is done is about to be recorded as ended; cut off, it would be replayed next time.
            await asyncio.wait(tuple(self._executing), timeout=_ENDING_S, return_when=asyncio.ALL_COMPLETED)
        remaining = tuple(self._executing)
        for task in remaining:
            task.cancel()
        if remaining:
            await asyncio.wait(remaining, timeout=5.0)
        if DbosEngine._running is self:
            DbosEngine._running = None
            await anyio.to_thread.run_sync(_destroy)

    def _connector(self) -> Callable[[], object]:
        """Return how DBOS connects to a PostgreSQL server: while this is away runs stand still, however long that is.

        DBOS would wait as well, but only where a message has the words "connection failed", not for a missing socket or
        host name, where it fails the run; and it sleeps up to 90 s at a time, also when the hub is to stop.
        """
        connect = postgres_connector(
            sa.make_url(self.url).set(drivername="postgresql+psycopg"), patience_s=inf, given_up=lambda: self._stopping
        )

        def attempt() -> object:
            try:
                return connect()
            except psycopg.OperationalError as error:
                if self._stopping:
                    raise psycopg.InterfaceError(f"the engine stops: {error}") from error  # DBOS lets this one pass
                raise psycopg.OperationalError(f"connection failed: {error}") from error

        return attempt

    async def run(self, given: dict[str, Any]) -> dict[str, Any]:
        """Execute one workflow: called by DBOS."""
        run_id = DBOS.workflow_id
        assert run_id is not None, "a workflow has an id"
        assert self._execute is not None, "the engine was launched"
        assert self._crashed is not None, "the engine was launched"
        root = run_id.partition(".")[0]
        execution = _Execution(run_id, recovered=root not in self._own)
        task = asyncio.current_task()
        if task is not None and task not in self._executing:
            self._executing.add(task)
            task.add_done_callback(self._executing.discard)
        try:
            return dict(await self._execute(execution, given))
        except Exception as error:
            await self._crashed(run_id, given, error)
            raise
        finally:
            if root == run_id:
                self._own.discard(run_id)
            await execution.close()


_STATES: Mapping[str, EngineState] = {
    "ENQUEUED": EngineState.ACTIVE,
    "DELAYED": EngineState.ACTIVE,
    "PENDING": EngineState.ACTIVE,
    "SUCCESS": EngineState.DONE,
    "CANCELLED": EngineState.CANCELED,
}

_Workflow = Callable[[dict[str, Any]], Coroutine[Any, Any, dict[str, Any]]]
_registered: _Workflow | None = None


def _workflow() -> _Workflow:
    """Return the one workflow, registered once in a process: DBOS keeps its registry over engines."""
    global _registered
    if _registered is None:

        async def run(given: dict[str, Any]) -> dict[str, Any]:
            engine = DbosEngine._running  # pyright: ignore[reportPrivateUsage]
            assert engine is not None, "an engine is running"
            return await engine.run(given)

        _registered = DBOS.workflow(name="interhub.run", max_recovery_attempts=None)(run)
    return _registered


def _prepare_file(url: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path)
    try:
        # With DBOS's synchronous=FULL a write-ahead log is safe against loss of power, and twice as fast.
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def _destroy() -> None:
    DBOS.destroy(workflow_completion_timeout_sec=0)
