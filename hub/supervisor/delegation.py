"""One step handed to one agent: who does it, whether they may, the call itself, and what is remembered of it.

It may be carried out twice, when a crash comes before its record. What it decided the first time is then found again
under its idempotency key: the agent that the router chose, and the task that the agent made of the call.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256

import anyio
import anyio.to_thread
import orjson
import sqlalchemy as sa
import structlog

from interhub.adapters import (
    ArtifactChunk,
    Budget,
    Call,
    Completed,
    DataPart,
    InputRequired,
    LogLine,
    Message,
    Part,
    Principal,
    Progress,
    RemoteTimeout,
    RemoteUnavailable,
    Resume,
    Role,
    TaskBound,
    TextPart,
    Update,
    text_of,
)
from interhub.adapters.content import artifact_to_json, part_to_json
from interhub.agent_cards import Binding, Capability, Json, JsonObject, Kind, empty_object
from interhub.hub.dispatch import Dispatcher
from interhub.hub.errors import INTERNAL, BudgetExceeded, CapabilityNotFound, NotAllowed, problem_of
from interhub.hub.policy import Allow, Ask, Deny
from interhub.registry import Agent, Registry
from interhub.registry.database import reading

from . import records
from .arguments import arguments_for
from .envelope import StepValue, failed, named_artifact, normalised, question_to_json, succeeded
from .facts import SHOWN_CHARS, end_fact
from .journal import Fact, Journal, outlasting
from .leaves import Leaves
from .model import Retry
from .records import Delegation
from .router import Need, Router
from .run import EventKind

log = structlog.get_logger()

MAX_INLINE_BYTES = 100_000
"""A larger value is kept as a blob: the engine would store it twice, and every replay read it."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one step is to have done."""

    run_id: str
    """The root run, in whose journal it is told."""
    step: str
    """Path from the root run on."""
    key: str
    """The call's idempotency key, the same on every attempt."""
    principal: Principal
    agent_id: str = ""
    need: str = ""
    """In the place of an agent: whoever can do this."""
    capability: str = ""
    parts: tuple[Part, ...] = ()
    """What is said to the agent."""
    arguments: JsonObject | None = None
    """Arguments given outright."""
    message: Message | None = None
    """The goal as it came, where it is handed on whole."""
    members: tuple[str, ...] = ()
    trail: tuple[str, ...] = ()
    budget: Budget
    context_id: str = ""
    timeout_s: float | None = None
    retry: Retry = field(default_factory=Retry)
    first_attempt: int = 1
    resume: Resume | None = None
    approved: str = ""
    """Digest of the call that a person approved."""
    why: str = ""

    @property
    def text(self) -> str:
        """What is said, in words."""
        return text_of(self.parts)

    @property
    def data(self) -> Json:
        """What is said, as data."""
        return next((part.data for part in self.parts if isinstance(part, DataPart)), None)


