"""How agents fare: noted from the calls that are made anyway, and looked after while nobody calls.

An agent that could not be reached is looked at again later and later, so that one which comes back is found without
anybody having to try it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import anyio
import structlog

from interhub.adapters import (
    AdapterError,
    BadEndpoint,
    ProtocolViolation,
    RemoteDenied,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
)
from interhub.adapters.backoff import Backoff
from interhub.registry import Agent, AgentNotFound, Health, HealthState, Registry, RegistryError

log = structlog.get_logger()

Look = Callable[[str, str], Awaitable[None]]
"""Looks at an agent (tenant, id) again, and keeps what it finds; raises AdapterError when it cannot be reached."""

_SUPERVISED = frozenset({"team", "workflow"})
"""They are the hub itself: what fails in them is their members'."""


_LOOKS_AT_ONCE = 16
"""A hub whose two hundred agents went down together does not ask all of them at the same moment."""


@dataclass
class _Failing:
    count: int
    due_at: datetime


class HealthKeeper:
    """Keeps agents' health in the registry. `run` writes; noting only remembers."""

    def __init__(
        self,
        registry: Registry,
        look: Look,
        *,
        backoff: Backoff | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._registry = registry
        self._look = look
        self._backoff = backoff or Backoff(first_s=15.0, cap_s=900.0)
        self._now = now
        self._failing: dict[tuple[str, str], _Failing] = {}
        self._looking: set[tuple[str, str]] = set()
        self._news: dict[tuple[str, str], Health] = {}
        self._changed = anyio.Event()

    def succeeded(self, agent: Agent) -> None:
        """Note that an agent answered."""
        key = (agent.tenant, agent.id)
        if agent.health.state is HealthState.HEALTHY and key not in self._failing and key not in self._news:
            return  # nothing new: the path of almost every call
        self._failing.pop(key, None)
        self._note(key, Health(state=HealthState.HEALTHY, checked_at=self._now()))

    def failed(self, agent: Agent, error: Exception) -> None:
        """Note that an agent could not be connected, or a call to it failed."""
        if agent.adapter in _SUPERVISED:
            return
        match error:
            case RemoteTimeout():
                return  # slow with one call is not gone
            case RemoteDenied() | RemoteUnavailable() | ProtocolViolation() | BadEndpoint():
                self._fails((agent.tenant, agent.id), str(error))
            case RemoteRefused():
                self.succeeded(agent)  # it is there, and said no
            case _:
                return

    async def run(self) -> None:
        """Write what is noted, and look after those that fail, until cancelled."""
        for agent in await self._registry.all():
            if agent.health.state is HealthState.FAILING:
                self._failing[agent.tenant, agent.id] = _Failing(1, agent.health.next_try_at or self._now())
        at_once = anyio.CapacityLimiter(_LOOKS_AT_ONCE)
        # Looks go on side by side, and beside the writing: an agent that lets us wait for its whole minute keeps no
        # other from being seen again, or from being marked.
        async with anyio.create_task_group() as looks:
            while True:
                with anyio.move_on_after(self._wait_s()):
                    await self._changed.wait()
                self._changed = anyio.Event()
                await self._write()
                for key, failing in self._failing.items():
                    if failing.due_at <= self._now() and key not in self._looking:
                        self._looking.add(key)
                        looks.start_soon(self._look_again, key, at_once)

    def _wait_s(self) -> float | None:
        due = [failing.due_at for key, failing in self._failing.items() if key not in self._looking]
        if not due:
            return None
        return max(0.0, (min(due) - self._now()).total_seconds())

    async def _look_again(self, key: tuple[str, str], at_once: anyio.CapacityLimiter) -> None:
        try:
            async with at_once:
                with anyio.move_on_after(60.0) as limit:
                    await self._look(*key)
        except AdapterError as error:
            self._fails(key, str(error))
        except AgentNotFound:
            self._failing.pop(key, None)  # it was removed meanwhile
        except RegistryError as error:
            self._fails(key, str(error))  # nothing is known of the agent; it is looked at again
        except Exception:  # one agent's trouble must not end the keeping of all
            log.exception("health_check_crashed", tenant=key[0], agent=key[1])
            self._fails(key, "the hub failed to look at it; its log says why")
        else:
            if limit.cancelled_caught:
                self._fails(key, "it did not say within 60 s what it can do")
                return
            self._failing.pop(key, None)
            log.info("agent_is_back", tenant=key[0], agent=key[1])
        finally:
            self._looking.discard(key)
            self._changed.set()

    def _fails(self, key: tuple[str, str], why: str) -> None:
        before = self._failing.get(key)
        now = self._now()
        if before is not None and before.due_at > now:
            count, due_at = before.count, before.due_at  # calls that fail meanwhile do not put it off
        else:
            count = before.count + 1 if before else 1
            due_at = now + timedelta(seconds=self._backoff.wait_s(count))
        self._failing[key] = _Failing(count, due_at)
        self._note(key, Health(state=HealthState.FAILING, last_error=why, checked_at=now, next_try_at=due_at))

    def _note(self, key: tuple[str, str], health: Health) -> None:
        self._news[key] = health
        self._changed.set()

    async def _write(self) -> None:
        news, self._news = self._news, {}
        for (tenant, agent_id), health in news.items():
            try:
                await self._registry.set_health(tenant, agent_id, health)
            except RegistryError as error:
                log.warning("health_not_kept", tenant=tenant, agent=agent_id, why=str(error))
