"""From a goal to a plan: a declared workflow, the one agent that was named, the one that the router finds, or a model.

Planners are asked in order; the first that returns a plan makes it, or says which model is to be consulted about it.
Planning is a recorded step of a run, so what a planner finds out may change from one run to the next, but not within
one. A team names its own planner, and its plans are carried out within what the team's document allows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from interhub.adapters import DataPart, Message, Principal, text_of
from interhub.agent_cards import Binding, Json, JsonObject, empty_object
from interhub.hub.errors import BadRequest, NoCapableAgent
from interhub.registry import Agent, Registry

from .arguments import text_slot
from .envelope import mapping, number, sequence, text
from .llm import Models
from .model import CallSpec, CallStep, Limits, Plan, input_schema, load_plan
from .plan_check import check_inputs
from .router import Need, Router


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be planned."""

    principal: Principal
    goal: Message
    agent_id: str = ""
    capability: str = ""
    arguments: JsonObject = field(default_factory=empty_object)
    workflow: JsonObject | None = None
    inputs: JsonObject = field(default_factory=empty_object)
    members: tuple[str, ...] = ()
    trail: tuple[str, ...] = ()
    within: bool = False
    """It is a part of a run, not what the caller asked."""
    failed: tuple[str, ...] = ()
    """Agents that have failed at it."""

    @property
    def data(self) -> Json:
        """The goal's data part."""
        return next((part.data for part in self.goal.parts if isinstance(part, DataPart)), None)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A plan, and what it is carried out with."""

    plan: Plan
    planner: str
    why: str = ""
    inputs: JsonObject = field(default_factory=empty_object)
    members: tuple[str, ...] = ()
    """Whom the plan's needs are routed among; empty means all the caller may use."""
    trail: tuple[str, ...] = ()
    """The teams and workflows around its steps."""
    replans: int = 0
    """How many plans may follow it, when it has failed."""
    answer: JsonObject | None = None
    """How a model is to write the answer: `model`, `instructions`, `attempts`, and the `output_schema` that it fits."""
    consult: JsonObject | None = None
    """The consultation that it came of, where a model made it: as `Consult.dump` writes it."""
    round: int = 0
    """How many plans came before it for the same goal, and failed."""
    gave: JsonObject = field(default_factory=empty_object)
    """What the steps of those gave, by id, as templates see it under `earlier`."""

    def dump(self) -> dict[str, Json]:
        """Write it as JSON, for the record. `round` and `gave` follow from what was carried out."""
        return {
            "plan": self.plan.dump(),
            "planner": self.planner,
            "why": self.why,
            "inputs": self.inputs,
            "members": list(self.members),
            "trail": list(self.trail),
            "replans": self.replans,
            "answer": self.answer,
            "consult": self.consult,
        }

    @staticmethod
    def load(shaped: JsonObject) -> "Planned":
        """Read what `dump` wrote."""
        answer, consult = shaped.get("answer"), shaped.get("consult")
        return Planned(
            plan=load_plan(mapping(shaped.get("plan"))),
            planner=text(shaped, "planner"),
            why=text(shaped, "why"),
            inputs=mapping(shaped.get("inputs")),
            members=tuple(str(member) for member in sequence(shaped.get("members"))),
            trail=tuple(str(agent) for agent in sequence(shaped.get("trail"))),
            replans=int(number(shaped, "replans")),
            answer=mapping(answer) if answer is not None else None,
            consult=mapping(consult) if consult is not None else None,
        )


@dataclass(frozen=True, kw_only=True)
class Consult:
    """A model is to make the plan."""

    model: str
    """As the settings name it."""
    instructions: str = ""
    attempts: int = 3
    replans: int = 2
    otherwise: str = ""
    """`route`: the router makes the plan when the model makes none."""
    members: tuple[str, ...] = ()
    trail: tuple[str, ...] = ()
    output_schema: JsonObject | None = None
    """What the answer is to fit."""

    def dump(self) -> dict[str, Json]:
        """Write it as JSON, for the record."""
        return {
            "model": self.model,
            "instructions": self.instructions,
            "attempts": self.attempts,
            "replans": self.replans,
            "otherwise": self.otherwise,
            "members": list(self.members),
            "trail": list(self.trail),
            "output_schema": self.output_schema,
        }

    @staticmethod
    def load(shaped: JsonObject) -> "Consult":
        """Read what `dump` wrote."""
        schema = shaped.get("output_schema")
        return Consult(
            model=text(shaped, "model"),
            instructions=text(shaped, "instructions"),
            attempts=int(number(shaped, "attempts")),
            replans=int(number(shaped, "replans")),
            otherwise=text(shaped, "otherwise"),
            members=tuple(str(member) for member in sequence(shaped.get("members"))),
            trail=tuple(str(agent) for agent in sequence(shaped.get("trail"))),
            output_schema=mapping(schema) if schema is not None else None,
        )


