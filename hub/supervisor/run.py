"""Runs as people and faces see them: what was asked, how far it is, what happened, what is asked back."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from interhub.adapters import Artifact, Budget, InputRequest, Lineage, Message, Part, Principal, Resume, Usage
from interhub.agent_cards import Json, JsonObject, empty_object
from interhub.hub.policy import matches


class RunState(StrEnum):
    """A run is an A2A task, and these are the task's states (A2A 1.0, section 4.1.3)."""

    SUBMITTED = "submitted"
    WORKING = "working"
    INPUT_REQUIRED = "input_required"
    AUTH_REQUIRED = "auth_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    REJECTED = "rejected"

    @property
    def ended(self) -> bool:
        """True when nothing more will happen."""
        return self in (RunState.COMPLETED, RunState.FAILED, RunState.CANCELED, RunState.REJECTED)

    @property
    def interrupted(self) -> bool:
        """True when the run waits for a person."""
        return self in (RunState.INPUT_REQUIRED, RunState.AUTH_REQUIRED)


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a caller asks for. One of `agent_id`, `workflow` or the goal alone says who does it."""

    principal: Principal
    goal: Message
    """What is wanted, in words and data; a workflow's inputs are its data part."""
    agent_id: str = ""
    """Delegate to this agent: a team, a workflow, or any other."""
    capability: str = ""
    """With `agent_id`: this capability of it."""
    arguments: JsonObject = field(default_factory=empty_object)
    """With `capability`: its arguments, where the goal's message is not enough."""
    workflow: JsonObject | None = None
    """A workflow given with the request, as parsed YAML or JSON; it is validated before the run starts."""
    inputs: JsonObject = field(default_factory=empty_object)
    """The workflow's inputs."""
    members: tuple[str, ...] = ()
    """With the goal alone: plan only over these agents; empty means all the caller may use."""
    context_id: str = ""
    """The conversation it belongs to; empty begins a new one."""
    idempotency_key: str = ""
    """Two assignments of one principal with the same key are the same run (A2A: the message id)."""
    budget: Budget = field(default_factory=lambda: Budget(depth=64))
    """What the caller wants used at most; the hub's own limits hold beside it."""
    mark: str = ""
    """What the caller was handed with the call that it serves (`interhub.dev/delegation`), where it serves one."""
    lineage: Lineage = field(default_factory=Lineage)
    """Where it stands in the tree of a delegation, where that is known already."""
    resume: Resume | None = None
    """With `capability`: the answer to what it asked before there was a run."""
    waited: bool = False
    """The caller waits for the end, or follows what happens: a run of one call may then take the short way."""


@dataclass(frozen=True, kw_only=True)
class StepView:
    """One step of a run as it stands: who does it, for how long, how it went."""

    path: str
    """Place in the tree: `outer.inner`."""
    title: str = ""
    agent_id: str = ""
    capability: str = ""
    state: RunState = RunState.SUBMITTED
    attempts: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    why: str = ""
    """Why this agent: the router's or the plan's reason."""
    error: str = ""
    usage: Usage | None = None
    decided_by: str = ""
    """Who answered what it asked last."""


