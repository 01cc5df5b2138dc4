"""What REST requests must look like: the models that parse bodies and queries, and that the OpenAPI document shows."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from interhub.adapters import Budget, Message, Part, Resume, Role, TextPart
from interhub.adapters.content import check_extension_uris, message_from_json, part_from_json
from interhub.agent_cards import Binding, Endpoint, Kind
from interhub.hub.discovery import FromCommand, FromDocument, FromEndpoint, FromUrl, FromWorker, Source
from interhub.hub.errors import Mistake
from interhub.hub.faces.mistakes import mistakes_of
from interhub.hub.faces.refusals import Unreadable
from interhub.hub.supervisor.run import RunState

JsonMap: TypeAlias = dict[str, Any]
T = TypeVar("T")


class Body(BaseModel):
    """A request body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# Agents


class _Add(Body):
    id: str = Field(default="", description="Id to register it under; without it, made from the agent's own name.")


class AddUrl(_Add):
    """An A2A agent (by its card or base address) or an MCP server, by URL."""

    kind: Literal["url"]
    url: str = Field(description="http(s) URL.")
    protocol: Literal["", "a2a", "mcp"] = Field(default="", description="Empty finds out.")
    headers: dict[str, str] = Field(default={}, description="Sent with every request; `${NAME}` is expanded late.")
    allow_private: bool = Field(
        default=False, description="It may be at an address of loopback or of a private network."
    )
    allow_bad_signature: bool = Field(
        default=False, description="Its card is taken even where a signature does not fit."
    )
    credentials: dict[str, str] = Field(
        default={},
        description="By security scheme of the A2A agent's card: `${TOKEN}`, or `${ID}:${SECRET}` (Basic, OAuth).",
    )

    def source(self) -> Source:
        """Return it as discovery knows it."""
        return FromUrl(
            url=self.url,
            headers=self.headers,
            protocol=self.protocol,
            allow_private=self.allow_private,
            allow_bad_signature=self.allow_bad_signature,
            credentials=self.credentials,
        )


class AddCommand(_Add):
    """An MCP server over stdio."""

    kind: Literal["command"]
    command: list[str] = Field(min_length=1, description="Argument list; never a shell line.")
    env: dict[str, str] = Field(default={}, description="`${NAME}` is taken from the hub's environment.")
    cwd: str = Field(default="", description="Absolute path of its working directory.")

    def source(self) -> Source:
        """Return it as discovery knows it."""
        return FromCommand(command=tuple(self.command), env=self.env, cwd=self.cwd)


class AddWorker(_Add):
    """An object of an agent framework, in a Python file."""

    kind: Literal["worker"]
    target: str = Field(description="Absolute `path.py:object`.")
    framework: str = Field(description="langgraph, crewai, ...")
    requirements: str = Field(default="", description="Requirements file to install besides the framework.")
    env: dict[str, str] = Field(default={}, description="`${NAME}` is taken from the hub's environment.")
    cwd: str = Field(default="", description="Absolute path of its working directory.")

    def source(self) -> Source:
        """Return it as discovery knows it."""
        return FromWorker(
            target=self.target,
            framework=self.framework,
            requirements=self.requirements,
            env=self.env,
            cwd=self.cwd,
        )


class AddDocument(_Add):
    """A team or a workflow, by its document."""

    kind: Literal["document"]
    document: JsonMap = Field(description="The parsed YAML or JSON, with `kind: team` or `kind: workflow`.")
    source_name: str = Field(default="the document", description="Where it came from, for errors.")

    def source(self) -> Source:
        """Return it as discovery knows it."""
        return FromDocument(document=self.document, source=self.source_name)


class EndpointBody(Body):
    """Where an agent is reached; which fields count depends on the binding."""

    binding: Binding
    url: str = ""
    version: str = ""
    tenant: str = ""
    command: list[str] = []
    env: dict[str, str] = {}
    cwd: str = ""
    headers: dict[str, str] = {}
    options: JsonMap = {}

    def endpoint(self) -> Endpoint:
        """Return it as adapters know it."""
        return Endpoint(
            binding=self.binding,
            url=self.url,
            version=self.version,
            tenant=self.tenant,
            command=tuple(self.command),
            env=self.env,
            cwd=self.cwd,
            headers=self.headers,
            options=self.options,
        )


