"""What can go wrong, and how each protocol says it.

    HubError
    ├── BadRequest               what was asked cannot be understood
    │   └── PlanInvalid          a workflow or plan has mistakes; each names its place
    ├── Unauthenticated          no key, or a wrong one
    ├── NotAllowed               the policy says no
    ├── CapabilityNotFound       the agent has no such capability
    ├── NoCapableAgent           nobody registered can do it
    ├── RunNotFound              no such run, or somebody else's
    ├── RunEnded                 the run has ended and takes no more
    ├── RunUnderWay              the run has not ended yet
    ├── QuestionNotFound         nothing is asked there, or it was answered
    ├── TriggerNotFound          no such trigger, or somebody else's
    ├── TriggerExists            there is a trigger of that name
    ├── HookRefused              a webhook's request does not prove where it comes from
    ├── BudgetExceeded           the whole tree of a delegation has used what it was given
    ├── TooManyCalls             as many direct calls as may be are under way; later one may go
    ├── DelegationLoop           an agent would be called below itself
    ├── StepTimeout              a step took longer than its plan lets it
    ├── OutputInvalid            what a step gave does not fit what its plan wants
    ├── LimitReached             a loop's turns or a map's items are too many
    ├── ModelUnavailable         a language model gave no answer
    ├── ModelRefused             a language model declines
    ├── NoPlan                   a planner came to no plan that can be carried out
    └── Unusable                 the hub cannot start, or not be reached
        ├── SettingsInvalid
        ├── DataDirUnusable
        ├── AlreadyRunning
        ├── AddressInUse
        └── HubNotRunning

`TABLE` maps these, and what adapters, registry and agent_cards raise, to HTTP, JSON-RPC and A2A. Faces only look up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from interhub.adapters import (
    AdapterError,
    AdapterNotFound,
    BadEndpoint,
    ProtocolViolation,
    RemoteCanceled,
    RemoteDenied,
    RemoteRefused,
    RemoteRejected,
    RemoteTimeout,
    RemoteUnavailable,
    Usage,
)
from interhub.agent_cards import CardError, Json
from interhub.registry import AgentExists, AgentNotFound, DatabaseError, ImportUnreadable, InvalidAgentId


def shown(given: str, most: int = 80) -> str:
    """Return what somebody gave us, quoted as errors show it: no control characters, and not all of a book."""
    return repr(given if len(given) <= most else given[: most - 1] + "…")


class HubError(Exception):
    """The hub refused, or failed."""


class BadRequest(HubError):
    """What was asked cannot be understood."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return self.what + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong in a plan."""

    where: str
    """Place: `file:line` where known, and the path within the plan (`steps.gather.call.agent`)."""
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class PlanInvalid(BadRequest):
    """A workflow or plan has mistakes; each names its place."""

    def __init__(self, source: str, mistakes: Sequence[Mistake]) -> None:
        super().__init__(source, "")
        self.args = (source, tuple(mistakes))
        self.source = source
        self.mistakes = tuple(mistakes)

    def __str__(self) -> str:
        return "\n".join([f"{self.source} cannot be run:", *(f"  {mistake}" for mistake in self.mistakes)])


class Unauthenticated(HubError):
    """No key was given, or a wrong one."""

    def __str__(self) -> str:
        return "a valid API key is needed: send `Authorization: Bearer KEY`; `interhub key show` shows yours"


class NotAllowed(HubError):
    """The policy says no."""

    def __init__(self, what: str, why: str = "") -> None:
        super().__init__(what, why)
        self.what = what
        self.why = why

    def __str__(self) -> str:
        return f"{self.what} is not allowed" + (f": {self.why}" if self.why else "")


class CapabilityNotFound(HubError):
    """The agent has no such capability."""

    def __init__(self, agent_id: str, capability: str, near: tuple[str, ...] = ()) -> None:
        super().__init__(agent_id, capability, near)
        self.agent_id = agent_id
        self.capability = capability
        self.near = near

    def __str__(self) -> str:
        if not self.capability:
            return f"agent {self.agent_id!r} can do several things: name one ({', '.join(self.near)}, ...)"
        hint = f"did you mean {' or '.join(self.near)}?" if self.near else f"see `interhub agents show {self.agent_id}`"
        return f"agent {self.agent_id!r} has nothing called {shown(self.capability)}; {hint}"


