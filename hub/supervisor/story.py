"""A run as it stands, told from its events: the steps in the order of the plan, and what was made so far."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from interhub.adapters import Artifact, Usage
from interhub.adapters.content import artifact_from_json, message_from_json
from interhub.agent_cards import Json, JsonObject

from .envelope import StepValue, error_of, mapping, sequence, text, usage_from_json
from .records import RunRecord
from .run import Event, EventKind, ModelCallView, PlanView, Question, Run, RunState, StepView


@dataclass
class Story:
    """What the events of one run come to. Fed in order, from the first."""

    seq: int = 0
    """Number of the last event it was fed."""
    steps: dict[str, StepView] = field(default_factory=dict[str, StepView])
    order: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Path of a plan (empty for the run's own) to the paths of its leaves, in the order of the plan."""
    plans: list[PlanView] = field(default_factory=list[PlanView])
    model_calls: list[ModelCallView] = field(default_factory=list[ModelCallView])
    artifacts: "OrderedDict[str, Artifact]" = field(default_factory=OrderedDict[str, Artifact])

    def feed(self, events: Sequence[Event]) -> None:
        """Take the next events."""
        for event in events:
            if event.seq > self.seq:
                self._take(event)
                self.seq = event.seq

    def ordered(self) -> tuple[StepView, ...]:
        """Return the steps in the order of the plan, those of a child run after the step that it is."""
        found: list[StepView] = []

        def add(plan: str) -> None:
            for path in sorted(self.order.get(plan, ()), key=lambda path: _turn(path, plan)):
                found.append(self.steps[path])
                add(path)

        add("")
        return tuple(found)

    def _take(self, event: Event) -> None:
        payload = event.payload
        if event.kind is EventKind.RUN_PLANNED:
            self._take_plan(event)
            return
        if event.kind is EventKind.MODEL_ASKED:
            self.model_calls.append(
                ModelCallView(
                    path=event.step,
                    purpose=text(payload, "purpose"),
                    model=text(payload, "model"),
                    outcome=text(payload, "outcome"),
                    why=text(payload, "why"),
                    usage=_usage(payload.get("usage")),
                )
            )
            return
        if event.kind is EventKind.RUN_CANCELED:
            for path, step in self.steps.items():
                if not step.state.ended:
                    self.steps[path] = replace(step, state=RunState.CANCELED, ended_at=event.at)
            return
        if not event.step:
            return
        step = self.steps.get(event.step) or StepView(path=event.step)
        match event.kind:
            case EventKind.STEP_STARTED:
                began = step.started_at or event.at
                step = replace(step, state=RunState.WORKING, attempts=event.attempt, started_at=began, error="")
                step = replace(step, ended_at=None)
                if "within" in payload and event.step not in self.steps:
                    step = replace(step, title=text(payload, "title"))
                    self.order.setdefault(text(payload, "within"), []).append(event.step)
            case EventKind.STEP_ROUTED:
                agent = text(payload, "agent") or step.agent_id
                capability = text(payload, "capability") or step.capability
                step = replace(step, agent_id=agent, capability=capability, why=text(payload, "why"))
            case EventKind.STEP_COMPLETED:
                step = replace(
                    self._ended(step, event, RunState.COMPLETED), error="", usage=_usage(payload.get("usage"))
                )
            case EventKind.STEP_FAILED if "retry_in_s" in payload:
                step = replace(step, error=text(payload, "message"))
            case EventKind.STEP_FAILED:
                step = replace(self._ended(step, event, RunState.FAILED), error=text(payload, "message"))
            case EventKind.STEP_CANCELED:
                step = replace(self._ended(step, event, RunState.CANCELED), error=text(payload, "why"))
            case EventKind.QUESTION_ASKED:
                auth = payload.get("auth") is True
                step = replace(step, state=RunState.AUTH_REQUIRED if auth else RunState.INPUT_REQUIRED)
            case EventKind.QUESTION_ANSWERED:
                step = replace(step, state=RunState.WORKING, decided_by=text(payload, "by"))
            case EventKind.STEP_DECIDED:
                step = replace(step, why=text(payload, "why"))
            case EventKind.STEP_WAITING:
                step = replace(step, why=_waits(payload))
            case EventKind.STEP_ARTIFACT:
                self._take_artifact(payload)
            case _:
                pass
        self.steps[event.step] = step

    def _take_plan(self, event: Event) -> None:
        made = PlanView(
            path=event.step, round=event.n, planner=text(event.payload, "planner"), why=text(event.payload, "why")
        )
        self.plans.append(made)
        paths: list[str] = []
        for shaped in map(mapping, sequence(event.payload.get("steps"))):
            path = text(shaped, "path")
            paths.append(path)
            self.steps.setdefault(
                path,
                StepView(
                    path=path,
                    title=text(shaped, "title"),
                    agent_id=text(shaped, "agent"),
                    capability=text(shaped, "capability"),
                ),
            )
        if event.n == 0:
            self.order[event.step] = paths
        else:  # another plan, in the place of one that has failed
            self.order.setdefault(event.step, []).extend(paths)

    def _ended(self, step: StepView, event: Event, state: RunState) -> StepView:
        if state is not RunState.COMPLETED:
            self._stop_within(event.step, event.at)
        agent = text(event.payload, "agent") or step.agent_id
        capability = text(event.payload, "capability") or step.capability
        return replace(step, state=state, ended_at=event.at, agent_id=agent, capability=capability)

    def _stop_within(self, path: str, at: datetime) -> None:
        """Take the steps within one that has failed, or was stopped, for stopped: a child run does not say so."""
        for inner in self.order.get(path, ()):
            self._stop_within(inner, at)
            if not self.steps[inner].state.ended:
                self.steps[inner] = replace(self.steps[inner], state=RunState.CANCELED, ended_at=at)

    def _take_artifact(self, payload: JsonObject) -> None:
        made = artifact_from_json(mapping(payload.get("artifact")))
        known = self.artifacts.get(made.artifact_id)
        if payload.get("append") is True and known is not None:
            made = replace(known, parts=(*known.parts, *made.parts))
        self.artifacts[made.artifact_id] = made


