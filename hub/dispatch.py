"""The direct path: principal, policy, budget, pooled connection, audit. Every call to any agent passes here once."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Protocol

import anyio
import structlog
from opentelemetry import propagate, trace

from interhub.adapters import (
    Adapter,
    AdapterError,
    AdapterNotFound,
    Call,
    Completed,
    Connection,
    Outcome,
    Principal,
    Report,
)
from interhub.adapters.pool import PoolKey
from interhub.registry import Agent

from .audit import AuditLog, AuditRecord
from .errors import BudgetExceeded, NotAllowed, problem_of
from .policy import Allow, Ask, Decision, Deny, Policy

log = structlog.get_logger()
tracer = trace.get_tracer("interhub")


class Pool(Protocol):
    """What the dispatcher needs of a connection pool (`interhub.adapters.pool.ConnectionPool`)."""

    async def get(self, key: PoolKey, opener: Callable[[], AbstractAsyncContextManager[Connection]]) -> Connection:
        """Return the open connection of that key, opening it when there is none."""
        ...


class Witness(Protocol):
    """Sees how agents fare (`interhub.hub.health.HealthKeeper`). Must not block: it stands on every call's path."""

    def succeeded(self, agent: Agent) -> None:
        """Note that an agent answered."""
        ...

    def failed(self, agent: Agent, error: Exception) -> None:
        """Note that an agent could not be connected, or a call to it failed."""
        ...


class Dispatcher:
    """Carries one call to one agent."""

    def __init__(
        self,
        *,
        adapters: Mapping[str, Adapter],
        pool: Pool,
        policy: Policy,
        audit: AuditLog,
        witness: Witness | None = None,
    ) -> None:
        self._adapters = adapters
        self._pool = pool
        self._policy = policy
        self._audit = audit
        self._witness = witness

    def adapter(self, name: str) -> Adapter:
        """Return the adapter of that name.

        Raises:
            AdapterNotFound: none is installed.
        """
        try:
            return self._adapters[name]
        except KeyError:
            raise AdapterNotFound(name, tuple(sorted(self._adapters))) from None

    def decide(self, agent: Agent, call: Call) -> Decision:
        """Return the policy's decision without acting on it: for a run, which can ask a person."""
        return self._policy.decide(agent, call)

    def admit(self, agent: Agent, call: Call) -> None:
        """Refuse what the policy does not allow outright, and record the refusal.

        Raises:
            NotAllowed: the policy denies it, or wants a person asked, which the direct path cannot do.
        """
        decision = self._policy.decide(agent, call)
        match decision:
            case Allow():
                return
            case Deny():
                refusal = NotAllowed(f"{call.capability or 'a call'} of agent {agent.id}", decision.why)
            case Ask():
                why = f"{decision.why}; a person must approve it: use `delegate`"
                refusal = NotAllowed(f"{call.capability or 'a call'} of agent {agent.id}", why)
        self.record(agent, call, decision="deny" if isinstance(decision, Deny) else "ask", outcome="refused")
        raise refusal

    async def connection(self, agent: Agent, principal: Principal) -> Connection:
        """Return the pooled connection to an agent.

        Raises:
            AdapterNotFound: no adapter speaks to it.
            BadEndpoint: its address, command or file cannot be used.
            RemoteUnavailable: it could not be reached.
        """
        adapter = self.adapter(agent.adapter)
        # Until agents have credentials per user, the credential is the agent's own and its tenant shares it.
        key = PoolKey(credential=agent.tenant, agent=f"{agent.tenant}/{agent.id}")
        try:
            return await self._pool.get(key, lambda: adapter.connect(agent.endpoint, card=agent.card, label=agent.id))
        except AdapterError as error:
            if self._witness is not None:
                self._witness.failed(agent, error)
            raise

    async def call(self, agent: Agent, call: Call, report: Report, *, admitted: bool = False) -> Outcome:
        """Carry one call to an agent and return how it ended.

        `admitted` is for a run that has asked the policy, or a person, already.

        Raises:
            NotAllowed: the policy says no.
            BudgetExceeded: the tree may not go deeper.
            AdapterError: what the adapter raises.
        """
        if call.budget.depth < 0:
            raise BudgetExceeded("levels of delegation", 0)
        if not admitted:
            self.admit(agent, call)
        started = perf_counter()
        outcome = "failed"
        with tracer.start_as_current_span(
            f"execute_tool {agent.id}/{call.capability}" if call.capability else f"invoke_agent {agent.id}",
            kind=trace.SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": "execute_tool" if call.capability else "invoke_agent",
                "gen_ai.agent.name": agent.id,
                "gen_ai.tool.name": call.capability,
            },
        ):
            try:
                carrier: dict[str, str] = {}
                propagate.inject(carrier)
                outgoing = replace(call, trace={**call.trace, **carrier}) if carrier else call
                connection = await self.connection(agent, call.principal)
                result = await connection.call(outgoing, report)
                outcome = "completed" if isinstance(result, Completed) else "input_required"
                if self._witness is not None:
                    self._witness.succeeded(agent)
                return result
            except anyio.get_cancelled_exc_class():
                outcome = "canceled"
                raise
            except Exception as error:
                outcome = problem_of(error).status.reason
                if self._witness is not None:
                    self._witness.failed(agent, error)
                raise
            finally:
                self.record(agent, call, decision="allow", outcome=outcome, started=started)

    def record(self, agent: Agent, call: Call, *, decision: str, outcome: str, started: float | None = None) -> None:
        """Append one audit record of a call."""
        self._audit.append(
            AuditRecord(
                at=datetime.now(UTC),
                tenant=call.principal.tenant,
                subject=call.principal.subject,
                action="call",
                target=f"{agent.id}/{call.capability}" if call.capability else agent.id,
                decision=decision,
                outcome=outcome,
                duration_ms=0.0 if started is None else (perf_counter() - started) * 1000.0,
                detail={"key": call.idempotency_key},
            )
        )
