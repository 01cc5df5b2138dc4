"""From a goal to a plan: a declared workflow, the one agent that was named, or the one that the router finds.

Planners are asked in order; the first that returns a plan makes it. Planning is a recorded step of a run, so what a
planner finds out may change from one run to the next, but not within one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from interhub.adapters import DataPart, Message, Principal, text_of
from interhub.agent_cards import Binding, Json, JsonObject, empty_object
from interhub.hub.errors import BadRequest, NoCapableAgent
from interhub.registry import Agent, Registry

from .arguments import text_slot
from .envelope import mapping, sequence, text
from .model import CallSpec, CallStep, Plan, input_schema, load_plan
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


class Planner(Protocol):
    """Makes plans."""

    async def plan(self, task: Task) -> Planned | None:
        """Return a plan, or None when another planner should.

        Raises:
            HubError: there can be no plan, whoever makes it.
        """
        ...


class Planners:
    """Asks planners in order."""

    def __init__(self, registry: Registry, planners: Sequence[Planner]) -> None:
        self._registry = registry
        self._planners = tuple(planners)

    async def plan(self, task: Task) -> Planned:
        """Return the first plan that is made.

        Raises:
            NoCapableAgent: nobody can do it.
            BadRequest: the workflow's inputs do not fit.
            AgentNotFound: whom it was delegated to is not there.
        """
        scoped = await self._scoped(task)
        for planner in self._planners:
            planned = await planner.plan(scoped)
            if planned is not None:
                return replace(planned, members=planned.members or scoped.members, trail=scoped.trail)
        raise NoCapableAgent(text_of(task.goal.parts))

    async def _scoped(self, task: Task) -> Task:
        """Return the task as the named team or workflow sees it: among its members, and within itself."""
        if not task.agent_id:
            return task
        agent = await self._registry.get(task.principal.tenant, task.agent_id)
        if agent.endpoint.binding not in (Binding.TEAM, Binding.WORKFLOW):
            return task
        trail = task.trail if agent.id in task.trail else (*task.trail, agent.id)
        return replace(task, members=team_members(agent), trail=trail)


def standard_planners(registry: Registry, router: Router) -> Planners:
    """Return the planners that need no model."""
    return Planners(registry, [DeclaredPlanner(), AgentPlanner(registry), RoutePlanner(router)])


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
        return Planned(
            plan=workflow,
            planner="workflow",
            why=f"the workflow of {agent.id}",
            inputs=workflow_inputs(workflow, task, f"the inputs of {agent.id}"),
        )


class RoutePlanner:
    """Plans one call, of the best capability for the goal. Needs no model."""

    def __init__(self, router: Router) -> None:
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
            )
        )
        return one_call(choice.agent, choice.capability, choice.why, planner="route")


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
