"""A team's document: its members, its planner, its policy, and what it gives; read and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from interhub.adapters.schemas import schema_problem
from interhub.agent_cards import Json, JsonObject
from interhub.hub.errors import Mistake, PlanInvalid
from interhub.hub.policy import Effect, Rule
from interhub.registry import Agent

from .envelope import mapping, sequence, text
from .model import Limits, Plan
from .patterns import PATTERNS, pattern_plan, shape_problems
from .plan_check import check_plan
from .plan_shape import nearest
from .template import TemplateFailed, references

PLANNERS = ("route", "model", "workflow", *PATTERNS)
_PLAN_KEYS = ("version", "inputs", "steps", "output")
_MOST_REPLANS = 10


_NEEDED = {
    "name": Mistake("name", "a team needs a name: text of 1 to 200 characters"),
    "members": Mistake("members", "a team needs members: a list of agents' ids"),
}


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RouteSpec(_Spec):
    """One member does it: the one that fits the goal best."""

    replans: int = Field(default=0, ge=0, le=_MOST_REPLANS)
    """How often another is turned to when one has failed."""


class ModelSpec(_Spec):
    """A language model plans."""

    name: str = ""
    """As the settings name it; the hub's own planner's without it."""
    instructions: str = Field(default="", max_length=20_000)
    attempts: int = Field(default=3, ge=1, le=10)
    """How often a plan may be sent back and forth."""
    replans: int = Field(default=2, ge=0, le=_MOST_REPLANS)
    """How many plans may follow when one has failed."""
    otherwise: Annotated[str, Field(pattern="^(route)?$")] = ""
    """`route`: hand the goal to the best member when the model makes no plan."""


class AnswerSpec(_Spec):
    """A language model writes the answer out of what the steps gave."""

    model: str = ""
    """As the settings name it; the hub's own planner's without it."""
    instructions: str = Field(default="", max_length=20_000)
    attempts: int = Field(default=3, ge=1, le=10)


class RuleSpec(_Spec):
    """What holds for some members and capabilities: the first rule that is about a call decides."""

    effect: Effect
    agents: tuple[str, ...] = ("*",)
    capabilities: tuple[str, ...] = ("*",)
    why: str = ""


class TeamDocument(_Spec):
    """A team's file."""

    kind: str = "team"
    version: int = 1
    name: str = Field(min_length=1, max_length=200)
    description: str = ""
    members: tuple[str, ...] = Field(min_length=1)
    planner: Any = "route"
    """How it plans; see docs/workflows.md."""
    workflow: dict[str, Any] | None = None
    steps: list[Any] | None = None
    inputs: dict[str, Any] | None = None
    output: Any = None
    policy: tuple[RuleSpec, ...] = ()
    """What its members may do within it, beside the hub's policy."""
    budget: Limits | None = None
    """What one goal of it may use."""
    output_schema: dict[str, Any] | None = None
    """JSON Schema of what it gives as data."""
    answer: str | AnswerSpec | None = None
    """How its answer is made of what the steps gave: a template, or by a model."""


@dataclass(frozen=True, kw_only=True)
class Team:
    """A team as its document says."""

    name: str
    description: str
    members: tuple[str, ...]
    plan: Plan | None
    options: dict[str, Json]
    """Of its endpoint."""


