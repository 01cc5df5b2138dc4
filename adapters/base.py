"""The contract between the hub and whatever speaks to an agent: Adapter, Connection, Call and Outcome."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeAlias, TypeVar

from interhub.agent_cards import AgentCard, Endpoint, Json, JsonObject, Kind, empty_object

from .content import Artifact, Message, Part


@dataclass(frozen=True, kw_only=True)
class Principal:
    """The authenticated caller on whose behalf something is done."""

    subject: str
    tenant: str = "default"
    scopes: frozenset[str] = frozenset()

    @cached_property
    def key(self) -> str:
        """Name of the principal in records and pools: `tenant/subject`."""
        return f"{self.tenant}/{self.subject}"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What is left for a whole tree of delegations; each hop hands on less. None means no limit."""

    depth: int = 8
    """How many more levels of delegation may follow."""
    calls: int | None = None
    tokens: int | None = None
    cost_usd: float | None = None
    fan_out: int | None = None
    """How many calls one agent may make in one call of it."""
    until: float | None = None
    """When its time is up, in seconds since 1970."""

    def least(self, other: "Budget") -> "Budget":
        """Return what both allow."""
        return Budget(
            depth=min(self.depth, other.depth),
            calls=_least(self.calls, other.calls),
            tokens=_least(self.tokens, other.tokens),
            cost_usd=_least(self.cost_usd, other.cost_usd),
            fan_out=_least(self.fan_out, other.fan_out),
            until=_least(self.until, other.until),
        )


_Number = TypeVar("_Number", int, float)


def _least(one: _Number | None, other: _Number | None) -> _Number | None:
    return min((each for each in (one, other) if each is not None), default=None)


DELEGATION_KEY = "interhub.dev/delegation"
"""Key of A2A message metadata, MCP `_meta` and a worker's metadata: the hub's mark of the delegation that a call is of.
An agent passes it on, as it came, in what it asks of the hub while it serves the call."""


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where a call stands in the tree of its delegation. All is empty for a call that begins one."""

    tree: str = ""
    """Id of the tree: of the root run, or the key of the call that began it."""
    branch: str = ""
    """Key of the root's own call that this one is below: what is used here is booked there."""
    trail: tuple[str, ...] = ()
    """The agents above, from the root on."""
    limits: Budget | None = None
    """What the branch may use in all."""
    foreign: str = ""
    """Marks of other hubs, to be passed on."""


@dataclass(frozen=True, kw_only=True)
class Resume:
    """The answer to an earlier InputRequired of the same call."""

    answer: tuple[Part, ...]
    """What the person said; a form's fields are one data part."""
    state: Json = None
    """The state blob that came with the question, byte for byte."""
    accepted: bool = True
    """False when the person declined to answer."""
    message_id: str = ""
    """Id of the message that the answer came in, where it came in one."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One use of a capability."""

    capability: str
    """The capability's name within the agent. For an agent with one skill, empty means that one."""
    kind: Kind = Kind.SKILL
    arguments: JsonObject = field(default_factory=empty_object)
    """By the capability's input schema. For a skill: `message` and `data`."""
    message: Message | None = None
    """For a skill: the whole message to send, where the caller has one; it wins over `arguments`."""
    principal: Principal
    idempotency_key: str
    """The same on every attempt of one call: `{run}/{step}` in a run. An A2A message id, a worker's call id."""
    context_id: str = ""
    """The conversation it belongs to; the adapter maps it to the agent's own thread or context."""
    remote_context: str = ""
    """The agent's own id of that conversation, from a TaskBound or Completed; for a process that did not see it."""
    resume: Resume | None = None
    remote_task: str = ""
    """The id the agent gave this call in an earlier attempt (see TaskBound): ask for it before sending again."""
    timeout_s: float | None = None
    """Seconds that this attempt may last."""
    budget: Budget = field(default_factory=Budget)
    lineage: Lineage = field(default_factory=Lineage)
    mark: str = ""
    """What the agent is to pass on when it calls the hub back (`DELEGATION_KEY`); the dispatcher sets it."""
    trace: Mapping[str, str] = field(default_factory=dict[str, str])
    """W3C trace context to send along: `traceparent`, `tracestate`."""
    meta: JsonObject = field(default_factory=empty_object)
    """A2A message metadata or MCP `_meta` of the caller, passed on."""


def another(call: Call, **changes: object) -> Call:
    """Return a call like one, with other values: as `dataclasses.replace`, at a sixth of its cost.

    For the path of every call; a frozen dataclass sets each of its seventeen fields by a method call.
    """
    made = object.__new__(Call)
    made.__dict__.update(call.__dict__, **changes)
    return made


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a call used, where the agent says so."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Completed:
    """The call ended well."""

    parts: tuple[Part, ...] = ()
    """The answer: a message's parts, a tool's content."""
    artifacts: tuple[Artifact, ...] = ()
    """What was made on the way, whole (chunks merged)."""
    structured: Json = None
    """A tool's structured content, by the capability's output schema."""
    usage: Usage | None = None
    as_message: bool = False
    """The agent answered with a message and made no task of the call (A2A 1.0, section 3.1.1)."""
    remote_context: str = ""
    """The agent's own id of the conversation, as it was at the end; for the next call's `remote_context`."""
    raw: JsonObject | None = None
    """The protocol's own result, so that a relay of the same protocol loses nothing."""


