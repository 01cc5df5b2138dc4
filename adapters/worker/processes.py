"""The processes of one worker agent: kept warm, added when all are busy, and replaced when they end."""

import copy
import math
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import anyio
import structlog

from interhub.adapters.backoff import Backoff, Clock
from interhub.adapters.errors import AdapterError, RemoteUnavailable

from .process import Program, WorkerProcess, start_worker

REMEMBERED = 1000
"""Keys whose process is remembered, so that an answer or a repeated call comes back to it."""

_log = structlog.get_logger(__name__)


class Processes:
    """Hands out processes to calls. An async context manager; leaving it ends them all."""

    def __init__(
        self,
        program: Program,
        *,
        most: int = 2,
        warm: int = 1,
        idle_s: float = 120.0,
        backoff: Backoff | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """Keeps `warm` processes ready and starts up to `most` when calls wait; those end after `idle_s` unused."""
        self._program = program
        self._tasks = anyio.create_task_group()
        self._most = max(most, 1)
        self._warm = min(max(warm, 1), self._most)
        self._idle_s = idle_s
        self._backoff = backoff or Backoff(first_s=0.5, cap_s=60.0)
        self._clock = clock
        self._ready: list[WorkerProcess] = []
        self._starting = 0
        self._failures = 0
        """Starts that failed, and processes that ended by themselves before they completed a call, in a row."""
        self._next_start_at = -math.inf
        self._error: AdapterError | None = None
        self._routes: OrderedDict[str, WorkerProcess] = OrderedDict()
        self._changed = anyio.Event()
        self._turn = anyio.Lock()
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all processes."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as stopping:
                for worker in self._ready:
                    stopping.start_soon(worker.stop)
        self._tasks.cancel_scope.cancel()
        # The block's own error goes on as it is; given to the task group it would come out as an exception group.
        await self._tasks.__aexit__(None, None, None)

    @property
    def stateful(self) -> bool:
        """Whether calls of one context must not run at once."""
        return any(worker.stateful for worker in self._ready)

    async def open(self) -> WorkerProcess:
        """Start the first process, and return it when it is ready.

        Raises:
            AdapterError: as `start_worker`.
        """
        worker = await start_worker(self._program, self._tasks)
        self._add(worker)
        self._keep_warm()
        return worker

    @asynccontextmanager
    async def use(self, key: str) -> AsyncGenerator[WorkerProcess]:
        """Take a process for a call, waiting one's turn where all are busy: the one that knows the key, if it can.

        Raises:
            AdapterError: none runs and none can be started, now or a moment ago.
        """
        worker = self._routes.get(key)
        if worker is None or not _free(worker):
            async with self._turn:
                worker = await self._next()
                worker.busy += 1
        else:
            worker.busy += 1
        self._routes[key] = worker
        self._routes.move_to_end(key)
        while len(self._routes) > REMEMBERED:
            self._routes.popitem(last=False)
        try:
            yield worker
        finally:
            worker.busy -= 1
            if worker.alive:
                worker.completed += 1
                self._failures = 0
            self._tell()

    async def _next(self) -> WorkerProcess:
        while True:
            changed = self._changed
            free = [worker for worker in self._ready if _free(worker)]
            if free:
                return min(free, key=lambda worker: worker.busy)
            if len(self._ready) + self._starting < self._most:
                left_s = self._next_start_at - self._clock()
                if left_s <= 0:
                    self._grow()
                elif not self._ready and not self._starting:
                    raise self._resting(left_s)
            if not self._starting and not self._ready and self._error is not None:
                raise copy.copy(self._error) from self._error
            await changed.wait()

    def _resting(self, left_s: float) -> AdapterError:
        error = self._error
        if error is not None and not isinstance(error, RemoteUnavailable):
            return copy.copy(error)
        why = error.why if isinstance(error, RemoteUnavailable) else "its process ended"
        return RemoteUnavailable(
            self._program.label, f"{why} ({self._failures} times in a row; next started in {left_s:.1f} s)"
        )

    def _grow(self) -> None:
        self._starting += 1
        self._tasks.start_soon(self._start, name=f"start of {self._program.label}")

    async def _start(self) -> None:
        try:
            worker = await start_worker(self._program, self._tasks)
        except AdapterError as error:
            self._failed(error)
        else:
            self._add(worker)
        finally:
            self._starting -= 1
            self._tell()

    def _add(self, worker: WorkerProcess) -> None:
        self._error = None
        self._ready.append(worker)
        self._tasks.start_soon(self._watch, worker, name=f"watch over {self._program.label}")

    async def _watch(self, worker: WorkerProcess) -> None:
        while not worker.ended.is_set():
            completed = worker.completed
            with anyio.move_on_after(self._idle_s):
                await worker.ended.wait()
            unused = worker.completed == completed and not worker.busy
            if worker.alive and unused and len(self._ready) > self._warm and not self._closed:
                await worker.kill(RemoteUnavailable(self._program.label, "it was not needed any more"))
        if self._closed:
            return
        self._ready.remove(worker)
        for key in [key for key, routed in self._routes.items() if routed is worker]:
            del self._routes[key]
        await worker.stop()
        if not worker.killed:
            _log.warning("worker_ended", agent=self._program.label, pid=worker.pid, why=worker.last_words())
            if not worker.completed:
                self._failed(RemoteUnavailable(self._program.label, worker.last_words()))
        self._tell()
        self._keep_warm()

    def _failed(self, error: AdapterError) -> None:
        self._error = error
        self._failures += 1
        self._next_start_at = self._clock() + self._backoff.wait_s(self._failures)

    def _keep_warm(self) -> None:
        """Start what is missing, unless it has just failed: then the next call starts it."""
        while not self._closed and not self._failures and len(self._ready) + self._starting < self._warm:
            self._grow()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _free(worker: WorkerProcess) -> bool:
    return worker.alive and (worker.concurrent or not worker.busy)