class Planner(Protocol):
    """Makes plans."""

    async def plan(self, task: Task) -> Planned | Consult | None:
        """Return a plan, or which model is to make it, or None when another planner should.

        Raises:
            HubError: there can be no plan, whoever makes it.
        """
        ...


class Planners:
    """Asks planners in order."""

    def __init__(self, registry: Registry, planners: Sequence[Planner]) -> None:
        self._registry = registry
        self._planners = tuple(planners)

    async def plan(self, task: Task, *, without_model: bool = False) -> Planned | Consult:
        """Return the first plan that is made, or which model is to make it; `without_model` asks the others alone.

        Raises:
            NoCapableAgent: nobody can do it.
            BadRequest: the workflow's inputs do not fit.
            AgentNotFound: whom it was delegated to is not there.
        """
        scoped, options = await self._scoped(task)
        for planner in self._planners:
            planned = await planner.plan(scoped)
            if isinstance(planned, Consult):
                if without_model:
                    continue
                schema = options.get("output_schema")
                return replace(
                    planned,
                    members=scoped.members,
                    trail=scoped.trail,
                    output_schema=mapping(schema) if schema is not None else None,
                )
            if planned is not None:
                planned = replace(planned, members=planned.members or scoped.members, trail=scoped.trail)
                return dressed(planned, options)
        raise NoCapableAgent(text_of(task.goal.parts))

    async def dress(self, task: Task, planned: Planned) -> Planned:
        """Return a plan that a model made, within what the document of its team says."""
        _, options = await self._scoped(task)
        return dressed(planned, options)

    async def _scoped(self, task: Task) -> tuple[Task, JsonObject]:
        """Return the task as the named team or workflow sees it, among its members, and what a team's document says."""
        if not task.agent_id:
            return task, {}
        agent = await self._registry.get(task.principal.tenant, task.agent_id)
        if agent.endpoint.binding not in (Binding.TEAM, Binding.WORKFLOW):
            return task, {}
        trail = task.trail if agent.id in task.trail else (*task.trail, agent.id)
        options: JsonObject = agent.endpoint.options if agent.endpoint.binding is Binding.TEAM else empty_object()
        return replace(task, members=team_members(agent), trail=trail), options


def dressed(planned: Planned, options: JsonObject) -> Planned:
    """Return a plan with what its team's document says of budget, output schema and answer."""
    plan, changed = planned.plan, dict[str, object]()
    budget, schema, answer = options.get("budget"), options.get("output_schema"), options.get("answer")
    if budget is not None:
        changed["budget"] = tighter(Limits.model_validate(budget), plan.budget)
    if isinstance(answer, str):
        changed["output"] = answer
    if isinstance(answer, Mapping):
        written: dict[str, Json] = {**answer, "output_schema": schema}
        return replace(planned, plan=plan.model_copy(update=changed), answer=written)
    if schema is not None:
        changed["output_schema"] = schema
    return replace(planned, plan=plan.model_copy(update=changed)) if changed else planned


def tighter(one: Limits, other: Limits | None) -> Limits:
    """Return the lower of two budgets, limit by limit."""
    if other is None:
        return one
    lower = one.model_dump()
    for name, limit in other.model_dump().items():
        if limit is not None and (lower[name] is None or limit < lower[name]):
            lower[name] = limit
    return Limits.model_validate(lower)


def standard_planners(registry: Registry, router: Router, models: Models | None = None) -> Planners:
    """Return the planners: those that need no model, and a model where one is set."""
    made: list[Planner] = [DeclaredPlanner(), AgentPlanner(registry)]
    made.append(ModelPlanner(registry, models or Models()))
    return Planners(registry, [*made, RoutePlanner(registry, router)])


class DeclaredPlanner:
    """Takes the workflow that was given."""

    async def plan(self, task: Task) -> Planned | None:
        """Return the workflow as a plan."""
        return declared(task)


class AgentPlanner:
    """Plans for the agent that was named: its own workflow, or one call of it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def plan(self, task: Task) -> Planned | None:
        """Return the named agent's workflow, or a call of it. None for a team that leaves it to the router."""
        if not task.agent_id:
            return None
        agent = await self._registry.get(task.principal.tenant, task.agent_id)
        if agent.endpoint.binding not in (Binding.TEAM, Binding.WORKFLOW):
            return one_call(agent, task.capability, "the caller named it")
        workflow = agent_workflow(agent)
        if workflow is None:
            return None
        planner = text(agent.endpoint.options, "planner") or "workflow"
        return Planned(
            plan=workflow,
            planner=planner,
            why=f"the {planner} of {agent.id}",
            inputs=workflow_inputs(workflow, task, f"the inputs of {agent.id}"),
        )


