"""Keeps connections open between calls: one per credential and agent, never shared between credentials.

A connection's context must be entered and exited in one task, so each has a task of its own in the pool. What callers
hold is a handle that finds the open connection at each call; it stays good when the connection was closed for being
idle, was lost, or was evicted because the agent changed.
"""

import copy
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import NamedTuple, Protocol, Self, runtime_checkable

import anyio
import anyio.abc
import structlog

from interhub.agent_cards import AgentCard

from .backoff import Backoff, Clock
from .base import Call, Connection, Outcome, Report
from .condition import Conditioned, State
from .errors import AdapterError, ConnectionLost, RemoteUnavailable

Opener = Callable[[], AbstractAsyncContextManager[Connection]]
"""Makes a connection's context; called each time that one is opened."""

_log = structlog.get_logger(__name__)


@runtime_checkable
class Renewable(Protocol):
    """A `Connection` that goes by its agent's card, which may be another one while the connection stays."""

    def renew(self, card: AgentCard) -> bool:
        """Go by this card from now on; False where that takes another connection, and this one stays as it is."""
        ...


class PoolKey(NamedTuple):
    """Whose connection to which agent. A tuple, because it is made and looked up for every call."""

    credential: str
    """Names the credential that the connection carries: two principals share a connection only if they share this."""
    agent: str
    """The agent, as `evict` names it."""


@dataclass(frozen=True, kw_only=True)
class ConnectionState:
    """What the pool knows of one connection, to be shown."""

    key: PoolKey
    state: State
    calls: int = 0
    """Calls in flight."""
    failures: int = 0
    """Openings that failed in a row."""
    next_try_s: float = 0.0
    """Seconds until it may be opened again; 0 when at once."""
    error: str = ""
    """Why the last opening failed."""


