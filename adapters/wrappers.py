"""Shared behaviour as wrappers around any connection, one idea each: deadline, retry, circuit breaker, limit.

They compose by nesting; the usual order is `CircuitBreaker(Deadline(Retrying(Limited(connection))))`: waiting for one's
turn and all attempts count against the deadline, and the breaker sees one failure per call however often it was tried.
With the Deadline inside Retrying each attempt has its own time instead. Clock, sleep and randomness are handed in.
"""

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import anyio

from .base import Call, Connection, Outcome, Report, TaskBound, Update
from .errors import RemoteTimeout, RemoteUnavailable

Clock = Callable[[], float]
"""Seconds that only ever grow, as `time.monotonic`."""
Sleep = Callable[[float], Awaitable[None]]


class Deadline:
    """Ends a call that outlasts its `timeout_s`."""

    def __init__(self, inner: Connection, *, label: str, default_s: float | None = None) -> None:
        """`default_s` holds for calls that name no time of their own; None lets them last."""
        self._inner = inner
        self._label = label
        self._default_s = default_s

    async def call(self, call: Call, report: Report) -> Outcome:
        """Call within the time given. The agent is told of the end as of any cancellation.

        Raises:
            RemoteTimeout: it did not answer within `call.timeout_s`.
        """
        timeout_s = self._default_s if call.timeout_s is None else call.timeout_s
        if timeout_s is None:
            return await self._inner.call(call, report)
        with anyio.move_on_after(timeout_s):
            return await self._inner.call(call, report)
        raise RemoteTimeout(self._label, timeout_s)

    async def cancel(self, remote_task: str) -> None:
        """Cancel, within the default time."""
        with anyio.move_on_after(self._default_s):
            return await self._inner.cancel(remote_task)
        raise RemoteTimeout(self._label, self._default_s or 0.0)


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait before the next attempt: exponential, capped, with full jitter."""

    first_s: float = 0.2
    factor: float = 2.0
    cap_s: float = 10.0

    def wait_s(self, failures: int, chance: float = 1.0) -> float:
        """Seconds to wait after that many failures in a row (1 or more); `chance` in [0, 1) spreads callers apart."""
        # The exponent is bounded too: an agent that has been down for days must not overflow a float.
        longest = min(self.cap_s, self.first_s * self.factor ** min(failures - 1, 64))
        return longest * (0.5 + chance / 2)


class Retrying:
    """Tries again what could not be reached, and nothing else, with the same idempotency key."""

    def __init__(
        self,
        inner: Connection,
        *,
        attempts: int = 3,
        backoff: Backoff | None = None,
        sleep: Sleep = anyio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`attempts` counts the first one. `chance` returns a number in [0, 1)."""
        if attempts < 1:
            raise ValueError(f"attempts must be 1 or more, not {attempts}")
        self._inner = inner
        self._attempts = attempts
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._chance = chance

    async def call(self, call: Call, report: Report) -> Outcome:
        """Call until it is reached. A task that the agent has bound is asked for before it is sent again.

        Raises:
            RemoteUnavailable: the last attempt's.
        """
        bound = _Bound(report)
        failures = 0
        while True:
            try:
                return await self._inner.call(bound.rebind(call), bound.report)
            except RemoteUnavailable:
                failures += 1
                if failures >= self._attempts:
                    raise
                await self._sleep(self._backoff.wait_s(failures, self._chance()))

    async def cancel(self, remote_task: str) -> None:
        """Cancel, trying again as a call does."""
        for failures in range(1, self._attempts):
            try:
                return await self._inner.cancel(remote_task)
            except RemoteUnavailable:
                await self._sleep(self._backoff.wait_s(failures, self._chance()))
        return await self._inner.cancel(remote_task)


class _Bound:
    """Remembers the task that an attempt was bound to, for the next attempt."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._remote_task = ""

    async def report(self, update: Update) -> None:
        if isinstance(update, TaskBound):
            self._remote_task = update.remote_task
        await self._report(update)

    def rebind(self, call: Call) -> Call:
        if not self._remote_task or self._remote_task == call.remote_task:
            return call
        return replace(call, remote_task=self._remote_task)


class CircuitOpen(RemoteUnavailable):
    """The agent failed so often in a row that it is left alone for a while; it was not asked."""

    def __init__(self, where: str, failures: int, next_try_s: float, last: str) -> None:
        super().__init__(
            where, f"it failed {failures} times in a row and is next tried in {next_try_s:.1f} s; last error: {last}"
        )
        self.args = (where, failures, next_try_s, last)
        self.failures = failures
        self.next_try_s = next_try_s
        """Seconds until a call is let through again."""


class CircuitBreaker:
    """Stops calling an agent that cannot be reached, and lets one call through now and then to see whether it can."""

    def __init__(
        self,
        inner: Connection,
        *,
        label: str,
        failures: int = 5,
        rest_s: float = 30.0,
        clock: Clock = time.monotonic,
    ) -> None:
        """Opens after `failures` in a row, for `rest_s` seconds."""
        self._inner = inner
        self._label = label
        self._threshold = failures
        self._rest_s = rest_s
        self._clock = clock
        self._failed = 0
        self._open_until = 0.0
        self._probing = False
        self._last = ""

    @property
    def is_open(self) -> bool:
        """True while calls are turned away, and during the trial call that ends it."""
        return self._failed >= self._threshold

    async def call(self, call: Call, report: Report) -> Outcome:
        """Call, unless the circuit is open.

        Raises:
            CircuitOpen: the agent was not asked; says when the next try is.
        """
        probe = self._admit()
        try:
            outcome = await self._inner.call(call, report)
        except RemoteUnavailable as error:
            self._failed += 1
            self._last = error.why
            if self.is_open:
                self._open_until = self._clock() + self._rest_s
            raise
        except Exception:
            self._failed = 0  # it answered, whatever it said
            raise
        else:
            self._failed = 0
            return outcome
        finally:
            if probe:
                self._probing = False

    async def cancel(self, remote_task: str) -> None:
        """Cancel whatever the circuit's state: stopping work is always worth the attempt."""
        await self._inner.cancel(remote_task)

    def _admit(self) -> bool:
        """Return whether this call is the trial call of a half-open circuit."""
        if not self.is_open:
            return False
        left_s = self._open_until - self._clock()
        if left_s > 0 or self._probing:
            raise CircuitOpen(self._label, self._failed, max(left_s, 0.0), self._last)
        self._probing = True
        return True


class Limited:
    """Lets only so many calls run at once; the others wait their turn, first come, first served."""

    def __init__(self, inner: Connection, limit: int | anyio.CapacityLimiter) -> None:
        """A CapacityLimiter may be shared between connections."""
        self._inner = inner
        self._limiter = anyio.CapacityLimiter(limit) if isinstance(limit, int) else limit

    async def call(self, call: Call, report: Report) -> Outcome:
        """Call when it is our turn."""
        # The borrower is the call, not the task: one task may call through the same limiter twice (a nested team).
        borrower = object()
        await self._limiter.acquire_on_behalf_of(borrower)
        try:
            return await self._inner.call(call, report)
        finally:
            self._limiter.release_on_behalf_of(borrower)

    async def cancel(self, remote_task: str) -> None:
        """Cancel at once: it must not wait behind what it stops."""
        await self._inner.cancel(remote_task)
