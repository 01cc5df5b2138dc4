"""Tells webhooks what happens in runs: derived from the journal, at least once, in order for each of them.

Nothing is queued: the journal is the queue, and a webhook's row says which event it was told last. A hub that was
killed goes on from there, so that what was under way is told once more. Of several hubs one tells a webhook, and
another when that is gone (`claims`). A run never waits for any of this.
"""

import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

import anyio
import structlog
from anyio.abc import TaskGroup

from interhub.adapters import AdapterError, Principal
from interhub.hub.errors import RunNotFound
from interhub.hub.supervisor.run import Event, Run
from interhub.registry import DatabaseError

from .claims import Claims, OneHub
from .config import PushConfig, PushState
from .sender import Push, ReceiverFailed, Sender, Unwanted
from .store import PushStore

log = structlog.get_logger()

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 900.0
_FACTOR = 3.0
TAKE_UP_S = 10.0
"""How often it is looked for webhooks that nobody tells, where there are other hubs."""
_DATABASE_PAUSE_S = 1.0


class Runs(Protocol):
    """What is known of runs: `interhub.hub.service.Hub`."""

    async def run(self, principal: Principal, run_id: str) -> Run:
        """Return a run as it stands.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
        """
        ...

    def watch(self, principal: Principal, run_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        """Yield what happens in a run after a sequence number, until it has ended."""
        ...


class Story(Protocol):
    """What is told of one run to one webhook."""

    async def beginning(self, run: Run) -> bytes:
        """Return the run as it stands: what a webhook is told first."""
        ...

    async def bodies(self, event: Event) -> Sequence[bytes]:
        """Return what is told of an event; nothing of one that says nothing to a client."""
        ...


class Bodies(Protocol):
    """Writes the bodies of pushes: the face of the protocol that they are of."""

    def story(self, principal: Principal, run: Run, version: str) -> Story:
        """Begin to tell a run in a version of the protocol."""
        ...


class Outbox:
    """Tells webhooks; `running` starts where an earlier process was stopped."""

    def __init__(
        self,
        *,
        store: PushStore,
        sender: Sender,
        runs: Runs,
        bodies: Bodies,
        attempts: int = 10,
        note: Callable[[PushConfig, str], None] = lambda config, why: None,
        claims: Claims | None = None,
        take_up_s: float = TAKE_UP_S,
    ) -> None:
        """A webhook that fails `attempts` times in a row is given up, and `note` called with the reason.

        `claims` say which webhooks are this hub's, where others share its database.
        """
        self._claims = claims or OneHub()
        self._take_up_s = take_up_s
        self.store = store
        self.sender = sender
        self._runs = runs
        self._bodies = bodies
        self._attempts = attempts
        self._note = note
        self._tasks: TaskGroup | None = None
        self._telling: dict[tuple[str, str], anyio.CancelScope] = {}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Tell webhooks while the block lasts."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.sender.running())
            stack.push_async_callback(self._claims.close)
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            await self._take_up()
            if self._claims.shared:
                self._tasks.start_soon(self._look_again)
            yield
            self._tasks.cancel_scope.cancel()
        self._tasks = None

    async def _take_up(self) -> None:
        """Begin to tell the webhooks that nobody tells."""
        taken = 0
        for seen in await self.store.active():
            if seen.key in self._telling or not await self._claims.claim(seen.key):
                continue
            # It may have been told more, or all, between our look and our turn.
            config = await self.store.get(*seen.key)
            if config is None or config.state is not PushState.ACTIVE:
                await self._claims.release(seen.key)
                continue
            self._begin(config)
            taken += 1
        if taken:
            log.info("pushes_taken_up", webhooks=taken)

    async def _look_again(self) -> None:
        while True:
            await anyio.sleep(self._take_up_s)
            try:
                await self._take_up()
            except DatabaseError as error:
                log.warning("pushes_not_taken_up", why=str(error))

    async def add(self, config: PushConfig, *, most: int) -> bool:
        """Keep a webhook and begin to tell it; False when its run has `most` others.

        One that is there with the same address and credentials is left as it is: its caller sent the request again.
        """
        known = await self.store.get(*config.key)
        if known is not None and (known.destination, known.version) == (config.destination, config.version):
            return True
        self._end(config)
        if not await self.store.put(config, most=most):
            return False
        if await self._claims.claim(config.key):  # else the hub that tells it finds that it is another one now
            self._begin(config)
        return True

    async def remove(self, run_id: str, config_id: str) -> None:
        """Tell a webhook nothing any more, and forget it; that there is none is no error."""
        self._end_key((run_id, config_id))
        await self.store.remove(run_id, config_id)
        await self._claims.release((run_id, config_id))

    def _begin(self, config: PushConfig) -> None:
        assert self._tasks is not None, "it is running"
        scope = self._telling[config.key] = anyio.CancelScope()
        self._tasks.start_soon(self._guarded, config, scope)

    def _end(self, config: PushConfig) -> None:
        self._end_key(config.key)

    def _end_key(self, key: tuple[str, str]) -> None:
        scope = self._telling.pop(key, None)
        if scope is not None:
            scope.cancel()

    async def _guarded(self, config: PushConfig, scope: anyio.CancelScope) -> None:
        with scope:
            while True:
                try:
                    await self._tell(config)
                except RunNotFound:
                    await self._forget(config)  # the run was removed
                except DatabaseError as error:
                    log.warning("push_waits_for_the_database", run=config.run_id, config=config.id, why=str(error))
                    await anyio.sleep(_DATABASE_PAUSE_S)
                    config = await self._again(config)
                    continue
                except Exception as error:
                    log.exception("push_failed", run=config.run_id, config=config.id)
                    with suppress(DatabaseError):
                        await self._give_up(config, config.tries, f"the hub failed ({type(error).__name__})")
                break
        if self._telling.get(config.key) is scope:
            del self._telling[config.key]
            await self._claims.release(config.key)

    async def _forget(self, config: PushConfig) -> None:
        with suppress(DatabaseError):
            await self.store.remove(*config.key)

    async def _again(self, config: PushConfig) -> PushConfig:
        """Return a webhook as the database knows it; as it was known, while that is away."""
        try:
            return await self.store.get(*config.key) or config
        except DatabaseError:
            return config

    async def _tell(self, config: PushConfig) -> None:
        """Tell a webhook all that it has not been told, and what happens then, until its run has ended."""
        principal = Principal(subject=config.subject, tenant=config.tenant)
        run = await self._runs.run(principal, config.run_id)
        story = self._bodies.story(principal, run, config.version)
        sent = config.sent
        if sent is None:
            sent = run.generation
            if not await self._deliver(config, [await story.beginning(run)], sent):
                return
            if run.state.ended:
                await self.store.told(config, sent=sent, state=PushState.DONE)
                return
            if not await self.store.told(config, sent=sent):
                return
            config = replace(config, tries=0, next_try_at=None)
        async with aclosing(_closable(self._runs.watch(principal, config.run_id, after=sent))) as events:
            async for event in events:
                bodies = await story.bodies(event)
                if not bodies:
                    continue
                if not await self._deliver(config, bodies, event.seq):
                    return
                sent = event.seq
                if not await self.store.told(config, sent=sent):
                    return  # it was removed or replaced, at another hub
                config = replace(config, tries=0, next_try_at=None)
        await self.store.told(config, sent=sent, state=PushState.DONE)

    async def _deliver(self, config: PushConfig, bodies: Sequence[bytes], seq: int) -> bool:
        """Send bodies in order, each until it is taken; False when the webhook was given up."""
        tries, due = config.tries, config.next_try_at
        for n, body in enumerate(bodies):
            push = Push(body=body, version=config.version, delivery=f"{config.run_id}.{seq}.{n}")
            while True:
                if due is not None:
                    await anyio.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()))
                try:
                    await self.sender.send(config.destination, push)
                except AdapterError as error:
                    tries += 1
                    if tries >= self._attempts or isinstance(error, Unwanted):
                        await self._give_up(config, tries, str(error))
                        return False
                    due = datetime.now(UTC) + timedelta(seconds=pause_s(tries, error))
                    log.warning(
                        "push_not_taken", run=config.run_id, config=config.id, tries=tries, why=str(error), next=due
                    )
                    await self.store.failed(config, tries=tries, next_try_at=due, error=str(error))
                else:
                    tries, due = 0, None
                    break
        return True

    async def _give_up(self, config: PushConfig, tries: int, why: str) -> None:
        log.error("push_given_up", run=config.run_id, config=config.id, tries=tries, why=why)
        await self.store.given_up(config, tries=tries, error=why)
        self._note(config, why)


def pause_s(tries: int, error: AdapterError | None = None) -> float:
    """Return the seconds to wait after so many failures: longer each time, and never in step with others."""
    pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * _FACTOR ** (tries - 1))
    if isinstance(error, ReceiverFailed) and error.retry_after_s is not None:
        pause = min(LONGEST_PAUSE_S, max(pause, error.retry_after_s))
    return pause * random.uniform(0.8, 1.2)  # noqa: S311  # spreads load, guards nothing


async def _closable(events: AsyncIterator[Event]) -> AsyncGenerator[Event]:
    try:
        async for event in events:
            yield event
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()
