"""What a run asks while its events are told: a task works only where none of its questions is open."""

from collections.abc import Awaitable, Callable, Iterable

from interhub.adapters import Principal
from interhub.hub.service import Hub
from interhub.hub.supervisor.run import Event, EventKind, Question, Run, RunState

_CLOSES = frozenset({EventKind.QUESTION_ANSWERED, EventKind.QUESTION_CLOSED})


class OpenQuestions:
    """The questions that are open as far as a run has been told, in the order in which they were asked."""

    def __init__(self, questions: Iterable[Question] = ()) -> None:
        self._open = {question.id: question for question in questions}

    @property
    def first(self) -> Question | None:
        """The one that was asked first; None where the run asks nothing."""
        return next(iter(self._open.values()), None)

    @property
    def state(self) -> RunState:
        """Where the run stands, as far as it goes on."""
        if not self._open:
            return RunState.WORKING
        auth = any(question.auth for question in self._open.values())
        return RunState.AUTH_REQUIRED if auth else RunState.INPUT_REQUIRED

    async def take(self, event: Event, look: Callable[[], Awaitable[Run]]) -> Question | None:
        """Take note of an event, and return the question that it puts to the caller, where it puts one.

        That is the one it asks, unless it is answered by now; or, where it closes one, the first of the others.
        `look` returns the run as it stands.
        """
        if event.kind is EventKind.QUESTION_ASKED:
            asked = next((one for one in (await look()).questions if one.id == _question_of(event)), None)
            if asked is not None:
                self._open[asked.id] = asked
            return asked
        if event.kind in _CLOSES and self._open.pop(_question_of(event), None) is not None and self._open:
            now = await look()
            self._open = {one.id: one for one in now.questions if one.id in self._open}
            return self.first
        return None


async def asked_by(hub: Hub, principal: Principal, run: Run, seq: int) -> OpenQuestions:
    """Return the open questions of a run that had been asked by an event."""
    if not run.questions:
        return OpenQuestions()
    dialogue = await hub.dialogue(principal, run.id, upto=seq)
    told = {_question_of(event) for event in dialogue if event.kind is EventKind.QUESTION_ASKED}
    return OpenQuestions(question for question in run.questions if question.id in told)


def _question_of(event: Event) -> str:
    return str(event.payload.get("question", ""))
