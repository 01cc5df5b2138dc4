"""How many direct calls may be under way at once, to one agent and of one principal; what is beyond waits its turn.

Counters, because every call passes here: only a call that has to wait costs an object. Runs are not counted, they have
queues of their own (`queues` in the settings).
"""

from dataclasses import dataclass
from typing import TypeAlias

import anyio

from .errors import TooManyCalls

AgentKey: TypeAlias = tuple[str, str]
"""A tenant and the id of one of its agents."""


@dataclass(frozen=True, kw_only=True)
class FlightLimits:
    """How many calls may be under way at once, and how long one more waits (`limits` in the settings)."""

    per_agent: int = 256
    per_principal: int = 256
    wait_s: float = 30.0


class Flights:
    """Counts the calls that are under way."""

    def __init__(self, limits: FlightLimits) -> None:
        self._limits = limits
        self._of_agents: dict[AgentKey, int] = {}
        self._of_principals: dict[str, int] = {}
        self._waiting: list[_Waiter] = []

    def take(self, agent: AgentKey, principal: str) -> bool:
        """Count a call in, to be counted out by `give`; False where it has to wait (`enter`)."""
        to_agent = self._of_agents.get(agent, 0)
        of_principal = self._of_principals.get(principal, 0)
        if to_agent >= self._limits.per_agent or of_principal >= self._limits.per_principal:
            return False
        self._of_agents[agent] = to_agent + 1
        self._of_principals[principal] = of_principal + 1
        return True

    def give(self, agent: AgentKey, principal: str) -> None:
        """Count a call out, and let in those that waited for it, in the order they came."""
        if (left := self._of_agents[agent] - 1) > 0:
            self._of_agents[agent] = left
        else:
            del self._of_agents[agent]
        if (left := self._of_principals[principal] - 1) > 0:
            self._of_principals[principal] = left
        else:
            del self._of_principals[principal]
        if self._waiting:
            self._let_in()

    async def enter(self, agent: AgentKey, principal: str) -> None:
        """Count a call in, to be counted out by `give`, waiting its turn first.

        Raises:
            TooManyCalls: none that is in its way ended in time.
        """
        if self.take(agent, principal):
            return
        waiter = _Waiter(agent, principal)
        self._waiting.append(waiter)
        try:
            with anyio.move_on_after(self._limits.wait_s):
                await waiter.let_in.wait()
        except BaseException:
            if waiter.let_in.is_set():
                self.give(agent, principal)
            raise
        finally:
            if not waiter.let_in.is_set():
                self._waiting.remove(waiter)
        if not waiter.let_in.is_set():
            if self._of_agents.get(agent, 0) >= self._limits.per_agent:
                raise TooManyCalls(f"agent {agent[1]!r}", self._limits.per_agent, "limits.calls_per_agent")
            raise TooManyCalls("this caller", self._limits.per_principal, "limits.calls_per_principal")

    def _let_in(self) -> None:
        still: list[_Waiter] = []
        for waiter in self._waiting:
            if self.take(waiter.agent, waiter.principal):
                waiter.let_in.set()
            else:
                still.append(waiter)
        self._waiting = still


class _Waiter:
    def __init__(self, agent: AgentKey, principal: str) -> None:
        self.agent = agent
        self.principal = principal
        self.let_in = anyio.Event()
