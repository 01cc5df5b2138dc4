"""Steps with steps within them, as they go on: which of these are to be carried out next, and what comes of it.

    Blocks    a map over items, a loop's turns, the branch that is chosen

They decide by templates over recorded values alone, so that a replay decides the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import orjson

from interhub.adapters import TextPart
from interhub.agent_cards import Json, JsonObject, empty_object

from .envelope import StepValue
from .model import Branch, ChooseStep, LeafStep, LoopStep, MapStep, OnError, OnLimit, Step
from .template import TemplateFailed, expression, render


@dataclass(frozen=True, kw_only=True)
class Body:
    """Steps to be carried out together."""

    steps: tuple[Step, ...]
    key: str = ""
    """Part of the path between the step and those within: an item's index, a turn's number."""
    names: JsonObject = field(default_factory=empty_object)
    """What their templates see beside the rest."""
    output: Json = None
    """Template of what they give; None: the last step's answer."""


@dataclass(frozen=True, kw_only=True)
class Next:
    """What comes next of a block: bodies to carry out, or its end."""

    bodies: tuple[Body, ...] = ()
    value: StepValue | None = None
    """It ends well, and gives this."""
    error: JsonObject | None = None
    """It ends so: the error's reason and message."""
    errors: tuple[Json, ...] = ()
    """What went wrong within it though it ended well."""
    pause_s: float = 0.0
    """Seconds before the bodies begin."""
    why: str = ""
    """What was decided and why, to be told."""


@dataclass(frozen=True, kw_only=True)
class Closed:
    """A body that is over."""

    key: str
    value: StepValue
    error: JsonObject | None
    values: Mapping[str, object]
    """What its templates saw at its end."""


class Block(Protocol):
    """One step with steps within it."""

    def begin(self, values: Mapping[str, object]) -> Next:
        """Return what to begin with.

        Raises:
            TemplateFailed: its list or condition cannot be had.
        """
        ...

    def closed(self, body: Closed) -> Next:
        """Return what comes after a body.

        Raises:
            TemplateFailed: its condition cannot be had.
        """
        ...

    def contains(self, body: Closed) -> bool:
        """Return whether the failure of a body stops there, so that the step goes on."""
        ...


def block_of(step: LeafStep) -> Block | None:
    """Return the block of a step that has steps within it; None for any other."""
    match step:
        case MapStep():
            return MapBlock(step)
        case LoopStep():
            return LoopBlock(step)
        case ChooseStep():
            return ChooseBlock(step)
        case _:
            return None


class MapBlock:
    """Carries out the same steps for each item, so many at a time."""

    def __init__(self, step: MapStep) -> None:
        self._spec = step.map
        self._items: list[Json] = []
        self._begun = 0
        self._given: dict[int, StepValue | None] = {}
        self._errors: dict[int, JsonObject] = {}

    def begin(self, values: Mapping[str, object]) -> Next:
        """Return the first items."""
        found = render(expression(self._spec.over), values)
        if isinstance(found, str):
            found = _json_list(found)
        if isinstance(found, Mapping):
            found = [{"key": key, "value": value} for key, value in found.items()]
        if not isinstance(found, Sequence) or isinstance(found, str):
            raise TemplateFailed(f"`over` must give a list; it gives {_kind(found)}")
        self._items = list(found)
        if len(self._items) > self._spec.at_most:
            message = f"the list has {len(self._items)} items; this map may have {self._spec.at_most}"
            return Next(error={"reason": "LIMIT_REACHED", "message": message})
        if not self._items:
            return Next(value=self._value(), why="there are no items")
        bodies = tuple(self._body() for _ in range(min(self._spec.concurrency, len(self._items))))
        many = len(self._items)
        return Next(bodies=bodies, why=f"{many} item{'' if many == 1 else 's'}, {len(bodies)} at a time")

    def closed(self, body: Closed) -> Next:
        """Take an item's end, and return the next item, or the end of all."""
        index = int(body.key)
        if body.error is not None:
            self._errors[index] = body.error
            if not self.contains(body):
                return Next(error=body.error)
        self._given[index] = body.value if body.error is None else None
        if self._begun < len(self._items):
            return Next(bodies=(self._body(),))
        if len(self._given) < len(self._items):
            return Next()
        errors: list[Json] = [{"index": number, **error} for number, error in sorted(self._errors.items())]
        return Next(value=self._value(), errors=tuple(errors))

    def contains(self, body: Closed) -> bool:
        """Return whether an item's failure is only its own."""
        return self._spec.on_item_error is OnError.CONTINUE

    def _body(self) -> Body:
        index = self._begun
        self._begun += 1
        names: dict[str, Json] = {self._spec.name: self._items[index], "index": index}
        return Body(steps=self._spec.steps, key=str(index), names=names, output=cast("Json", self._spec.output))

    def _value(self) -> StepValue:
        given = [self._given.get(index) for index in range(len(self._items))]
        data: list[Json] = [
            None if one is None else one.data if one.data is not None else one.text or None for one in given
        ]
        return StepValue(
            parts=tuple(TextPart(text=one.text) for one in given if one is not None and one.text),
            structured=data,
            artifacts=tuple(artifact for one in given if one is not None for artifact in one.artifacts),
        )