@dataclass(frozen=True, kw_only=True)
class InputRequest:
    """One of several things that an agent asks at once."""

    key: str
    """Names it within its question: the answer's field of that name answers it."""
    question: tuple[Part, ...]
    schema: JsonObject | None = None
    """JSON Schema of the answer; without it the answer is text."""
    auth: bool = False
    """The agent wants the person to go somewhere and authenticate; any answer but null says that it was done."""


@dataclass(frozen=True, kw_only=True)
class InputRequired:
    """The agent needs an answer before it can go on. Call again with `resume` holding the answer and this state."""

    question: tuple[Part, ...]
    schema: JsonObject | None = None
    """JSON Schema of the answer, where the agent gave one; without it the answer is text."""
    state: Json = None
    """What the adapter needs to resume, in this or another process."""
    auth: bool = False
    """The agent wants the person to authenticate (A2A `TASK_STATE_AUTH_REQUIRED`, MCP url elicitation)."""
    raw: JsonObject | None = None
    """The protocol's own request, so that a relay of the same protocol loses nothing."""
    requests: tuple[InputRequest, ...] = ()
    """Where several things are asked at once: each of them. The rest then says them together (see `several`)."""
    approval: bool = False
    """Only yes or no is wanted."""

    @staticmethod
    def several(
        requests: Sequence[InputRequest], *, state: Json = None, raw: JsonObject | None = None
    ) -> "InputRequired":
        """Ask several things at once.

        The answer is one object, with a field for each request by its key; null there declines that one.
        """
        fields: dict[str, Json] = {}
        for request in requests:
            wanted: JsonObject = request.schema or {"type": "object" if request.auth else "string"}
            fields[request.key] = {"anyOf": [wanted, {"type": "null"}]}
        return InputRequired(
            question=tuple(part for request in requests for part in request.question),
            schema={"type": "object", "properties": fields, "required": [request.key for request in requests]},
            state=state,
            auth=any(request.auth for request in requests),
            raw=raw,
            requests=tuple(requests) if len(requests) > 1 else (),
        )


Outcome: TypeAlias = Completed | InputRequired
"""How a call ended. Failures are raised (`interhub.adapters.errors`)."""


@dataclass(frozen=True, kw_only=True)
class TaskBound:
    """The agent has taken the call under an id of its own. Reported first, so that it can be remembered."""

    remote_task: str
    remote_context: str = ""
    ended: bool = False
    """It has ended already: after a crash nothing more would be asked of it."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Something to show while waiting."""

    text: str = ""
    done: float | None = None
    total: float | None = None


@dataclass(frozen=True, kw_only=True)
class ArtifactChunk:
    """A piece of an artifact, as it is made."""

    artifact: Artifact
    append: bool = False
    last: bool = True


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """A line of the agent's own log."""

    text: str
    level: str = "info"
    """An RFC 5424 severity in words, as in MCP: debug, info, notice, warning, error, critical, alert, emergency."""


Update: TypeAlias = TaskBound | Progress | ArtifactChunk | LogLine
"""What an adapter pushes while a call lasts."""

Report: TypeAlias = Callable[[Update], Awaitable[None]]
"""Where updates are pushed to. Returns when the update is taken (a slow reader slows the agent, it loses nothing)."""


async def ignore(update: Update) -> None:
    """Take an update and do nothing: the Report of a caller that does not watch."""


class Connection(Protocol):
    """An open conversation with one remote agent; used by many calls at once."""

    async def call(self, call: Call, report: Report) -> Outcome:
        """Use one capability and return how it ended.

        Progress is pushed to `report` rather than yielded: a generator would hold the connection's task group open
        across the consumer's awaits. When the caller's task is cancelled, the agent is told (A2A CancelTask, MCP
        cancellation, a worker's cancel) within two seconds, and the cancellation goes on.

        Raises:
            RemoteUnavailable: the agent could not be reached; a retry with the same idempotency key is safe.
            RemoteRefused: the agent answered with an error; do not retry.
            ProtocolViolation: the agent answered with something its protocol does not allow.
        """
        ...

    async def cancel(self, remote_task: str) -> None:
        """Ask the agent to stop a task that an earlier process started; knows no task is not an error.

        Raises:
            RemoteUnavailable: the agent could not be reached.
        """
        ...


class Adapter(Protocol):
    """Speaks one protocol (or starts one kind of agent)."""

    @property
    def name(self) -> str:
        """The adapter's name, as registered under the entry point `interhub.adapters`."""
        ...

    async def describe(self, endpoint: Endpoint) -> AgentCard:
        """Reach the agent and return what it says about itself, with `interfaces` naming the endpoint that was reached.

        Raises:
            RemoteUnavailable: nothing answers there.
            ProtocolViolation: something answers that is not such an agent.
            BadEndpoint: the address, command or file cannot be used as it stands.
        """
        ...

    def connect(self, endpoint: Endpoint, *, card: AgentCard, label: str) -> AbstractAsyncContextManager[Connection]:
        """Open a conversation. Enter and exit it in the same task.

        `label` names the agent in errors and logs. Entering may be lazy: an agent that is down need not fail here.

        Raises:
            BadEndpoint: the address, command or file cannot be used as it stands.
            RemoteUnavailable: the agent could not be reached.
        """
        ...
