"""A plan as data: a tree of steps, whoever made it. `graph` turns it into what is carried out.

    Step = CallStep       one call of one agent, or of whoever meets a need
         | SequenceStep   one after the other
         | ParallelStep   side by side
         | MapStep        the same steps for each item of a list, some at a time
         | ChooseStep     the first branch whose condition holds
         | LoopStep       the same steps again, until a condition holds
         | PlanStep       a plan within the plan, with its own inputs, steps and output; or a registered workflow
         | TeamStep       a goal for a team: a registered one, or one made up here
         | AskStep        a question to a person, or an approval
         | WaitStep       a time, or an event

A step's place in the tree is its path: `outer.inner`, `each.3.inner` within a map or loop.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic.json_schema import SkipJsonSchema

from interhub.agent_cards import Json, JsonObject

MAX_STEPS = 1000
"""In one plan as written, those of plans within it included."""
MAX_ITEMS = 1000
"""Of one map."""
MAX_TURNS = 1000
"""Of one loop."""
MAX_LEAVES = 10_000
"""Steps that one plan may come to while it is carried out, all items and turns counted."""
LONGEST_S = 366 * 24 * 3600
RESERVED = ("undo", "on_failure")
"""Not to be taken as ids: their steps' paths go through these words."""

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
    """The plan fails; what runs beside the step is cancelled, and what was done is undone, where steps say how."""
    CONTINUE = "continue"
    """The plan goes on; `steps.ID.error` says what happened."""


class Failure(StrEnum):
    """Kinds of failures of a call that another attempt may mend."""

    UNAVAILABLE = "unavailable"
    """The agent could not be reached."""
    TIMEOUT = "timeout"
    """It took longer than `timeout_s`."""
    REFUSED = "refused"
    """It answered with an error."""
    INVALID = "invalid"
    """What it gave does not fit `output_schema`."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_by_name=True)


class Retry(_Data):
    """How often a call is tried, when what failed may go better the next time."""

    attempts: int = Field(default=1, ge=1, le=20)
    """How many times in all."""
    backoff_s: float = Field(default=0.5, ge=0, le=300)
    """Seconds before the second attempt."""
    factor: float = Field(default=2.0, ge=1, le=10)
    """Each wait is that many times the one before."""
    max_backoff_s: float = Field(default=300.0, ge=0, le=3600)
    """No wait is longer."""
    after: tuple[Failure, ...] = (Failure.UNAVAILABLE,)
    """After which failures it is tried again."""

    def wait_s(self, failures: int) -> float:
        """Return the seconds to wait after that many failures."""
        return min(self.max_backoff_s, self.backoff_s * self.factor ** (failures - 1))


class Fallback(_Data):
    """Who does it when the one before could not."""

    agent: str
    """Id of the agent."""
    capability: str = ""
    """Name of its skill or tool; may be left out where it has only one, or where the router chooses."""


class Limits(_Data):
    """What a step, or a plan, may use with all that is in it. What is left out has no limit of its own."""

    calls: int | None = Field(default=None, ge=0)
    """Calls of agents."""
    tokens: int | None = Field(default=None, ge=0)
    """Tokens, in and out, as far as agents say what they used."""
    cost_usd: float | None = Field(default=None, ge=0)
    """Cost, as far as agents say it."""
    depth: int | None = Field(default=None, ge=0)
    """Levels of delegation below it."""
    wall_s: float | None = Field(default=None, gt=0, le=LONGEST_S)
    """Seconds on the clock, waiting included."""


class CallSpec(_Data):
    """One call: of an agent, or of whoever the router finds for a need. Texts are templates."""

    agent: str = ""
    """Id of the agent."""
    need: str = ""
    """What is needed, in plain words; the router finds who can."""
    capability: str = ""
    """Name of the agent's skill or tool; may be left out where it has only one, or where the router chooses.
    Alone, without agent and need: whoever of the agents has a skill or tool of this name."""
    message: str = ""
    """What to say to the agent. With neither message, arguments nor data, the goal itself is handed on."""
    arguments: dict[str, Any] | None = None
    """Arguments by the capability's input schema."""
    data: Any = None
    """Structured input that goes with the message."""
    timeout_s: float | None = Field(default=None, gt=0, le=7 * 24 * 3600)
    """Seconds that one attempt may last."""
    retry: Retry = Retry()
    fallback: tuple[Fallback, ...] = Field(default=(), max_length=10)
    """Agents to turn to, in this order, when the call has failed."""