class NoCapableAgent(HubError):
    """No registered agent can meet the need."""

    def __init__(self, need: str) -> None:
        super().__init__(need)
        self.need = need

    def __str__(self) -> str:
        return f"no registered agent can do {shown(self.need, 200)}; see `interhub agents list`"


class RunNotFound(HubError):
    """No run has that id, or it is somebody else's: the answer is the same."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"no run has the id {shown(self.run_id)}; see `interhub runs list`"


class RunEnded(HubError):
    """The run has ended and takes no more."""

    def __init__(self, run_id: str, state: str) -> None:
        super().__init__(run_id, state)
        self.run_id = run_id
        self.state = state

    def __str__(self) -> str:
        return f"run {self.run_id} has already ended ({self.state})"


class RunUnderWay(HubError):
    """The run has not ended yet."""

    def __init__(self, run_id: str, state: str) -> None:
        super().__init__(run_id, state)
        self.run_id = run_id
        self.state = state

    def __str__(self) -> str:
        return f"run {self.run_id} has not ended yet ({self.state}); wait for it, or cancel it first"


class QuestionNotFound(HubError):
    """Nothing is asked under that id, or it has been answered or has expired."""

    def __init__(self, run_id: str, question_id: str = "", why: str = "") -> None:
        super().__init__(run_id, question_id, why)
        self.run_id = run_id
        self.question_id = question_id
        self.why = why

    def __str__(self) -> str:
        if self.why:
            return self.why
        return f"run {self.run_id} asks nothing" + (f" under {self.question_id!r}" if self.question_id else "")


class HookRefused(HubError):
    """A webhook's request does not prove where it comes from, or is too old. Never says what would be right."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the request is refused: {self.why}"


class TriggerNotFound(HubError):
    """There is no trigger of that name."""

    def __init__(self, name: str, near: str = "") -> None:
        super().__init__(name, near)
        self.name, self.near = name, near

    def __str__(self) -> str:
        hint = f"; did you mean {self.near!r}?" if self.near else "; see `interhub triggers list`"
        return f"there is no trigger {shown(self.name)}{hint}"


class TriggerExists(HubError):
    """A trigger of that name is there."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        how = f"remove it first, with the key that added it or the hub's own: `interhub triggers remove {self.name}`"
        return f"there is a trigger {self.name} already; {how}"


class BudgetExceeded(HubError):
    """The whole tree of a delegation has used what it was given."""

    def __init__(self, what: str, limit: float) -> None:
        super().__init__(what, limit)
        self.what = what
        self.limit = limit

    def __str__(self) -> str:
        return f"the delegation has reached its limit of {self.limit:g} {self.what}"


class TooManyCalls(HubError):
    """As many direct calls are under way as may be, and none ended while this one waited. It was not made."""

    def __init__(self, whose: str, most: int, setting: str) -> None:
        super().__init__(whose, most, setting)
        self.whose = whose
        self.most = most
        self.setting = setting

    def __str__(self) -> str:
        return f"{self.whose} has {self.most} calls under way, which is the most ({self.setting}); try again later"


class DelegationLoop(HubError):
    """An agent would be called below itself: A calls B, and B calls A."""

    def __init__(self, trail: Sequence[str]) -> None:
        super().__init__(tuple(trail))
        self.trail = tuple(trail)

    def __str__(self) -> str:
        return f"agents would call each other in a circle: {' > '.join(self.trail)}"


class StepTimeout(HubError):
    """A step of a plan took longer than the plan lets it."""

    def __init__(self, within_s: float) -> None:
        super().__init__(within_s)
        self.within_s = within_s

    def __str__(self) -> str:
        return f"it was not done within {self.within_s:g} s"


class OutputInvalid(HubError):
    """What a step gave does not fit the schema that the plan wants of it."""

    def __init__(self, agent_id: str, problem: str) -> None:
        super().__init__(agent_id, problem)
        self.agent_id = agent_id
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class LimitReached(HubError):
    """A loop was not done after all its turns, or a map has more items than it may have."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return self.what


