"""A scripted agent in memory: the twin of every adapter, for tests of whatever calls agents.

```python
agent = ScriptedAgent("clerk")
agent.on("file", Turn(updates=(Progress(text="looking"),), end=answer("filed")), refused("drawer is full"))
hub = make_hub(adapters={"scripted": ScriptedAdapter(agent)})
...
assert [call.arguments for call in agent.calls] == [{"message": "file it"}]
```
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import anyio

from interhub.agent_cards import AgentCard, Binding, Capability, Endpoint, Json, Kind
from interhub.agent_cards.extension import Extension

from .base import Call, Completed, Connection, InputRequired, Outcome, Report, TaskBound, Update
from .content import Message, TextPart, text_of
from .errors import AdapterError, BadEndpoint, RemoteRefused, RemoteUnavailable


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a scripted agent does with one call: report these, wait if it has to, end so."""

    updates: tuple[Update, ...] = ()
    until: anyio.Event | None = None
    """Waited for after the updates. An event that nobody sets makes a call that only a cancellation ends."""
    end: Outcome | AdapterError = field(default_factory=Completed)


Behaviour: TypeAlias = Callable[[Call, Report], Awaitable[Outcome]]
"""What a capability does, as a function."""


class ScriptedAgent:
    """An agent whose every move is written down before. Records what was asked of it."""

    def __init__(
        self,
        name: str,
        *,
        capabilities: Sequence[Capability] = (),
        description: str = "",
        keeps_tasks: bool = False,
    ) -> None:
        """`on` adds a skill for each name that is not among `capabilities`.

        With `keeps_tasks` it binds each call to a task of its own, and remembers how it ended for those who ask again.
        """
        self.name = name
        self.description = description
        self.calls: list[Call] = []
        """Every call that reached it, in order, those that ask for a known task too."""
        self.executed: list[str] = []
        """The idempotency key of every call that it began to carry out."""
        self.canceled: list[str] = []
        """The idempotency keys of the calls that were cancelled while it worked."""
        self.cancel_requests: list[str] = []
        """The remote tasks that it was asked to cancel."""
        self.tasks: dict[str, Outcome | AdapterError] = {}
        """How remembered tasks ended, by their id. A test may put in what an earlier process started."""
        self.extensions: tuple[Extension, ...] = ()
        """The protocol extensions that its card declares."""
        self.down = False
        """While true nothing reaches it."""
        self.open_connections = 0
        self.opened_connections = 0
        self._keeps_tasks = keeps_tasks
        self._capabilities = {(capability.kind, capability.name): capability for capability in capabilities}
        self._behaviours: dict[str, Behaviour] = {}
        self._changed = anyio.Event()

    def on(
        self,
        capability: str,
        *turns: Turn | Outcome | AdapterError | Behaviour,
        kind: Kind = Kind.SKILL,
        description: str = "",
    ) -> "ScriptedAgent":
        """Say what a capability does: one function, or turns taken one by one, the last of them for ever.

        Returns the agent itself.
        """
        if not turns:
            raise ValueError(f"say what {capability!r} does")
        self._capabilities.setdefault(
            (kind, capability), Capability(name=capability, kind=kind, description=description or capability)
        )
        self._behaviours[capability] = _sequence([_behaviour(turn) for turn in turns])
        return self

    @property
    def card(self) -> AgentCard:
        """What it says about itself."""
        return AgentCard(
            name=self.name,
            description=self.description or f"{self.name}, scripted",
            extensions=self.extensions,
            version="1",
            capabilities=tuple(self._capabilities.values()),
            interfaces=(Endpoint(binding=Binding.LOCAL, url=f"scripted:{self.name}"),),
            streaming=True,
        )

    async def wait_for_calls(self, count: int) -> None:
        """Return when that many calls have reached it."""
        while len(self.calls) < count:
            await self._changed.wait()

    async def call(self, call: Call, report: Report) -> Outcome:
        """Do what the script says. Raises what the script says."""
        if self.down:
            raise RemoteUnavailable(self.name, "it is down")
        self.calls.append(call)
        self._changed.set()
        self._changed = anyio.Event()
        if call.remote_task in self.tasks:
            return _end(self.tasks[call.remote_task])
        behaviour = self._behaviours.get(call.capability or next(iter(self._behaviours), ""))
        if behaviour is None:
            raise RemoteRefused(self.name, f"it cannot do {call.capability!r}")
        task = f"{self.name}-task-{len(self.executed) + 1}" if self._keeps_tasks else ""
        self.executed.append(call.idempotency_key)
        if task:
            await report(TaskBound(remote_task=task, remote_context=call.context_id))
        try:
            outcome = await behaviour(call, report)
        except anyio.get_cancelled_exc_class():
            self.canceled.append(call.idempotency_key)
            raise
        except AdapterError as error:
            if task and not isinstance(error, RemoteUnavailable):
                self.tasks[task] = error
            raise
        if task:
            self.tasks[task] = outcome
        return outcome

    async def cancel(self, remote_task: str) -> None:
        """Note the request."""
        if self.down:
            raise RemoteUnavailable(self.name, "it is down")
        self.cancel_requests.append(remote_task)


