"""The direct path: principal, policy, budget, pooled connection, audit. Every call to any agent passes here once."""

from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Protocol, TypeAlias

import anyio
import structlog
from opentelemetry import propagate, trace
from opentelemetry.context import Context

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
from interhub.adapters.base import another
from interhub.adapters.pool import ConnectionState, Held, PoolKey
from interhub.agent_cards import AgentCard
from interhub.registry import Agent

from .audit import AuditLog, AuditRecord
from .errors import BudgetExceeded, NotAllowed, TooManyCalls, problem_of
from .flights import FlightLimits, Flights
from .guards import Guards
from .policy import Allow, Ask, Decision, Deny, Policy, matches
from .tracing import carrier_of, spans_are_exported

log = structlog.get_logger()
tracer = trace.get_tracer("interhub")


_began: ContextVar[float | None] = ContextVar("call_began", default=None)


def began() -> float:
    """Return when the call of this context began, as a `perf_counter()`: now, unless it was handed on on the way."""
    return _began.get() or perf_counter()


Record: TypeAlias = Callable[[Agent, Call, str, float], None]
"""Takes how a call ended, and when it began as a `perf_counter()`."""


class Pass:
    """A call that has been let through, and is carried by a face that speaks the agent's protocol itself.

    Ends with `end` or `hand_on`, once. It is counted among the calls under way until then, or until it is dropped.
    """

    __slots__ = ("_agent", "_flights", "_record", "_span", "_started", "call", "mark", "trace")

    def __init__(
        self,
        agent: Agent,
        call: Call,
        mark: str,
        record: Record,
        parent: Context | None,
        flights: Flights | None = None,
        carrier: Mapping[str, str] | None = None,
    ) -> None:
        """`flights` has counted the call in. `carrier` is the trace to send along where no spans are exported."""
        self._agent = agent
        self._flights = flights
        self.call = call
        self.mark = mark
        """What the call carries to its agent."""
        self._record = record
        self._started = perf_counter()
        self._span: trace.Span | None = None
        if spans_are_exported():
            self._span = tracer.start_span(
                f"execute_tool {agent.id}/{call.capability}",
                context=parent,
                kind=trace.SpanKind.CLIENT,
                attributes=_attributes(agent, call),
            )
        if carrier is None or parent is not None or self._span is not None:
            carrier = carrier_of(self._span or trace.get_current_span(parent))
        self.trace = carrier
        """W3C trace context to send along."""

    def end(self, outcome: str) -> None:
        """Record how it ended."""
        if self._span is not None:
            self._span.end()
        self._count_out()
        self._record(self._agent, self.call, outcome, self._started)

    @contextmanager
    def hand_on(self) -> Generator[None]:
        """Leave the record to whoever carries the call to its end inside the block."""
        if self._span is not None:
            self._span.end()
        token = _began.set(self._started)
        try:
            yield
        finally:
            _began.reset(token)
            self._count_out()

    def __del__(self) -> None:
        self._count_out()  # a call that was not made after all

    def _count_out(self) -> None:
        if (flights := self._flights) is not None:
            self._flights = None
            flights.give((self._agent.tenant, self._agent.id), self.call.principal.key)