class ModelUnavailable(HubError):
    """A language model gave no answer."""

    def __init__(self, model: str, why: str, passing: bool = True, retry_after_s: float | None = None) -> None:
        super().__init__(model, why, passing, retry_after_s)
        self.model = model
        self.why = why
        self.passing = passing
        """True when another call may go better."""
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"the model {self.model!r} gave no answer: {self.why}"


class ModelRefused(HubError):
    """A language model, or a filter of its provider, declines."""

    def __init__(self, model: str, why: str, usage: Usage | None = None) -> None:
        super().__init__(model, why, usage)
        self.model = model
        self.why = why
        self.usage = usage

    def __str__(self) -> str:
        return f"the model {self.model!r} declines: {shown(self.why, 300)}"


class NoPlan(HubError):
    """A planner came to no plan that can be carried out."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return self.why


class Unusable(HubError):
    """The hub cannot start, or cannot be reached; the message says what to do."""


class SettingsInvalid(Unusable):
    """A setting is unknown or has an impossible value."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class DataDirUnusable(Unusable):
    """The data directory cannot be read or written."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path = path
        self.why = why

    def __str__(self) -> str:
        return f"the data directory {self.path} cannot be used: {self.why}; choose another with --data-dir"


class AlreadyRunning(Unusable):
    """Another hub holds the data directory."""

    def __init__(self, path: str, url: str, pid: int) -> None:
        super().__init__(path, url, pid)
        self.path = path
        self.url = url
        self.pid = pid

    def __str__(self) -> str:
        return f"a hub is already running on {self.path} at {self.url or 'an unknown address'} (process {self.pid})"


class AddressInUse(Unusable):
    """The address to listen on is taken."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.host = host
        self.port = port

    def __str__(self) -> str:
        return f"port {self.port} on {self.host} is in use by another program; choose another with --port"


class HubNotRunning(Unusable):
    """No hub answers for the data directory."""

    def __init__(self, path: str, why: str = "") -> None:
        super().__init__(path, why)
        self.path = path
        self.why = why

    def __str__(self) -> str:
        return (
            f"no hub is running on {self.path}{f' ({self.why})' if self.why else ''}; start one with `interhub serve`"
        )


@dataclass(frozen=True, kw_only=True)
class Status:
    """How one kind of error is said in each protocol."""

    http: int
    jsonrpc: int
    """JSON-RPC 2.0 and MCP error code; -32001 to -32009 are A2A's (A2A 1.0, section 5.4)."""
    reason: str
    """A2A `ErrorInfo.reason`, and the `code` of a REST problem."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One error, ready for any face."""

    status: Status
    message: str
    details: Mapping[str, Json] = field(default_factory=dict[str, Json])


