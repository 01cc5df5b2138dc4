"""A plan as data: a tree of steps, whoever made it, and the flat graph that is carried out.

    Step = CallStep       one call of one agent, or of whoever meets a need
         | SequenceStep   one after the other
         | ParallelStep   side by side
         | PlanStep       a plan within the plan, with its own inputs, steps and output

`compile_plan` turns the tree into leaves with dependencies. A step's place in the tree is its path: `outer.inner`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic.json_schema import SkipJsonSchema

from interhub.agent_cards import Json, JsonObject

MAX_STEPS = 1000
"""In one plan, those of plans within it included."""

Identifier = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_]{0,47}$",
        description="Letters, digits and underscores, so that templates can name it: steps.ID",
    ),
]


class OnError(StrEnum):
    """What a failed step means for the plan around it."""

    FAIL = "fail"
    """The plan fails; what runs beside the step is cancelled."""
    CONTINUE = "continue"
    """The plan goes on; `steps.ID.error` says what happened."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Retry(_Data):
    """How often a call is tried when its agent cannot be reached."""

    attempts: int = Field(default=1, ge=1, le=20)
    """How many times in all."""
    backoff_s: float = Field(default=0.5, ge=0, le=300)
    """Seconds before the second attempt; doubled each time."""


class CallSpec(_Data):
    """One call: of an agent, or of whoever the router finds for a need. Texts are templates."""

    agent: str = ""
    """Id of the agent."""
    need: str = ""
    """What is needed, in plain words; the router finds who can."""
    capability: str = ""
    """Name of the agent's skill or tool; may be left out where it has only one, or where the router chooses."""
    message: str = ""
    """What to say to the agent. With neither message, arguments nor data, the goal itself is handed on."""
    arguments: dict[str, Any] | None = None
    """Arguments by the capability's input schema."""
    data: Any = None
    """Structured input that goes with the message."""
    timeout_s: float | None = Field(default=None, gt=0, le=7 * 24 * 3600)
    """Seconds that one attempt may last."""
    retry: Retry = Retry()


class _StepBase(_Data):
    title: str = ""
    """For people."""
    needs: tuple[Identifier, ...] = ()
    """Ids of steps that must end first, besides those the tree puts before it."""
    on_error: OnError = OnError.FAIL


class CallStep(_StepBase):
    """One call of one agent."""

    id: Identifier
    call: CallSpec


class SequenceStep(_StepBase):
    """Steps one after the other."""

    id: Identifier | Literal[""] = ""
    sequence: tuple["Step", ...] = Field(min_length=1)


class ParallelStep(_StepBase):
    """Steps side by side."""

    id: Identifier | Literal[""] = ""
    parallel: tuple["Step", ...] = Field(min_length=1)


class SubPlan(_Data):
    """A plan within a plan."""

    workflow: "Plan"
    inputs: dict[str, Any] = Field(default_factory=dict)
    """Its inputs; texts are templates of the plan around it."""


class PlanStep(_StepBase):
    """A plan within the plan."""

    id: Identifier
    plan: SubPlan


STEP_KINDS = ("call", "sequence", "parallel", "plan")


def step_kind(value: object) -> str | None:
    """Return which kind of step a mapping says it is; None when it says none, or several."""
    if isinstance(value, Mapping):
        named = [kind for kind in STEP_KINDS if kind in cast("Mapping[object, object]", value)]
        return named[0] if len(named) == 1 else None
    for kind in STEP_KINDS:
        if hasattr(value, kind):
            return kind
    return None


Step: TypeAlias = Annotated[
    Annotated[CallStep, Tag("call")]
    | Annotated[SequenceStep, Tag("sequence")]
    | Annotated[ParallelStep, Tag("parallel")]
    | Annotated[PlanStep, Tag("plan")],
    Discriminator(
        step_kind,
        custom_error_type="step_kind",
        custom_error_message="a step has exactly one of call, sequence, parallel and plan",
    ),
]


class Plan(_Data):
    """What is to be done: a declared workflow, or what a planner made."""

    version: Literal[1] = 1
    kind: SkipJsonSchema[Literal["workflow"]] = "workflow"
    name: str = Field(default="", max_length=200)
    description: str = ""
    inputs: dict[str, Any] = Field(default_factory=dict)
    """JSON Schema of the inputs, or only its properties; a property may be just the name of its type."""
    steps: tuple[Step, ...] = Field(min_length=1)
    output: Any = None
    """The answer, as a template or a value with templates in it; without it, the last step's answer."""

    def dump(self) -> dict[str, Json]:
        """Write the plan as JSON, without what is left at its default."""
        return cast("dict[str, Json]", self.model_dump(mode="json", exclude_defaults=True) | {"version": self.version})


SequenceStep.model_rebuild()
ParallelStep.model_rebuild()
SubPlan.model_rebuild()
PlanStep.model_rebuild()
Plan.model_rebuild()


def plan_schema() -> JsonObject:
    """Return the JSON Schema of a plan, for editors and models."""
    schema = Plan.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "interhub workflow", **schema}