class ConnectionPool:
    """Open connections by (credential, agent). An async context manager; leaving it closes them all."""

    def __init__(
        self,
        *,
        idle_s: float = 300.0,
        drain_s: float = 30.0,
        close_s: float = 5.0,
        backoff: Backoff | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """Connections unused for `idle_s` are closed.

        Calls in flight on an evicted connection may go on for `drain_s`, and when the pool closes for `close_s`.
        """
        self._idle_s = idle_s
        self._drain_s = drain_s
        self._close_s = close_s
        self._backoff = backoff or Backoff(first_s=0.5, cap_s=60.0)
        self._clock = clock
        self._entries: dict[PoolKey, _Entry] = {}
        self._failures: dict[PoolKey, _Failure] = {}
        self._owned: set[_Entry] = set()
        self._tasks: anyio.abc.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        assert tasks is not None, "the pool is entered before it is left"
        self._drain_s = min(self._drain_s, self._close_s)
        for entry in list(self._owned):
            self._retire(entry)
        with anyio.move_on_after(self._close_s * 2, shield=True):
            for entry in list(self._owned):
                await entry.closed.wait()
        tasks.cancel_scope.cancel()
        # The block's own error goes on as it is; given to the task group it would come out as an exception group.
        await tasks.__aexit__(None, None, None)

    async def get(self, key: PoolKey, opener: Opener, *, card: AgentCard | None = None) -> Connection:
        """Return a handle on the open connection, opening it first where there is none.

        Those who ask at the same time share one opening. The handle stays good; it opens the connection again when it
        has to, by the `opener` given here. `card` is the one that the opener opens with and the caller's calls are made
        by: a connection that was opened with another is told of it (`Renewable`). One that cannot go by it is given to
        no new call, and closed after the last of those in flight, however long they last.

        Raises:
            AdapterError: it could not be opened, now or a moment ago; every waiter gets the error. RemoteUnavailable
                when it failed a moment ago and is not tried again yet: the message says when it is.
        """
        await self._acquire(key, opener, card)
        return _Handle(partial(self._acquire, key, opener, card))

    def hold(self, key: PoolKey) -> "Held | None":
        """Hold the open connection, as a call in flight does, until it is released; None where none is open now."""
        entry = self._entries.get(key)
        if entry is None or entry.connection is None or entry.retired.is_set():
            return None
        return Held(entry, entry.connection)

    async def evict(self, agent: str) -> None:
        """Forget an agent's connections and failures, because it changed or was removed.

        Returns at once. Calls in flight go on; the old connection is closed after the last of them, or after `drain_s`.
        """
        for key in [key for key in self._failures if key.agent == agent]:
            del self._failures[key]
        for entry in [entry for entry in self._entries.values() if entry.key.agent == agent]:
            self._retire(entry)

    def states(self) -> tuple[ConnectionState, ...]:
        """Return what is known of every connection: open, at rest, being opened, or failed."""
        now = self._clock()
        shown = [entry.state() for entry in self._entries.values()]
        shown += [
            ConnectionState(
                key=key,
                state=State.FAILED,
                failures=failure.count,
                next_try_s=max(0.0, failure.next_try_at - now),
                error=str(failure.error),
            )
            for key, failure in self._failures.items()
            if key not in self._entries
        ]
        return tuple(shown)

    async def _acquire(self, key: PoolKey, opener: Opener, card: AgentCard | None) -> "_Entry":
        while True:
            entry = self._entries.get(key)
            if entry is None or entry.retired.is_set():
                entry = self._open(key, opener, card)
            if entry.connection is None:
                await entry.settled.wait()
            if entry.error is not None:
                raise copy.copy(entry.error) from entry.error
            if entry.connection is not None:
                if card is None or entry.card is card or entry.renew(card):
                    return entry
                entry.outdated = True
                self._retire(entry)
                continue
            # Evicted while it was being opened: the agent is another one now.

    def _open(self, key: PoolKey, opener: Opener, card: AgentCard | None) -> "_Entry":
        if self._tasks is None:
            raise RemoteUnavailable(key.agent, "the hub is stopping")
        failure = self._failures.get(key)
        if failure is not None and (left_s := failure.next_try_at - self._clock()) > 0:
            if not isinstance(failure.error, RemoteUnavailable):
                raise copy.copy(failure.error) from failure.error
            raise RemoteUnavailable(key.agent, f"{failure.error.why} (next tried in {left_s:.1f} s)") from failure.error
        entry = _Entry(key, card, self._clock)
        self._entries[key] = entry
        self._owned.add(entry)
        self._tasks.start_soon(self._own, entry, opener, name=f"connection to {key.agent}")
        return entry

    async def _own(self, entry: "_Entry", opener: Opener) -> None:
        try:
            # An adapter that loses its connection may cancel this task by a scope of its own: the block then just ends.
            with entry.opening:
                async with opener() as connection:
                    entry.connection = connection
                    self._failures.pop(entry.key, None)
                    entry.settled.set()
                    await self._serve(entry)
        except AdapterError as error:
            self._ended(entry, error)
        except Exception as error:  # an adapter's bug is that agent's failure, not the hub's
            _log.exception("connection_crashed", agent=entry.key.agent)
            self._ended(entry, RemoteUnavailable(entry.key.agent, f"{type(error).__name__}: {error}"))
        finally:
            self._retire(entry)
            self._owned.discard(entry)
            entry.settled.set()
            entry.lose()
            entry.closed.set()

    def _ended(self, entry: "_Entry", error: AdapterError) -> None:
        if entry.connection is not None:
            _log.warning("connection_lost", agent=entry.key.agent, why=str(error))
            return
        if entry.retired.is_set():
            return  # evicted while it was being opened
        entry.error = error
        before = self._failures.get(entry.key)
        count = before.count + 1 if before else 1
        wait_s = self._backoff.wait_s(count)
        self._failures[entry.key] = _Failure(count, self._clock() + wait_s, error)
        _log.warning(
            "connection_failed", agent=entry.key.agent, failures=count, next_try_s=round(wait_s, 1), why=str(error)
        )

    async def _serve(self, entry: "_Entry") -> None:
        """Wait until the connection is to be closed: evicted, lost, or idle."""
        while not entry.retired.is_set():
            left_s = entry.used_at + self._idle_s - self._clock()
            if left_s <= 0 and not entry.calls:
                self._retire(entry)
                return
            with anyio.move_on_after(left_s if left_s > 0 else self._idle_s):
                await entry.retired.wait()
        with anyio.move_on_after(None if entry.outdated else self._drain_s):
            await entry.wait_unused()

    def _retire(self, entry: "_Entry") -> None:
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
        entry.retired.set()
        if entry.connection is None:
            entry.opening.cancel()


class _Handle:
    """A connection as callers hold it: each call finds the open one."""

    def __init__(self, acquire: Callable[[], Awaitable["_Entry"]]) -> None:
        self._acquire = acquire

    async def call(self, call: Call, report: Report) -> Outcome:
        entry = await self._acquire()
        with entry.use() as connection:
            return await connection.call(call, report)
        raise ConnectionLost(entry.key.agent, "the connection was closed during the call")

    async def cancel(self, remote_task: str) -> None:
        entry = await self._acquire()
        with entry.use() as connection:
            return await connection.cancel(remote_task)
        raise ConnectionLost(entry.key.agent, "the connection was closed during the call")

    @asynccontextmanager
    async def lease(self) -> AsyncGenerator[Connection]:
        """Hold the open connection itself, counted as a call in flight (`interhub.adapters.mcp.relay.Leasable`)."""
        entry = await self._acquire()
        with entry.use() as connection:
            yield connection


class Held:
    """An open connection that is held for one call, without a scope: what it was lent for ends with it by itself."""

    __slots__ = ("_entry", "connection")

    def __init__(self, entry: "_Entry", connection: Connection) -> None:
        self._entry = entry
        self.connection = connection
        entry.held += 1

    def release(self) -> None:
        """Count the call out. Once."""
        self._entry.let_go()


class _Entry:
    """One connection and the task that owns it."""

    def __init__(self, key: PoolKey, card: AgentCard | None, clock: Clock) -> None:
        self.key = key
        self.card = card
        """The one that the connection goes by."""
        self.connection: Connection | None = None
        self.error: AdapterError | None = None
        self.opening = anyio.CancelScope()
        self.settled = anyio.Event()
        """Opened, or failed to."""
        self.retired = anyio.Event()
        """Given to no new call."""
        self.outdated = False
        """Retired for the agent's card alone: what is under way on it is none the worse for that."""
        self.closed = anyio.Event()
        self.scopes: set[anyio.CancelScope] = set()
        self.held = 0
        """Calls in flight without a scope."""
        self.used_at = clock()
        self._clock = clock
        self._drained: anyio.Event | None = None
        """Set when the last call has ended, for who waits for that."""

    def renew(self, card: AgentCard) -> bool:
        if isinstance(self.connection, Renewable) and not self.connection.renew(card):
            return False
        self.card = card
        return True

    @contextmanager
    def use(self) -> Generator[Connection]:
        """Count a call in; a call whose connection goes away under it is ended, and the block left."""
        assert self.connection is not None, "an acquired entry is open"
        with anyio.CancelScope() as scope:
            self.scopes.add(scope)
            try:
                yield self.connection
            except ConnectionLost:
                self.retired.set()
                raise
            finally:
                self.scopes.discard(scope)
                self._count_out()

    def let_go(self) -> None:
        self.held -= 1
        self._count_out()

    def _count_out(self) -> None:
        self.used_at = self._clock()
        if self._drained is not None and not self.calls:
            self._drained.set()

    @property
    def calls(self) -> int:
        return len(self.scopes) + self.held

    def state(self) -> ConnectionState:
        calls = self.calls
        if self.connection is None:
            return ConnectionState(key=self.key, state=State.OPENING, calls=calls)
        if not isinstance(self.connection, Conditioned):
            return ConnectionState(key=self.key, state=State.OPEN, calls=calls)
        how = self.connection.condition()
        return ConnectionState(
            key=self.key,
            state=how.state,
            calls=calls,
            failures=how.failures,
            next_try_s=how.next_try_s,
            error=how.error,
        )

    async def wait_unused(self) -> None:
        while self.calls:
            self._drained = anyio.Event()
            await self._drained.wait()

    def lose(self) -> None:
        for scope in list(self.scopes):
            scope.cancel()


@dataclass(frozen=True)
class _Failure:
    count: int
    next_try_at: float
    error: AdapterError
