"""What replicas tell each other at once: which runs have news, which agents changed, what is to be cancelled.

Everything that lasts is in the database; a notice only wakes those who would otherwise read too late. So a notice that
is lost with a connection is no loss: whoever listens again is told that there was a gap, and looks for itself.
"""

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Protocol, cast

import anyio.to_thread
import psycopg
import sqlalchemy as sa
import structlog
from sqlalchemy.engine import make_url

from interhub.registry.database import postgres_connector, writing

log = structlog.get_logger()

Listener = Callable[[str], None]
"""Is told what a notice names; called on the event loop, must not block."""


class Bus(Protocol):
    """Carries notices between replicas. A replica does not hear its own."""

    @property
    def origin(self) -> str:
        """Name of this replica; empty where there is only one."""
        ...

    def tell(self, connection: sa.Connection, topic: str, names: Collection[str]) -> None:
        """Tell the others when the transaction of a connection is committed."""
        ...

    async def say(self, topic: str, *names: str) -> None:
        """Tell the others now.

        Raises:
            DatabaseUnusable: the notice could not be given.
        """
        ...

    def hear(self, topic: str, listener: Listener) -> None:
        """Have a listener told of a topic's notices: before the bus is opened."""
        ...

    def hear_gaps(self, listener: Callable[[], None]) -> None:
        """Have a listener told that notices may have been missed: before the bus is opened."""
        ...


class NoBus:
    """The bus of a hub that is alone."""

    origin = ""

    def tell(self, connection: sa.Connection, topic: str, names: Collection[str]) -> None:
        """Tell nobody."""

    async def say(self, topic: str, *names: str) -> None:
        """Tell nobody."""

    def hear(self, topic: str, listener: Listener) -> None:
        """Nothing will be heard."""

    def hear_gaps(self, listener: Callable[[], None]) -> None:
        """Nothing will be missed."""


class PostgresBus:
    """Notices through PostgreSQL's LISTEN and NOTIFY, on a connection and a thread of its own."""

    def __init__(self, database: sa.Engine, origin: str) -> None:
        """`database` is the hub's; `origin` names this replica and has no space in it."""
        self._database = database
        self._origin = origin
        url = make_url(database.url.render_as_string(hide_password=False))
        self._connect = postgres_connector(url, patience_s=0.0)
        self._listeners: dict[str, list[Listener]] = {}
        self._gaps: list[Callable[[], None]] = []
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.listening = False
        """True while notices are heard."""

    @property
    def origin(self) -> str:
        """Name of this replica."""
        return self._origin

    def hear(self, topic: str, listener: Listener) -> None:
        """Have a listener told of a topic's notices."""
        self._listeners.setdefault(topic, []).append(listener)

    def hear_gaps(self, listener: Callable[[], None]) -> None:
        """Have a listener told that notices may have been missed."""
        self._gaps.append(listener)

    def tell(self, connection: sa.Connection, topic: str, names: Collection[str]) -> None:
        """Tell the others when the transaction of a connection is committed."""
        for payload in _payloads(self._origin, topic, names):
            connection.execute(_NOTIFY, {"channel": CHANNEL, "payload": payload})

    async def say(self, topic: str, *names: str) -> None:
        """Tell the others now."""

        def send() -> None:
            with writing(self._database) as connection:
                self.tell(connection, topic, names)

        await anyio.to_thread.run_sync(send)

    def open(self) -> None:
        """Begin to listen, for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._listen, name="interhub-bus", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """End."""
        self._closing.set()
        if self._thread is not None:
            await anyio.to_thread.run_sync(self._thread.join)

    def _listen(self) -> None:
        first, own = True, f"{self._origin} "
        while not self._closing.is_set():
            try:
                with cast("psycopg.Connection", self._connect()) as connection:
                    connection.autocommit = True
                    connection.execute(f"LISTEN {CHANNEL}")  # from here on nothing is missed
                    self.listening = True
                    if not first:
                        log.info("replica_listens_again")
                    first = False
                    self._call(self._missed)
                    while not self._closing.is_set():
                        for notice in connection.notifies(timeout=_LOOK_S):
                            if not notice.payload.startswith(own):  # PostgreSQL tells those who told it, too
                                self._call(self._heard, notice.payload)
            except psycopg.Error as error:
                if self.listening:
                    log.warning("replica_hears_nothing", why=str(error).strip().partition("\n")[0])
                self.listening = False
                self._closing.wait(_RETRY_S)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(function, *arguments)

    def _heard(self, payload: str) -> None:
        _, _, rest = payload.partition(" ")
        topic, _, names = rest.partition(" ")
        for listener in self._listeners.get(topic, ()):
            for name in names.split(_BETWEEN):
                listener(name)

    def _missed(self) -> None:
        for listener in self._gaps:
            listener()


CHANNEL = "interhub"
_NOTIFY = sa.text("SELECT pg_notify(:channel, :payload)")
_BETWEEN = "\x1f"
_MOST_BYTES = 7000
"""PostgreSQL takes payloads of less than 8,000 bytes."""
_LOOK_S = 0.5
_RETRY_S = 0.2


def _payloads(origin: str, topic: str, names: Collection[str]) -> Iterator[str]:
    """Put as many names into one notice as it takes."""
    head = f"{origin} {topic} "
    taken: list[str] = []
    size = 0
    for name in names:
        length = len(name.encode()) + 1
        if taken and size + length > _MOST_BYTES:
            yield head + _BETWEEN.join(taken)
            taken, size = [], 0
        taken.append(name)
        size += length
    if taken:
        yield head + _BETWEEN.join(taken)
