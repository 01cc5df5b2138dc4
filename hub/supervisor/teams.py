"""Teams and workflows as agents: their documents, their cards, and the adapters that let anything call them.

Within a run a team or workflow becomes a child run; the adapters here are for all others, who call it as any agent.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, cast

import anyio

from interhub.adapters import (
    BadEndpoint,
    Call,
    Completed,
    Connection,
    DataPart,
    InputRequired,
    Message,
    Outcome,
    Principal,
    Progress,
    RemoteCanceled,
    RemoteRefused,
    RemoteRejected,
    RemoteTimeout,
    Report,
    Role,
    TaskBound,
    TextPart,
)
from interhub.agent_cards import (
    SKILL_INPUT_SCHEMA,
    AgentCard,
    Binding,
    Capability,
    Endpoint,
    Json,
    JsonObject,
    Kind,
)
from interhub.hub.errors import HubError, Mistake, PlanInvalid, RunEnded
from interhub.registry import Agent, slug

from .envelope import mapping, sequence, text
from .model import Plan, input_schema
from .plan_check import check_plan
from .router import agents_in_plan, reach
from .run import Answer, Assignment, Event, EventKind, Question, Run, RunState
from .team_document import read_team

TEAM = "team"
WORKFLOW = "workflow"


def agent_of_document(
    document: JsonObject, *, source: str, agents: Mapping[str, Agent]
) -> tuple[str, AgentCard, Endpoint]:
    """Return the adapter's name, card and endpoint of a document with `kind: team` or `kind: workflow`.

    `agents` are those of the tenant, by id.

    Raises:
        PlanInvalid: the document has mistakes.
    """
    kind = document.get("kind", WORKFLOW if "members" not in document else TEAM)
    if kind == TEAM:
        made = team_agent(document, source=source, agents=agents)
    elif kind == WORKFLOW:
        made = workflow_agent(document, source=source, agents=agents)
    else:
        hint = "; a trigger is added by `interhub triggers add`" if kind == "trigger" else ""
        raise PlanInvalid(source, [Mistake("kind", f"{kind!r} is neither team nor workflow{hint}")])
    _refuse_circles(slug(made[1].name), made[2], source, agents)
    return made


def workflow_agent(
    document: JsonObject, *, source: str, agents: Mapping[str, Agent]
) -> tuple[str, AgentCard, Endpoint]:
    """Return the adapter's name, card and endpoint of a workflow.

    Raises:
        PlanInvalid: the document has mistakes.
    """
    plan = check_plan(document, source=source, agents=agents)
    if not plan.name:
        raise PlanInvalid(source, [Mistake("name", "a workflow that is to be an agent needs a name")])
    endpoint = Endpoint(binding=Binding.WORKFLOW, options={"workflow": plan.dump()})
    return WORKFLOW, _card(plan.name, plan.description, plan, endpoint, ()), endpoint


def team_agent(document: JsonObject, *, source: str, agents: Mapping[str, Agent]) -> tuple[str, AgentCard, Endpoint]:
    """Return the adapter's name, card and endpoint of a team.

    Raises:
        PlanInvalid: the document has mistakes.
    """
    team = read_team(document, source=source, agents=agents)
    endpoint = Endpoint(binding=Binding.TEAM, options=team.options)
    members = [agents[member] for member in team.members]
    return TEAM, _card(team.name, team.description, team.plan, endpoint, members), endpoint


def _card(name: str, description: str, plan: Plan | None, endpoint: Endpoint, members: Sequence[Agent]) -> AgentCard:
    skills = [skill for member in members for skill in member.card.capabilities]
    tags = dict.fromkeys(tag for skill in skills for tag in skill.tags)
    examples = dict.fromkeys(example for skill in skills for example in skill.examples)
    told = description or (plan.description if plan is not None else "")
    if members:
        able = "; ".join(f"{skill.title or skill.name}: {skill.description}"[:160] for skill in skills[:12])
        told = f"{told} Its members can: {able}" if able else told
    capability = Capability(
        name="run" if plan is not None else "ask",
        kind=Kind.SKILL,
        title=name,
        description=told or name,
        tags=tuple(tags)[:20],
        examples=tuple(examples)[:10],
        input_schema=_skill_schema(plan),
    )
    return AgentCard(
        name=name,
        description=description,
        version="1",
        capabilities=(capability,),
        interfaces=(endpoint,),
        streaming=True,
    )


def _skill_schema(plan: Plan | None) -> JsonObject:
    """A workflow's inputs are its skill's arguments; a message may say in words what it is about."""
    if plan is None or not plan.inputs:
        return SKILL_INPUT_SCHEMA
    schema = input_schema(plan)
    properties = dict(mapping(schema.get("properties")))
    properties.setdefault("message", {"type": "string", "description": "What it is about, in plain words."})
    return {**schema, "properties": properties}


def _refuse_circles(own: str, endpoint: Endpoint, source: str, agents: Mapping[str, Agent]) -> None:
    options = endpoint.options
    members = [str(member) for member in sequence(options.get("members"))]
    for name in dict.fromkeys([*members, *agents_in_plan(mapping(options.get("workflow")))]):
        if own in reach(name, agents):
            where = "members" if name in members else "steps"
            what = f"{own!r} would contain itself" + ("" if name == own else f", through {name!r}")
            raise PlanInvalid(source, [Mistake(where, what)])


class Runs(Protocol):
    """What the adapters need of the supervisor."""

    async def submit(self, assignment: Assignment) -> Run:
        """Begin a run."""
        ...

    async def get(self, principal: Principal, run_id: str) -> Run:
        """Return a run."""
        ...

    async def cancel(self, principal: Principal, run_id: str) -> Run:
        """Cancel a run."""
        ...

    async def answer(self, principal: Principal, run_id: str, answer: Answer, question_id: str = "") -> Run:
        """Answer a question."""
        ...

    async def events(self, principal: Principal, run_id: str, after: int = 0, limit: int = 1000) -> tuple[Event, ...]:
        """Return what has happened."""
        ...

    async def wait_for_news(self, run_id: str, after: int) -> None:
        """Return when a run has changed."""
        ...


class SupervisedAdapter:
    """Calls a team or workflow as any agent: each call is a run."""

    def __init__(self, name: str, runs: Runs) -> None:
        self._name = name
        self._runs = runs

    @property
    def name(self) -> str:
        """`team` or `workflow`."""
        return self._name

    async def describe(self, endpoint: Endpoint) -> AgentCard:
        """Refuse: what a team or workflow is, its document says.

        Raises:
            BadEndpoint: always.
        """
        raise BadEndpoint(self._name, "is described by its document", "register it with `interhub agents add FILE`")

    def connect(self, endpoint: Endpoint, *, card: AgentCard, label: str) -> AbstractAsyncContextManager[Connection]:
        """Open a conversation: nothing is held open."""
        return self._connect(label)

    @asynccontextmanager
    async def _connect(self, label: str) -> AsyncGenerator[Connection]:
        yield SupervisedConnection(self._runs, label)


def _asked(run: Run, principal: Principal) -> Question | None:
    """Return what a run asks a principal; None where it asks nothing, or somebody else."""
    if not run.state.interrupted:
        return None
    return next((question for question in run.questions if question.is_for(principal)), None)


class SupervisedConnection:
    """Calls of one team or workflow."""

    def __init__(self, runs: Runs, agent_id: str, *, directly: bool = False) -> None:
        """`directly`: runs are of one call of the agent's capability, which is no team or workflow."""
        self._runs = runs
        self._agent_id = agent_id
        self._directly = directly
        self._owners: dict[str, Principal] = {}

    async def call(self, call: Call, report: Report) -> Outcome:
        """Submit a run, or go on with the one that the call became before, until it has ended or asks something."""
        state = mapping(call.resume.state if call.resume is not None else None)
        run_id = text(state, "run") or call.remote_task
        bound = ""
        try:
            if run_id:
                run = await self._runs.get(call.principal, run_id)
            else:
                run = await self._runs.submit(self._assignment(call))
            bound = run.id
            self._owners[bound] = call.principal
            await report(TaskBound(remote_task=run.id, remote_context=run.context_id))
            after = 0
            if call.resume is not None and text(state, "question"):
                after = run.generation
                given = Answer(parts=call.resume.answer, accepted=call.resume.accepted, by=call.principal)
                run = await self._runs.answer(call.principal, run.id, given, text(state, "question"))
            return await self._follow(run, call, report, after)
        except HubError as error:
            raise RemoteRefused(self._agent_id, str(error)) from error
        finally:
            self._owners.pop(bound, None)

    async def cancel(self, remote_task: str) -> None:
        """Cancel the run of a call that is under way; one that is not known is left alone."""
        owner = self._owners.get(remote_task)
        if owner is not None:
            await self._cancel(owner, remote_task)

    async def _follow(self, run: Run, call: Call, report: Report, after: int) -> Outcome:
        try:
            with anyio.move_on_after(call.timeout_s):
                while not (run.state.ended or _asked(run, call.principal)):
                    events = await self._runs.events(call.principal, run.id, after)
                    for event in events:
                        await self._pass_on(event, report)
                    after = events[-1].seq if events else after
                    if not events:
                        await self._runs.wait_for_news(run.id, after)
                    run = await self._runs.get(call.principal, run.id)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(2.0):
                await self._cancel(call.principal, run.id)
            raise
        return self._outcome(run, call)

    async def _pass_on(self, event: Event, report: Report) -> None:
        if event.kind is EventKind.STEP_PROGRESS:
            said = text(event.payload, "text")
            await report(Progress(text=f"{event.step}: {said}" if said else event.step))
        elif event.kind in (EventKind.STEP_STARTED, EventKind.STEP_COMPLETED):
            verb = "began" if event.kind is EventKind.STEP_STARTED else "done"
            await report(Progress(text=f"{event.step}: {verb}"))

    def _outcome(self, run: Run, call: Call) -> Outcome:
        if (question := _asked(run, call.principal)) is not None:
            return InputRequired(
                question=question.parts,
                schema=question.schema,
                state={"run": run.id, "question": question.id},
                auth=question.auth,
                requests=question.requests,
                approval=question.approval,
            )
        match run.state:
            case RunState.COMPLETED:
                return Completed(parts=run.parts, structured=run.structured, artifacts=run.artifacts)
            case RunState.FAILED | RunState.REJECTED:
                error = run.error
                why = f"{error.message} (step {error.step})" if error and error.step else error.message if error else ""
                refused = RemoteRejected if run.state is RunState.REJECTED else RemoteRefused
                raise refused(self._agent_id, why or "it failed")
            case RunState.CANCELED:
                raise RemoteCanceled(self._agent_id, "its run was canceled")
            case _:
                raise RemoteTimeout(self._agent_id, call.timeout_s or 0.0)

    def _assignment(self, call: Call) -> Assignment:
        arguments = call.arguments
        message = call.message
        if self._directly:
            return Assignment(
                principal=call.principal,
                goal=message or Message(role=Role.USER, parts=()),
                agent_id=self._agent_id,
                capability=call.capability,
                arguments=arguments if message is None else {},
                context_id=call.context_id,
                idempotency_key=call.idempotency_key,
                budget=call.budget,
                lineage=call.lineage,
            )
        if message is None:
            said = text(arguments, "message")
            data: Json = {name: value for name, value in arguments.items() if name != "message"}
            if set(cast("Mapping[str, Json]", data)) == {"data"}:
                data = arguments["data"]
            parts = (*((TextPart(text=said),) if said else ()), *((DataPart(data=data),) if data else ()))
            message = Message(role=Role.USER, parts=parts, message_id=call.idempotency_key)
            arguments = {}
        return Assignment(
            principal=call.principal,
            goal=message,
            agent_id=self._agent_id,
            context_id=call.context_id,
            idempotency_key=call.idempotency_key,
            budget=call.budget,
            lineage=call.lineage,
        )

    async def _cancel(self, principal: Principal, run_id: str) -> None:
        try:
            await self._runs.cancel(principal, run_id)
        except RunEnded:
            pass
        except HubError as error:
            raise RemoteRefused(self._agent_id, str(error)) from error
