"""The durable engine: DBOS Transact behind our port. The only file that imports it (ADR 0002).

Steps are recorded by our own writer (`checkpoints`, ADR 0007), in DBOS's tables and under DBOS's numbers and owners;
children, messages and timers are DBOS's own. What is relied on beside its documentation is proved by the kill test: a
call's number is drawn in the first slice of its coroutine; a number, an owner and a token are where we look for them.
"""

import asyncio
import logging
import os
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, cast

import anyio.to_thread
import orjson
import psycopg
import sqlalchemy as sa
import structlog
from dbos import (
    DBOS,
    DBOSConfig,
    DBOSPortableJSONSerializer,
    SetEnqueueOptions,
    SetWorkflowID,
)
from dbos import _context as dbos_context  # pyright: ignore[reportPrivateUsage] -- see _Execution
from dbos import _core as dbos_core  # pyright: ignore[reportPrivateUsage] -- see _Execution
from dbos import _dbos as dbos_module  # pyright: ignore[reportPrivateUsage] -- see _dbos
from dbos import _migration as dbos_migration  # pyright: ignore[reportPrivateUsage] -- see _suit_old_sqlite
from dbos import _queue as dbos_queue  # pyright: ignore[reportPrivateUsage] -- see _register_queue
from dbos import _serialization as dbos_serialization  # pyright: ignore[reportPrivateUsage] -- see _refuse_pickle
from dbos import _sys_db as dbos_sys_db  # pyright: ignore[reportPrivateUsage] -- see _suit_old_sqlite
from dbos import _utils as dbos_utils  # pyright: ignore[reportPrivateUsage] -- see _passing
from dbos import error as dbos_error
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from interhub.agent_cards import Json, JsonObject
from interhub.registry.database import postgres_connector

from .checkpoints import Checkpoint, Checkpoints, Ending, Known, OwnerLost, RecordedOtherwise, now_ms
from .durable import Body, Branch, Crashed, EngineState, Execute, TaskBranch, is_within
from .membership import connections_of

APPLICATION_VERSION = "interhub-plan-1"
"""Of the interpreter: runs of another one are left alone. DBOS's own default changes with every edit of the code."""

QUEUE = "interhub.runs"
"""Runs of limited tenants wait here, in a partition for each; the calls they make wait elsewhere (`slots`)."""

_ENDING_S = 0.1
_DROPPING_S = 1.0
_LOOK_AGAIN_S = 600.0
"""After which a parked run on SQLite looks for a message by itself."""
_QUEUE_LOOK_S = 0.1
_IDLE_QUEUE_LOOK_S = 2.0
_UNLIMITED = 1_000_000

_ORPHANED = sa.text(
    "SELECT DISTINCT executor_id FROM dbos.workflow_status AS run "
    "WHERE status = 'PENDING' AND application_version = :version AND executor_id IS NOT NULL AND NOT EXISTS "
    "(SELECT 1 FROM replicas WHERE replicas.executor_id = run.executor_id AND NOT replicas.lost)"
)

log = structlog.get_logger()

Confirmed: TypeAlias = Callable[[], Awaitable[None]]
"""Returns when this process is known to be the one whose steps count (`Membership.confirmed`)."""


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """How many runs each tenant may have, over all replicas; those beyond wait in the tenant's own queue."""

    at_once: int | None = None
    """Under way at once; one that waits for a person counts."""
    starts: int | None = None
    """Started in `period_s`."""
    period_s: float = 60.0


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


_begun: ContextVar[str] = ContextVar("interhub_run_begun", default="")
"""The run, or child run, that the current task begins: executed under this very call it has no records yet."""


