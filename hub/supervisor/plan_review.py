"""A plan that a planner made, held against the registry, the policy and the budget before anything of it is done."""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from interhub.adapters import Budget
from interhub.adapters.schemas import problems_of
from interhub.agent_cards import Binding, Capability, Json, JsonObject, Kind
from interhub.hub.errors import NoPlan, PlanInvalid
from interhub.registry import Agent

from .consulting import Mistaken
from .envelope import mapping, sequence, text
from .model import CallStep, ChooseStep, LoopStep, MapStep, Plan, PlanStep, TeamStep, walk_all
from .plan_check import check_plan
from .plan_shape import nearest
from .router import Candidate

MAX_STEPS = 100
"""Of a plan that a model makes."""


def review_plan(
    answer: JsonObject, *, candidates: Sequence[Candidate], budget: Budget, names: Sequence[str] = ()
) -> Plan:
    """Return the plan that a model's answer is.

    `candidates` are all that it may plan over; `budget` is what is left; `names` are known to the templates.

    Raises:
        Mistaken: it has mistakes; all of them are named, for the model to mend.
        NoPlan: the model says that it cannot be done.
    """
    if answer.get("plan") is None:
        if cannot := text(answer, "cannot"):
            raise NoPlan(f"the planner says that it cannot be done: {cannot[:1000]}")
        raise Mistaken(["give either `plan`, or `cannot` with the reason"])
    shaped = answer["plan"]
    if not isinstance(shaped, Mapping):
        raise Mistaken(["`plan` must be an object with `steps`"])
    agents = {candidate.agent.id: candidate.agent for candidate in candidates}
    try:
        plan = check_plan(shaped, source="the plan", agents=agents, members=[*agents], names=names)
    except PlanInvalid as error:
        raise Mistaken([str(mistake) for mistake in error.mistakes[:20]]) from None
    found = [*_calls(plan, {one.agent.id: one for one in candidates}), *_too_much(plan, budget, agents)]
    if found:
        raise Mistaken(found[:20])
    return plan


def _calls(plan: Plan, candidates: Mapping[str, Candidate]) -> Iterator[str]:
    """Yield what is wrong with the calls: what the policy does not allow, and arguments that do not fit."""
    for step in walk_all(plan):
        if not isinstance(step, CallStep) or not step.call.agent:
            continue
        candidate = candidates[step.call.agent]
        allowed = {one.name: one for one in candidate.capabilities}
        name = step.call.capability
        if name and name not in allowed:
            yield f"step {step.id}: the policy does not allow {name} of {step.call.agent}{nearest(name, [*allowed])}"
        for other in step.call.fallback:
            offered = {one.name for one in candidates[other.agent].capabilities}
            if other.capability and other.capability not in offered:
                yield f"step {step.id}: the policy does not allow {other.capability} of {other.agent}"
        only = candidate.capabilities[0] if len(candidate.capabilities) == 1 else None
        capability = allowed.get(name) if name else only
        if capability is not None and step.call.arguments is not None:
            arguments = cast("JsonObject", step.call.arguments)
            for problem in _argument_problems(arguments, capability):
                yield f"step {step.id}: arguments of {capability.name}: {problem}"


def _argument_problems(arguments: JsonObject, capability: Capability) -> Sequence[str]:
    """Return how arguments fall short of a schema; what is a template may become anything, and is left out."""
    if capability.kind is Kind.SKILL and "message" in arguments:
        return ()
    open_ones = [name for name, value in arguments.items() if _templated(value)]
    schema = dict(capability.input_schema)
    given = {name: value for name, value in arguments.items() if name not in open_ones}
    known = mapping(schema.get("properties"))
    unknown = [name for name in open_ones if name not in known and schema.get("additionalProperties") is False]
    schema["required"] = [name for name in sequence(schema.get("required")) if name not in open_ones]
    strange = [f"there is no argument {name!r}{nearest(name, [*known])}" for name in unknown]
    return [*strange, *problems_of(given, schema)]


def _templated(value: Json) -> bool:
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(map(_templated, value.values()))
    return any(map(_templated, value)) if isinstance(value, Sequence) else False


def _too_much(plan: Plan, budget: Budget, agents: Mapping[str, Agent]) -> Iterator[str]:
    steps = list(walk_all(plan))
    if len(steps) > MAX_STEPS:
        yield f"the plan has {len(steps)} steps, and may have {MAX_STEPS}"
    sure = _least_calls(plan.steps)
    if budget.calls is not None and sure > budget.calls:
        yield f"the plan makes at least {sure} calls of agents, and {budget.calls} are left in the budget"
    if budget.depth < 1:
        for step in steps:
            called = agents.get(step.call.agent) if isinstance(step, CallStep) else None
            named = isinstance(step, PlanStep) and step.plan.name
            if isinstance(step, TeamStep) or named or (called is not None and is_deeper(called)):
                yield f"step {step.id}: no level of delegation is left for a team or workflow"


def _least_calls(steps: Sequence[object]) -> int:
    """Return how many calls are made for sure: what depends on data, or on a choice, may make none."""
    count = 0
    for step in steps:
        match step:
            case CallStep() | TeamStep():
                count += 1
            case MapStep() | ChooseStep():
                pass
            case LoopStep():
                count += _least_calls(step.loop.steps)
            case PlanStep():
                count += _least_calls(step.plan.workflow.steps) if step.plan.workflow is not None else 1
            case _:
                count += _least_calls(getattr(step, "sequence", None) or getattr(step, "parallel", None) or ())
    return count


def is_deeper(agent: Agent) -> bool:
    """Return whether a call of an agent is a level of delegation."""
    return agent.endpoint.binding in (Binding.TEAM, Binding.WORKFLOW)
