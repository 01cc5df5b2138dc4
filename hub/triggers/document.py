"""Triggers as they are declared: where an event comes from, which of them count, and what is begun for each.

kind: trigger
name: nightly-report
schedule: {cron: "0 3 * * 1-5", timezone: Europe/Berlin}
run: {agent: briefing, inputs: {topic: "News of {{ event.at }}"}}
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from interhub.agent_cards import Json, JsonObject
from interhub.hub.errors import Mistake, PlanInvalid
from interhub.hub.supervisor.model import EVENT_NAME
from interhub.hub.supervisor.template import TemplateFailed, references

from .cron import CronInvalid, read_schedule

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

SOURCES = ("schedule", "webhook", "event", "resource")


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScheduleSpec(_Data):
    """Moments that come again and again."""

    cron: str
    """Five fields, or @daily and the like (`cron`)."""
    timezone: str = "UTC"
    missed: Literal["latest", "skip", "all"] = "latest"
    """What becomes of moments at which no hub ran: the last of them counts, none, or all (at most 100)."""


class WebhookSpec(_Data):
    """Requests that others send to `/hooks/{name}`."""

    verify: Literal["standard", "github", "header", "a2a"] = "standard"
    """How they prove where they come from (`signatures`)."""
    secret: str = ""
    """Or `${NAME}`, taken from the hub's environment; without it one is made and said once."""
    header: str = ""
    """With `header`: which header holds the secret."""
    id_header: str = ""
    """With `header`: which header names the event, so that the same one counts once."""


class ResourceSpec(_Data):
    """A resource of an MCP server that changes."""

    agent: str
    uri: str


class RunSpec(_Data):
    """The run that an event begins. Texts are templates that see `event`."""

    agent: str = ""
    """Id of an agent, team or registered workflow; without it the router finds who meets the goal."""
    capability: str = ""
    goal: str = ""
    inputs: dict[str, Any] = Field(default_factory=dict)
    """Of a workflow; with `capability`, its arguments."""
    workflow: dict[str, Any] | None = None
    """A workflow written here, in the place of a registered one."""
    overlap: Literal["allow", "skip"] = "allow"
    """With `skip`: an event begins no run while one that the trigger began before still goes on."""


class Trigger(_Data):
    """What happens on an event."""

    kind: Literal["trigger"] = "trigger"
    version: Literal[1] = 1
    name: str
    description: str = ""
    schedule: ScheduleSpec | str | None = None
    webhook: WebhookSpec | None = None
    event: str = ""
    """Name of events given to the hub, or of another trigger's."""
    resource: ResourceSpec | None = None
    match: dict[str, Any] = Field(default_factory=dict)
    """Fields of the event's data, `order.id` for one within another, and what they must be."""
    send: str = ""
    """Name under which the event reaches steps that wait for it; the trigger's own without it."""
    run: RunSpec | None = None
    """The run that it begins; without it, it only wakes runs."""

    @property
    def source(self) -> str:
        """Which of `SOURCES` it has."""
        return next(name for name in SOURCES if getattr(self, name))

    @property
    def timetable(self) -> ScheduleSpec | None:
        """Its schedule, where it has one."""
        return ScheduleSpec(cron=self.schedule) if isinstance(self.schedule, str) else self.schedule

    def dump(self) -> dict[str, Json]:
        """Write it as JSON, without what is left at its default."""
        shaped = self.model_dump(mode="json", exclude_defaults=True)
        return cast("dict[str, Json]", {"kind": "trigger", **shaped})


def read_trigger(shaped: JsonObject, *, source: str = "the trigger") -> Trigger:
    """Read a trigger's document, and find its mistakes; whom it names is looked up elsewhere.

    Raises:
        PlanInvalid: it has mistakes; each names its path.
    """
    try:
        trigger = Trigger.model_validate(shaped)
    except ValidationError as error:
        raise PlanInvalid(source, list(_shape_mistakes(error))) from None
    mistakes = list(_mistakes(trigger))
    if mistakes:
        raise PlanInvalid(source, mistakes)
    return trigger


