"""Plans checked before they are carried out: every mistake with its path, and the nearest right name.

`document` finds mistakes of a file's own syntax; its `Document.locate` adds file and line to those found here.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from interhub.adapters.schemas import problems_of, schema_problem
from interhub.agent_cards import Json, JsonObject
from interhub.hub.errors import BadRequest, Mistake, PlanInvalid
from interhub.registry import Agent

from .document import MAX_DEPTH, MAX_VALUES, Path, label
from .model import (
    MAX_STEPS,
    CallSpec,
    CallStep,
    Graph,
    ParallelStep,
    Plan,
    PlanCyclic,
    PlanStep,
    Retry,
    SequenceStep,
    Step,
    SubPlan,
    compile_plan,
    input_schema,
    walk,
)
from .template import TemplateFailed, references


def check_plan(
    shaped: JsonObject,
    *,
    source: str = "the workflow",
    agents: Mapping[str, Agent] | None = None,
    members: Sequence[str] | None = None,
) -> Plan:
    """Read a plan and find every mistake in it.

    `agents` are those the caller may use, by id; without them agents are not checked. `members` narrows them to a team.

    Raises:
        PlanInvalid: it has mistakes; each names its path, and the nearest right name where there is one.
    """
    if not _is_small(shaped):
        raise PlanInvalid(source, [Mistake(source, f"it has over {MAX_VALUES} values, or is nested too deeply")])
    try:
        plan = Plan.model_validate(shaped)
    except ValidationError as error:
        raise PlanInvalid(source, list(_schema_mistakes(error, shaped))) from None
    usable = agents
    if agents is not None and members is not None:
        usable = {agent_id: agent for agent_id, agent in agents.items() if agent_id in members}
    found = list(_plan_mistakes(plan, "", usable))
    if not found and sum(1 for _ in _all_steps(plan)) > MAX_STEPS:
        found.append(Mistake("steps", f"a workflow may have {MAX_STEPS} steps"))
    if found:
        raise PlanInvalid(source, found)
    return plan


def check_inputs(plan: Plan, inputs: JsonObject, *, source: str = "the inputs") -> dict[str, Json]:
    """Return a plan's inputs with defaults filled in.

    Raises:
        BadRequest: they are not what the plan takes; says which and why.
    """
    schema = input_schema(plan)
    filled = dict(inputs)
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        for name, one in properties.items():
            if isinstance(one, Mapping) and "default" in one:
                filled.setdefault(name, one["default"])
    if problems := problems_of(filled, schema, trusted=True):
        names = ", ".join(properties) if isinstance(properties, Mapping) and properties else "nothing"
        raise BadRequest(f"{source} do not fit: {'; '.join(problems[:5])}", f"the workflow takes {names}")
    return filled


def nearest(name: str, known: Sequence[str]) -> str:
    """Say what was probably meant: "; did you mean 'x'?", or what there is, or nothing."""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(sorted(known)[:10])}" if known else ""


def _is_small(value: Json) -> bool:
    waiting: list[tuple[Json, int]] = [(value, 0)]
    count = 0
    while waiting:
        here, depth = waiting.pop()
        count += 1
        if count > MAX_VALUES or depth > MAX_DEPTH:
            return False
        if isinstance(here, Mapping):
            waiting.extend((inner, depth + 1) for inner in here.values())
        elif isinstance(here, Sequence) and not isinstance(here, str):
            waiting.extend((inner, depth + 1) for inner in here)
    return True


# The plan's shape

_TAGS = frozenset({"call", "sequence", "parallel", "plan"})
_MODELS: Mapping[str, type[BaseModel]] = {
    "call": CallStep,
    "sequence": SequenceStep,
    "parallel": ParallelStep,
    "plan": PlanStep,
}


def _schema_mistakes(error: ValidationError, shaped: JsonObject) -> Iterator[Mistake]:
    problems = error.errors(include_url=False, include_context=False)
    places = [_untagged(problem["loc"]) for problem in problems]
    for problem, (path, model) in zip(problems, places, strict=True):
        # A list with a bad item also counts as too short: only the item's own mistake helps.
        if problem["type"] == "too_short" and any(len(p) > len(path) and p[: len(path)] == path for p, _ in places):
            continue
        yield Mistake(label(shaped, path) or "the workflow", _say_problem(problem, path, model))


def _untagged(place: tuple[int | str, ...]) -> tuple[Path, type[BaseModel]]:
    """Return the path without pydantic's tags of the union, and the model that the last part belongs to."""
    path: list[str | int] = []
    model: type[BaseModel] = Plan
    parts = list(place)
    while parts:
        part = parts.pop(0)
        path.append(part)
        if isinstance(part, int) and parts and parts[0] in _TAGS:
            model = _MODELS[cast("str", parts.pop(0))]
        elif part == "call" and model is CallStep:
            model = CallSpec
        elif part == "retry" and model is CallSpec:
            model = Retry
        elif part == "plan" and model is PlanStep:
            model = SubPlan
        elif part == "workflow" and model is SubPlan:
            model = Plan
    return tuple(path), model


