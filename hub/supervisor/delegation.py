"""One step handed to one agent: who does it, whether they may, the call itself, and what is remembered of it.

It may be carried out twice, when a crash comes before its record. What it decided the first time is then found again
under its idempotency key: the agent that the router chose, and the task that the agent made of the call.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import anyio
import anyio.to_thread
import sqlalchemy as sa
import structlog

from interhub.adapters import (
    Call,
    Completed,
    DataPart,
    InputRequired,
    Message,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
    Role,
    TextPart,
)
from interhub.adapters.content import part_to_json
from interhub.adapters.schemas import problems_of
from interhub.agent_cards import Binding, Capability, Json, JsonObject, Kind, empty_object
from interhub.hub.dispatch import Dispatcher
from interhub.hub.errors import (
    INTERNAL,
    BadRequest,
    BudgetExceeded,
    CapabilityNotFound,
    NoCapableAgent,
    NotAllowed,
    OutputInvalid,
    problem_of,
)
from interhub.hub.policy import Allow, Ask, Deny
from interhub.registry import Agent, Registry

from .arguments import arguments_for, fits
from .blobs import pack
from .consulting import Consulting, Dialogue, Mistaken, Question
from .conversations import Conversations
from .envelope import StepValue, failed, mapping, normalised, question_to_json, text
from .journal import Journal, outlasting
from .leaves import Leaves
from .llm import Models, Prompt
from .model import Failure
from .notes import AGAIN, Begun, Notes, Teller, releases_of
from .order import Order, call_digest
from .outputs import fitted
from .prompts import arguments_prompt
from .records import Delegation
from .router import Need, Router
from .run import EventKind
from .slots import Slots
from .team_rules import strictest

log = structlog.get_logger()


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
        slots: Slots | None = None,
        models: Models | None = None,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._registry = registry
        self._router = router
        self._dispatcher = dispatcher
        self._journal = journal
        self._notes = Notes(journal, database)
        self._conversations = Conversations(database)
        self._slots = slots or Slots()
        self._sleep = sleep
        self.leaves = Leaves()
        self._guards = dispatcher.guards
        self.consulting = Consulting(models or Models(), self.leaves, self._guards)
        self._writer = models.writer if models is not None else ""
        self.audit = dispatcher.audit

    async def carry_out(self, order: Order, *, recovered: bool) -> dict[str, Json]:
        """Do it and return its envelope: what it gave, why it failed, what it asks, or the child run that it needs.

        `recovered` says that an earlier process may have begun it.
        """
        with anyio.CancelScope() as scope:
            if self.leaves.stopping:
                raise anyio.get_cancelled_exc_class()()
            self.leaves.add(order.run_id, scope)
            try:
                return await self._counted(order, await self._carry_out(order, recovered), recovered)
            except anyio.get_cancelled_exc_class():
                await self._canceled(order, run_canceled=scope.cancel_called)
                raise
            finally:
                self.leaves.remove(order.run_id, scope)
        # The scope swallowed its own cancellation; nothing may be recorded for this step.
        raise anyio.get_cancelled_exc_class()()

    async def _counted(self, order: Order, envelope: dict[str, Json], recovered: bool) -> dict[str, Json]:
        """Return an envelope with what the agent used by calling the hub back, where this run begins the tree."""
        if order.lineage.branch or "child" in envelope:
            return envelope
        below = await outlasting(lambda: self._guards.below(order.key, begun_here=not recovered))
        return {**envelope, "below": below.to_json()} if below.any else envelope

    async def _carry_out(self, order: Order, recovered: bool) -> dict[str, Json]:
        attempt = order.first_attempt
        begun = Begun()
        if recovered:
            order = replace(order, new_context=False)
            begun = await outlasting(lambda: anyio.to_thread.run_sync(self._notes.begun, order))
            attempt = max(attempt, begun.attempt)
            if attempt == begun.attempt and EventKind.STEP_FAILED in begun.told:
                attempt += 1  # that one had failed, and the next was waited for
                self._notes.tell(order, EventKind.STEP_STARTED, attempt)
        agent: Agent | None = None
        try:
            found = await outlasting(lambda: self._resolve(order, begun.delegation))
            agent, capability, why = found
            self._guards.check_loop(agent.id, order.trail)
            self._notes.tell(
                order,
                EventKind.STEP_ROUTED,
                attempt,
                agent=agent.id,
                capability=_name(capability),
                why=why or order.why,
            )
            if agent.endpoint.binding in (Binding.TEAM, Binding.WORKFLOW):
                envelope = await self._child(order, agent, capability, attempt)
            else:
                assert capability is not None, "only teams and workflows are called without a capability"
                if self._to_be_written(order, capability):
                    envelope = {"write": True, "agent": agent.id, "capability": capability.name, "attempts": attempt}
                else:
                    envelope = await self._call(order, agent, capability, begun, attempt)
            return {**envelope, "routed": {"attempt": attempt, "why": why or order.why}}
        except Exception as raised:  # the edge of a step: whatever happens in it is its failure, not the hub's
            error, attempts = (raised.error, raised.attempt) if isinstance(raised, _Attempted) else (raised, attempt)
            problem = problem_of(error)
            if problem.status is INTERNAL:
                log.error("step_broke", run_id=order.run_id, step=order.step, exc_info=error)
            return self._ended(self._attempts(failed(error), attempts, agent))

    # Arguments that a model writes

    def _to_be_written(self, order: Order, capability: Capability) -> bool:
        """Return whether a model is to make a capability's arguments out of words."""
        if not self._writer or order.arguments is not None or order.resume is not None or not order.text.strip():
            return False
        return not fits(capability, text=order.text, data=order.data)

    async def write_arguments(self, order: Order, asked: JsonObject, dialogue: Dialogue) -> dict[str, Json]:
        """Have a model write the arguments of the call that `asked` names: as `Consulting.once` has it."""
        agent_id, name = text(asked, "agent"), text(asked, "capability")

        async def capability() -> Capability:
            agent = await outlasting(lambda: self._registry.get(order.principal.tenant, agent_id))
            found = agent.card.capability(name)
            if found is None:
                raise CapabilityNotFound(agent_id, name)
            return found

        async def ask() -> Prompt:
            return arguments_prompt(
                agent_id=agent_id, capability=await capability(), message=order.text, data=order.data
            )

        async def check(value: JsonObject) -> JsonObject:
            schema = (await capability()).input_schema
            if missing := text(value, "missing"):
                properties = ", ".join(mapping(schema.get("properties")))
                raise BadRequest(f"{name} cannot be called with these words: {missing[:300]}", f"say it: {properties}")
            arguments = value.get("arguments")
            if not isinstance(arguments, dict):
                raise Mistaken(["give `arguments`, or say in `missing` what is not given"])
            if problems := problems_of(arguments, schema):
                raise Mistaken([f"arguments: {problem}" for problem in problems[:10]])
            return {"arguments": arguments, "why": text(value, "why")}

        question = Question(model=self._writer, ask=ask, check=check)
        key = f"{order.key}.arguments{dialogue.number}"
        branch = order.lineage.branch
        return await self.consulting.once(question, dialogue, run_id=order.run_id, branch=branch, key=key)

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
            named = await self._offering(order) if capability and not order.need else ()
            choice = await self._router.choose(
                Need(
                    principal=order.principal,
                    text=order.text,
                    data=order.data,
                    members=named or order.members,
                    trail=order.trail,
                    need=order.need or capability.replace("_", " "),
                )
            )
            agent, why = choice.agent, choice.why
            if named:
                why = f"it has {capability}" + (f"; {why}" if len(named) > 1 else "")
            else:
                capability = choice.capability
            await self._notes.remember(
                Delegation(
                    key=order.key, run_id=order.run_id, step=order.step, agent_id=agent.id, capability=capability
                )
            )
        else:
            agent = await self._registry.get(order.principal.tenant, agent_id)
            if agent.tenant == order.principal.tenant and order.members and agent_id not in order.members:
                raise NotAllowed(f"agent {agent_id}", "it is not a member of the team")
        return agent, await self._capability(order, agent, capability), why

    async def _offering(self, order: Order) -> tuple[str, ...]:
        """Return the ids of the agents that have the capability that was named.

        Raises:
            NoCapableAgent: there is none.
        """
        found = [
            agent.id
            for agent in await self._registry.list(order.principal.tenant)
            if agent.card.capability(order.capability) is not None
            and (not order.members or agent.id in order.members)
            and agent.id not in order.trail
        ]
        if not found:
            raise NoCapableAgent(f"the capability {order.capability}")
        return tuple(found)

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

    async def _child(self, order: Order, agent: Agent, capability: Capability | None, attempt: int) -> dict[str, Json]:
        if order.budget.depth < 1:
            raise BudgetExceeded("levels of delegation", 0)
        call = self._build(order, agent, capability, order.key)
        asked = await self._decide(order, agent, call, attempt)
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

    async def _decide(self, order: Order, agent: Agent, call: Call, attempt: int) -> dict[str, Json] | None:
        """Return an approval to ask for, or None when the call may be made.

        Raises:
            NotAllowed: the policy says no.
        """
        digest = call_digest(order, agent, call)
        decision = self._dispatcher.decide(agent, call)
        if order.trail:
            decision = await outlasting(
                lambda: strictest(self._registry, order.principal, order.trail, agent, call.capability, decision)
            )
        match decision:
            case Allow():
                return None
            case Deny(why=why):
                self._dispatcher.record(agent, call, decision="deny", outcome="refused")
                raise NotAllowed(f"{call.capability or 'a call'} of agent {agent.id}", why)
            case Ask() as ask:
                if order.approved == digest:
                    return None
                # What was approved, where anything was, is not what is about to be done: it is asked for anew.
                self._dispatcher.record(agent, call, decision="ask", outcome="input_required")
                return normalised(
                    {
                        "ask": {
                            **question_to_json(_approval(order, agent, call, ask.why)),
                            "approval": True,
                            "digest": digest,
                            "answer_by": list(ask.answer_by),
                            "within_s": ask.within_s,
                        },
                        "agent": agent.id,
                        "capability": call.capability,
                        "attempts": attempt,
                    }
                )

    # The call

    async def _call(
        self, order: Order, agent: Agent, capability: Capability, begun: Begun, attempt: int
    ) -> dict[str, Json]:
        call = self._build(order, agent, capability, _key(order, begun.delegation))
        asked = await self._decide(order, agent, call, attempt)
        if asked is not None:
            return asked
        lineage, limits = order.lineage, order.lineage.limits
        if lineage.branch and limits is not None:
            await outlasting(lambda: self._guards.take(lineage.branch, limits, call=order.key))
        teller = Teller(self._notes, order, agent, capability, attempt, begun)
        conversation = await self._conversation(order, agent, capability)
        call = replace(call, remote_task=teller.delegation.remote_task, remote_context=conversation)
        failures = attempt - order.first_attempt  # those before a crash count too
        value = StepValue()
        while True:
            try:
                outcome = await self._attempt(order, agent, call, teller)
                if isinstance(outcome, Completed):
                    if lineage.branch:
                        await outlasting(partial(self._guards.add, lineage.branch, outcome.usage))
                    teller.converse(outcome.remote_context)
                    self._conversations.take(order, agent, outcome.remote_context, before=conversation)
                    value = _checked(order, agent, StepValue.of(outcome))
                break
            except Exception as error:
                failures += 1
                kind = _failure(error)
                if failures >= order.retry.attempts or kind not in order.retry.after:
                    raise _Attempted(teller.attempt, error) from error
                wait_s = order.retry.wait_s(failures)
                problem = problem_of(error)
                self._notes.tell(
                    order,
                    EventKind.STEP_FAILED,
                    teller.attempt,
                    AGAIN,
                    agent=agent.id,
                    reason=problem.status.reason,
                    message=problem.message,
                    retry_in_s=wait_s,
                )
                if kind is not Failure.UNAVAILABLE:
                    # The agent has done with the call under its key: this is another one.
                    await teller.release()
                    call = self._build(order, agent, capability, _key(order, teller.delegation))
                await self._sleep(wait_s)
                teller.next_attempt()
                call = replace(call, remote_task=teller.delegation.remote_task, remote_context=conversation)
                self._notes.tell(order, EventKind.STEP_STARTED, teller.attempt)
        if isinstance(outcome, InputRequired):
            return normalised(
                {
                    "ask": {**question_to_json(outcome), "digest": call_digest(order, agent, call)},
                    "agent": agent.id,
                    "capability": capability.name,
                    "attempts": teller.attempt,
                }
            )
        envelope = self._attempts(await pack(self._journal, value, order.run_id), teller.attempt, agent, capability)
        return self._ended(envelope)

    async def _conversation(self, order: Order, agent: Agent, capability: Capability) -> str:
        if capability.kind is not Kind.SKILL:
            return ""
        return await outlasting(lambda: self._conversations.of(order, agent))

    async def _attempt(self, order: Order, agent: Agent, call: Call, teller: Teller) -> Completed | InputRequired:
        async with self._slots.place(order.principal.tenant):
            return await self._placed(order, agent, call, teller)

    async def _placed(self, order: Order, agent: Agent, call: Call, teller: Teller) -> Completed | InputRequired:
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
                role=Role.USER,
                parts=parts,
                # The id says who sent it; what makes two attempts one call is the idempotency key.
                message_id=(order.message.message_id if order.message is not None else "") or key,
                context_id=order.context_id,
                metadata=metadata,
                extensions=order.message.extensions if order.message is not None else (),
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
            lineage=replace(
                order.lineage,
                tree=order.lineage.tree or order.run_id,
                branch=order.lineage.branch or order.key,
                trail=order.trail,
            ),
        )

    # How it ended

    def _ended(self, envelope: dict[str, Json]) -> dict[str, Json]:
        """Return the envelope of a step's end with the time in it.

        The journal is told once it is recorded: a call that is made again after a crash may take other attempts to it.
        """
        return normalised({**envelope, "at": datetime.now(UTC).isoformat()})

    def _attempts(
        self, envelope: dict[str, Json], attempt: int, agent: Agent | None, capability: Capability | None = None
    ) -> dict[str, Json]:
        return {
            **envelope,
            "attempts": attempt,
            "agent": agent.id if agent is not None else "",
            "capability": _name(capability),
        }

    async def _canceled(self, order: Order, *, run_canceled: bool) -> None:
        """A run that was cancelled says so; a hub that stops takes note that this call must be sent anew."""
        if not self.leaves.stopping:
            if run_canceled:
                self._notes.tell(order, EventKind.STEP_CANCELED, order.first_attempt, why="the run was canceled")
            return
        with anyio.CancelScope(shield=True):
            known = await anyio.to_thread.run_sync(self._notes.known, order)
            released = Delegation(
                key=order.key,
                run_id=order.run_id,
                step=order.step,
                agent_id=known.agent_id if known is not None else order.agent_id,
                capability=known.capability if known is not None else order.capability,
                remote_context=known.remote_context if known is not None else "",
                state=f"released:{releases_of(known) + 1}",
            )
            await self._notes.remember(released)