def view(
    record: RunRecord,
    story: Story | None,
    questions: Sequence[Question],
    result: StepValue | None,
    *,
    paused: bool = False,
) -> Run:
    """Put a run together. Without a story it has no steps: for lists."""
    outcome = record.outcome or {}
    error = error_of(outcome) if record.state in (RunState.FAILED, RunState.REJECTED) else None
    artifacts = tuple(story.artifacts.values()) if story is not None else ()
    return Run(
        id=record.id,
        tenant=record.tenant,
        subject=record.subject,
        context_id=record.context_id,
        goal=message_from_json(mapping(record.spec.get("goal"))),
        agent_id=record.agent_id,
        state=record.state,
        parts=result.parts if result is not None else (),
        structured=result.structured if result is not None else None,
        as_message=result is not None and result.as_message,
        artifacts=result.artifacts if result is not None else artifacts,
        error=error,
        steps=story.ordered() if story is not None else (),
        plans=tuple(story.plans) if story is not None else (),
        model_calls=tuple(story.model_calls) if story is not None else (),
        questions=tuple(questions),
        created_at=record.created_at,
        updated_at=record.updated_at,
        ended_at=record.ended_at,
        generation=record.generation,
        paused=paused and not record.state.ended,
        rerun_of=text(mapping(record.spec.get("earlier")), "run"),
        rerun_from=text(mapping(record.spec.get("earlier")), "from"),
    )


def final_kind(kind: EventKind) -> bool:
    """Return whether nothing comes after an event of that kind."""
    return kind in (EventKind.RUN_COMPLETED, EventKind.RUN_FAILED, EventKind.RUN_CANCELED)


def _turn(path: str, plan: str) -> int:
    """Return which item or turn of a step another one belongs to; 0 where it belongs to none."""
    part = path.removeprefix(f"{plan}.").partition(".")[0]
    return int(part) if part.isdecimal() else 0


def _waits(payload: JsonObject) -> str:
    event, until = text(payload, "event"), text(payload, "until")
    return f"waits for the event {event}, until {until}" if event else f"waits until {until}"


def _usage(shaped: Json) -> Usage | None:
    return usage_from_json(mapping(shaped)) if shaped is not None else None
