"""Messages to one task, one after another: the second is taken when what the first led to has settled."""

import weakref
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio


class Turns:
    """Gives out the turns of tasks, first come, first served, in this process.

    Between processes it is the journal that takes the first of two answers to one question and refuses the second.
    """

    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[str, anyio.Lock] = weakref.WeakValueDictionary()

    @asynccontextmanager
    async def take(self, task_id: str) -> AsyncGenerator[bool]:
        """Hold the turn of a task; yields whether it was waited for."""
        lock = self._locks.get(task_id)
        if lock is None:
            lock = self._locks[task_id] = anyio.Lock()
        waited = lock.locked()
        async with lock:
            yield waited
