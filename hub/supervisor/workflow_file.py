"""Workflows as people write them: YAML, JSON or TOML read into a plan, every mistake with its place.

`read_document` finds mistakes of the file's own syntax, `check_plan` those of the plan; `Document.locate` adds file and
line to the latter.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeAlias, cast

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from interhub.adapters.schemas import problems_of, schema_problem
from interhub.agent_cards import Json, JsonObject
from interhub.hub.errors import BadRequest, Mistake, PlanInvalid
from interhub.registry import Agent

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

MAX_FILE_BYTES = 256 * 1024
MAX_VALUES = 20_000
"""Values in one document after aliases are written out: a few lines of YAML can stand for billions."""
MAX_DEPTH = 60

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A parsed file, and on which line each of its values is."""

    value: dict[str, Json]
    source: str
    lines: Mapping[Path, int] = field(default_factory=dict[Path, int])

    def locate(self, invalid: PlanInvalid) -> PlanInvalid:
        """Return the same mistakes with file and line before the path, where they are known."""
        by_label = {label(self.value, path): line for path, line in self.lines.items()}

        def placed(mistake: Mistake) -> Mistake:
            where = mistake.where
            while where and where not in by_label:
                where = where.rpartition(".")[0]
            line = by_label.get(where, by_label.get("", 0))
            return Mistake(f"{self.source}:{line}, {mistake.where}" if line else mistake.where, mistake.what)

        return PlanInvalid(self.source, [placed(mistake) for mistake in invalid.mistakes])


def read_document(text: str | bytes, *, source: str = "the workflow") -> Document:
    """Parse a workflow's or team's file. The ending of `source` says the format; without one it is YAML.

    Raises:
        PlanInvalid: it is too large, or its syntax is wrong; says the line.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise PlanInvalid(source, [Mistake(source, f"it is not UTF-8 text (byte {error.start})")]) from None
    if len(text.encode("utf-8", "surrogatepass")) > MAX_FILE_BYTES:
        raise PlanInvalid(source, [Mistake(source, f"it is larger than {MAX_FILE_BYTES // 1024} KiB")])
    match source.rpartition(".")[2].lower():
        case "toml":
            document = _read_toml(text, source)
        case "json":
            document = _read_json(text, source)
        case _:
            document = _read_yaml(text, source)
    return document


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
    if problems := problems_of(filled, schema):
        names = ", ".join(properties) if isinstance(properties, Mapping) and properties else "nothing"
        raise BadRequest(f"{source} do not fit: {'; '.join(problems[:5])}", f"the workflow takes {names}")
    return filled


def nearest(name: str, known: Sequence[str]) -> str:
    """Say what was probably meant: "; did you mean 'x'?", or what there is, or nothing."""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(sorted(known)[:10])}" if known else ""


def label(value: Json, path: Path) -> str:
    """Write a path for people: steps by their id where they have one, `steps.gather.call.agent`."""
    words: list[str] = []
    here: Json = value
    for part in path:
        below: Json = None
        if isinstance(here, Mapping) and isinstance(part, str):
            below = here.get(part)
        elif isinstance(here, Sequence) and not isinstance(here, str) and isinstance(part, int) and part < len(here):
            below = here[part]
        named = below.get("id") if isinstance(below, Mapping) and isinstance(part, int) else None
        words.append(named if isinstance(named, str) and named else str(part))
        here = below
    return ".".join(words)


# The file's own syntax


def _read_toml(text: str, source: str) -> Document:
    try:
        value = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PlanInvalid(source, [Mistake(source, f"it is not TOML: {error}")]) from None
    return Document(value=_as_object(json.loads(json.dumps(value, default=str)), source), source=source)


def _read_json(text: str, source: str) -> Document:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise PlanInvalid(source, [Mistake(f"{source}:{error.lineno}", f"it is not JSON: {error.msg}")]) from None
    except (ValueError, RecursionError) as error:
        raise PlanInvalid(source, [Mistake(source, f"it is not JSON: {error}")]) from None
    document = Document(value=_as_object(value, source), source=source)
    try:  # JSON is YAML too, nearly always; the YAML reader knows lines
        return _read_yaml(text, source)
    except PlanInvalid:
        return document


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not a JSON number")


def _read_yaml(text: str, source: str) -> Document:
    reader = _YamlReader(source)
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            value = reader.read(loader, node, ()) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        said = ", ".join(part for part in (error.problem, error.context) if part)
        raise PlanInvalid(source, [Mistake(where, f"it is not YAML: {said}")]) from None
    except yaml.YAMLError as error:
        raise PlanInvalid(source, [Mistake(source, f"it is not YAML: {error}")]) from None
    except RecursionError:
        raise PlanInvalid(source, [Mistake(source, "it is nested too deeply")]) from None
    return Document(value=_as_object(value, source), source=source, lines=reader.lines)


def _as_object(value: Json, source: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        what = "empty" if value is None else f"a {type(value).__name__}"
        raise PlanInvalid(source, [Mistake(source, f"a workflow is a mapping with name and steps; this is {what}")])
    return value


class _YamlReader:
    """Makes values of YAML nodes, counting them and noting their lines."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._count = 0
        self.lines: dict[Path, int] = {}

    def read(self, loader: Any, node: yaml.Node, path: Path) -> Json:
        line = node.start_mark.line + 1
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._mistake(line, f"it has over {MAX_VALUES} values (aliases count each time)")
        if len(path) > MAX_DEPTH:
            raise self._mistake(line, "it is nested too deeply")
        self.lines.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, path)
        if isinstance(node, yaml.SequenceNode):
            items = cast("list[yaml.Node]", node.value)
            return [self.read(loader, item, (*path, number)) for number, item in enumerate(items)]
        return self._scalar(loader, node, line)

    def _mapping(self, loader: Any, node: yaml.MappingNode, path: Path) -> dict[str, Json]:
        value: dict[str, Json] = {}
        for key_node, value_node in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            line = key_node.start_mark.line + 1
            # The text as written: YAML 1.1 would make the keys on, off, yes and no booleans.
            key: object = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise self._mistake(line, "a key must be text")
            if key == "<<":
                raise self._mistake(line, "merge keys (<<) are not supported; write the values out")
            if key in value:
                raise self._mistake(line, f"{key!r} is given twice")
            value[key] = self.read(loader, value_node, (*path, key))
            self.lines[(*path, key)] = line
        return value

    def _scalar(self, loader: Any, node: yaml.Node, line: int) -> Json:
        if node.tag == "tag:yaml.org,2002:timestamp":
            return str(node.value)
        try:
            value: object = loader.construct_object(node)
        except ValueError as error:
            raise self._mistake(line, str(error)) from None
        if value is None or isinstance(value, str | bool | int):
            return value
        if isinstance(value, float) and value == value and abs(value) != float("inf"):
            return value
        raise self._mistake(line, f"{str(node.value)[:40]!r} has no place in JSON")

    def _mistake(self, line: int, what: str) -> PlanInvalid:
        return PlanInvalid(self._source, [Mistake(f"{self._source}:{line}", what)])


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