class AddEndpoint(_Add):
    """An agent whose endpoint is known in full, as an import gives it."""

    kind: Literal["endpoint"]
    adapter: str = Field(description="a2a, mcp, worker, local, ...")
    endpoint: EndpointBody

    def source(self) -> Source:
        """Return it as discovery knows it."""
        return FromEndpoint(adapter=self.adapter, endpoint=self.endpoint.endpoint())


AddAgent: TypeAlias = Annotated[
    AddUrl | AddCommand | AddWorker | AddDocument | AddEndpoint, Field(discriminator="kind")
]


class CheckDocument(Body):
    """A team's or workflow's document to look for mistakes in."""

    document: JsonMap = Field(description="The parsed YAML or JSON, with `kind: team` or `kind: workflow`.")
    source_name: str = Field(default="the document", description="Where it came from, for errors.")


class FindQuery(Body):
    """What is looked for."""

    need: str = Field(min_length=1, description="What is to be done, in words.")
    limit: int = Field(default=5, ge=1, le=100)
    agent: list[str] = Field(default=[], description="Look only among these agents; may be repeated.")


class AgentsQuery(Body):
    """How agents are listed."""

    capabilities: bool = Field(default=False, description="With everything that each can do.")


# Content


class MessageBody(Body):
    """What is said: a text, structured data, or whole A2A parts or message (A2A 1.0, section 4.1)."""

    text: str = Field(default="", description="Plain words.")
    data: JsonMap | None = Field(default=None, description="Structured data that goes with them.")
    parts: list[JsonMap] = Field(default=[], description="A2A parts, after the text.")

    def read(self, where: str) -> tuple[Part, ...]:
        """Return the parts.

        Raises:
            Unreadable: a part is not one of A2A.
        """
        given = list(self.parts)
        if self.data is not None:
            given.append({"data": self.data})
        text = (TextPart(text=self.text),) if self.text else ()
        return (*text, *(_read_part(part, f"{where}parts[{n}]") for n, part in enumerate(given)))


# Runs

_MOST = 10**12
"""No limit is larger: a number that JSON, or the database, cannot hold is none."""


class BudgetBody(Body):
    """Limits of the whole tree of a delegation, where they are to be lower than the hub's own (`guards`)."""

    depth: int = Field(default=64, ge=0, le=64)
    calls: int | None = Field(default=None, ge=1, le=_MOST)
    tokens: int | None = Field(default=None, ge=1, le=_MOST)
    cost_usd: float | None = Field(default=None, gt=0, le=_MOST)

    def budget(self) -> Budget:
        """Return it as runs know it."""
        return Budget(depth=self.depth, calls=self.calls, tokens=self.tokens, cost_usd=self.cost_usd)


class SubmitRun(Body):
    """What is to be done. One of `agent_id`, `workflow` or the goal alone says who does it."""

    goal: str = Field(default="", description="What is wanted, in words.")
    message: JsonMap | None = Field(default=None, description="The goal as a whole A2A message, instead of `goal`.")
    agent_id: str = Field(default="", description="Delegate to this agent, team or registered workflow.")
    capability: str = Field(default="", description="With `agent_id`: this capability of it.")
    arguments: JsonMap = Field(default={}, description="With `capability`: its arguments.")
    workflow: JsonMap | None = Field(default=None, description="A workflow given with the request.")
    inputs: JsonMap = Field(default={}, description="The workflow's inputs.")
    members: list[str] = Field(default=[], description="With the goal alone: plan only over these agents.")
    context_id: str = Field(default="", description="The conversation it belongs to; empty begins a new one.")
    idempotency_key: str = Field(default="", max_length=200, description="The same key gives the same run.")
    budget: BudgetBody = BudgetBody()
    wait_s: float = Field(default=0.0, ge=0, le=3600, description="Seconds to wait for the run to end or to ask.")

    def read_goal(self) -> Message:
        """Return the goal as a message.

        Raises:
            Unreadable: there is no goal, or two, or the message is not one of A2A.
        """
        if self.message is not None and self.goal:
            raise Unreadable(_BODY, (Mistake("message", "stands beside goal; give one of them"),))
        if self.message is not None:
            return _message(self.message)
        if not self.goal and self.workflow is None and not self.agent_id:
            raise Unreadable(_BODY, (Mistake("goal", "is missing: say what is wanted"),))
        return Message(role=Role.USER, parts=(TextPart(text=self.goal),) if self.goal else ())