class Pool(Protocol):
    """What the dispatcher needs of a connection pool (`interhub.adapters.pool.ConnectionPool`)."""

    async def get(
        self,
        key: PoolKey,
        opener: Callable[[], AbstractAsyncContextManager[Connection]],
        *,
        card: AgentCard | None = None,
    ) -> Connection:
        """Return the open connection of that key, opening it when there is none; it goes by that card."""
        ...

    def hold(self, key: PoolKey) -> Held | None:
        """Hold the open connection of that key until it is released; None where none is open now."""
        ...

    def states(self) -> tuple[ConnectionState, ...]:
        """Return what is known of every connection."""
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
        guards: Guards | None = None,
        limits: FlightLimits | None = None,
    ) -> None:
        self.guards = guards or Guards()
        self._flights = Flights(limits or FlightLimits())
        self._adapters = adapters
        self._pool = pool
        self._policy = policy
        self.audit = audit
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
                why = f"{decision.why}; a person must approve it first, who cannot be asked here: use `delegate`"
                refusal = NotAllowed(f"{call.capability or 'a call'} of agent {agent.id}", why)
        self.record(agent, call, decision="deny" if isinstance(decision, Deny) else "ask", outcome="refused")
        raise refusal

    def admit_to(self, agent: Agent, principal: Principal) -> None:
        """Refuse who may use nothing of an agent, and record the refusal: for what uses no capability, as a list.

        Raises:
            NotAllowed: the policy denies the principal the whole agent.
        """
        denied = self._policy.shuts_out(agent, principal)
        if denied is not None:
            nothing = Call(capability="", principal=principal, idempotency_key="")
            self.record(agent, nothing, decision="deny", outcome="refused")
            raise NotAllowed(f"any use of agent {agent.id}", denied.why)

    def is_shut_out(self, agent: Agent, principal: Principal) -> bool:
        """Whether `admit_to` would refuse."""
        return self._policy.shuts_out(agent, principal) is not None

    async def connection(self, agent: Agent, principal: Principal) -> Connection:
        """Return the pooled connection to an agent.

        Raises:
            AdapterNotFound: no adapter speaks to it.
            BadEndpoint: its address, command or file cannot be used.
            RemoteUnavailable: it could not be reached.
        """
        adapter = self.adapter(agent.adapter)
        try:
            return await self._pool.get(
                _key(agent),
                lambda: adapter.connect(agent.endpoint, card=agent.card, label=agent.id),
                card=agent.card,
            )
        except AdapterError as error:
            self.fared(agent, error)
            raise

    def fared(self, agent: Agent, error: Exception | None = None) -> None:
        """Note that an agent answered, or how a request to it failed: for those that go past `call`, too."""
        if self._witness is None:
            return
        if error is None:
            self._witness.succeeded(agent)
        else:
            self._witness.failed(agent, error)

    def hold(self, agent: Agent) -> Held | None:
        """Hold the open connection to an agent until it is released; None where none is open now."""
        return self._pool.hold(_key(agent))

    def let_through(
        self, agent: Agent, call: Call, *, parent: Context | None = None, trace: Mapping[str, str] | None = None
    ) -> Pass | None:
        """Let a call through that may go ahead at once; None where budget or policy have something to say about it.

        What they say is for `call` or `admit`, which record it; None too where it has to wait its turn. `parent` is
        the trace that the call belongs to, where that is not the current one; `trace` the same as headers, where no
        context was made of them.
        """
        if call.budget.depth < 0 or not isinstance(self._policy.decide(agent, call), Allow):
            return None
        if self.guards.limits.marked and matches(call.principal, self.guards.limits.marked):
            return None
        mark = self.guards.mark(agent.id, call, self.guards.budget())
        if not self._flights.take((agent.tenant, agent.id), call.principal.key):
            return None
        return Pass(agent, call, mark, self._ended, parent, self._flights, trace)

    @asynccontextmanager
    async def under_way(self, agent: Agent, call: Call) -> AsyncGenerator[None]:
        """Count a direct call while the block lasts, waiting its turn first. One that was handed on is counted already.

        Raises:
            TooManyCalls: the agent or the caller has as many as may be, and none ended in time.
        """
        if _began.get() is not None:
            yield
            return
        place = (agent.tenant, agent.id), call.principal.key
        try:
            await self._flights.enter(*place)
        except TooManyCalls as full:
            self.record(agent, call, decision="allow", outcome=problem_of(full).status.reason)
            raise
        try:
            yield
        finally:
            self._flights.give(*place)

    def marked(self, agent: Agent, call: Call) -> Call:
        """Return a call with the mark that it carries to its agent."""
        return another(call, mark=self.guards.mark(agent.id, call))

    def _ended(self, agent: Agent, call: Call, outcome: str, started: float) -> None:
        if outcome != "canceled":
            self.fared(agent)
        self.record(agent, call, decision="allow", outcome=outcome, started=started)

    def connections(self, agent: Agent) -> tuple[ConnectionState, ...]:
        """Return how the connections to an agent are; none while nobody uses it."""
        name = _key(agent).agent
        return tuple(state for state in self._pool.states() if state.key.agent == name)

    async def call(self, agent: Agent, call: Call, report: Report, *, admitted: bool = False) -> Outcome:
        """Carry one call to an agent and return how it ended.

        `admitted` is for a run that has asked the policy, or a person, already.

        Raises:
            NotAllowed: the policy says no.
            BudgetExceeded: the tree may not go deeper.
            TooManyCalls: the agent or the caller has as many direct calls under way as may be.
            AdapterError: what the adapter raises.
        """
        if call.budget.depth < 0:
            raise BudgetExceeded("levels of delegation", 0)
        if admitted:
            return await self._call(agent, call, report)
        self.admit(agent, call)
        async with self.under_way(agent, call):
            return await self._call(agent, call, report)

    async def _call(self, agent: Agent, call: Call, report: Report) -> Outcome:
        started = began()
        outcome = "failed"
        with tracer.start_as_current_span(
            f"execute_tool {agent.id}/{call.capability}" if call.capability else f"invoke_agent {agent.id}",
            kind=trace.SpanKind.CLIENT,
            attributes=_attributes(agent, call),
        ):
            try:
                carrier: dict[str, str] = {}
                propagate.inject(carrier)
                mark = self.guards.mark(agent.id, call)
                outgoing = replace(call, mark=mark, trace={**call.trace, **carrier})
                connection = await self.connection(agent, call.principal)
                result = await connection.call(outgoing, report)
                outcome = "completed" if isinstance(result, Completed) else "input_required"
                self.fared(agent)
                return result
            except anyio.get_cancelled_exc_class():
                outcome = "canceled"
                raise
            except Exception as error:
                outcome = problem_of(error).status.reason
                self.fared(agent, error)
                raise
            finally:
                self.record(agent, call, decision="allow", outcome=outcome, started=started)

    def record(self, agent: Agent, call: Call, *, decision: str, outcome: str, started: float | None = None) -> None:
        """Append one audit record of a call."""
        self.audit.append(
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


def _key(agent: Agent) -> PoolKey:
    # Until agents have credentials per user, the credential is the agent's own and its tenant shares it.
    return PoolKey(credential=agent.tenant, agent=f"{agent.tenant}/{agent.id}")


def _attributes(agent: Agent, call: Call) -> dict[str, str]:
    return {
        "gen_ai.operation.name": "execute_tool" if call.capability else "invoke_agent",
        "gen_ai.agent.name": agent.id,
        "gen_ai.tool.name": call.capability,
    }
