"""Who owns the sessions to an MCP server: the task that opens the shared one when it is wanted, and clients."""

import copy
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import anyio
import structlog

from interhub.adapters.backoff import Backoff, Clock
from interhub.adapters.condition import Condition, State
from interhub.adapters.errors import AdapterError, RemoteUnavailable

from .session import McpSession

Opener = Callable[[], AbstractAsyncContextManager[McpSession]]
"""Makes a session's context; called each time that one is opened. What it raises is an AdapterError."""

_STEADY_S = 10.0
"""A session that lasted this long was well; one that ended sooner counts as a failure, which slows the next one."""
PARTING_S = 1.0
"""How long a session that the server has forgotten is kept for the requests on it, each of which is told so itself."""

log = structlog.get_logger()


class HoldOff:
    """How the opening of sessions has gone lately, and when the next one may be opened."""

    def __init__(self, *, label: str, backoff: Backoff | None = None, clock: Clock = time.monotonic) -> None:
        self._label = label
        self._backoff = backoff or Backoff(first_s=0.2, cap_s=30.0, rest_after=10)
        self._clock = clock
        self.failures = 0
        """In a row."""
        self.error: AdapterError | None = None
        """The last one."""
        self._next_try_at = 0.0

    @property
    def next_try_s(self) -> float:
        """Seconds until the next session may be opened."""
        return max(0.0, self._next_try_at - self._clock()) if self.failures else 0.0

    def check(self) -> None:
        """Go on where a session may be opened now.

        Raises:
            AdapterError: the last error, while the back-off after it lasts.
        """
        if self.error is not None and (left_s := self.next_try_s) > 0:
            if isinstance(self.error, RemoteUnavailable):
                raise RemoteUnavailable(self._label, f"{self.error.why} (next tried in {left_s:.1f} s)")
            raise copy.copy(self.error)

    def failed(self, error: AdapterError | None, *, opened: bool) -> None:
        """Note that a session could not be opened, or was lost as soon as it was."""
        self.failures += 1
        self.error = error or RemoteUnavailable(self._label, "the connection was lost as soon as it was made")
        # The first loss is free: a server that was restarted is tried again at once.
        if not opened or self.failures > 1:
            self._next_try_at = self._clock() + self._backoff.wait_s(self.failures)
        log.warning("mcp_session_ended", agent=self._label, failures=self.failures, why=str(self.error))

    def went_well(self) -> None:
        """Begin the count anew."""
        self.failures, self._next_try_at = 0, 0.0


class OwnSessions:
    """The sessions of single clients, each held by who opens it. While they fail, one at a time is tried."""

    def __init__(self, *, label: str, backoff: Backoff | None = None, clock: Clock = time.monotonic) -> None:
        self._hold_off = HoldOff(label=label, backoff=backoff, clock=clock)
        self._clock = clock
        self._turn = anyio.Lock()
        self._failed_at = -math.inf

    @asynccontextmanager
    async def open(self, opening: AbstractAsyncContextManager[McpSession]) -> AsyncGenerator[McpSession]:
        """Open a session. Enter and exit it in the same task.

        Raises:
            AdapterError: it could not be opened, or others could not a moment ago (see `HoldOff.check`).
        """
        async with AsyncExitStack() as stack:
            session = await self._opened(opening, stack)
            began = self._clock()
            try:
                yield session
            finally:
                if self._clock() - began >= _STEADY_S:
                    self._hold_off.went_well()
                elif session.lost.is_set():
                    self._failed(None, began, opened=True)

    async def _opened(self, opening: AbstractAsyncContextManager[McpSession], stack: AsyncExitStack) -> McpSession:
        self._hold_off.check()
        if not self._hold_off.failures:
            return await self._tried(opening, stack)
        async with self._turn:
            self._hold_off.check()
            return await self._tried(opening, stack)

    async def _tried(self, opening: AbstractAsyncContextManager[McpSession], stack: AsyncExitStack) -> McpSession:
        began = self._clock()
        try:
            return await stack.enter_async_context(opening)
        except AdapterError as error:
            self._failed(error, began, opened=False)
            raise

    def _failed(self, error: AdapterError | None, began: float, *, opened: bool) -> None:
        if began >= self._failed_at:  # else what failed side by side with another, which is one failure in a row
            self._failed_at = self._clock()
            self._hold_off.failed(error, opened=opened)


