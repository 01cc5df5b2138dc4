"""Plans checked before they are carried out: every mistake with its path, and the nearest right name.

`plan_shape` finds what is wrong with a plan's form, this module what is wrong with what it says. `document` finds
mistakes of a file's own syntax; its `Document.locate` adds file and line to those found here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from pydantic import ValidationError

from interhub.adapters.schemas import problems_of, schema_problem
from interhub.agent_cards import Binding, Json, JsonObject
from interhub.hub.errors import BadRequest, Mistake, PlanInvalid
from interhub.registry import Agent

from .document import MAX_DEPTH, MAX_VALUES
from .graph import Graph, PlanCyclic, compile_steps
from .model import (
    EVENT_NAME,
    MAX_STEPS,
    RESERVED,
    AskStep,
    CallStep,
    ChooseStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Plan,
    PlanStep,
    SequenceStep,
    Step,
    TeamStep,
    WaitStep,
    bodies,
    input_schema,
    read_moment,
    subplan,
    walk,
    walk_all,
)
from .plan_shape import nearest, shape_mistakes
from .template import TemplateFailed, expression, references

__all__ = ["check_inputs", "check_plan", "doubts", "nearest"]


def check_plan(
    shaped: JsonObject,
    *,
    source: str = "the workflow",
    agents: Mapping[str, Agent] | None = None,
    members: Sequence[str] | None = None,
    names: Sequence[str] = (),
) -> Plan:
    """Read a plan and find every mistake in it.

    `agents` are those the caller may use, by id; without them agents are not checked. `members` narrows them to a team.
    `names` are known to the plan's templates beside `inputs`, `goal`, `steps` and `memory`.

    Raises:
        PlanInvalid: it has mistakes; each names its path, and the nearest right name where there is one.
    """
    if not _is_small(shaped):
        raise PlanInvalid(source, [Mistake(source, f"it has over {MAX_VALUES} values, or is nested too deeply")])
    try:
        plan = Plan.model_validate(shaped)
    except ValidationError as error:
        raise PlanInvalid(source, list(shape_mistakes(error, shaped))) from None
    usable = agents
    if agents is not None and members is not None:
        usable = {agent_id: agent for agent_id, agent in agents.items() if agent_id in members}
    found = list(_Checker(usable).plan(plan, "", tuple(names)))
    if not found and sum(1 for _ in walk_all(plan)) > MAX_STEPS:
        found.append(Mistake("steps", f"a workflow may have {MAX_STEPS} steps"))
    if found:
        raise PlanInvalid(source, found)
    return plan


def doubts(plan: Plan) -> Iterator[str]:
    """Yield what is no mistake of a plan, and may not be what was meant."""
    for step in walk_all(plan):
        within = subplan(step)
        if within is None or any(name == "undo" for name, _ in bodies(step)):
            continue
        if any(name == "undo" for inner in walk_all(within[1]) for name, _ in bodies(inner)):
            yield (
                f"what is done within step {step.id} is undone when that fails, not when a later step does: "
                "give it an `undo` of its own"
            )


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


@dataclass(frozen=True, kw_only=True)
class _Sight:
    """What templates see at one place of a plan."""

    inputs: frozenset[str] | None
    """Names of the inputs; None where there may be others."""
    steps: frozenset[str] = frozenset()
    """Ids of the steps, groups too, that have surely ended."""
    later: frozenset[str] = frozenset()
    """Ids of steps that are there, but may not have ended."""
    names: tuple[str, ...] = ()
    """What is known beside the roots: a map's item, a loop's turn."""


@dataclass(frozen=True)
class _Checker:
    """Finds what is wrong with what a plan says."""

    agents: Mapping[str, Agent] | None
    depth: int = field(default=0)

    def plan(self, plan: Plan, prefix: str, names: tuple[str, ...] = ()) -> Iterator[Mistake]:
        schema = input_schema(plan)
        if problem := schema_problem(schema):
            yield Mistake(_at(prefix, "inputs"), problem)
        if plan.output_schema is not None and (problem := schema_problem(cast("JsonObject", plan.output_schema))):
            yield Mistake(_at(prefix, "output_schema"), problem)
        twice = list(_ids_twice(plan, prefix))
        yield from twice
        if twice:
            return
        sight = _Sight(inputs=_closed_inputs(schema), names=names)
        yield from self.steps(plan.steps, _at(prefix, "steps"), sight)
        if plan.on_failure:
            ids = frozenset(step.id for step in walk(plan.steps) if step.id)
            failing = replace(sight, later=ids, names=(*names, "error"))
            yield from self.steps(plan.on_failure, _at(prefix, "on_failure"), failing, bare=True)
        yield from self.value(plan.output, _at(prefix, "output"), self.after(plan.steps, sight))

    def steps(self, steps: Sequence[Step], place: str, sight: _Sight, *, bare: bool = False) -> Iterator[Mistake]:
        """Check steps that are carried out together; `bare`: none of them may say how it is undone."""
        ids = [step.id for step in walk(steps) if step.id]
        broken = False
        for where, step in _placed(steps, place):
            for need in step.needs:
                if need not in ids:
                    broken = True
                    near = nearest(need, ids)
                    what = f"there is no step {need!r} beside this one{near}"
                    yield Mistake(f"{where}.needs", what)
        if broken:
            return
        try:
            graph = compile_steps(steps)
        except PlanCyclic as error:
            yield Mistake(place, str(error))
            return
        for where, step in _placed(steps, place):
            if isinstance(step, SequenceStep | ParallelStep):
                continue
            seen = _before(graph, step, sight, ids)
            yield from self.leaf(step, where, seen, bare)

    def after(self, steps: Sequence[Step], sight: _Sight) -> _Sight:
        """Return what is seen once these steps have ended."""
        return replace(sight, steps=sight.steps | {step.id for step in walk(steps) if step.id})

    # One step

    def leaf(self, step: Step, where: str, sight: _Sight, bare: bool) -> Iterator[Mistake]:
        assert not isinstance(step, SequenceStep | ParallelStep), "groups are no leaves"
        if step.id in RESERVED:
            yield Mistake(f"{where}.id", f"{step.id!r} is a word of the language; call the step something else")
        if step.output_schema is not None and (problem := schema_problem(cast("JsonObject", step.output_schema))):
            yield Mistake(f"{where}.output_schema", problem)
        own = replace(sight, steps=sight.steps | {step.id}, names=(*sight.names, "result"))
        yield from self.value(step.remember, f"{where}.remember", replace(own, steps=sight.steps))
        if step.undo and bare:
            yield Mistake(f"{where}.undo", "what is done because something failed is not undone itself")
        elif step.undo:
            undoing = replace(own, names=(*sight.names, "error"))
            yield from self.steps(step.undo, f"{where}.undo", undoing, bare=True)
        match step:
            case CallStep():
                yield from self.call(step, f"{where}.call", sight)
            case MapStep():
                names = (*sight.names, step.map.name, "index")
                if step.map.name in _TAKEN:
                    yield Mistake(f"{where}.map.as", f"{step.map.name!r} means something else here already")
                yield from self.value(expression(step.map.over), f"{where}.map.over", sight)
                inner = replace(sight, names=names)
                yield from self.steps(step.map.steps, f"{where}.map.steps", inner, bare=bare)
                yield from self.value(step.map.output, f"{where}.map.output", self.after(step.map.steps, inner))
            case LoopStep():
                inner = replace(sight, names=(*sight.names, "turn", "last"))
                yield from self.steps(step.loop.steps, f"{where}.loop.steps", inner, bare=bare)
                ended = self.after(step.loop.steps, inner)
                if step.loop.until:
                    yield from self.value(expression(step.loop.until), f"{where}.loop.until", ended)
                yield from self.value(step.loop.output, f"{where}.loop.output", ended)
            case ChooseStep():
                for number, branch in enumerate(step.choose):
                    place = f"{where}.choose.{number}"
                    yield from self.value(expression(branch.when), f"{place}.when", sight)
                    yield from self.steps(branch.steps, f"{place}.steps", sight, bare=bare)
                    yield from self.value(branch.output, f"{place}.output", self.after(branch.steps, sight))
                yield from self.steps(step.otherwise, f"{where}.else", sight, bare=bare)
            case PlanStep():
                yield from self.subplan(step, f"{where}.plan", sight)
            case TeamStep():
                yield from self.team(step, f"{where}.team", sight)
            case AskStep():
                yield from self.value(step.ask.message, f"{where}.ask.message", sight)
                if step.ask.approval and step.ask.answer is not None:
                    yield Mistake(f"{where}.ask", "an approval wants yes or no; leave out either approval or answer")
                elif step.ask.answer and (problem := schema_problem(cast("JsonObject", step.ask.answer))):
                    yield Mistake(f"{where}.ask.answer", problem)
            case WaitStep():
                yield from self.wait(step, f"{where}.wait", sight)

    def call(self, step: CallStep, where: str, sight: _Sight) -> Iterator[Mistake]:
        spec = step.call
        texts: dict[str, Json] = {"message": spec.message, "need": spec.need}
        texts |= {"arguments": cast("Json", spec.arguments), "data": cast("Json", spec.data)}
        for name, value in texts.items():
            yield from self.value(value, f"{where}.{name}", sight)
        if spec.agent and spec.need:
            yield Mistake(where, "a call names either an agent, or a need that the router finds one for")
        elif not spec.agent and not spec.need and not spec.capability:
            yield Mistake(
                where, "a call names either an agent, or a need that the router finds one for, or a capability"
            )
        elif spec.agent:
            yield from self.agent(spec.agent, spec.capability, spec.arguments is not None, where)
        elif not spec.need:
            yield from self.offered(spec.capability, where)
        for number, other in enumerate(spec.fallback):
            given = spec.arguments is not None
            yield from self.agent(other.agent, other.capability, given, f"{where}.fallback.{number}")

    def agent(self, agent_id: str, capability: str, arguments: bool, where: str) -> Iterator[Mistake]:
        """Check that an agent is there, and has the capability."""
        if self.agents is None:
            return
        agent = self.agents.get(agent_id)
        if agent is None:
            near = nearest(agent_id, [*self.agents])
            yield Mistake(f"{where}.agent", f"no agent is registered as {agent_id!r}{near}")
            return
        names = [one.name for one in agent.card.capabilities]
        if capability:
            if capability not in names:
                what = f"agent {agent.id!r} has nothing called {capability!r}{nearest(capability, names)}"
                yield Mistake(f"{where}.capability", what)
        elif len(names) > 1 and arguments:
            yield Mistake(where, f"arguments need a capability: agent {agent.id!r} has {', '.join(names[:10])}")

    def offered(self, capability: str, where: str) -> Iterator[Mistake]:
        """Check that some agent has a capability."""
        if self.agents is None:
            return
        names = {one.name for agent in self.agents.values() for one in agent.card.capabilities}
        if capability not in names:
            yield Mistake(f"{where}.capability", f"no agent has {capability!r}{nearest(capability, sorted(names))}")

    def subplan(self, step: PlanStep, where: str, sight: _Sight) -> Iterator[Mistake]:
        spec = step.plan
        if bool(spec.name) == (spec.workflow is not None):
            yield Mistake(where, "a plan within the plan is either a `workflow` written here, or the `name` of one")
            return
        yield from self.value(cast("Json", spec.inputs), f"{where}.inputs", sight)
        if spec.workflow is not None:
            yield from _missing_inputs(spec.workflow, spec.inputs, f"{where}.inputs")
            yield from self.plan(spec.workflow, f"{where}.workflow")
        else:
            yield from self.registered(spec.name, Binding.WORKFLOW, f"{where}.name")

    def team(self, step: TeamStep, where: str, sight: _Sight) -> Iterator[Mistake]:
        spec = step.team
        if bool(spec.name) == bool(spec.members):
            yield Mistake(where, "a team is either the `name` of one, or the `members` that make one up")
            return
        yield from self.value(spec.message, f"{where}.message", sight)
        yield from self.value(cast("Json", spec.data), f"{where}.data", sight)
        yield from self.value(cast("Json", spec.inputs), f"{where}.inputs", sight)
        if spec.name:
            if spec.workflow is not None:
                yield Mistake(f"{where}.workflow", "a registered team has a planner of its own; leave this out")
            yield from self.registered(spec.name, Binding.TEAM, f"{where}.name")
            return
        for number, member in enumerate(spec.members):
            if self.agents is not None and member not in self.agents:
                what = f"no agent is registered as {member!r}{nearest(member, [*self.agents])}"
                yield Mistake(f"{where}.members.{number}", what)
        if spec.workflow is not None:
            yield from _missing_inputs(spec.workflow, spec.inputs, f"{where}.inputs")
            usable = self.agents
            if usable is not None:
                usable = {agent_id: agent for agent_id, agent in usable.items() if agent_id in spec.members}
            yield from _Checker(usable).plan(spec.workflow, f"{where}.workflow")
        elif spec.inputs:
            yield Mistake(f"{where}.inputs", "inputs are those of a `workflow`, and there is none")

    def registered(self, name: str, binding: Binding, where: str) -> Iterator[Mistake]:
        """Check that a team or workflow is registered."""
        if self.agents is None:
            return
        known = [agent.id for agent in self.agents.values() if agent.endpoint.binding is binding]
        if name not in known:
            what = "it is an agent; call it with `call`" if name in self.agents else nearest(name, known).lstrip("; ")
            yield Mistake(
                where, f"no {binding.value.lower()} is registered as {name!r}" + (f"; {what}" if what else "")
            )

    def wait(self, step: WaitStep, where: str, sight: _Sight) -> Iterator[Mistake]:
        spec = step.wait
        said = [name for name in ("seconds", "until", "event") if getattr(spec, name) not in (None, "")]
        if len(said) != 1:
            has = f"; this one has {' and '.join(said)}" if said else ""
            yield Mistake(where, f"a wait has exactly one of seconds, until and event{has}")
        if spec.match and not spec.event:
            yield Mistake(f"{where}.match", "match is for the data of an `event`")
        if step.timeout_s is not None and not spec.event:
            yield Mistake(where, "timeout_s is for events; a time comes by itself")
        for name in ("seconds", "until", "event", "match"):
            yield from self.value(getattr(spec, name), f"{where}.{name}", sight)
        if spec.event and "{" not in spec.event and not EVENT_NAME.fullmatch(spec.event):
            what = f"{spec.event[:80]!r} is no event's name; use letters, digits and . _ : / -, at most 100"
            yield Mistake(f"{where}.event", what)
        if spec.until and "{" not in spec.until:
            try:
                read_moment(spec.until)
            except ValueError as error:
                yield Mistake(f"{where}.until", str(error))
        if isinstance(spec.seconds, float) and spec.seconds < 0:
            yield Mistake(f"{where}.seconds", "must not be less than 0")

    # Templates

    def value(self, value: Json, where: str, sight: _Sight) -> Iterator[Mistake]:
        """Check the templates within a value."""
        if isinstance(value, str):
            try:
                found = references(value, sight.names)
            except TemplateFailed as error:
                at = f" (line {error.line} of it)" if "\n" in value else ""
                yield Mistake(where, f"bad template{at}: {error.what}")
                return
            for one in found:
                if what := _reference_mistake(one.root, one.name, sight):
                    yield Mistake(where, what)
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                yield from self.value(inner, f"{where}.{key}", sight)
        elif isinstance(value, Sequence):
            for number, inner in enumerate(value):
                yield from self.value(inner, f"{where}.{number}", sight)


_TAKEN = frozenset({"inputs", "goal", "steps", "memory", "index", "turn", "last", "result", "error"})
"""What templates know by these names is something else than an item."""


def _ids_twice(plan: Plan, prefix: str) -> Iterator[Mistake]:
    """Yield the ids that several steps of one plan have, those of maps, loops and branches included."""
    counts: dict[str, int] = {}
    for step in _own(plan.steps, plan.on_failure):
        if step.id:
            counts[step.id] = counts.get(step.id, 0) + 1
    for name, count in counts.items():
        if count > 1:
            yield Mistake(_at(prefix, "steps", name), f"{count} steps have the id {name!r}; each needs its own")


def _own(*lists: Sequence[Step]) -> Iterator[Step]:
    waiting = list(lists)
    while waiting:
        for step in walk(waiting.pop(0)):
            yield step
            waiting += [inner for _, inner in bodies(step)]


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


def _before(graph: Graph, step: Step, sight: _Sight, ids: Sequence[str]) -> _Sight:
    """Return what a step's templates see: what those around it see, and the steps that have ended before it."""
    before = graph.before(graph.members[step.id][0])
    ended = {name for name, leaves in graph.members.items() if before.issuperset(leaves)}
    return replace(sight, steps=sight.steps | ended, later=sight.later | set(ids))


def _missing_inputs(workflow: Plan, given: Mapping[str, object], place: str) -> Iterator[Mistake]:
    schema = input_schema(workflow)
    required = schema.get("required")
    known = _closed_inputs(schema)
    if isinstance(required, Sequence) and not isinstance(required, str):
        for name in required:
            if isinstance(name, str) and name not in given:
                yield Mistake(place, f"the plan within needs the input {name!r}")
    for name in given:
        if known is not None and name not in known:
            yield Mistake(f"{place}.{name}", f"the plan within takes no input {name!r}{nearest(name, sorted(known))}")


def _reference_mistake(root: str, name: str, sight: _Sight) -> str:
    if not name or root in ("goal", "memory"):
        return ""
    if root == "inputs":
        if sight.inputs is None or name in sight.inputs:
            return ""
        return f"there is no input {name!r}{nearest(name, sorted(sight.inputs))}"
    if name in sight.steps:
        return ""
    if name in sight.later:
        return f"step {name!r} has not ended before this one; put it earlier, or name it in needs"
    return f"there is no step {name!r}{nearest(name, sorted(sight.steps | sight.later))}"
