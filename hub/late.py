"""What is imported when it is first used: the SDKs take seconds to import, and the hub is to answer before that."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from threading import RLock
from typing import Generic, TypeVar

import anyio
from anyio import to_thread

from interhub.adapters import Adapter, Connection
from interhub.agent_cards import AgentCard, Endpoint

T = TypeVar("T")

IMPORTING = RLock()
"""Held by whoever imports an SDK. Where two threads import packages that import each other in a circle (as `mcp` does),
Python breaks the deadlock by showing one of them a module that is half made, and its import fails."""


class Late(Generic[T]):
    """A value made once, when it is first asked for, by whichever thread asks first."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []

    def value(self) -> T:
        """Return the value; the first caller makes it, and those who come meanwhile wait."""
        if not self._made:
            with IMPORTING:
                if not self._made:
                    self._made.append(self._make())
        return self._made[0]

    async def get(self) -> T:
        """Return the value; it is made in a thread, so that the loop goes on meanwhile."""
        return self._made[0] if self._made else await to_thread.run_sync(self.value, limiter=_LIMITER)


_LIMITER = anyio.CapacityLimiter(8)
"""Threads of our own: those that wait for an import must not take all that database calls need."""


class LateAdapter:
    """An adapter that is imported when an agent first needs it."""

    def __init__(self, name: str, make: Callable[[], Adapter]) -> None:
        self._name = name
        self._late = Late(make)

    @property
    def name(self) -> str:
        """The adapter's name."""
        return self._name

    def warm(self) -> None:
        """Import it now: for a background thread."""
        self._late.value()

    async def describe(self, endpoint: Endpoint) -> AgentCard:
        """Reach the agent and return what it says about itself (see `Adapter.describe`)."""
        return await (await self._late.get()).describe(endpoint)

    def connect(self, endpoint: Endpoint, *, card: AgentCard, label: str) -> AbstractAsyncContextManager[Connection]:
        """Open a conversation (see `Adapter.connect`)."""
        return self._connect(endpoint, card, label)

    @asynccontextmanager
    async def _connect(self, endpoint: Endpoint, card: AgentCard, label: str) -> AsyncGenerator[Connection]:
        adapter = await self._late.get()
        async with adapter.connect(endpoint, card=card, label=label) as connection:
            yield connection