class ModelPlanner:
    """Has a model plan: for the teams whose planner it is, and where one is set for goals that name nobody."""

    def __init__(self, registry: Registry, models: Models) -> None:
        self._registry = registry
        self._models = models

    async def plan(self, task: Task) -> Consult | None:
        """Return which model is to be consulted; None where none is.

        Raises:
            BadRequest: a team wants a model, and none is set.
        """
        if task.agent_id:
            agent = await self._registry.get(task.principal.tenant, task.agent_id)
            options = agent.endpoint.options
            if options.get("planner") != "model":
                return None
            said = mapping(options.get("model"))
            name = text(said, "name") or self._models.planner
            if not name:
                remedy = "set one as [models.NAME] and planner.model, or name it in the team's file"
                raise BadRequest(f"the team {agent.id} is planned by a model, and none is set", remedy)
            return Consult(
                model=name,
                instructions=text(said, "instructions"),
                attempts=int(number(said, "attempts")) or 3,
                replans=int(number(said, "replans")) if "replans" in said else 2,
                otherwise=text(said, "otherwise"),
            )
        if task.within or not self._models.planner:
            return None
        rules = self._models.rules
        return Consult(
            model=self._models.planner, attempts=rules.attempts, replans=rules.replans, otherwise=rules.otherwise
        )


class RoutePlanner:
    """Plans one call, of the best capability for the goal. Needs no model."""

    def __init__(self, registry: Registry, router: Router) -> None:
        self._registry = registry
        self._router = router

    async def plan(self, task: Task) -> Planned | None:
        """Return a call of whoever can do it best.

        Raises:
            NoCapableAgent: nobody can.
        """
        choice = await self._router.choose(
            Need(
                principal=task.principal,
                text=text_of(task.goal.parts),
                data=task.data,
                members=task.members,
                trail=task.trail,
                without=task.failed,
            )
        )
        replans = 0
        if task.agent_id:
            team = await self._registry.get(task.principal.tenant, task.agent_id)
            replans = int(number(mapping(team.endpoint.options.get("route")), "replans"))
        return replace(one_call(choice.agent, choice.capability, choice.why, planner="route"), replans=replans)


def declared(task: Task) -> Planned | None:
    """Return the workflow that was given as a plan; None when none was. Always the same for the same task.

    Raises:
        BadRequest: its inputs do not fit.
    """
    if task.workflow is None:
        return None
    plan = load_plan(task.workflow)
    inputs = workflow_inputs(plan, task, "the workflow's inputs")
    return Planned(
        plan=plan,
        planner="workflow",
        why="given with the request",
        inputs=inputs,
        members=task.members,
        trail=task.trail,
    )


def one_call(agent: Agent, capability: str, why: str, *, planner: str = "named") -> Planned:
    """Return a plan of one call, which hands on the goal as it is."""
    name = agent.id.replace("-", "_")
    step = CallStep(
        id=name if name[0].isalpha() else f"agent_{name}",
        title=agent.card.name,
        call=CallSpec(agent=agent.id, capability=capability),
    )
    return Planned(plan=Plan(steps=(step,)), planner=planner, why=why)


def agent_workflow(agent: Agent) -> Plan | None:
    """Return the plan of a workflow or team; None for a team that leaves it to the router."""
    shaped = agent.endpoint.options.get("workflow")
    return load_plan(mapping(shaped)) if shaped is not None else None


def team_members(agent: Agent) -> tuple[str, ...]:
    """Return a team's members; none for any other agent."""
    return tuple(str(member) for member in sequence(agent.endpoint.options.get("members")))


def workflow_inputs(plan: Plan, task: Task, source: str) -> dict[str, Json]:
    """Return a workflow's inputs: those given, else the arguments, else the goal's data; its words for the one text.

    Raises:
        BadRequest: they do not fit.
    """
    given: JsonObject = task.inputs or task.arguments or mapping(task.data)
    schema = input_schema(plan)
    properties = mapping(schema.get("properties"))
    if schema.get("additionalProperties") is False and "message" not in properties:
        # A skill's own way to say it: the workflow's inputs are then in `data`.
        given = {name: value for name, value in given.items() if name != "message"}
        if "data" not in properties and isinstance(inner := given.get("data"), dict) and len(given) == 1:
            given = inner
    inputs = dict(given)
    words = text_of(task.goal.parts) or text(task.arguments, "message")
    if (
        words
        and (slot := text_slot(schema, inputs))
        and slot in [str(name) for name in sequence(schema.get("required"))]
    ):
        inputs[slot] = words
    try:
        return check_inputs(plan, inputs, source=source)
    except ValueError as error:
        raise BadRequest(str(error)) from error