def read_team(document: JsonObject, *, source: str, agents: Mapping[str, Agent]) -> Team:
    """Return the team that a document describes.

    Raises:
        PlanInvalid: it has mistakes; each names its place.
    """
    try:
        team = TeamDocument.model_validate(document)
    except ValidationError as error:
        problems = shape_problems(error, document, "", TeamDocument)
        raise PlanInvalid(source, [_NEEDED.get(one.where, one) for one in problems]) from None
    mistakes = list(_member_mistakes(team.members, agents))
    if team.output_schema is not None and (problem := schema_problem(cast("JsonObject", team.output_schema))):
        mistakes.append(Mistake("output_schema", problem))
    if isinstance(team.answer, str):
        try:
            references(team.answer)
        except TemplateFailed as error:
            mistakes.append(Mistake("answer", f"bad template: {error.what}"))
    if mistakes:
        raise PlanInvalid(source, mistakes)
    name, spec, workflow = _planner(team, document, source)
    options: dict[str, Json] = {"members": list(team.members), "planner": name}
    if spec is not None and (shaped := spec.model_dump(mode="json", exclude_defaults=True)):
        options[name] = shaped
    plan: Plan | None = None
    if workflow is not None:
        plan = check_plan(workflow, source=source, agents=agents, members=team.members)
        options["workflow"] = plan.dump()
    for key in ("output_schema", "output"):
        ours = "answer" if key == "output" else key
        if plan is not None and getattr(plan, key) is not None and getattr(team, ours) is not None:
            raise PlanInvalid(source, [Mistake(ours, f"its workflow says `{key}` already; say it once")])
    if team.policy:
        options["policy"] = [rule.model_dump(mode="json", exclude_defaults=True) for rule in team.policy]
    if team.budget is not None:
        options["budget"] = team.budget.model_dump(mode="json", exclude_defaults=True)
    if team.output_schema is not None:
        options["output_schema"] = cast("Json", team.output_schema)
    if isinstance(team.answer, str):
        options["answer"] = team.answer
    elif team.answer is not None:
        options["answer"] = team.answer.model_dump(mode="json", exclude_defaults=True)
    return Team(
        name=team.name,
        description=team.description or f"A team of {', '.join(team.members)}.",
        members=team.members,
        plan=plan,
        options=options,
    )


def rules_of(options: JsonObject) -> tuple[Rule, ...]:
    """Return the rules of a team, out of its endpoint's options."""
    return tuple(
        Rule(
            effect=Effect(text(rule, "effect")),
            agents=tuple(str(one) for one in sequence(rule.get("agents"))) or ("*",),
            capabilities=tuple(str(one) for one in sequence(rule.get("capabilities"))) or ("*",),
            why=text(rule, "why"),
        )
        for rule in map(mapping, sequence(options.get("policy")))
    )


def _member_mistakes(members: Sequence[str], agents: Mapping[str, Agent]) -> list[Mistake]:
    mistakes: list[Mistake] = []
    for number, member in enumerate(members):
        if member not in agents:
            what = f"no agent is registered as {member!r}{nearest(member, [*agents])}"
            mistakes.append(Mistake(f"members.{number}", what))
        elif member in members[:number]:
            mistakes.append(Mistake(f"members.{number}", f"{member!r} is a member already"))
    return mistakes


def _planner(team: TeamDocument, document: JsonObject, source: str) -> tuple[str, _Spec | None, JsonObject | None]:
    """Return the planner's name, what is said of it, and its workflow."""
    given = cast("Json", team.planner)
    shaped: Json = None
    if isinstance(given, Mapping) and len(given) == 1:
        (name, shaped), *_ = given.items()
    elif isinstance(given, str):
        name = given
    else:
        what = f"a planner is one of {', '.join(PLANNERS)}; alone, or with what is said of it"
        raise PlanInvalid(source, [Mistake("planner", what)])
    workflow: Json = cast("Json", team.workflow)
    if workflow is None and team.steps is not None:
        workflow = {key: document[key] for key in _PLAN_KEYS if key in document}
    if workflow is not None and "planner" not in document:
        name = "workflow"
    if workflow is not None and name != "workflow":
        raise PlanInvalid(source, [Mistake("planner", f"planner {name!r} makes its own plan; leave the workflow out")])
    if name == "workflow":
        workflow = shaped if shaped is not None else workflow
        if not isinstance(workflow, Mapping):
            raise PlanInvalid(source, [Mistake("planner", "this team has no workflow: give `workflow:` or `steps:`")])
        return name, None, workflow
    if name in PATTERNS:
        return name, None, pattern_plan(name, shaped, members=team.members, source=source)
    kinds: dict[str, type[_Spec]] = {"route": RouteSpec, "model": ModelSpec}
    if name not in kinds:
        raise PlanInvalid(source, [Mistake("planner", f"{name!r} is no planner{nearest(name, PLANNERS)}")])
    try:
        return name, kinds[name].model_validate({} if shaped is None else shaped), None
    except ValidationError as error:
        raise PlanInvalid(source, shape_problems(error, shaped, f"planner.{name}", kinds[name])) from None