class LoopBlock:
    """Carries out the same steps again and again."""

    def __init__(self, step: LoopStep) -> None:
        self._spec = step.loop
        self._turn = 0

    def begin(self, values: Mapping[str, object]) -> Next:
        """Return the first turn."""
        return Next(bodies=(self._body(None),))

    def closed(self, body: Closed) -> Next:
        """Take a turn's end, and return the next turn, or the end."""
        if body.error is not None:
            return Next(error=body.error)
        ended = StepValue(parts=body.value.parts, structured=body.value.structured, artifacts=body.value.artifacts)
        if self._spec.until and holds(self._spec.until, body.values):
            return Next(value=ended, why=f"done after turn {self._turn}: {_short(self._spec.until)}")
        if self._turn >= self._spec.at_most:
            if self._spec.until and self._spec.on_limit is OnLimit.FAIL:
                message = f"it was not done after {self._turn} turns: {_short(self._spec.until)}"
                return Next(error={"reason": "LIMIT_REACHED", "message": message})
            return Next(value=ended, why=f"the last of {self._turn} turns was made")
        turn = self._turn
        return Next(
            bodies=(self._body(body.value),),
            pause_s=self._spec.pause_s,
            why=f"not done after turn {turn}" if self._spec.until else f"turn {turn} of {self._spec.at_most} was made",
        )

    def contains(self, body: Closed) -> bool:
        """Return False: a turn that fails fails the loop."""
        return False

    def _body(self, last: StepValue | None) -> Body:
        self._turn += 1
        shown: Json = None
        if last is not None:
            shown = {"text": last.text, "data": last.data}
        names: dict[str, Json] = {"turn": self._turn, "last": shown}
        return Body(steps=self._spec.steps, key=str(self._turn), names=names, output=cast("Json", self._spec.output))


class ChooseBlock:
    """Carries out the first branch whose condition holds."""

    def __init__(self, step: ChooseStep) -> None:
        self._step = step

    def begin(self, values: Mapping[str, object]) -> Next:
        """Return the branch."""
        for branch in self._step.choose:
            if holds(branch.when, values):
                return Next(bodies=(_branch(branch),), why=f"because {_short(branch.when)}")
        if self._step.otherwise:
            return Next(bodies=(Body(steps=self._step.otherwise),), why="no condition holds: else")
        return Next(value=StepValue(), why="no condition holds, and there is no else")

    def closed(self, body: Closed) -> Next:
        """Return what the branch gave."""
        return Next(error=body.error) if body.error is not None else Next(value=body.value)

    def contains(self, body: Closed) -> bool:
        """Return False: a branch that fails fails the step."""
        return False


def holds(condition: str, values: Mapping[str, object]) -> bool:
    """Return whether a condition holds.

    Raises:
        TemplateFailed: it cannot be had.
    """
    value = render(expression(condition), values)
    if isinstance(value, str):
        return value.strip().lower() not in ("", "false", "no", "none", "null", "0")
    return bool(value)


def _branch(branch: Branch) -> Body:
    return Body(steps=branch.steps, output=cast("Json", branch.output))


def _json_list(text: str) -> Json:
    """Read a list that an agent gave as text."""
    try:
        value: Json = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value


def _kind(value: Json) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case str():
            return f"the text {value[:40]!r}"
        case int() | float():
            return "a number"
        case _:
            return "something else"


def _short(condition: str) -> str:
    one = " ".join(condition.split())
    return one if len(one) <= 80 else one[:79] + "…"