def load_plan(shaped: JsonObject) -> Plan:
    """Read a plan that was checked before: a run's input, an agent's endpoint.

    Raises:
        ValueError: it is not one; `plan_check.check_plan` says where.
    """
    try:
        return Plan.model_validate(shaped)
    except ValidationError as error:
        raise ValueError(f"not a plan: {error.error_count()} mistakes") from error


def input_schema(plan: Plan) -> dict[str, Json]:
    """Return the JSON Schema of a plan's inputs, of type object; inputs without a default are required."""
    given = cast("dict[str, Json]", plan.inputs)
    if given.get("type") == "object" or isinstance(given.get("properties"), Mapping):
        return {"type": "object", **given}
    properties: dict[str, Json] = {
        name: {"type": value} if isinstance(value, str) else value for name, value in given.items()
    }
    required = [name for name, value in properties.items() if not (isinstance(value, Mapping) and "default" in value)]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


@dataclass(frozen=True, kw_only=True)
class Node:
    """One leaf of a compiled plan."""

    path: str
    """Its place within this plan."""
    step: CallStep | PlanStep
    after: tuple[str, ...]
    """Paths of the leaves that must have ended, in the order of the plan."""
    scopes: tuple[str, ...]
    """The groups around it whose failure does not fail the plan, outermost first."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A compiled plan: its leaves in the order of the plan, each after those it depends on or beside them."""

    nodes: tuple[Node, ...]
    members: Mapping[str, tuple[str, ...]]
    """Step id, of a group too, to the paths of its leaves in order."""

    def node(self, path: str) -> Node:
        """Return the leaf at a path."""
        return next(node for node in self.nodes if node.path == path)

    def before(self, path: str) -> frozenset[str]:
        """Return the paths of all leaves that have ended when this one starts."""
        after = {node.path: node.after for node in self.nodes}
        found: set[str] = set()
        waiting = list(after[path])
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(after[name])
        return frozenset(found)


class PlanCyclic(ValueError):
    """Steps need each other in a circle."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__(tuple(ids))
        self.ids = tuple(ids)

    def __str__(self) -> str:
        return f"the steps need each other in a circle: {' needs '.join(self.ids)}"


def walk(steps: Sequence[Step]) -> Iterator[Step]:
    """Yield every step of one plan in order, groups before what is in them; not those of plans within it."""
    for step in steps:
        yield step
        if isinstance(step, SequenceStep):
            yield from walk(step.sequence)
        elif isinstance(step, ParallelStep):
            yield from walk(step.parallel)


def compile_plan(plan: Plan) -> Graph:
    """Turn the tree into leaves with dependencies.

    Raises:
        PlanCyclic: steps need each other in a circle.
        KeyError: a step needs one that is not there (`plan_check.check_plan` finds it first).
    """
    drafts: list[_Draft] = []
    members: dict[str, tuple[str, ...]] = {}

    def lay(
        step: Step, prefix: str, entry: tuple[str, ...], needs: tuple[str, ...], scopes: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Lay out a step and return its exits: the leaves that must have ended for what follows it."""
        path = f"{prefix}.{step.id}" if prefix and step.id else (step.id or prefix)
        needs = (*needs, *step.needs)
        before = len(drafts)
        match step:
            case CallStep() | PlanStep():
                drafts.append(_Draft(path, step, entry, needs, scopes))
                exits: tuple[str, ...] = (path,)
            case SequenceStep():
                inner = (*scopes, f"{path}!{len(scopes)}.{before}") if step.on_error is OnError.CONTINUE else scopes
                exits = entry
                for child in step.sequence:
                    exits = lay(child, path, exits, needs, inner)
            case ParallelStep():
                inner = (*scopes, f"{path}!{len(scopes)}.{before}") if step.on_error is OnError.CONTINUE else scopes
                exits = tuple(exit for child in step.parallel for exit in lay(child, path, entry, needs, inner))
        if step.id:
            members[step.id] = tuple(draft.path for draft in drafts[before:])
        return exits

    entry: tuple[str, ...] = ()
    for step in plan.steps:
        entry = lay(step, "", entry, (), ())
    place = {draft.path: number for number, draft in enumerate(drafts)}
    nodes: list[Node] = []
    for draft in drafts:
        after = {*draft.entry, *(path for name in draft.needs for path in members[name])}
        ordered = tuple(sorted(after, key=place.__getitem__))
        nodes.append(Node(path=draft.path, step=draft.step, after=ordered, scopes=draft.scopes))
    try:
        TopologicalSorter({node.path: node.after for node in nodes}).prepare()
    except CycleError as error:
        raise PlanCyclic([str(path) for path in reversed(error.args[1])]) from None
    return Graph(nodes=tuple(nodes), members=members)


@dataclass(frozen=True)
class _Draft:
    path: str
    step: CallStep | PlanStep
    entry: tuple[str, ...]
    needs: tuple[str, ...]
    scopes: tuple[str, ...]