def _say_problem(problem: ErrorDetails, path: Path, model: type[BaseModel]) -> str:
    given: object = problem["input"]
    match problem["type"]:
        case "extra_forbidden":
            name = str(path[-1])
            return f"{name!r} is not known here{nearest(name, [*model.model_fields])}"
        case "step_kind" if isinstance(given, Mapping):
            keys = [str(key) for key in cast("Mapping[object, object]", given)]
            if sum(key in _TAGS for key in keys) > 1:
                return problem["msg"] + f"; this one has {' and '.join(sorted(_TAGS.intersection(keys)))}"
            strange = [key for key in keys if key not in PlanStep.model_fields and key not in _TAGS]
            return problem["msg"] + (nearest(strange[0], sorted(_TAGS)) if strange else "")
        case "missing":
            return f"{path[-1]!r} is missing"
        case "string_pattern_mismatch":
            return f"{given!r} cannot be an id: begin with a letter; then letters, digits and underscores, at most 48"
        case "tuple_type" | "list_type":
            return "must be a list"
        case "too_short":
            return "must not be empty"
        case "string_type":
            return f"must be text, not {type(given).__name__}; put it in quotes"
        case _:
            return problem["msg"]


# What the plan says


def _all_steps(plan: Plan) -> Iterator[Step]:
    for step in walk(plan.steps):
        yield step
        if isinstance(step, PlanStep):
            yield from _all_steps(step.plan.workflow)


def _plan_mistakes(plan: Plan, prefix: str, agents: Mapping[str, Agent] | None) -> Iterator[Mistake]:
    schema = input_schema(plan)
    if problem := schema_problem(schema):
        yield Mistake(_at(prefix, "inputs"), problem)
    ids: dict[str, int] = {}
    for step in walk(plan.steps):
        if step.id:
            ids[step.id] = ids.get(step.id, 0) + 1
    broken = False
    for name, count in ids.items():
        if count > 1:
            broken = True
            yield Mistake(_at(prefix, "steps", name), f"{count} steps have the id {name!r}; each needs its own")
    for place, step in _placed(plan.steps, _at(prefix, "steps")):
        for need in step.needs:
            if need not in ids:
                broken = True
                yield Mistake(f"{place}.needs", f"there is no step {need!r}{nearest(need, [*ids])}")
    if broken:
        return
    try:
        graph = compile_plan(plan)
    except PlanCyclic as error:
        yield Mistake(_at(prefix, "steps"), str(error))
        return
    inputs = _closed_inputs(schema)
    for place, step in _placed(plan.steps, _at(prefix, "steps")):
        match step:
            case CallStep():
                yield from _call_mistakes(step, f"{place}.call", agents)
                before = _visible(graph, step)
                spec = step.call
                for name, value in (("message", spec.message), ("arguments", spec.arguments), ("data", spec.data)):
                    yield from _template_mistakes(value, f"{place}.call.{name}", inputs, before, graph)
            case PlanStep():
                before = _visible(graph, step)
                yield from _template_mistakes(step.plan.inputs, f"{place}.plan.inputs", inputs, before, graph)
                yield from _missing_inputs(step.plan, f"{place}.plan.inputs")
                yield from _plan_mistakes(step.plan.workflow, f"{place}.plan.workflow", agents)
            case _:
                pass
    yield from _template_mistakes(plan.output, _at(prefix, "output"), inputs, frozenset(graph.members), graph)


