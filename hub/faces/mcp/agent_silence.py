"""Ends a relayed request about which its server has said nothing for too long."""

from collections.abc import Generator
from contextlib import contextmanager
from math import inf

import anyio


class Silence:
    """The time that one request may go without a word of its server. It does not pass while the client is asked."""

    def __init__(self, limit_s: float = inf) -> None:
        self.limit_s = limit_s
        self._scope = anyio.CancelScope()
        self._asked = 0

    def heard(self) -> None:
        """Begin anew: the server said something about the request."""
        self._scope.deadline = inf if self._asked else anyio.current_time() + self.limit_s

    @contextmanager
    def broken(self) -> Generator[None]:
        """Let the silence pass in the block, where a person may be thinking."""
        self._asked += 1
        self.heard()
        try:
            yield
        finally:
            self._asked -= 1
            self.heard()

    @contextmanager
    def limited(self) -> Generator[None]:
        """Cancel the block once the silence has lasted too long.

        Raises:
            TimeoutError: it has.
        """
        self.heard()
        with self._scope:
            yield
        if self._scope.cancelled_caught:
            raise TimeoutError
