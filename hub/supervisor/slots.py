"""How many calls of agents runs make at once: a place for each, and a queue of its own for each tenant.

Only calls take places. A plan, a team or a run that waits for its children, for a person or for time takes none, so
that what is waited for can always begin. Places that come free go to the tenants in turn, one each.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Slots:
    """Places for calls, in one process. Use it on one event loop."""

    def __init__(self, total: int = 256, per_tenant: int = 128) -> None:
        """At least one place for each."""
        self._total = total
        self._per_tenant = per_tenant
        self._taken: dict[str, int] = {}
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """By tenant, the one whose turn it is first."""

    @property
    def taken(self) -> int:
        """Places in use."""
        return sum(self._taken.values())

    @asynccontextmanager
    async def place(self, tenant: str) -> AsyncGenerator[None]:
        """Wait for a place, and hold it inside the block."""
        if tenant in self._waiting or not self._free(tenant):
            await self._wait(tenant)
        else:
            self._take(tenant)
        try:
            yield
        finally:
            self._give_back(tenant)

    def _free(self, tenant: str) -> bool:
        return self.taken < self._total and self._taken.get(tenant, 0) < self._per_tenant

    def _take(self, tenant: str) -> None:
        self._taken[tenant] = self._taken.get(tenant, 0) + 1

    async def _wait(self, tenant: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(tenant)  # it was given a place just before
            else:
                self._forget(tenant, turn)
            raise

    def _forget(self, tenant: str, turn: "asyncio.Future[None]") -> None:
        queue = self._waiting[tenant]
        queue.remove(turn)
        if not queue:
            del self._waiting[tenant]

    def _give_back(self, tenant: str) -> None:
        self._taken[tenant] -= 1
        if not self._taken[tenant]:
            del self._taken[tenant]
        while (chosen := next((one for one in self._waiting if self._free(one)), None)) is not None:
            queue = self._waiting[chosen]
            turn = queue.popleft()
            if queue:
                self._waiting.move_to_end(chosen)
            else:
                del self._waiting[chosen]
            if not turn.done():
                self._take(chosen)
                turn.set_result(None)
