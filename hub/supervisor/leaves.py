"""The steps under way in this process, by run: what a cancellation, or the end of the hub, has to stop."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


class Leaves:
    """The steps under way in this process, so that a cancelled run's are stopped at once."""

    def __init__(self) -> None:
        self._scopes: dict[str, set[anyio.CancelScope]] = {}
        self._idle: dict[str, anyio.Event] = {}
        self.stopping = False
        """True while the hub stops: what is cancelled now is done again by the next process."""

    async def hold(self, run_id: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work of a step so that it is stopped with the run, or with the hub: nothing is recorded of it then."""
        with anyio.CancelScope() as scope:
            if self.stopping:
                raise anyio.get_cancelled_exc_class()()
            self.add(run_id, scope)
            try:
                return await work()
            finally:
                self.remove(run_id, scope)
        raise anyio.get_cancelled_exc_class()()

    def add(self, run_id: str, scope: anyio.CancelScope) -> None:
        """Note a step's scope."""
        self._scopes.setdefault(run_id, set()).add(scope)

    def remove(self, run_id: str, scope: anyio.CancelScope) -> None:
        """Forget a step's scope."""
        scopes = self._scopes.get(run_id, set())
        scopes.discard(scope)
        if not scopes:
            self._scopes.pop(run_id, None)
            if event := self._idle.pop(run_id, None):
                event.set()

    async def cancel(self, run_id: str, *, within_s: float) -> None:
        """Cancel a run's steps and wait for their ends, not longer than that."""
        for scope in tuple(self._scopes.get(run_id, ())):
            scope.cancel()
        if run_id in self._scopes:
            with anyio.move_on_after(within_s):
                await self._idle.setdefault(run_id, anyio.Event()).wait()

    async def stop(self, *, within_s: float) -> None:
        """Cancel every step because the hub stops."""
        self.stopping = True
        for scopes in self._scopes.values():
            for scope in scopes:
                scope.cancel()
        with anyio.move_on_after(within_s):
            for run_id in tuple(self._scopes):
                await self.cancel(run_id, within_s=within_s)