class ScriptedAdapter:
    """Reaches scripted agents: each by `url="scripted:{name}"`, an only one by any endpoint."""

    def __init__(self, *agents: ScriptedAgent, name: str = "scripted") -> None:
        self._name = name
        self._agents = {f"scripted:{agent.name}": agent for agent in agents}

    @property
    def name(self) -> str:
        """The adapter's name."""
        return self._name

    async def describe(self, endpoint: Endpoint) -> AgentCard:
        """Return the agent's card."""
        agent = self._find(endpoint)
        if agent.down:
            raise RemoteUnavailable(agent.name, "it is down")
        return replace(agent.card, interfaces=(endpoint,))

    def connect(self, endpoint: Endpoint, *, card: AgentCard, label: str) -> AbstractAsyncContextManager[Connection]:
        """Open a connection, which counts as open until it is left."""
        return self._connect(endpoint)

    @asynccontextmanager
    async def _connect(self, endpoint: Endpoint) -> AsyncGenerator[Connection]:
        agent = self._find(endpoint)
        if agent.down:
            raise RemoteUnavailable(agent.name, "it is down")
        agent.open_connections += 1
        agent.opened_connections += 1
        try:
            yield ScriptedConnection(agent)
        finally:
            agent.open_connections -= 1

    def _find(self, endpoint: Endpoint) -> ScriptedAgent:
        agent = self._agents.get(endpoint.url)
        if agent is None and len(self._agents) == 1 and not endpoint.url:
            return next(iter(self._agents.values()))
        if agent is None:
            known = ", ".join(self._agents) or "none"
            raise BadEndpoint(endpoint.url, "no scripted agent is there", f"there are: {known}")
        return agent


class ScriptedConnection:
    """An open conversation with a scripted agent. Usable by itself wherever a Connection is wanted."""

    def __init__(self, agent: ScriptedAgent) -> None:
        self.agent = agent

    async def call(self, call: Call, report: Report) -> Outcome:
        """Use one capability."""
        return await self.agent.call(call, report)

    async def cancel(self, remote_task: str) -> None:
        """Ask the agent to stop a task."""
        await self.agent.cancel(remote_task)


def answer(text: str, *, structured: Json = None) -> Completed:
    """An outcome: completed with a text."""
    return Completed(parts=(TextPart(text=text),), structured=structured)


def question(text: str, *, state: Json = None) -> InputRequired:
    """An outcome: a question to the person."""
    return InputRequired(question=(TextPart(text=text),), state=state)


def refused(why: str, *, by: str = "the scripted agent") -> RemoteRefused:
    """An end: the agent answered with an error."""
    return RemoteRefused(by, why)


def asked(call: Call) -> str:
    """The words of a call: its message's text, or its argument `message`."""
    if call.message is not None:
        return text_of(call.message.parts)
    message = call.arguments.get("message", "")
    return message if isinstance(message, str) else str(message)


def said(outcome: Outcome | Message) -> str:
    """The words of an outcome: the answer's text, its artifacts' text, or the question's."""
    match outcome:
        case Completed():
            parts = [*outcome.parts, *(part for artifact in outcome.artifacts for part in artifact.parts)]
            return text_of(parts)
        case InputRequired():
            return text_of(outcome.question)
        case Message():
            return text_of(outcome.parts)


def _behaviour(turn: Turn | Outcome | AdapterError | Behaviour) -> Behaviour:
    if isinstance(turn, Completed | InputRequired | AdapterError):
        turn = Turn(end=turn)
    if not isinstance(turn, Turn):
        return turn
    written = turn

    async def play(call: Call, report: Report) -> Outcome:
        for update in written.updates:
            await report(update)
        if written.until is not None:
            await written.until.wait()
        return _end(written.end)

    return play


def _sequence(behaviours: list[Behaviour]) -> Behaviour:
    left = iter(behaviours[:-1])

    async def play(call: Call, report: Report) -> Outcome:
        return await next(left, behaviours[-1])(call, report)

    return play


def _end(end: Outcome | AdapterError) -> Outcome:
    if isinstance(end, AdapterError):
        raise end
    return end
