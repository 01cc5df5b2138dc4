"""Mistakes of a plan's shape: what pydantic says of it, told with the step's path and the nearest right name."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from interhub.agent_cards import JsonObject
from interhub.hub.errors import Mistake

from .document import Path, label
from .model import KINDS, Plan


def nearest(name: str, known: Sequence[str]) -> str:
    """Say what was probably meant: "; did you mean 'x'?", or what there is, or nothing."""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(sorted(known)[:20])}" if known else ""


def shape_mistakes(error: ValidationError, shaped: JsonObject) -> Iterator[Mistake]:
    """Yield what is wrong with a plan's shape."""
    problems = error.errors(include_url=False, include_context=False)
    places = [_untagged(problem["loc"]) for problem in problems]
    for problem, (path, model) in zip(problems, places, strict=True):
        # A list with a bad item also counts as too short: only the item's own mistake helps.
        if problem["type"] == "too_short" and any(len(p) > len(path) and p[: len(path)] == path for p, _ in places):
            continue
        yield Mistake(label(shaped, path) or "the workflow", _say(problem, path, model))


def _untagged(place: tuple[int | str, ...]) -> tuple[Path, type[BaseModel]]:
    """Return the path without pydantic's tags of the union, and the model that the last part belongs to."""
    path: list[str | int] = []
    model: type[BaseModel] = Plan
    inner: type[BaseModel] | None = None
    parts = list(place)
    while parts:
        part = parts.pop(0)
        path.append(part)
        if isinstance(part, int):
            if parts and parts[0] in KINDS:
                model, inner = KINDS[cast("str", parts.pop(0))], None
            continue
        if inner is not None:
            model = inner
        inner = _model_in(_field_type(model, part))
    return tuple(path), model


def _field_type(model: type[BaseModel], key: str) -> object:
    for name, field in model.model_fields.items():
        if key in (name, field.alias):
            return field.annotation
    return None


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Return the one model that a field holds, alone or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, Union, UnionType):
        found = [model for model in map(_model_in, get_args(annotation)) if model is not None]
        return found[0] if len(found) == 1 else None
    return None


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _say(problem: ErrorDetails, path: Path, model: type[BaseModel]) -> str:
    given: object = problem["input"]
    match problem["type"]:
        case "extra_forbidden":
            return f"{str(path[-1])!r} is not known here{nearest(str(path[-1]), _keys(model))}"
        case "step_kind" if isinstance(given, Mapping):
            keys = [str(key) for key in cast("Mapping[object, object]", given)]
            named = [key for key in KINDS if key in keys]
            if len(named) > 1:
                return problem["msg"] + f"; this one has {' and '.join(named)}"
            known = {key for kind in KINDS.values() for key in _keys(kind)}
            strange = [key for key in keys if key not in known]
            return problem["msg"] + (nearest(strange[0], [*KINDS]) if strange else "")
        case "missing":
            return f"{path[-1]!r} is missing"
        case "string_pattern_mismatch":
            return f"{given!r} cannot be an id: begin with a letter; then letters, digits and underscores, at most 48"
        case "tuple_type" | "list_type":
            return "must be a list"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a mapping, not {type(given).__name__}"
        case "too_short":
            return "must not be empty"
        case "enum":
            return f"{given!r} is not known here{nearest(str(given), _choices(problem))}"
        case "string_type":
            return f"must be text, not {type(given).__name__}; put it in quotes"
        case _:
            return problem["msg"]


def _choices(problem: ErrorDetails) -> list[str]:
    """Return the values that an enumeration has, out of pydantic's words: Input should be 'fail' or 'continue'."""
    return problem["msg"].split("'")[1::2]