class _Execution:
    """One execution of a workflow.

    DBOS gives it its number for each call, and the token by which it owns the run. Its steps ask nobody what is known:
    a run that has just been begun has no records, and those of one that is taken up are read at its beginning, while
    nobody else may add any.
    """

    def __init__(
        self,
        run_id: str,
        *,
        checkpoints: Checkpoints,
        known: Mapping[int, Known],
        recovered: bool,
        confirmed: Confirmed | None,
        drop: Callable[[str], Awaitable[None]],
    ) -> None:
        context = dbos_context.assert_current_dbos_context()
        assert context.owner_xid is not None, "whoever executes a run owns it"
        self._id = run_id
        self._context = context
        self._owner = context.owner_xid
        self._checkpoints = checkpoints
        self._known = known
        self._recovered = recovered
        self._confirmed = confirmed
        self._drop = drop
        self._open: list[TaskBranch] = []
        self._at_work: set[asyncio.Task[Json]] = set()
        self._watch: asyncio.Future[None] | None = None

    @property
    def id(self) -> str:
        return self._id

    @property
    def recovered(self) -> bool:
        return self._recovered

    async def step(self, name: str, body: Body) -> Json:
        return await self._step(self._draw(), name, body)

    async def begin_step(self, name: str, body: Body) -> Branch:
        return await self._begin(self._step(self._draw(), name, body))

    def _draw(self) -> int:
        """Draw the number of the next call, as DBOS does for its own."""
        self._context.function_id += 1
        return self._context.function_id

    def _recorded(self, number: int, name: str) -> tuple[Json] | None:
        """Return what a call gave the first time; None where there is no record."""
        known = self._known.get(number)
        if known is None:
            return None
        if known.name != name:
            raise dbos_error.DBOSUnexpectedStepError(self._id, number, name, known.name)
        if known.output is None or known.serialization != _SERIALIZER.name():
            raise RecordedOtherwise(self._id, number, name, f"{known.name} of {known.serialization}")
        return (cast("Json", orjson.loads(known.output)),)

    async def _step(self, number: int, name: str, body: Body) -> Json:
        if (recorded := self._recorded(number, name)) is not None:
            return recorded[0]
        started_ms = now_ms()
        given = await self._carried_out(body)
        await self._record(number, name, given, started_ms)
        return given

    async def _carried_out(self, body: Body) -> Json:
        """Do what a step does, outside the run's own context, and stop it when the run is cancelled."""
        if self._confirmed is not None:
            await self._confirmed()
        outside = copy_context()
        outside.run(dbos_context._clear_local_dbos_context)  # pyright: ignore[reportPrivateUsage]
        task: asyncio.Task[Json] = asyncio.get_running_loop().create_task(_awaited(body), context=outside)
        if not self._at_work:
            watch: asyncio.Future[None] = _watcher().register(self._id, None)
            watch.add_done_callback(self._told_of_cancellation)
            self._watch = watch
        self._at_work.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
            raise
        finally:
            self._at_work.discard(task)
            if not self._at_work and self._watch is not None:
                _watcher().unregister(self._id, None, self._watch)
                self._watch = None

    def _told_of_cancellation(self, watch: "asyncio.Future[None]") -> None:
        if not watch.cancelled():
            for task in tuple(self._at_work):
                task.cancel()

    async def _record(self, number: int, name: str, given: Json, started_ms: int) -> None:
        try:
            await self._checkpoints.record(
                Checkpoint(
                    run_id=self._id,
                    owner=self._owner,
                    number=number,
                    name=name,
                    output=orjson.dumps(given).decode(),
                    started_ms=started_ms,
                    ended_ms=now_ms(),
                )
            )
        except OwnerLost as error:
            raise dbos_error.DBOSWorkflowConflictIDError(self._id) from error

    async def begin_child(self, child_id: str, given: JsonObject) -> Branch:
        async def child() -> Json:
            _begun.set(child_id)  # of this branch's own task; if it was begun before, DBOS only waits for it
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
        if len(tasks) == 1:  # which one ends first needs no record
            await asyncio.wait(tasks)
            return tuple(branches)
        number = self._draw()
        recorded = self._recorded(number, _WAIT)
        if recorded is None:
            started_ms = now_ms()
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ended = [place for place, task in enumerate(tasks) if task in done]
            await self._record(number, _WAIT, list(ended), started_ms)
        else:
            ended = cast("list[int]", recorded[0])
            await asyncio.wait([tasks[place] for place in ended])
        return tuple(branches[place] for place in ended)

    async def cancel_child(self, child_id: str) -> None:
        await DBOS.cancel_workflow_async(child_id, cancel_children=True)
        await self._drop(child_id)

    async def close(self) -> None:
        for branch in self._open:
            await branch.drop()

    async def _begin(self, work: Coroutine[Any, Any, Json]) -> Branch:
        branch = TaskBranch(work)
        self._open.append(branch)
        await asyncio.sleep(0)  # its first slice, in which it draws its number, comes before anything else
        return branch


_WAIT = "interhub.wait"
_SERIALIZER = DBOSPortableJSONSerializer()


async def _awaited(body: Body) -> Json:
    return await body()


def _watcher() -> Any:
    """Return DBOS's one poller of this loop, which asks once a second which runs were cancelled, elsewhere maybe."""
    return dbos_core._cancellation_watcher(_dbos())  # pyright: ignore[reportPrivateUsage]


def _dbos() -> Any:
    return dbos_module._get_dbos_instance()  # pyright: ignore[reportPrivateUsage]