def _key(order: Order, known: Delegation | None) -> str:
    """Return the idempotency key of a call: another one each time that it is made anew."""
    releases = releases_of(known)
    return f"{order.key}~{releases}" if releases else order.key


def _approval(order: Order, agent: Agent, call: Call, why: str) -> InputRequired:
    """Return the question whether a call may be made: in words, and the whole call as data."""
    within = f" in {' > '.join(order.trail)}" if order.trail else ""
    wanted = f"May {agent.id} do {call.capability or 'this'}? {why}"
    said = f"{wanted}\nAsked for by {order.principal.key}{within}, step {order.step}."
    shown: dict[str, Json] = {"agent": agent.id, "capability": call.capability}
    if call.message is not None:
        shown["message"] = [part_to_json(part) for part in call.message.parts]
    else:
        shown["arguments"] = dict(call.arguments)
    shown |= {"asked_by": order.principal.key, "step": order.step}
    if order.trail:
        shown["trail"] = list(order.trail)
    return InputRequired(question=(TextPart(text=said), DataPart(data=shown)))


def _failure(error: Exception) -> Failure | None:
    """Return which kind of failure it is; None for one that another attempt would not mend."""
    match error:
        case RemoteTimeout():
            return Failure.TIMEOUT
        case RemoteUnavailable():
            return Failure.UNAVAILABLE
        case OutputInvalid():
            return Failure.INVALID
        case RemoteRefused():
            return Failure.REFUSED
        case _:
            return None


def _checked(order: Order, agent: Agent, value: StepValue) -> StepValue:
    """Return what an agent gave, with its data.

    Raises:
        OutputInvalid: it does not fit the schema that the plan wants.
    """
    if order.output_schema is None:
        return value
    fit, problem = fitted(value, order.output_schema)
    if problem:
        raise OutputInvalid(agent.id, problem)
    return fit


class _Attempted(Exception):
    """An error, and the attempt that it ended."""

    def __init__(self, attempt: int, error: Exception) -> None:
        super().__init__(attempt, error)
        self.attempt = attempt
        self.error = error


def _name(capability: Capability | None) -> str:
    return capability.name if capability is not None else ""