class Upstream:
    """One session at a time, opened on demand. `run` must be running."""

    def __init__(
        self, opener: Opener, *, label: str, backoff: Backoff | None = None, clock: Clock = time.monotonic
    ) -> None:
        self._opener = opener
        self._label = label
        self._hold_off = HoldOff(label=label, backoff=backoff, clock=clock)
        self._clock = clock
        self._attempt: _Attempt | None = None
        self._wanted = anyio.Event()

    async def session(self) -> McpSession:
        """Return the open session, opening one first where there is none. Those who ask together share one opening.

        Raises:
            AdapterError: it could not be opened, now or a moment ago: while the back-off lasts callers get the last
                error at once.
        """
        while True:
            attempt = self._attempt
            if attempt is None:
                self._hold_off.check()
                attempt = self._attempt = _Attempt()
                self._wanted.set()
            await attempt.settled.wait()
            if attempt.error is not None:
                raise copy.copy(attempt.error) from attempt.error
            if attempt.session is not None and not attempt.dropped.is_set() and not attempt.session.lost.is_set():
                return attempt.session
            await attempt.ended.wait()

    @property
    def current(self) -> McpSession | None:
        """The session, if one is open now."""
        attempt = self._attempt
        if attempt is None or attempt.dropped.is_set() or attempt.session is None or attempt.session.lost.is_set():
            return None
        return attempt.session

    def drop(self, session: McpSession) -> None:
        """Give up a session that the server no longer knows; the next one who asks gets another."""
        if self._attempt is not None and self._attempt.session is session:
            self._attempt.dropped.set()

    def condition(self) -> Condition:
        """Return how the session is."""
        attempt = self._attempt
        tries = self._hold_off
        if attempt is not None:
            state = State.OPENING if attempt.session is None else State.OPEN
        else:
            state = State.FAILED if tries.next_try_s else State.IDLE
        error = str(tries.error) if tries.error is not None and tries.failures else ""
        return Condition(state=state, failures=tries.failures, next_try_s=tries.next_try_s, error=error)

    async def run(self) -> None:
        """Own the sessions, for ever. What goes wrong ends a session, never this task."""
        while True:
            await self._wanted.wait()
            self._wanted = anyio.Event()
            attempt = self._attempt
            assert attempt is not None, "a session is wanted by an attempt"
            started = self._clock()
            error: AdapterError | None = None
            try:
                async with self._opener() as session:
                    attempt.session = session
                    attempt.settled.set()
                    await either(session.lost, attempt.dropped)
                    if not session.lost.is_set():
                        with anyio.move_on_after(PARTING_S):
                            await session.idle()
            except AdapterError as raised:
                error = raised
            except Exception as raised:  # a transport's bug ends this session, not the hub
                log.exception("mcp_session_crashed", agent=self._label)
                error = RemoteUnavailable(self._label, f"{type(raised).__name__}: {raised}")
            except BaseException:
                self._settle(attempt, RemoteUnavailable(self._label, "the connection was closed"))
                raise
            self._count(attempt, error, self._clock() - started)
            self._settle(attempt, error or RemoteUnavailable(self._label, "the connection was closed"))

    def _settle(self, attempt: "_Attempt", error: AdapterError) -> None:
        self._attempt = None
        if attempt.session is None:
            attempt.error = error
        attempt.settled.set()
        attempt.ended.set()

    def _count(self, attempt: "_Attempt", error: AdapterError | None, lasted_s: float) -> None:
        if attempt.dropped.is_set() or (attempt.session is not None and lasted_s >= _STEADY_S):
            self._hold_off.went_well()
        else:
            self._hold_off.failed(error, opened=attempt.session is not None)


class _Attempt:
    def __init__(self) -> None:
        self.session: McpSession | None = None
        self.error: AdapterError | None = None
        self.settled = anyio.Event()
        self.dropped = anyio.Event()
        self.ended = anyio.Event()


async def either(one: anyio.Event, other: anyio.Event) -> None:
    """Wait until one of two events is set."""
    async with anyio.create_task_group() as tasks:

        async def wait(event: anyio.Event) -> None:
            await event.wait()
            tasks.cancel_scope.cancel()

        tasks.start_soon(wait, one)
        tasks.start_soon(wait, other)