class _StepBase(_Data):
    title: str = ""
    """For people."""
    needs: tuple[Identifier, ...] = ()
    """Ids of steps that must end first, besides those the tree puts before it."""
    on_error: OnError = OnError.FAIL


class _LeafBase(_StepBase):
    id: Identifier
    timeout_s: float | None = Field(default=None, gt=0, le=LONGEST_S)
    """Seconds that the whole step may last, with all its attempts and steps."""
    output_schema: dict[str, Any] | None = None
    """JSON Schema of what the step gives as data; a text that is JSON counts as data. It fails if it does not fit."""
    remember: dict[str, Any] = Field(default_factory=dict)
    """What to write into the run's memory when the step has ended well: names and templates."""
    undo: tuple["Step", ...] = ()
    """Steps that undo it, when the plan fails after it has ended well."""
    budget: Limits | None = None


class CallStep(_LeafBase):
    """One call of one agent."""

    call: CallSpec


class SequenceStep(_StepBase):
    """Steps one after the other."""

    id: Identifier | Literal[""] = ""
    sequence: tuple["Step", ...] = Field(min_length=1)


class ParallelStep(_StepBase):
    """Steps side by side."""

    id: Identifier | Literal[""] = ""
    parallel: tuple["Step", ...] = Field(min_length=1)


class MapSpec(_Data):
    """The same steps for each item of a list."""

    over: str
    """Template of the list."""
    name: Identifier = Field(default="item", alias="as")
    """What templates within call the item; `index` counts from 0."""
    steps: tuple["Step", ...] = Field(min_length=1)
    output: Any = None
    """What an item gives, as `output` of a plan; without it, its last step's answer."""
    concurrency: int = Field(default=10, ge=1, le=MAX_ITEMS)
    """How many items at a time."""
    at_most: int = Field(default=MAX_ITEMS, ge=1, le=MAX_ITEMS)
    """A longer list fails the step."""
    on_item_error: OnError = OnError.FAIL
    """`continue`: an item that failed gives null, and `steps.ID.errors` says why."""


class MapStep(_LeafBase):
    """The same steps for each item of a list; gives the list of what the items gave."""

    map: MapSpec


class Branch(_Data):
    """One way that a choice may go."""

    when: str
    """Condition: a template; empty, false, no, none, null, 0 and nothing at all count as false."""
    steps: tuple["Step", ...] = Field(min_length=1)
    output: Any = None
    """What it gives; without it, its last step's answer."""


class ChooseStep(_LeafBase):
    """The first branch whose condition holds; gives what the branch gives."""

    choose: tuple[Branch, ...] = Field(min_length=1, max_length=50)
    otherwise: tuple["Step", ...] = Field(default=(), alias="else")
    """Steps for when no condition holds; without them, nothing is done then."""


class OnLimit(StrEnum):
    """What it means that a loop has made all its turns."""

    FAIL = "fail"
    """The step fails."""
    ACCEPT = "accept"
    """It gives what the last turn gave."""


class LoopSpec(_Data):
    """The same steps again and again."""

    steps: tuple["Step", ...] = Field(min_length=1)
    until: str = ""
    """Condition, looked at after each turn; it may name the turn's steps. Without it, all turns are made."""
    at_most: int = Field(ge=1, le=MAX_TURNS)
    """How many turns in all."""
    pause_s: float = Field(default=0.0, ge=0, le=LONGEST_S)
    """Seconds between two turns."""
    output: Any = None
    """What a turn gives; without it, its last step's answer."""
    on_limit: OnLimit = OnLimit.FAIL