def _at(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _placed(steps: Sequence[Step], place: str) -> Iterator[tuple[str, Step]]:
    for number, step in enumerate(steps):
        here = f"{place}.{step.id or number}"
        yield here, step
        if isinstance(step, SequenceStep):
            yield from _placed(step.sequence, f"{here}.sequence")
        elif isinstance(step, ParallelStep):
            yield from _placed(step.parallel, f"{here}.parallel")


def _closed_inputs(schema: JsonObject) -> frozenset[str] | None:
    """Names of the inputs, or None where there may be others."""
    properties = schema.get("properties")
    if schema.get("additionalProperties") is not False or not isinstance(properties, Mapping):
        return None
    return frozenset(properties)


def _visible(graph: Graph, step: CallStep | PlanStep) -> frozenset[str]:
    """Ids of the steps, groups too, that have ended when this one starts."""
    path = graph.members[step.id][0]
    before = graph.before(path)
    return frozenset(name for name, leaves in graph.members.items() if before.issuperset(leaves))


def _missing_inputs(sub: SubPlan, place: str) -> Iterator[Mistake]:
    schema = input_schema(sub.workflow)
    required = schema.get("required")
    known = _closed_inputs(schema)
    if isinstance(required, Sequence) and not isinstance(required, str):
        for name in required:
            if isinstance(name, str) and name not in sub.inputs:
                yield Mistake(place, f"the plan within needs the input {name!r}")
    for name in sub.inputs:
        if known is not None and name not in known:
            yield Mistake(f"{place}.{name}", f"the plan within takes no input {name!r}{nearest(name, sorted(known))}")


def _call_mistakes(step: CallStep, place: str, agents: Mapping[str, Agent] | None) -> Iterator[Mistake]:
    spec = step.call
    if bool(spec.agent) == bool(spec.need):
        yield Mistake(place, "a call names either an agent, or a need that the router finds one for")
        return
    if not spec.agent or agents is None:
        return
    agent = agents.get(spec.agent)
    if agent is None:
        yield Mistake(f"{place}.agent", f"no agent is registered as {spec.agent!r}{nearest(spec.agent, [*agents])}")
        return
    names = [capability.name for capability in agent.card.capabilities]
    if spec.capability:
        if spec.capability not in names:
            what = f"agent {agent.id!r} has nothing called {spec.capability!r}{nearest(spec.capability, names)}"
            yield Mistake(f"{place}.capability", what)
    elif len(names) > 1 and spec.arguments is not None:
        yield Mistake(place, f"arguments need a capability: agent {agent.id!r} has {', '.join(names[:10])}")


def _template_mistakes(
    value: Json, place: str, inputs: frozenset[str] | None, before: frozenset[str], graph: Graph
) -> Iterator[Mistake]:
    if isinstance(value, str):
        try:
            found = references(value)
        except TemplateFailed as error:
            at = f" (line {error.line} of it)" if "\n" in value else ""
            yield Mistake(place, f"bad template{at}: {error.what}")
            return
        for one in found:
            what = _reference_mistake(one.root, one.name, inputs, before, graph)
            if what:
                yield Mistake(place, what)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _template_mistakes(inner, f"{place}.{key}", inputs, before, graph)
    elif isinstance(value, Sequence):
        for number, inner in enumerate(value):
            yield from _template_mistakes(inner, f"{place}.{number}", inputs, before, graph)


def _reference_mistake(
    root: str, name: str, inputs: frozenset[str] | None, before: frozenset[str], graph: Graph
) -> str:
    if not name or root == "goal":
        return ""
    if root == "inputs":
        if inputs is None or name in inputs:
            return ""
        return f"there is no input {name!r}{nearest(name, sorted(inputs))}"
    if name not in graph.members:
        return f"there is no step {name!r}{nearest(name, [*graph.members])}"
    if name not in before:
        return f"step {name!r} has not ended before this one; put it earlier, or name it in needs"
    return ""