class DbosEngine:
    """Runs as DBOS workflows, in one SQLite file or a Postgres database. One at a time in a process.

    On SQLite one process at a time may use the file: the hub holds a lock on its data directory.
    """

    _running: ClassVar["DbosEngine | None"] = None

    def __init__(
        self,
        url: str,
        *,
        executor_id: str = "local",
        threads: int = 16,
        limits: RunLimits | None = None,
        confirmed: Confirmed | None = None,
    ) -> None:
        """`executor_id` names the process whose runs are taken up again at launch.

        Of several that share a database each has another one, new at every start, with a lease (`membership`).
        """
        self.url = url
        """Of the engine's database, as SQLAlchemy writes it."""
        self._executor_id = executor_id
        self._limits = limits
        self._confirmed = confirmed
        self._threads = threads
        self._execute: Execute | None = None
        self._crashed: Crashed | None = None
        self._stopping = False
        self._checkpoints: Checkpoints | None = None
        self._executing: dict[asyncio.Task[Any], str] = {}
        """What executes runs and child runs here, and their ids."""

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
            serializer=_SERIALIZER,
            sys_db_idle_transaction_timeout_sec=5.0,
            notification_listener_polling_interval_sec=1.0,
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
        self._group_writes()
        if sqlite:
            self._look_for_no_messages()
        logger.setLevel(logging.ERROR)
        await self._register_queue()

    async def _register_queue(self) -> None:
        """Make the queue of limited runs; also without limits, so that what was queued under earlier ones is taken."""
        limits = self._limits or RunLimits()
        starts = limits.starts
        rate = None if starts is None else dbos_queue.QueueRateLimit(limit=starts, period=limits.period_s)
        await DBOS.register_queue_async(
            QUEUE,
            partition_concurrency=limits.at_once or _UNLIMITED,
            partition_limiter=rate,
            polling_interval_sec=_IDLE_QUEUE_LOOK_S if self._limits is None else _QUEUE_LOOK_S,
            on_conflict="always_update",
        )

    async def start(self, run_id: str, given: JsonObject, *, tenant: str = "") -> None:
        """Start a run, or queue it where its tenant's runs are limited. The same id again changes nothing."""
        if self._limits is not None:
            with SetWorkflowID(run_id), SetEnqueueOptions(queue_partition_key=tenant or "default"):
                await DBOS.enqueue_workflow_async(QUEUE, _workflow(), dict(given))
            return
        begun = _begun.set(run_id)  # the task that executes the run takes the context along
        try:
            with SetWorkflowID(run_id):
                await DBOS.start_workflow_async(_workflow(), dict(given))
        finally:
            _begun.reset(begun)

    async def send(self, run_id: str, topic: str, message: Json, key: str) -> None:
        """Send a message to a run or child run; the same key again changes nothing."""
        await DBOS.send_async(run_id, message, topic, idempotency_key=key)
        system = _dbos()._sys_db
        waits = system.notifications_map.get(system._waiter(run_id, topic)[0])
        if waits is not None:
            waits.set()

    async def cancel(self, run_id: str) -> None:
        """Cancel a run and its children."""
        await DBOS.cancel_workflow_async(run_id, cancel_children=True)

    async def drop(self, run_id: str) -> None:
        """End what executes a cancelled run and its children in this process.

        DBOS looks for a cancellation when a call is recorded, not while it waits for a message or a time: who waits
        would be kept until then. What is cancelled as a task is recorded by it in no way; the row says it already.
        """
        left = [task for task, name in self._executing.items() if is_within(name, run_id)]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_DROPPING_S)

    async def states(self, run_ids: Collection[str]) -> Mapping[str, EngineState]:
        """Return how runs stand; those it has never heard of are missing."""
        known: dict[str, EngineState] = {}
        ids = list(run_ids)
        for begin in range(0, len(ids), 200):
            part = ids[begin : begin + 200]
            for status in await DBOS.list_workflows_async(workflow_ids=part, load_input=False, load_output=False):
                known[status.workflow_id] = _STATES.get(status.status, EngineState.BROKEN)
        return known

    async def executors(self, run_id: str) -> frozenset[str]:
        """Return the executors of a run and its children that are under way."""
        found = await DBOS.list_workflows_async(
            workflow_id_prefix=run_id, status="PENDING", load_input=False, load_output=False
        )
        return frozenset(status.executor_id for status in found if status.executor_id)

    async def forget(self, run_ids: Collection[str]) -> None:
        """Remove what is recorded of runs that have ended, and of their children."""
        await DBOS.delete_workflows_async(list(run_ids), delete_children=True)

    def orphaned(self, connection: sa.Connection) -> Sequence[str]:
        """Return the executors that have runs under way, of this version, and no lease. Blocks; PostgreSQL only.

        It is one statement, so one view of both tables: whoever has a run under way had a lease before.
        """
        return list(connection.execute(_ORPHANED, {"version": APPLICATION_VERSION}).scalars())

    def take_over(self, executor_ids: Sequence[str]) -> int:
        """Put the runs under way of dead executors back to the queue, and return how many there were. Blocks.

        The engine's row names the executor, so that of several who do this at once none takes what another has begun.
        """
        # The one private call (ADR 0002): without Conductor nothing public recovers another executor's runs.
        handles = DBOS._recover_pending_workflows(list(executor_ids))  # pyright: ignore[reportPrivateUsage]
        return len(handles)

    async def recorded(self, run_id: str) -> Mapping[str, Json]:
        """Return what the steps of a run gave, by name, but for those of its children."""
        known = await anyio.to_thread.run_sync(self._checkpoints_of().known, run_id)
        ours = [one for one in known.values() if one.serialization == _SERIALIZER.name() and one.output is not None]
        return {one.name: cast("Json", orjson.loads(one.output or "null")) for one in ours}

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
            if self._checkpoints is not None:
                await anyio.to_thread.run_sync(self._checkpoints.close)
            await anyio.to_thread.run_sync(_destroy)

    def _connector(self) -> Callable[[], object]:
        """Return how DBOS connects to a PostgreSQL server: while this is away runs stand still, however long that is.

        DBOS would wait as well, but only where a message has the words "connection failed", not for a missing socket or
        host name, where it fails the run; and it sleeps up to 90 s at a time, also when the hub is to stop.
        """
        connect = postgres_connector(
            sa.make_url(self.url).set(drivername="postgresql+psycopg"),
            patience_s=inf,
            given_up=lambda: self._stopping,
            name=connections_of(self._executor_id),
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
        checkpoints = self._checkpoints_of()
        fresh = _begun.get() == run_id
        task = asyncio.current_task()
        if task is not None and task not in self._executing:
            self._executing[task] = run_id
            task.add_done_callback(self._executing.pop)
        known: Mapping[int, Known] = {} if fresh else await anyio.to_thread.run_sync(checkpoints.known, run_id)
        execution = _Execution(
            run_id,
            checkpoints=checkpoints,
            known=known,
            recovered=not fresh,
            confirmed=self._confirmed,
            drop=self.drop,
        )
        try:
            return dict(await self._execute(execution, given))
        except Exception as error:
            if not isinstance(error, dbos_error.DBOSWorkflowConflictIDError):  # then it is somebody else's to tell
                await self._crashed(run_id, given, error)
            raise
        finally:
            await execution.close()

    def _group_writes(self) -> None:
        """Have DBOS write the begin and end of runs through our writer: on SQLite two would wait for each other."""
        system, checkpoints = _dbos()._sys_db, self._checkpoints_of()

        def begin(status: Any, *, creator_xid: str | None, reuse_policy: Any = None) -> Any:
            def insert(connection: sa.Connection) -> Any:
                return system._insert_workflow_status(
                    status, connection, creator_xid=creator_xid, reuse_policy=reuse_policy
                )

            return checkpoints.write(insert)

        def end(
            workflow_id: str,
            status: str,
            *,
            output: str | None = None,
            error: str | None = None,
            owner_xid: str | None = None,
        ) -> bool:
            owner = owner_xid or dbos_context.current_owner_xid(workflow_id)
            if owner is None:
                written: bool = ends(workflow_id, status, output=output, error=error)
                return written
            ending = Ending(run_id=workflow_id, owner=owner, status=status, output=output, error=error, at_ms=now_ms())
            return checkpoints.write(lambda connection: checkpoints.end(connection, ending))

        ends = system.update_workflow_outcome
        system.init_workflow, system.update_workflow_outcome = begin, end

    def _look_for_no_messages(self) -> None:
        """Spare DBOS the query per parked run and second: on SQLite nobody but us sends, and `send` wakes who waits."""
        system = _dbos()._sys_db
        system.notifications_map.snapshot = list
        system._notification_fallback_polling_interval = _LOOK_AGAIN_S

    def _checkpoints_of(self) -> Checkpoints:
        """Return the writer, which a run that DBOS takes up while it is launched may need first."""
        if self._checkpoints is None:
            system = _dbos()._sys_db
            self._checkpoints = Checkpoints(
                system.engine,
                serialization=_SERIALIZER.name(),
                application=system.app_name,
                passing=_passing,
            )
        return self._checkpoints


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


def _passing(error: Exception) -> bool:
    """Whether a second try may do: as DBOS sees it, and what our own connector raises while the engine stops."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.InterfaceError):
        return True
    return (
        isinstance(error, PoolTimeout | psycopg.InterfaceError)
        or dbos_utils.retriable_postgres_exception(error)
        or dbos_utils.retriable_sqlite_exception(error)
    )


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
