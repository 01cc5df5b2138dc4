"""Where the hub is: found in a thread, remembered, and found again after it was lost."""

from collections.abc import Callable
from typing import TypeAlias

import anyio
import anyio.to_thread

from .http import Address

LOOK_S = 1.0
"""Seconds between two looks for a hub that was lost, while nothing but subscriptions waits for it."""

Locate: TypeAlias = Callable[[], Address]
"""Finds the hub, starting one where none runs. Called in a thread: at the start, and when the hub is gone."""
Look: TypeAlias = Callable[[], Address | None]
"""Tells where a hub runs, and starts none. Called in a thread."""


class Location:
    """The hub's address as far as it is known."""

    def __init__(self, locate: Locate, look: Look | None = None) -> None:
        self._locate = locate
        self._look = look
        self._locating = anyio.Lock()
        self._found = anyio.Event()
        self.known: Address | None = None

    async def find(self) -> Address:
        """Return the address, looking for the hub unless it is known; raises what `locate` raises."""
        async with self._locating:
            if self.known is None:
                self._know(await anyio.to_thread.run_sync(self._locate, abandon_on_cancel=True))
            assert self.known is not None, "it was just found"
            return self.known

    def lost(self, address: Address) -> None:
        """Take note that no hub is at an address any more."""
        if self.known is address:
            self.known = None
            self._found = anyio.Event()

    async def has_moved(self, address: Address) -> bool:
        """Look again for a hub that does not take our key: True when there is another address or key to try."""
        self.lost(address)
        return await self.find() != address

    async def found(self) -> Address:
        """Wait until there is a hub again, and return where; whoever waits here starts none.

        An idle host must not bring back a hub that somebody stopped: that is for a request that needs one.
        """
        while self.known is None:
            with anyio.move_on_after(LOOK_S if self._look is not None else None):
                await self._found.wait()
            if self._look is not None and self.known is None:
                seen = await anyio.to_thread.run_sync(self._look, abandon_on_cancel=True)
                async with self._locating:
                    if seen is not None and self.known is None:
                        self._know(seen)
        return self.known

    def _know(self, address: Address) -> None:
        self.known = address
        self._found.set()