@dataclass(frozen=True, kw_only=True)
class PlanView:
    """A plan of a run: its own, a team's or a sub-plan's, or one that followed another that had failed."""

    path: str = ""
    """Place in the tree; empty for the run's own."""
    round: int = 0
    """How many plans came before it, and failed."""
    planner: str = ""
    """Who made it: `workflow`, `named`, `route`, `model`, or a pattern."""
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelCallView:
    """One call of a language model for a run."""

    path: str = ""
    """The plan, or the step, that it was for."""
    purpose: str = ""
    """`plan`, `arguments` or `answer`."""
    model: str = ""
    outcome: str = ""
    """`accepted`, `sent_back`, `declined`, `refused`, `unavailable` or `failed`."""
    why: str = ""
    usage: Usage | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """What an agent, however deep, asks a person. Answered once."""

    id: str
    run_id: str
    step: str
    agent_id: str
    parts: tuple[Part, ...]
    schema: JsonObject | None = None
    """JSON Schema of the answer; without it the answer is text."""
    auth: bool = False
    requests: tuple[InputRequest, ...] = ()
    """Where several things are asked at once: those of them that are not answered yet."""
    asked_at: datetime
    expires_at: datetime | None = None
    capability: str = ""
    """What the agent was doing, or would do."""
    approval: bool = False
    """Only yes or no is wanted."""
    asked_by: str = ""
    """On whose behalf it is asked: `tenant/subject`."""
    answer_by: tuple[str, ...] = ()
    """Who may answer, as rules of the policy name them; nobody named: whose run it is."""
    digest: str = ""
    """Binds the answer to the exact call: agent, capability, arguments, run and asker."""

    def is_for(self, principal: Principal) -> bool:
        """Whether a principal may answer."""
        if self.answer_by:
            return matches(principal, self.answer_by)
        return self.asked_by in ("", principal.key)


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A question as those see it who may answer it, and whose run it is."""

    question: Question
    state: str
    """`open`, `answered`, `closed` or `expired`."""
    answered_by: str = ""
    accepted: bool | None = None
    """Of an answered question: whether it was accepted."""
    for_me: bool
    """Whether the caller may answer."""


@dataclass(frozen=True, kw_only=True)
class RunError:
    """Why a run failed."""

    reason: str
    """Of `interhub.hub.errors.TABLE`."""
    message: str
    step: str = ""
    code: int | None = None
    """The agent's protocol's own error code, where it gave one."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One durable execution, as it stands."""

    id: str
    tenant: str
    subject: str
    context_id: str
    goal: Message
    agent_id: str = ""
    """Whom it was delegated to, where the caller said so."""
    state: RunState
    parts: tuple[Part, ...] = ()
    """The answer, once completed."""
    structured: Json = None
    as_message: bool = False
    """The answer is one agent's message, which made no task of it."""
    artifacts: tuple[Artifact, ...] = ()
    error: RunError | None = None
    steps: tuple[StepView, ...] = ()
    """In the order of the plan."""
    plans: tuple[PlanView, ...] = ()
    """In the order in which they were made."""
    model_calls: tuple[ModelCallView, ...] = ()
    """In the order in which they were made."""
    questions: tuple[Question, ...] = ()
    """Those still open."""
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    generation: int = 0
    """Sequence number of the last event: grows with every change."""
    paused: bool = False
    """It begins no step until it is resumed."""
    rerun_of: str = ""
    """The run whose results it took over."""
    rerun_from: str = ""
    """The first step that it did again."""


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """Which runs are wanted; what is empty does not narrow."""

    state: RunState | None = None
    context_id: str = ""
    agent_id: str = ""
    """Those that were delegated to this agent by name."""
    changed_since: datetime | None = None
    """Those whose last event is of then or later."""


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """Some of the runs that a filter wants, those that changed last first."""

    runs: tuple[Run, ...]
    """Without their steps, answers and artifacts."""
    total: int
    """How many the filter wants in all."""
    more: bool
    """Whether others follow."""


class EventKind(StrEnum):
    """What an event says happened."""

    RUN_SUBMITTED = "run_submitted"
    RUN_PLANNED = "run_planned"
    RUN_STARTED = "run_started"
    RUN_COMPLETED = "run_completed"
    RUN_FAILED = "run_failed"
    RUN_CANCELED = "run_canceled"
    RUN_PAUSED = "run_paused"
    RUN_RESUMED = "run_resumed"
    MODEL_ASKED = "model_asked"
    STEP_STARTED = "step_started"
    STEP_ROUTED = "step_routed"
    STEP_BOUND = "step_bound"
    STEP_PROGRESS = "step_progress"
    STEP_LOG = "step_log"
    STEP_ARTIFACT = "step_artifact"
    STEP_COMPLETED = "step_completed"
    STEP_FAILED = "step_failed"
    STEP_CANCELED = "step_canceled"
    STEP_DECIDED = "step_decided"
    STEP_WAITING = "step_waiting"
    MEMORY_WRITTEN = "memory_written"
    QUESTION_ASKED = "question_asked"
    QUESTION_ANSWERED = "question_answered"
    QUESTION_CLOSED = "question_closed"


@dataclass(frozen=True, kw_only=True)
class Event:
    """A numbered, immutable fact about a run. Its identity is (run, step, attempt, kind, n): a replay adds nothing."""

    run_id: str
    """The root run: what happens in nested teams is told in the run that the caller started."""
    seq: int
    """From 1, without gaps."""
    step: str
    """Path of the step in the tree; empty for the run as a whole."""
    attempt: int
    kind: EventKind
    n: int
    at: datetime
    payload: JsonObject
    """By kind; `docs/events.md` lists the fields."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A person's answer to a question."""

    parts: tuple[Part, ...] = ()
    accepted: bool = True
    """False when the person declines."""
    request: str = ""
    """Where several things are asked at once: the key of the one that this answers. The run goes on with the last."""
    message_id: str = ""
    """Id of the message it came in, where it came in one: the same message again is not another answer."""
    digest: str = ""
    """Of the question as the person saw it, where the client says so: another than it has now is refused."""
    by: Principal
