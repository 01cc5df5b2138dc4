"""A request that stays open while a server of the older era asks the caller something in the middle of it."""

import secrets
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import anyio
from mcp import MCPError
from mcp_types import INVALID_REQUEST, METHOD_NOT_FOUND

from interhub.agent_cards import JsonObject

from .content import ELICIT

PATIENCE_S = 15 * 60.0
"""How long a server waits, inside its request, for a person's answer."""
_TOO_LATE = "the request in which this was asked has ended"
_MOST_QUEUED = 1000
"""Notifications beyond this many unread ones are dropped; questions and the end never are."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """The server notified something about the request."""

    method: str
    params: JsonObject


class Question:
    """The server asked something, and waits."""

    def __init__(self, method: str, params: JsonObject) -> None:
        self.id = secrets.token_urlsafe(24)
        self.method = method
        self.params = params
        self.answer: JsonObject | None = None
        self.answered = anyio.Event()

    def give(self, answer: JsonObject) -> None:
        """Let the server have the answer."""
        self.answer = answer
        self.answered.set()


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The request came to its end."""

    result: JsonObject | None = None
    error: Exception | None = None


Event: TypeAlias = Said | Question | Ended


class OpenRequest:
    """One request and what has been said about it and not been read yet. The Sink of its exchange."""

    def __init__(
        self,
        *,
        owner: str,
        answers: Collection[str],
        askable: bool = True,
        recorded: Sequence[tuple[JsonObject, JsonObject]] = (),
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.owner = owner
        """Who may answer its questions."""
        self.scope = anyio.CancelScope()
        """Cancelled when nobody wants the result any more."""
        self.done = anyio.Event()
        """Set when nothing of it is left at the server's end."""
        self.questions: dict[str, Question] = {}
        self.answers = answers
        """The methods that the caller answers."""
        self.askable = askable
        """Whether its result may be a question (MCP 2026-07-28, basic/patterns/mrtr: not that of a list)."""
        self._recorded = list(recorded)
        self._patience_s = patience_s
        self._ended = False
        self._events: deque[Event] = deque()
        self._more = anyio.Event()

    @property
    def waiting(self) -> bool:
        """Whether the server waits for an answer."""
        return bool(self.questions)

    async def next(self) -> Event:
        """Return the next event, in the order they came. Nothing comes after Ended."""
        while not self._events:
            self._more = anyio.Event()
            await self._more.wait()
        return self._events.popleft()

    def give_up(self) -> None:
        """Cancel it at the server: nobody answers any more."""
        self.scope.cancel()
        for question in self.questions.values():
            question.answered.set()

    def end(self, ended: Ended) -> None:
        """Add the end. A question that the caller has not read yet is taken back: nothing waits for its answer."""
        self._ended = True
        for event in list(self._events):
            if isinstance(event, Question):
                self._events.remove(event)
                event.answered.set()
        self._push(ended)

    async def notify(self, method: str, params: JsonObject) -> None:
        """Add a notification."""
        if len(self._events) < _MOST_QUEUED:
            self._push(Said(method=method, params=params))

    async def ask(self, method: str, params: JsonObject) -> JsonObject:
        """Put a question to the caller and wait for the answer.

        A question that was answered before (in an earlier process, say) is answered the same again.

        Raises:
            MCPError: it is nothing that the caller can answer, or nobody did in time.
        """
        if method not in self.answers or not self.askable:
            raise MCPError(METHOD_NOT_FOUND, f"{method} is not offered to this server")
        if self._ended:
            raise MCPError(INVALID_REQUEST, _TOO_LATE)
        for index, (request, result) in enumerate(self._recorded):
            if _same(request, {"method": method, "params": params}):
                del self._recorded[index]
                return result
        question = Question(method, params)
        self.questions[question.id] = question
        self._push(question)
        try:
            with anyio.move_on_after(self._patience_s):
                await question.answered.wait()
        finally:
            self.questions.pop(question.id, None)
        if question.answer is not None:
            return question.answer
        if method == ELICIT:
            return {"action": "cancel"}
        raise MCPError(INVALID_REQUEST, _TOO_LATE if self._ended else "nobody answered in time")

    def _push(self, event: Event) -> None:
        self._events.append(event)
        self._more.set()


def _same(one: JsonObject, other: JsonObject) -> bool:
    return _essence(one) == _essence(other)


def _essence(request: JsonObject) -> object:
    params = request.get("params")
    shown = params if isinstance(params, dict) else {}
    kept = {key: value for key, value in shown.items() if key not in ("_meta", "elicitationId")}
    return request.get("method"), kept