class Delegator:
    """Carries out orders."""

    def __init__(
        self,
        *,
        registry: Registry,
        router: Router,
        dispatcher: Dispatcher,
        journal: Journal,
        database: sa.Engine,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._registry = registry
        self._router = router
        self._dispatcher = dispatcher
        self._journal = journal
        self._database = database
        self._sleep = sleep
        self.leaves = Leaves()

    async def carry_out(self, order: Order, *, recovered: bool) -> dict[str, Json]:
        """Do it and return its envelope: what it gave, why it failed, what it asks, or the child run that it needs.

        `recovered` says that an earlier process may have begun it.
        """
        with anyio.CancelScope() as scope:
            if self.leaves.stopping:
                raise anyio.get_cancelled_exc_class()()
            self.leaves.add(order.run_id, scope)
            try:
                return await self._carry_out(order, recovered)
            except anyio.get_cancelled_exc_class():
                await self._canceled(order, run_canceled=scope.cancel_called)
                raise
            finally:
                self.leaves.remove(order.run_id, scope)
        # The scope swallowed its own cancellation; nothing may be recorded for this step.
        raise anyio.get_cancelled_exc_class()()

    async def _carry_out(self, order: Order, recovered: bool) -> dict[str, Json]:
        attempt = order.first_attempt
        known: Delegation | None = None
        if recovered:
            known, last = await outlasting(lambda: anyio.to_thread.run_sync(self._known, order))
            attempt = max(attempt, last)
        agent: Agent | None = None
        try:
            found = await outlasting(lambda: self._resolve(order, known))
            agent, capability, why = found
            self._tell(
                order,
                EventKind.STEP_ROUTED,
                attempt,
                agent=agent.id,
                capability=_name(capability),
                why=why or order.why,
            )
            if agent.endpoint.binding in (Binding.TEAM, Binding.WORKFLOW):
                envelope = self._child(order, agent, capability, attempt)
            else:
                assert capability is not None, "only teams and workflows are called without a capability"
                envelope = await self._call(order, agent, capability, known, attempt)
            return {**envelope, "routed": {"attempt": attempt, "why": why or order.why}}
        except Exception as raised:  # the edge of a step: whatever happens in it is its failure, not the hub's
            error, attempts = (raised.error, raised.attempt) if isinstance(raised, _Attempted) else (raised, attempt)
            problem = problem_of(error)
            if problem.status is INTERNAL:
                log.error("step_broke", run_id=order.run_id, step=order.step, exc_info=error)
            return self.ended(order.run_id, order.step, self._attempts(failed(error), attempts, agent))

    # Who

    async def _resolve(self, order: Order, known: Delegation | None) -> tuple[Agent, Capability | None, str]:
        """Return agent, capability and why.

        Raises:
            AgentNotFound, CapabilityNotFound, NoCapableAgent: there is nobody, or nothing, of that name.
        """
        agent_id, capability, why = order.agent_id, order.capability, ""
        if not agent_id and known is not None:
            agent_id, capability = known.agent_id, known.capability
        if not agent_id:
            choice = await self._router.choose(
                Need(
                    principal=order.principal,
                    text=order.text,
                    data=order.data,
                    members=order.members,
                    trail=order.trail,
                    need=order.need,
                )
            )
            agent, capability, why = choice.agent, choice.capability, choice.why
            await self._remember(
                Delegation(
                    key=order.key, run_id=order.run_id, step=order.step, agent_id=agent.id, capability=capability
                )
            )
        else:
            agent = await self._registry.get(order.principal.tenant, agent_id)
            if agent.tenant == order.principal.tenant and order.members and agent_id not in order.members:
                raise NotAllowed(f"agent {agent_id}", "it is not a member of the team")
        return agent, await self._capability(order, agent, capability), why

    async def _capability(self, order: Order, agent: Agent, name: str) -> Capability | None:
        offered = agent.card.capabilities
        if name:
            found = agent.card.capability(name)
            if found is None:
                raise CapabilityNotFound(agent.id, name, tuple(one.name for one in offered[:5]))
            return found
        usable = [one for one in offered if one.kind in (Kind.SKILL, Kind.TOOL)]
        if len(usable) == 1:
            return usable[0]
        if agent.endpoint.binding in (Binding.TEAM, Binding.WORKFLOW):
            return None
        if usable and all(one.kind is Kind.SKILL for one in usable):
            # A2A does not address skills: the agent itself finds which of its skills a message is for.
            return usable[0]
        if not usable:
            raise CapabilityNotFound(agent.id, name)
        choice = await self._router.choose(
            Need(principal=order.principal, text=order.text, data=order.data, members=(agent.id,), need=order.need)
        )
        return agent.card.capability(choice.capability)

    def _child(self, order: Order, agent: Agent, capability: Capability | None, attempt: int) -> dict[str, Json]:
        if order.budget.depth < 1:
            raise BudgetExceeded("levels of delegation", 0)
        call = self._build(order, agent, capability, order.key)
        asked = self._decide(order, agent, call, attempt)
        if asked is not None:
            return asked
        arguments = order.arguments or {}
        parts = order.parts
        if not parts and isinstance(said := arguments.get("message"), str):
            parts = (TextPart(text=said), *((DataPart(data=arguments["data"]),) if "data" in arguments else ()))
        return normalised(
            {
                "child": {
                    "agent": agent.id,
                    "arguments": arguments,
                    "parts": [part_to_json(part) for part in parts],
                },
                "agent": agent.id,
                "capability": _name(capability),
                "attempts": attempt,
            }
        )

    # Whether

    def _decide(self, order: Order, agent: Agent, call: Call, attempt: int) -> dict[str, Json] | None:
        """Return an approval to ask for, or None when the call may be made.

        Raises:
            NotAllowed: the policy says no, or what was approved is not what is about to be done.
        """
        digest = call_digest(order, agent, call)
        match self._dispatcher.decide(agent, call):
            case Allow():
                return None
            case Deny(why=why):
                self._dispatcher.record(agent, call, decision="deny", outcome="refused")
                raise NotAllowed(f"{call.capability or 'a call'} of agent {agent.id}", why)
            case Ask(why=why):
                if order.approved == digest:
                    return None
                if order.approved:
                    raise NotAllowed(f"{call.capability} of agent {agent.id}", "the call is not the one approved")
                self._dispatcher.record(agent, call, decision="ask", outcome="input_required")
                shown = orjson.dumps(dict(call.arguments), option=orjson.OPT_INDENT_2).decode()
                question = f"May {agent.id} do {call.capability or 'this'}? {why}\n{shown[:SHOWN_CHARS]}"
                asked = InputRequired(question=(TextPart(text=question),))
                return normalised(
                    {
                        "ask": {**question_to_json(asked), "approval": True, "digest": digest},
                        "agent": agent.id,
                        "capability": call.capability,
                        "attempts": attempt,
                    }
                )

    # The call

    async def _call(
        self, order: Order, agent: Agent, capability: Capability, known: Delegation | None, attempt: int
    ) -> dict[str, Json]:
        releases = _releases(known)
        key = f"{order.key}~{releases}" if releases else order.key
        call = self._build(order, agent, capability, key)
        asked = self._decide(order, agent, call, attempt)
        if asked is not None:
            return asked
        teller = _Teller(self, order, agent, capability, attempt, known)
        call = replace(call, remote_task=teller.delegation.remote_task)
        failures = 0
        while True:
            try:
                outcome = await self._attempt(order, agent, call, teller)
                break
            except RemoteUnavailable as error:
                failures += 1
                if failures >= order.retry.attempts:
                    raise _Attempted(teller.attempt, error) from error
                wait_s = order.retry.backoff_s * 2 ** (failures - 1)
                problem = problem_of(error)
                self._tell(
                    order,
                    EventKind.STEP_FAILED,
                    teller.attempt,
                    agent=agent.id,
                    reason=problem.status.reason,
                    message=problem.message,
                    retry_in_s=wait_s,
                )
                await self._sleep(wait_s)
                teller.next_attempt()
                call = replace(call, remote_task=teller.delegation.remote_task)
                self._tell(order, EventKind.STEP_STARTED, teller.attempt)
            except Exception as error:
                raise _Attempted(teller.attempt, error) from error
        if isinstance(outcome, InputRequired):
            return normalised(
                {
                    "ask": {**question_to_json(outcome), "digest": call_digest(order, agent, call)},
                    "agent": agent.id,
                    "capability": capability.name,
                    "attempts": teller.attempt,
                }
            )
        value = StepValue.of(outcome)
        envelope = self._attempts(await self.pack(value), teller.attempt, agent, capability)
        return self.ended(order.run_id, order.step, envelope, value)

    async def _attempt(self, order: Order, agent: Agent, call: Call, teller: "_Teller") -> Completed | InputRequired:
        if order.timeout_s is None:
            return await self._dispatcher.call(agent, call, teller.report, admitted=True)
        with anyio.move_on_after(order.timeout_s):
            return await self._dispatcher.call(agent, call, teller.report, admitted=True)
        raise RemoteTimeout(agent.id, order.timeout_s)

    def _build(self, order: Order, agent: Agent, capability: Capability | None, key: str) -> Call:
        kind = capability.kind if capability is not None else Kind.SKILL
        arguments: JsonObject = order.arguments or {}
        message: Message | None = None
        if capability is not None and agent.endpoint.binding not in (Binding.TEAM, Binding.WORKFLOW):
            arguments = arguments_for(capability, text=order.text, data=order.data, given=order.arguments)
        if kind is Kind.SKILL and order.arguments is None:
            parts = order.message.parts if order.message is not None else order.parts
            metadata = order.message.metadata if order.message is not None else empty_object()
            message = Message(
                role=Role.USER, parts=parts, message_id=key, context_id=order.context_id, metadata=metadata
            )
        return Call(
            capability=_name(capability),
            kind=kind,
            arguments=arguments,
            message=message,
            principal=order.principal,
            idempotency_key=key,
            context_id=order.context_id,
            resume=order.resume,
            timeout_s=order.timeout_s,
            budget=replace(order.budget, depth=order.budget.depth - 1),
        )

    # What is remembered and told

    async def pack(self, value: StepValue) -> dict[str, Json]:
        """Return the envelope of a value; a large one is kept as a blob first."""
        shaped = value.dump()
        data = orjson.dumps(shaped)
        if len(data) <= MAX_INLINE_BYTES:
            return succeeded(value)
        now = datetime.now(UTC)
        name = await self._journal.write(lambda connection: records.put_blob(connection, data, now))
        return {"ok": True, "blob": name}

    def ended(
        self, run_id: str, step: str, envelope: dict[str, Json], value: StepValue | None = None
    ) -> dict[str, Json]:
        """Tell the journal how a step ended, and return the envelope with the time in it."""
        told = envelope if "at" in envelope else {**envelope, "at": datetime.now(UTC).isoformat()}
        self._journal.post(end_fact(run_id, step, told, value))
        return normalised(told)

    def _attempts(
        self, envelope: dict[str, Json], attempt: int, agent: Agent | None, capability: Capability | None = None
    ) -> dict[str, Json]:
        return {
            **envelope,
            "attempts": attempt,
            "agent": agent.id if agent is not None else "",
            "capability": _name(capability),
        }

    def _tell(self, order: Order, kind: EventKind, attempt: int, n: int = 0, **payload: Json) -> None:
        self._journal.post(Fact(run_id=order.run_id, kind=kind, step=order.step, attempt=attempt, n=n, payload=payload))

    def _known(self, order: Order) -> tuple[Delegation | None, int]:
        with reading(self._database) as connection:
            known = records.find_delegation(connection, order.key)
            return known, records.last_attempt(connection, order.run_id, order.step)

    async def _remember(self, delegation: Delegation) -> None:
        now = datetime.now(UTC)
        await self._journal.write(lambda connection: records.put_delegation(connection, delegation, now))

    async def _canceled(self, order: Order, *, run_canceled: bool) -> None:
        """A run that was cancelled says so; a hub that stops takes note that this call must be sent anew."""
        if not self.leaves.stopping:
            if run_canceled:
                self._tell(order, EventKind.STEP_CANCELED, order.first_attempt, why="the run was canceled")
            return
        with anyio.CancelScope(shield=True):
            known, _ = await anyio.to_thread.run_sync(self._known, order)
            released = Delegation(
                key=order.key,
                run_id=order.run_id,
                step=order.step,
                agent_id=known.agent_id if known is not None else order.agent_id,
                capability=known.capability if known is not None else order.capability,
                state=f"released:{_releases(known) + 1}",
            )
            await self._remember(released)


class _Attempted(Exception):
    """An error, and the attempt that it ended."""

    def __init__(self, attempt: int, error: Exception) -> None:
        super().__init__(attempt, error)
        self.attempt = attempt
        self.error = error


class _Teller:
    """Takes what an agent reports of a call, and remembers its task before going on."""

    def __init__(
        self,
        delegator: Delegator,
        order: Order,
        agent: Agent,
        capability: Capability,
        attempt: int,
        known: Delegation | None,
    ) -> None:
        self._delegator = delegator
        self._order = order
        self._counts: dict[EventKind, int] = {}
        self.attempt = attempt
        self.delegation = known or Delegation(
            key=order.key, run_id=order.run_id, step=order.step, agent_id=agent.id, capability=capability.name
        )

    def next_attempt(self) -> None:
        self.attempt += 1
        self._counts.clear()

    async def report(self, update: Update) -> None:
        match update:
            case TaskBound():
                await self._bind(update)
            case Progress():
                self._tell(EventKind.STEP_PROGRESS, text=update.text, done=update.done, total=update.total)
            case LogLine():
                self._tell(EventKind.STEP_LOG, text=update.text, level=update.level)
            case ArtifactChunk():
                artifact = artifact_to_json(named_artifact(self._order.step, update.artifact))
                self._tell(EventKind.STEP_ARTIFACT, artifact=artifact, append=update.append, last=update.last)

    async def _bind(self, bound: TaskBound) -> None:
        if bound.remote_task == self.delegation.remote_task:
            return
        self.delegation = replace(
            self.delegation,
            remote_task=bound.remote_task,
            remote_context=bound.remote_context,
            state="bound" if not _releases(self.delegation) else self.delegation.state,
        )
        await self._delegator._remember(self.delegation)  # pyright: ignore[reportPrivateUsage]
        self._tell(EventKind.STEP_BOUND, agent=self.delegation.agent_id, remote_task=bound.remote_task)

    def _tell(self, kind: EventKind, **payload: Json) -> None:
        n = self._counts.get(kind, 0)
        self._counts[kind] = n + 1
        self._delegator._tell(self._order, kind, self.attempt, n, **payload)  # pyright: ignore[reportPrivateUsage]


def call_digest(order: Order, agent: Agent, call: Call) -> str:
    """Return the digest that binds an answer to the exact call: agent, capability, arguments, message and run."""
    bound = {
        "run": order.run_id,
        "step": order.step,
        "agent": agent.id,
        "capability": call.capability,
        "arguments": call.arguments,
        "parts": [part_to_json(part) for part in order.parts],
    }
    return f"sha256:{sha256(orjson.dumps(bound, option=orjson.OPT_SORT_KEYS)).hexdigest()}"


def _releases(known: Delegation | None) -> int:
    if known is None or not known.state.startswith("released:"):
        return 0
    return int(known.state.partition(":")[2])


def _name(capability: Capability | None) -> str:
    return capability.name if capability is not None else ""