def _shape_mistakes(error: ValidationError) -> Iterator[Mistake]:
    for problem in error.errors(include_url=False, include_context=False):
        place = [str(part) for part in problem["loc"] if part not in ("ScheduleSpec", "str")]
        where = ".".join(place) or "the trigger"
        if place[:1] == ["schedule"] and problem["type"] == "string_type":
            continue  # a mapping was given, and what is wrong within it is told
        if problem["type"] == "extra_forbidden":
            model = _MODELS.get(place[0] if len(place) > 1 else "", Trigger)
            near = get_close_matches(place[-1], list(model.model_fields), n=1)
            known = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(model.model_fields)}"
            yield Mistake(where, f"there is no such key{known}")
        elif problem["type"] == "missing":
            yield Mistake(where, "is missing")
        else:
            yield Mistake(where, problem["msg"].lower())


def _mistakes(trigger: Trigger) -> Iterator[Mistake]:
    if not _NAME.fullmatch(trigger.name):
        yield Mistake("name", f"{trigger.name[:80]!r} is none; use small letters, digits and hyphens, at most 63")
    given = [name for name in SOURCES if getattr(trigger, name)]
    if len(given) != 1:
        yield Mistake(
            "the trigger", f"it has exactly one of {', '.join(SOURCES)}; this one has {' and '.join(given) or 'none'}"
        )
        return
    if (timetable := trigger.timetable) is not None:
        try:
            read_schedule(timetable.cron, timetable.timezone)
        except CronInvalid as error:
            yield Mistake("schedule", str(error))
    for key in ("event", "send"):
        name = cast("str", getattr(trigger, key))
        if name and not EVENT_NAME.fullmatch(name):
            yield Mistake(key, f"{name[:80]!r} is no event's name; use letters, digits and . _ : / -, at most 100")
    if trigger.event and trigger.send:
        yield Mistake("send", "an event that is given to the hub keeps its name")
    if trigger.event and trigger.run is None:
        yield Mistake("run", "is missing; waiting steps get events without a trigger")
    if (hook := trigger.webhook) is not None:
        if (hook.header or hook.id_header) and hook.verify != "header":
            yield Mistake("webhook.header", "goes with `verify: header`")
        if hook.verify == "header" and not hook.header:
            yield Mistake("webhook.header", "is missing; name the header that holds the secret")
        if hook.secret and not hook.secret.startswith("${") and len(hook.secret) < 16:
            yield Mistake("webhook.secret", "is too short to be one: 16 characters at least, or leave it out")
    if trigger.run is not None:
        yield from _run_mistakes(trigger.run)


def _run_mistakes(run: RunSpec) -> Iterator[Mistake]:
    if not (run.agent or run.workflow or run.goal):
        yield Mistake("run", "says nothing to do; give an agent, a workflow or a goal")
    if run.agent and run.workflow is not None:
        yield Mistake("run", "agent and workflow both say who does it; give one of them")
    if run.capability and not run.agent:
        yield Mistake("run.capability", "says nothing without an agent")
    if run.inputs and not run.agent and run.workflow is None:
        yield Mistake("run.inputs", "are for a workflow, or for a capability of an agent")
    for where, template in _texts({"goal": run.goal, "inputs": run.inputs}, "run"):
        try:
            unknown = [found.root for found in references(template, ("event",))]
        except TemplateFailed as error:
            yield Mistake(where, f"the template cannot be read: {error}")
            continue
        if unknown:
            yield Mistake(where, f"there is no {unknown[0]!r}; templates here see `event`")


def _texts(value: object, where: str) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield where, value
        case Mapping():
            for key, inner in cast("Mapping[str, object]", value).items():
                yield from _texts(inner, f"{where}.{key}")
        case list():
            for number, inner in enumerate(cast("list[object]", value)):
                yield from _texts(inner, f"{where}.{number}")
        case _:
            pass


_MODELS: Mapping[str, type[BaseModel]] = {
    "schedule": ScheduleSpec,
    "webhook": WebhookSpec,
    "resource": ResourceSpec,
    "run": RunSpec,
}
