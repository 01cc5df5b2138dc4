"""The hub's verbs. Every face calls these and nothing below them."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from uuid import uuid4

import structlog
from opentelemetry.context import Context

from interhub.adapters import (
    AdapterError,
    Budget,
    Call,
    Completed,
    Connection,
    Message,
    Outcome,
    Principal,
    Report,
    Resume,
    TextPart,
    ignore,
)
from interhub.adapters.pool import ConnectionState, Held
from interhub.agent_cards import Capability, JsonObject, Kind, findings
from interhub.registry import Agent, AgentExists, Registry
from interhub.registry.search import Index, Match

from .audit import AuditLog, AuditRecord
from .bus import Bus, NoBus
from .discovery import Discovery, FromDocument, Source
from .dispatch import Dispatcher, Pass
from .errors import (
    BadRequest,
    BudgetExceeded,
    CapabilityNotFound,
    DelegationLoop,
    HubError,
    NotAllowed,
    QuestionNotFound,
    problem_of,
    shown,
)
from .guards import lineage_of
from .policy import Ask
from .roster import Roster
from .supervisor.run import Answer, Approval, Assignment, Event, Run, RunFilter, RunPage, RunState
from .supervisor.supervisor import Supervisor
from .supervisor.waits import Signal

log = structlog.get_logger()

MAX_CONTEXT_ID = 200
"""Most characters of a conversation's id."""


@dataclass(frozen=True, kw_only=True)
class HubInfo:
    """What the hub says of itself."""

    base_url: str
    """Where callers reach it, without a trailing slash."""
    version: str
    name: str = "interhub"
    grpc: str = ""
    """Where callers reach it over gRPC, `host:port`; empty where they cannot."""


