"""Who of several hubs tells a webhook: the one that holds its lock in the database they share.

The locks are of a connection, so that those of a hub that dies, or loses its lease, are free at once. Where the
connection breaks while both ends live, another hub may begin before this one has noticed: a push comes twice then.
"""

import threading
from hashlib import blake2b
from typing import Protocol

import structlog
from anyio import to_thread
from sqlalchemy import Connection, Engine, text

from interhub.registry import DatabaseError
from interhub.registry.database import database_errors

log = structlog.get_logger()

Key = tuple[str, str]
"""Of a webhook: its run and its id."""


class Claims(Protocol):
    """Gives out webhooks, one at a time to one hub."""

    @property
    def shared(self) -> bool:
        """Whether there are other hubs, whose webhooks may become free."""
        ...

    async def claim(self, key: Key) -> bool:
        """Take a webhook; False while another hub has it.

        Raises:
            DatabaseUnusable: nobody can say.
        """
        ...

    async def release(self, key: Key) -> None:
        """Give a webhook back."""
        ...

    async def close(self) -> None:
        """Give all back."""
        ...


class OneHub:
    """Where there is one hub, it has them all."""

    shared = False

    async def claim(self, key: Key) -> bool:
        """Take a webhook."""
        return True

    async def release(self, key: Key) -> None:
        """Give a webhook back."""

    async def close(self) -> None:
        """Give all back."""


class PostgresClaims:
    """Advisory locks of PostgreSQL, on a connection of their own."""

    shared = True

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._held: set[Key] = set()
        self._lock = threading.Lock()

    async def claim(self, key: Key) -> bool:
        """Take a webhook; False while another hub has it.

        Raises:
            DatabaseUnusable: nobody can say.
        """
        return await to_thread.run_sync(self._claim, key)

    async def release(self, key: Key) -> None:
        """Give a webhook back."""
        try:
            await to_thread.run_sync(self._release, key)
        except DatabaseError as error:
            log.info("push_locks_lost", why=str(error))

    async def close(self) -> None:
        """Give all back."""
        await to_thread.run_sync(self._close)

    def _claim(self, key: Key) -> bool:
        with self._lock:
            if key in self._held:
                return True
            if self._ask("SELECT pg_try_advisory_lock(:key)", key):
                self._held.add(key)
                return True
            return False

    def _release(self, key: Key) -> None:
        with self._lock:
            if key in self._held:
                self._held.discard(key)
                self._ask("SELECT pg_advisory_unlock(:key)", key)

    def _ask(self, query: str, key: Key) -> bool:
        try:
            with database_errors(self._database):
                if self._connection is None:
                    self._connection = self._database.connect().execution_options(isolation_level="AUTOCOMMIT")
                return self._connection.execute(text(query), {"key": _number(key)}).scalar() is True
        except BaseException:
            self._drop()
            raise

    def _close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        """Let go of the connection, and with it of its locks: not back to the pool, where they would live on."""
        self._held.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()


def _number(key: Key) -> int:
    """Return a webhook's number among the locks of a database, which are 64 bits."""
    return int.from_bytes(blake2b("\n".join(("push", *key)).encode(), digest_size=8).digest(), "big", signed=True)