TABLE: Mapping[type[Exception], Status] = {
    BadRequest: Status(http=400, jsonrpc=-32602, reason="INVALID_PARAMS"),
    PlanInvalid: Status(http=422, jsonrpc=-32602, reason="PLAN_INVALID"),
    Unauthenticated: Status(http=401, jsonrpc=-32600, reason="UNAUTHENTICATED"),
    NotAllowed: Status(http=403, jsonrpc=-32600, reason="PERMISSION_DENIED"),
    CapabilityNotFound: Status(http=404, jsonrpc=-32602, reason="CAPABILITY_NOT_FOUND"),
    NoCapableAgent: Status(http=422, jsonrpc=-32602, reason="NO_CAPABLE_AGENT"),
    RunNotFound: Status(http=404, jsonrpc=-32001, reason="TASK_NOT_FOUND"),
    RunEnded: Status(http=409, jsonrpc=-32002, reason="TASK_NOT_CANCELABLE"),
    RunUnderWay: Status(http=409, jsonrpc=-32602, reason="RUN_UNDER_WAY"),
    QuestionNotFound: Status(http=409, jsonrpc=-32602, reason="QUESTION_NOT_FOUND"),
    TriggerNotFound: Status(http=404, jsonrpc=-32602, reason="TRIGGER_NOT_FOUND"),
    TriggerExists: Status(http=409, jsonrpc=-32602, reason="TRIGGER_EXISTS"),
    HookRefused: Status(http=401, jsonrpc=-32600, reason="WEBHOOK_REFUSED"),
    BudgetExceeded: Status(http=429, jsonrpc=-32603, reason="BUDGET_EXCEEDED"),
    TooManyCalls: Status(http=429, jsonrpc=-32603, reason="TOO_MANY_CALLS"),
    DelegationLoop: Status(http=409, jsonrpc=-32603, reason="DELEGATION_LOOP"),
    StepTimeout: Status(http=504, jsonrpc=-32603, reason="STEP_TIMEOUT"),
    OutputInvalid: Status(http=502, jsonrpc=-32603, reason="OUTPUT_INVALID"),
    LimitReached: Status(http=422, jsonrpc=-32603, reason="LIMIT_REACHED"),
    ModelUnavailable: Status(http=502, jsonrpc=-32603, reason="MODEL_UNAVAILABLE"),
    ModelRefused: Status(http=422, jsonrpc=-32603, reason="MODEL_REFUSED"),
    NoPlan: Status(http=422, jsonrpc=-32603, reason="NO_PLAN"),
    Unusable: Status(http=503, jsonrpc=-32603, reason="UNAVAILABLE"),
    AgentNotFound: Status(http=404, jsonrpc=-32602, reason="AGENT_NOT_FOUND"),
    AgentExists: Status(http=409, jsonrpc=-32602, reason="AGENT_EXISTS"),
    InvalidAgentId: Status(http=400, jsonrpc=-32602, reason="INVALID_AGENT_ID"),
    ImportUnreadable: Status(http=400, jsonrpc=-32602, reason="IMPORT_UNREADABLE"),
    CardError: Status(http=502, jsonrpc=-32006, reason="INVALID_AGENT_RESPONSE"),
    DatabaseError: Status(http=503, jsonrpc=-32603, reason="DATABASE_UNAVAILABLE"),
    BadEndpoint: Status(http=400, jsonrpc=-32602, reason="BAD_ENDPOINT"),
    AdapterNotFound: Status(http=400, jsonrpc=-32602, reason="ADAPTER_NOT_FOUND"),
    RemoteTimeout: Status(http=504, jsonrpc=-32603, reason="AGENT_TIMEOUT"),
    RemoteUnavailable: Status(http=502, jsonrpc=-32603, reason="AGENT_UNAVAILABLE"),
    RemoteDenied: Status(http=502, jsonrpc=-32603, reason="AGENT_DENIED_US"),
    RemoteCanceled: Status(http=502, jsonrpc=-32603, reason="AGENT_CANCELED"),
    RemoteRejected: Status(http=502, jsonrpc=-32603, reason="AGENT_REJECTED"),
    RemoteRefused: Status(http=502, jsonrpc=-32603, reason="AGENT_REFUSED"),
    ProtocolViolation: Status(http=502, jsonrpc=-32006, reason="INVALID_AGENT_RESPONSE"),
    AdapterError: Status(http=502, jsonrpc=-32603, reason="AGENT_ERROR"),
    HubError: Status(http=500, jsonrpc=-32603, reason="INTERNAL"),
}
"""Error class to its status; a class not listed has that of its nearest base."""

INTERNAL = Status(http=500, jsonrpc=-32603, reason="INTERNAL")


def problem_of(error: BaseException) -> Problem:
    """Return how an error is said to a caller. What we do not know is said without its text: it may hold anything."""
    for base in type(error).__mro__:
        status = TABLE.get(base)
        if status is not None:
            details: dict[str, Json] = {}
            if isinstance(error, PlanInvalid):
                details["mistakes"] = [{"where": mistake.where, "what": mistake.what} for mistake in error.mistakes]
            if isinstance(error, TooManyCalls):
                details["retryable"] = True
            return Problem(status=status, message=str(error), details=details)
    return Problem(status=INTERNAL, message="the hub failed; its log says why")
