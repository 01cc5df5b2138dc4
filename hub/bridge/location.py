"""Where the hub is: found in a thread, remembered, and found again after it was lost."""

from collections.abc import Callable
from typing import TypeAlias

import anyio
import anyio.to_thread

from .http import Address

Locate: TypeAlias = Callable[[], Address]
"""Finds the hub, starting one where none runs. Called in a thread: at the start, and when the hub is gone."""


class Location:
    """The hub's address as far as it is known."""

    def __init__(self, locate: Locate) -> None:
        self._locate = locate
        self._locating = anyio.Lock()
        self._found = anyio.Event()
        self.known: Address | None = None

    async def find(self) -> Address:
        """Return the address, looking for the hub unless it is known; raises what `locate` raises."""
        async with self._locating:
            if self.known is None:
                self.known = await anyio.to_thread.run_sync(self._locate, abandon_on_cancel=True)
                self._found.set()
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

    async def found(self) -> None:
        """Wait until somebody has found the hub, without looking for it."""
        await self._found.wait()