class LoopStep(_LeafBase):
    """The same steps again until a condition holds; gives what the last turn gave."""

    loop: LoopSpec


class SubPlan(_Data):
    """A plan within a plan: one written here, or a registered workflow."""

    workflow: "Plan | None" = None
    name: str = ""
    """Instead of `workflow`: id of a registered workflow."""
    inputs: dict[str, Any] = Field(default_factory=dict)
    """Its inputs; texts are templates of the plan around it."""


class PlanStep(_LeafBase):
    """A plan within the plan."""

    plan: SubPlan


class TeamSpec(_Data):
    """A goal for a team. Texts are templates."""

    name: str = ""
    """Id of a registered team."""
    members: tuple[str, ...] = ()
    """Instead of `name`: ids of the agents that make up a team for this one goal."""
    workflow: "Plan | None" = None
    """With `members`: what they do; without it, the one that fits the goal best does it."""
    inputs: dict[str, Any] = Field(default_factory=dict)
    """With `workflow`: its inputs."""
    message: str = ""
    """The goal. With neither message nor data, the goal of the plan is handed on."""
    data: Any = None
    """Structured input that goes with the message."""


class TeamStep(_LeafBase):
    """A goal for a team."""

    team: TeamSpec


class AskSpec(_Data):
    """A question to a person. Texts are templates."""

    message: str
    """What is asked."""
    answer: dict[str, Any] | None = None
    """JSON Schema of the answer; without it the answer is text."""
    approval: bool = False
    """Only yes or no is wanted."""
    on_decline: OnError = OnError.FAIL
    """`continue`: the step ends well, and `steps.ID.data.accepted` is false."""


class AskStep(_LeafBase):
    """A question to a person, or an approval. `timeout_s` says how long the answer may take; 30 days without it."""

    ask: AskSpec


EVENT_NAME = re.compile(r"[A-Za-z0-9][\w.:/-]{0,99}")
"""What an event may be called."""