class RunsQuery(Body):
    """Which runs are listed."""

    state: RunState | None = Field(default=None, description="Only those in this state.")
    context_id: str = Field(default="", description="Only those of this conversation.")
    limit: int = Field(default=50, ge=1, le=200)
    before: str = Field(default="", description="Id of the last run already seen; what follows is older.")


class EventsQuery(Body):
    """Which events are told."""

    after: int = Field(default=0, ge=0, description="Sequence number of the last event already seen.")
    limit: int = Field(default=1000, ge=1, le=10_000)


class RunQuery(Body):
    """Whether to wait for a run."""

    wait_s: float = Field(default=0.0, ge=0, le=3600, description="Seconds to wait for the run to end or to ask.")


class ApprovalsQuery(Body):
    """Which questions are listed."""

    state: Literal["open", "answered", "closed", "expired", "any"] = Field(
        default="open", description="Only those in this state; `any` is all."
    )
    limit: int = Field(default=50, ge=1, le=200)


class AnswerQuestion(MessageBody):
    """The answer to a question."""

    accepted: bool = Field(default=True, description="False declines to answer.")
    digest: str = Field(
        default="", description="The question's digest as it was seen: the answer is refused where it is another now."
    )


class Rerun(Body):
    """From where a run is done again."""

    from_step: str = Field(min_length=1, description="Id or path of a step of the run's own plan.")


class AnswerRun(AnswerQuestion):
    """The answer to what a run asks."""

    question_id: str = Field(default="", description="Which question; without it, the one that is open.")
    wait_s: float = Field(default=0.0, ge=0, le=3600, description="Seconds to wait for the run to end or to ask.")


# The direct path


class ResumeBody(MessageBody):
    """The answer to an earlier `input_required` of the same call."""

    state: Any = Field(default=None, description="The `state` that came with the question, as it was.")
    accepted: bool = Field(default=True, description="False declines to answer.")


class CallAgent(Body):
    """One use of one capability, now, without a run."""

    capability: str = Field(default="", description="Its name; may be left out when the agent has one.")
    kind: Kind | None = Field(default=None, description="Where a name is of several kinds.")
    arguments: JsonMap = Field(default={}, description="By the capability's input schema.")
    message: JsonMap | None = Field(default=None, description="For a skill: the whole A2A message, instead.")
    context_id: str = Field(default="", description="The conversation it belongs to.")
    idempotency_key: str = Field(default="", description="The same on every attempt.")
    timeout_s: float | None = Field(default=None, gt=0, le=3600, description="Seconds it may last.")
    resume: ResumeBody | None = None

    def read_message(self) -> Message | None:
        """Return the message, if there is one.

        Raises:
            Unreadable: it is not one of A2A.
        """
        return _message(self.message) if self.message is not None else None

    def read_resume(self) -> Resume | None:
        """Return the answer, if there is one.

        Raises:
            Unreadable: a part is not one of A2A.
        """
        if self.resume is None:
            return None
        parts = self.resume.read("resume.")
        return Resume(answer=parts, state=self.resume.state, accepted=self.resume.accepted)


_BODY = "the request body is not right"
_QUERY = "the query is not right"


def read_body(adapter: TypeAdapter[T], body: bytes) -> T:
    """Parse a request body.

    Raises:
        Unreadable: it is not JSON, or not of the form; each mistake names its place, and an unknown field the nearest.
    """
    try:
        return adapter.validate_json(body or b"{}")
    except ValidationError as error:
        raise Unreadable(_BODY, mistakes_of(error, adapter)) from None


def read_query(adapter: TypeAdapter[T], given: Mapping[str, list[str]], lists: frozenset[str]) -> T:
    """Parse a query; of a name that is no list, the last value counts.

    Raises:
        Unreadable: it is not of the form; each mistake names its place, and an unknown field the nearest.
    """
    values = {name: each if name in lists else each[-1] for name, each in given.items()}
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        raise Unreadable(_QUERY, mistakes_of(error, adapter)) from None


def _message(shaped: JsonMap) -> Message:
    # `role` and `messageId` may be left out: only a user has goals, and the run has an id.
    try:
        message = message_from_json({"role": Role.USER.value, **shaped})
        check_extension_uris(message)
    except ValueError as error:
        raise Unreadable(_BODY, (Mistake("message", str(error)),)) from error
    return message


def _read_part(shaped: JsonMap, where: str) -> Part:
    try:
        return part_from_json(shaped)
    except ValueError as error:
        raise Unreadable(_BODY, (Mistake(where, str(error)),)) from error