class Hub:
    """The hub's verbs, each on behalf of a principal."""

    def __init__(
        self,
        *,
        info: HubInfo,
        registry: Registry,
        index: Index,
        discovery: Discovery,
        dispatcher: Dispatcher,
        supervisor: Supervisor,
        audit: AuditLog,
        forget: Callable[[str, str], None] = lambda tenant, agent_id: None,
        bus: Bus | None = None,
    ) -> None:
        """`forget` closes what is open to an agent (tenant, id). `bus` joins the replicas of one database."""
        self.info = info
        self._registry = registry
        self._index = index
        self._discovery = discovery
        self._dispatcher = dispatcher
        self._supervisor = supervisor
        self._audit = audit
        self._roster = Roster(registry=registry, index=index, bus=bus or NoBus(), forget=forget)

    # Agents

    async def add_agent(self, principal: Principal, source: Source, *, agent_id: str = "") -> Agent:
        """Reach an agent, and register it.

        Raises:
            AgentExists: an agent of that id is registered; checked before the agent is reached where the id is given.
            InvalidAgentId: the id is not of the allowed form.
            AdapterError: nothing usable is there.
            PlanInvalid: a team's or workflow's document has mistakes.
        """
        if agent_id and any(agent.id == agent_id for agent in await self._registry.list(principal.tenant)):
            raise AgentExists(agent_id)
        agent = await self._discovery.look(source, tenant=principal.tenant, agent_id=agent_id)
        await self._registry.add(agent)
        detail: JsonObject = {"adapter": agent.adapter, "digest": agent.digest, **_warned(agent)}
        self._note(principal, "agent_add", agent.id, detail=detail)
        await self._roster.changed(agent)
        return agent

    async def check_document(self, principal: Principal, source: FromDocument) -> Agent:
        """Return the agent that a team's or workflow's document would become, without registering it.

        Raises:
            PlanInvalid: the document has mistakes.
        """
        return await self._discovery.look(source, tenant=principal.tenant)

    async def agents(self, principal: Principal) -> tuple[Agent, ...]:
        """Return the agents the caller may use, by id."""
        return await self._registry.list(principal.tenant)

    async def agent(self, principal: Principal, agent_id: str) -> Agent:
        """Return one agent.

        Raises:
            AgentNotFound: the caller's tenant has none of that id.
        """
        return await self._registry.get(principal.tenant, agent_id)

    def connections(self, agent: Agent) -> tuple[ConnectionState, ...]:
        """Return how this process's connections to an agent are; none while nobody uses it."""
        return self._dispatcher.connections(agent)

    async def refresh_agent(self, principal: Principal, agent_id: str) -> Agent:
        """Ask an agent again what it can do, and keep that.

        Raises:
            AgentNotFound: the caller's tenant has none of that id.
            AdapterError: it could not be reached; what was known stays.
        """
        known = await self.agent(principal, agent_id)
        agent = await self._discovery.look_again(known)
        await self._registry.replace(agent)
        if agent.digest != known.digest:
            detail: JsonObject = {"from": known.digest, "to": agent.digest, **_warned(agent)}
            self._note(principal, "agent_change", agent.id, detail=detail)
            log.info("agent_changed", agent=agent.id, tenant=agent.tenant, digest=agent.digest)
        if (agent.digest, agent.endpoint) != (known.digest, known.endpoint):
            await self._roster.changed(agent)
        elif agent.card != known.card:
            # The digest is over what the agent is trusted for; the rest of the card says how it is spoken to.
            await self._roster.announce(agent)
        return agent

    async def remove_agent(self, principal: Principal, agent_id: str) -> Agent:
        """Forget an agent, and close what is open to it.

        Raises:
            AgentNotFound: the caller's tenant has none of that id.
        """
        agent = await self._registry.remove(principal.tenant, agent_id)
        self._note(principal, "agent_remove", agent.id)
        await self._roster.removed(agent)
        return agent

    async def find(
        self,
        principal: Principal,
        need: str,
        *,
        limit: int = 5,
        agents: Collection[str] | None = None,
        among: Callable[[str, Capability], bool] | None = None,
    ) -> tuple[Match, ...]:
        """Return the capabilities that best meet a need, best first; none when nobody can.

        `agents` and `among` (of agent id and capability) restrict who is considered.
        """
        return self._index.search(need, tenant=principal.tenant, limit=limit, agents=agents, among=among)

    def on_agents_changed(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Have a listener called with the tenant whenever its agents or their capabilities change.

        Called on the server's loop; it must not block. Returns a function that ends it.
        """
        return self._roster.on_changed(listener)

    # The direct path

    async def call(
        self,
        principal: Principal,
        agent_id: str,
        capability: str = "",
        *,
        kind: Kind | None = None,
        arguments: JsonObject | None = None,
        message: Message | None = None,
        report: Report = ignore,
        resume: Resume | None = None,
        context_id: str = "",
        idempotency_key: str = "",
        timeout_s: float | None = None,
        budget: Budget | None = None,
        trace: Mapping[str, str] | None = None,
        meta: JsonObject | None = None,
        mark: str = "",
    ) -> Outcome:
        """Use one capability of one agent, now, without a durable run; unless a person must approve it first.

        Raises:
            AgentNotFound, CapabilityNotFound: there is no such thing.
            NotAllowed: the policy says no.
            AdapterError: the agent failed; see `interhub.adapters.errors`.
        """
        agent = await self.agent(principal, agent_id)
        chosen = capability_of(agent, capability, kind)
        call = Call(
            capability=chosen.name,
            kind=chosen.kind,
            arguments=arguments or {},
            message=message,
            principal=principal,
            # A key is its principal's own: an agent that remembers results by key must not show one to another.
            idempotency_key=f"{principal.key}/{idempotency_key}" if idempotency_key else str(uuid4()),
            context_id=context_id,
            resume=resume,
            timeout_s=timeout_s,
            budget=self._dispatcher.guards.budget(budget),
            trace=trace or {},
            meta=meta or {},
        )
        call = await self.enter(agent, call, mark)
        if self.asks_first(agent, call):
            return await self._supervisor.ask_first(agent, call, report)
        outcome = await self._dispatcher.call(agent, call, report)
        if call.lineage.branch and isinstance(outcome, Completed):
            await self._dispatcher.guards.add(call.lineage.branch, outcome.usage)
        return outcome

    async def enter(self, agent: Agent, call: Call, mark: str) -> Call:
        """Return a call as one below that whose mark the caller has brought; it is counted there.

        Raises:
            NotAllowed: the mark is none of this tenant, or was changed; or this caller must bring one.
            DelegationLoop, BudgetExceeded: the tree's guards stop it.
        """
        guards = self._dispatcher.guards
        try:
            ticket = guards.ticket(mark, call.principal)
            if ticket is None:
                return call
            budget = call.budget.least(await guards.enter(ticket, agent.id))
            await guards.take(ticket.branch, ticket.budget)
        except HubError as stopped:
            self._stopped(call.principal, agent.id, stopped)
            raise
        return replace(call, budget=replace(budget, depth=budget.depth - 1), lineage=lineage_of(ticket))

    def marked(self, agent: Agent, call: Call) -> Call:
        """Return a call of a relay with the mark that it carries to its agent."""
        return self._dispatcher.marked(agent, call)

    def asks_first(self, agent: Agent, call: Call) -> bool:
        """Whether the policy wants a person asked before this call: `call` then makes it a run, which asks."""
        return isinstance(self._dispatcher.decide(agent, call), Ask)

    async def connection(self, principal: Principal, agent_id: str) -> tuple[Agent, Connection]:
        """Return an agent and the pooled connection to it: for a relay, which admits each request itself.

        Raises:
            AgentNotFound: the caller's tenant has none of that id.
            AdapterError: it could not be reached.
        """
        agent = await self.agent(principal, agent_id)
        return agent, await self._dispatcher.connection(agent, principal)

    def admit(self, agent: Agent, call: Call) -> None:
        """Ask the policy about one request of a relay, and refuse what it does not allow.

        Raises:
            NotAllowed: the policy says no.
        """
        self._dispatcher.admit(agent, call)

    def admit_to(self, agent: Agent, principal: Principal) -> None:
        """Refuse who may use nothing of an agent.

        Raises:
            NotAllowed: the policy denies the principal the whole agent.
        """
        self._dispatcher.admit_to(agent, principal)

    def is_shut_out(self, agent: Agent, principal: Principal) -> bool:
        """Whether `admit_to` would refuse."""
        return self._dispatcher.is_shut_out(agent, principal)

    def hold(self, agent: Agent) -> Held | None:
        """Hold the open connection to an agent until it is released; None where none is open now."""
        return self._dispatcher.hold(agent)

    def let_through(
        self, agent: Agent, call: Call, *, parent: Context | None = None, trace: Mapping[str, str] | None = None
    ) -> Pass | None:
        """Let a call through that a face carries itself; None where it is not simply allowed (see `admit`)."""
        return self._dispatcher.let_through(agent, call, parent=parent, trace=trace)

    def under_way(self, agent: Agent, call: Call) -> AbstractAsyncContextManager[None]:
        """Count one request of a relay while the block lasts, waiting its turn first.

        Raises:
            TooManyCalls: on entering: the agent or the caller has as many under way as may be.
        """
        return self._dispatcher.under_way(agent, call)

    def fared(self, agent: Agent, error: AdapterError | None = None) -> None:
        """Note that an agent answered a request of a relay, or how that failed."""
        self._dispatcher.fared(agent, error)

    def record(self, agent: Agent, call: Call, *, outcome: str, started: float) -> None:
        """Append the audit record of one request of a relay; `started` is a `perf_counter()`."""
        self._dispatcher.record(agent, call, decision="allow", outcome=outcome, started=started)

    # Delegation

    async def submit(self, assignment: Assignment) -> Run:
        """Begin a durable run. The same idempotency key gives the same run.

        Raises:
            BadRequest: nothing is wanted, or what is said contradicts itself.
            PlanInvalid: the workflow has mistakes.
            AgentNotFound, CapabilityNotFound: whom it is delegated to is not there.
        """
        check_assignment(assignment)
        if assignment.agent_id:
            agent = await self.agent(assignment.principal, assignment.agent_id)
            if assignment.capability:
                capability_of(agent, assignment.capability)
        try:
            run = await self._supervisor.submit(assignment)
        except (BudgetExceeded, DelegationLoop, NotAllowed) as stopped:
            self._stopped(assignment.principal, assignment.agent_id, stopped)
            raise
        self._note(assignment.principal, "run_submit", run.id)
        return run

    async def keep(self, assignment: Assignment, outcome: Completed) -> str:
        """Keep what a direct call gave as a run that has ended, so that it can be read later; returns the run's id."""
        run_id = await self._supervisor.keep(assignment, outcome)
        self._note(assignment.principal, "run_keep", run_id)
        return run_id

    async def run(self, principal: Principal, run_id: str) -> Run:
        """Return a run as it stands.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
        """
        return await self._supervisor.get(principal, run_id)

    async def runs(
        self,
        principal: Principal,
        *,
        state: RunState | None = None,
        context_id: str = "",
        limit: int = 50,
        before: str = "",
    ) -> tuple[Run, ...]:
        """Return the caller's runs, newest first; `before` is the id of the last one already seen."""
        return await self._supervisor.list(
            principal, state=state, context_id=context_id or None, limit=limit, before=before or None
        )

    async def page(
        self, principal: Principal, wanted: RunFilter, *, after: tuple[datetime, str] | None = None, limit: int = 50
    ) -> RunPage:
        """Return the caller's runs that a filter wants, those that changed last first, and how many there are.

        `after` is `updated_at` and `id` of the last run already seen.
        """
        return await self._supervisor.page(principal, wanted, after=after, limit=limit)

    async def events(
        self, principal: Principal, run_id: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[Event, ...]:
        """Return what has happened in a run after a sequence number.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
        """
        return await self._supervisor.events(principal, run_id, after=after, limit=limit)

    async def dialogue(self, principal: Principal, run_id: str, *, upto: int | None = None) -> tuple[Event, ...]:
        """Return the events of a run's questions, up to a sequence number, in order: asked, answered and closed.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
        """
        return await self._supervisor.dialogue(principal, run_id, upto=upto)

    def watch(self, principal: Principal, run_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        """Yield what happens in a run after a sequence number, until it has ended.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's; raised at the first event.
        """
        return self._supervisor.watch(principal, run_id, after=after)

    async def wait(self, principal: Principal, run_id: str, *, timeout_s: float | None = None) -> Run:
        """Return a run when it has ended or asks something, or as it stands when the time is up.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
        """
        return await self._supervisor.wait(principal, run_id, timeout_s=timeout_s)

    async def cancel(self, principal: Principal, run_id: str) -> Run:
        """Stop a run, down to its last leaf.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
            RunEnded: there is nothing left to stop.
        """
        run = await self._supervisor.cancel(principal, run_id)
        self._note(principal, "run_cancel", run_id)
        return run

    async def pause(self, principal: Principal, run_id: str) -> Run:
        """Have a run begin no further step; what is under way ends.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
            RunEnded: it has ended.
        """
        run = await self._supervisor.pause(principal, run_id)
        self._note(principal, "run_pause", run_id)
        return run

    async def resume(self, principal: Principal, run_id: str) -> Run:
        """Let a paused run go on.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
            RunEnded: it has ended.
        """
        run = await self._supervisor.resume(principal, run_id)
        self._note(principal, "run_resume", run_id)
        return run

    async def rerun(self, principal: Principal, run_id: str, *, from_step: str) -> Run:
        """Begin a new run that does an ended one again from a step on, with the results of the steps before.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
            RunUnderWay: it has not ended.
            BadRequest: its plan has no such step.
        """
        run = await self._supervisor.rerun(principal, run_id, from_step)
        self._note(principal, "run_rerun", run.id, detail={"of": run_id, "from": from_step})
        return run

    async def answer(self, run_id: str, answer: Answer, *, question_id: str = "") -> Run:
        """Answer what a run asks; without a question's id, the one that is open.

        Raises:
            RunNotFound: there is none of that id, or it is somebody else's.
            QuestionNotFound: nothing is asked, several things are, somebody was first, or it has expired.
            NotAllowed: it is for others to answer.
        """
        return await self._supervisor.answer(answer.by, run_id, answer, question_id=question_id)

    async def approvals(
        self, principal: Principal, *, state: str | None = "open", limit: int = 100
    ) -> tuple[Approval, ...]:
        """Return what the caller may answer, and what its own runs ask, newest first; None is any state."""
        return await self._supervisor.approvals(principal, state=state, limit=limit)

    async def approval(self, principal: Principal, question_id: str) -> Approval:
        """Return one question.

        Raises:
            QuestionNotFound: there is none of that id that the caller may see.
        """
        found = await self._supervisor.approvals(principal, state=None, question_id=question_id)
        if not found:
            why = f"there is no question {shown(question_id)}; see `interhub approvals list`"
            raise QuestionNotFound("", question_id, why)
        return found[0]

    async def approve(self, answer: Answer, question_id: str) -> Run:
        """Answer a question by its id alone.

        Raises:
            QuestionNotFound: there is none of that id that the caller may see, somebody was first, or it has expired.
            NotAllowed: it is for others to answer.
            BadRequest: the answer does not fit.
        """
        found = await self.approval(answer.by, question_id)
        return await self.answer(found.question.run_id, answer, question_id=question_id)

    async def deliver(self, signal: Signal) -> tuple[str, ...]:
        """Deliver an event to every step of its tenant's runs that waits for it; returns these runs' ids.

        The same event again reaches nobody twice.

        Raises:
            DatabaseUnusable: the database cannot be written; nobody was told.
        """
        return await self._supervisor.deliver(signal)

    # Inside

    async def load(self) -> None:
        """Take up what the registry has: once, at start-up."""
        await self._roster.load()

    async def note_change(self, tenant: str, agent_id: str) -> None:
        """Look again at an agent that says its capabilities changed; a failure is logged and what was known stays."""
        try:
            await self.refresh_agent(Principal(subject="interhub", tenant=tenant), agent_id)
        except AdapterError as failure:
            log.warning("agent_refresh_failed", agent=agent_id, tenant=tenant, error=str(failure))

    def _stopped(self, principal: Principal, target: str, why: HubError) -> None:
        """Record that a guard has stopped something."""
        reason = problem_of(why).status.reason
        self._audit.append(
            AuditRecord(
                at=datetime.now(UTC),
                tenant=principal.tenant,
                subject=principal.subject,
                action="guard",
                target=target,
                decision="deny",
                outcome=reason,
                detail={"why": str(why)},
            )
        )
        log.warning("guard_stopped", agent=target, reason=reason, why=str(why))

    def note(self, principal: Principal, action: str, target: str) -> None:
        """Append an audit record of something that was done beside these verbs."""
        self._note(principal, action, target)

    def _note(self, principal: Principal, action: str, target: str, *, detail: JsonObject | None = None) -> None:
        self._audit.append(
            AuditRecord(
                at=datetime.now(UTC),
                tenant=principal.tenant,
                subject=principal.subject,
                action=action,
                target=target,
                decision="allow",
                detail=detail or {},
            )
        )


def _warned(agent: Agent) -> JsonObject:
    """Return what is hidden in an agent's texts, for the audit log; and say it in the log."""
    found = [str(finding) for finding in findings(agent.card)]
    if not found:
        return {}
    log.warning("agent_hides_characters", agent=agent.id, tenant=agent.tenant, places=len(found), first=found[0])
    return {"warnings": found}


def capability_of(agent: Agent, name: str, kind: Kind | None = None) -> Capability:
    """Return an agent's capability by name; an empty name means its only one.

    Raises:
        CapabilityNotFound: it has none of that name, or several and no name was given.
    """
    if name:
        found = agent.card.capability(name, kind)
        if found is not None:
            return found
    elif len(agent.card.capabilities) == 1:
        return agent.card.capabilities[0]
    others = [f"{each.name} ({each.kind.value})" for each in agent.card.capabilities if each.name == name]
    if others and kind is not None:
        raise CapabilityNotFound(agent.id, f"{name} ({kind.value})", tuple(others))
    names = [capability.name for capability in agent.card.capabilities]
    near = get_close_matches(name, names, n=3) if name else names[:3]
    raise CapabilityNotFound(agent.id, name, tuple(near))


def check_assignment(assignment: Assignment) -> None:
    """Refuse an assignment that wants nothing, or says what would be left aside.

    Raises:
        BadRequest: says what is wrong and what to give.
    """
    if not (assignment.agent_id or assignment.workflow is not None or _wants_something(assignment.goal)):
        raise BadRequest("nothing is wanted yet", "say the goal in words, or name a workflow or an agent")
    if assignment.capability and not assignment.agent_id:
        raise BadRequest(f"capability {shown(assignment.capability)} says nothing without an agent", "name the agent")
    if assignment.arguments and not assignment.agent_id:
        raise BadRequest("arguments are for one capability of an agent", "name the agent and the capability")
    if assignment.inputs and not assignment.agent_id and assignment.workflow is None:
        raise BadRequest("inputs are for a workflow", "name the workflow")
    for context_id in (assignment.context_id, assignment.goal.context_id):
        if len(context_id) > MAX_CONTEXT_ID or any(ord(character) < 32 for character in context_id):
            raise BadRequest(
                f"context id {shown(context_id)} is none of ours",
                f"leave it out, or take an earlier run's (at most {MAX_CONTEXT_ID} characters, none of them control)",
            )


def _wants_something(goal: Message) -> bool:
    return any(not isinstance(part, TextPart) or part.text.strip() for part in goal.parts)