def read_moment(text: str) -> datetime:
    """Return a time that is written as RFC 3339 says.

    Raises:
        ValueError: it is none, or does not say its offset; the message is for people.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no time; write it as 2030-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"{text[:40]!r} does not say its offset from UTC; end it with Z or +01:00")
    return moment


class WaitSpec(_Data):
    """What is waited for: exactly one of the three."""

    seconds: float | str | None = None
    """How long; a number, or a template of one."""
    until: str = ""
    """Template of a time: RFC 3339, with its offset from UTC."""
    event: str = ""
    """Name of an event."""
    match: dict[str, Any] = Field(default_factory=dict)
    """With `event`: fields of its data, `order.id` for one within another, and templates of what they must be."""


class WaitStep(_LeafBase):
    """A time, or an event. `timeout_s` says how long to wait for an event; 30 days without it."""

    wait: WaitSpec


LeafStep: TypeAlias = CallStep | MapStep | ChooseStep | LoopStep | PlanStep | TeamStep | AskStep | WaitStep
"""Steps with results of their own; sequence and parallel only arrange others."""

KINDS: Mapping[str, type[_StepBase]] = {
    "call": CallStep,
    "sequence": SequenceStep,
    "parallel": ParallelStep,
    "map": MapStep,
    "choose": ChooseStep,
    "loop": LoopStep,
    "plan": PlanStep,
    "team": TeamStep,
    "ask": AskStep,
    "wait": WaitStep,
}
STEP_KINDS = tuple(KINDS)


def step_kind(value: object) -> str | None:
    """Return which kind of step a mapping says it is; None when it says none, or several."""
    if isinstance(value, Mapping):
        named = [kind for kind in STEP_KINDS if kind in cast("Mapping[object, object]", value)]
        return named[0] if len(named) == 1 else None
    for kind, model in KINDS.items():
        if isinstance(value, model):
            return kind
    return None


Step: TypeAlias = Annotated[
    Annotated[CallStep, Tag("call")]
    | Annotated[SequenceStep, Tag("sequence")]
    | Annotated[ParallelStep, Tag("parallel")]
    | Annotated[MapStep, Tag("map")]
    | Annotated[ChooseStep, Tag("choose")]
    | Annotated[LoopStep, Tag("loop")]
    | Annotated[PlanStep, Tag("plan")]
    | Annotated[TeamStep, Tag("team")]
    | Annotated[AskStep, Tag("ask")]
    | Annotated[WaitStep, Tag("wait")],
    Discriminator(
        step_kind,
        custom_error_type="step_kind",
        custom_error_message=f"a step has exactly one of {', '.join(STEP_KINDS[:-1])} and {STEP_KINDS[-1]}",
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
    output_schema: dict[str, Any] | None = None
    """JSON Schema of the answer as data; the plan fails if it does not fit."""
    on_failure: tuple[Step, ...] = ()
    """Steps for when the plan has failed, after what was done is undone; `error` says what happened."""
    budget: Limits | None = None

    def dump(self) -> dict[str, Json]:
        """Write the plan as JSON, without what is left at its default."""
        shaped = self.model_dump(mode="json", exclude_defaults=True, by_alias=True)
        return cast("dict[str, Json]", shaped | {"version": self.version})


_MODELS: tuple[type[BaseModel], ...] = (*KINDS.values(), MapSpec, Branch, LoopSpec, SubPlan, TeamSpec, Plan)
for _model in _MODELS:
    _model.model_rebuild()


def plan_schema() -> JsonObject:
    """Return the JSON Schema of a plan, for editors and models."""
    schema = Plan.model_json_schema(by_alias=True)
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


def bodies(step: Step) -> Iterator[tuple[str, Sequence[Step]]]:
    """Yield the lists of steps within a step that are plans' parts of their own, and where: `map.steps`, `undo`.

    Not those of groups, which belong to the list that the group is in, nor those of plans within, which see other
    values.
    """
    match step:
        case MapStep():
            yield "map.steps", step.map.steps
        case ChooseStep():
            for number, branch in enumerate(step.choose):
                yield f"choose.{number}.steps", branch.steps
            if step.otherwise:
                yield "else", step.otherwise
        case LoopStep():
            yield "loop.steps", step.loop.steps
        case _:
            pass
    if not isinstance(step, SequenceStep | ParallelStep) and step.undo:
        yield "undo", step.undo


def subplan(step: Step) -> tuple[str, Plan] | None:
    """Return the plan that is written within a step, and where; None where there is none."""
    if isinstance(step, PlanStep) and step.plan.workflow is not None:
        return "plan.workflow", step.plan.workflow
    if isinstance(step, TeamStep) and step.team.workflow is not None:
        return "team.workflow", step.team.workflow
    return None


def walk(steps: Sequence[Step]) -> Iterator[Step]:
    """Yield every step of one list in order, groups before what is in them; not those of bodies and plans within."""
    for step in steps:
        yield step
        if isinstance(step, SequenceStep):
            yield from walk(step.sequence)
        elif isinstance(step, ParallelStep):
            yield from walk(step.parallel)


def walk_all(plan: Plan) -> Iterator[Step]:
    """Yield every step of a plan, those of bodies and of plans within too."""
    waiting: list[Sequence[Step]] = [plan.steps, plan.on_failure]
    while waiting:
        for step in walk(waiting.pop()):
            yield step
            waiting += [inner for _, inner in bodies(step)]
            if (within := subplan(step)) is not None:
                waiting += [within[1].steps, within[1].on_failure]
