"""One call to an A2A agent, from the first message to its outcome.

A task is followed by whatever the agent offers: its stream, a subscription when that breaks off, and asking for the
task when there is neither. Whatever was missed on the way is fetched at the end, so that no result is lost.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import anyio
import structlog

from interhub.adapters.base import Call, Completed, InputRequired, Outcome, Report
from interhub.adapters.content import DataPart, Part, TextPart, text_of
from interhub.adapters.errors import (
    AdapterError,
    AnswerTooLarge,
    ProtocolViolation,
    RemoteCanceled,
    RemoteRefused,
    RemoteRejected,
    RemoteUnavailable,
)
from interhub.agent_cards import JsonObject

from .events import Event, TaskSnapshot, TaskState
from .message import Question, message_id, write_message
from .pauses import Pause, read_pause
from .peer import Peer
from .task import TaskView, question_mark
from .tolerance import Leniency
from .wire import Fault

_log = structlog.get_logger(__name__)

_NOT_OFFERED = frozenset({"UNSUPPORTED_OPERATION", "METHOD_NOT_FOUND"})


class Delivery(StrEnum):
    """How the outcome of a message is waited for."""

    STREAM = "stream"
    """By the stream of its events."""
    POLL = "poll"
    """The agent answers with a task at once, which is asked for until it ends: its id is known from the start, so that
    the task can be stopped, and found again after a crash."""
    BLOCK = "block"
    """The agent answers when it is done. For agents that forget a task once they have answered."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long we wait for what."""

    poll_first_s: float = 0.05
    """First pause between two askings for a task; each is 1.6 times the one before."""
    poll_max_s: float = 5.0
    quiet_first_s: float = 3.0
    """A stream without news for this long is checked by asking for the task: connections die unnoticed, and servers
    lose events (the A2A SDK's those of a turn that begins while the one before ends). Each time nothing is new it is
    twice as long, at most `quiet_s`."""
    quiet_answer_s: float = 0.4
    """The same for an answer to what a task asked, whose events the A2A SDK now and then loses. Only an end counts
    then: a question that is still there may be the one that was answered."""
    quiet_s: float = 30.0
    reattach_attempts: int = 4
    """How often in a row the agent may be out of reach, once it has our task, before the call fails."""
    cancel_s: float = 2.0
    """What telling the agent to stop may take."""


class Exchange:
    """One call under way."""

    def __init__(
        self,
        client: Peer,
        call: Call,
        report: Report,
        *,
        where: str,
        context_id: str,
        delivery: Delivery,
        may_subscribe: bool,
        patience: Patience,
        max_artifact_bytes: int,
    ) -> None:
        """`context_id` is the agent's own, empty when the conversation is new to it."""
        self._client = client
        self._call = call
        self._report = report
        self._where = where
        self._delivery = delivery
        self._may_subscribe = may_subscribe
        self._patience = patience
        self._headers = dict(call.trace)
        self._asked = None if call.resume is None else Question.from_json(call.resume.state, where)
        self._turn = 0 if self._asked is None else self._asked.turn
        self._last_news = time.monotonic()
        self._unnamed = anyio.CancelScope()
        """Holds a cancellation off until the agent has named its task."""
        self.view = TaskView(
            where, max_bytes=max_artifact_bytes, answered="" if self._asked is None else self._asked.mark
        )
        self.view.context_id = context_id if self._asked is None else self._asked.context_id

    async def run(self) -> Outcome:
        """See the call through.

        Raises:
            Fault: the agent answered a message with an error of the protocol.
            AdapterError: anything else that went wrong.
        """
        if not (self._call.remote_task and await self._found_again(self._call.remote_task)):
            await self._send()
        await self._follow()
        await self._complete()
        return self._outcome()

    async def stop(self) -> None:
        """Tell the agent to stop, where it has a task of ours that runs, or one that an answer was sent to."""
        task_id = self._named or self._call.remote_task
        if not task_id or self.view.settled:
            return
        try:
            await self._client.cancel_task(task_id, headers=self._headers)
        except (Fault, AdapterError) as error:
            _log.warning("a2a_cancel_failed", agent=self._where, task=task_id, error=str(error))

    @property
    def _named(self) -> str:
        """The task's id; of one that is answered it is known before the agent names it."""
        return self.view.task_id or ("" if self._asked is None else self._asked.task_id)

    async def _found_again(self, task_id: str) -> bool:
        """Whether the agent has the task of an earlier attempt, and has taken what we have to say."""
        try:
            snapshot = await self._client.get_task(task_id, headers=self._headers)
        except Fault as fault:
            if fault.reason != "TASK_NOT_FOUND":
                raise
            if self._asked is not None:
                raise RemoteRefused(self._where, f"it no longer knows the task {task_id} that asked") from fault
            return False
        if self._asked is not None and not self._took_answer(snapshot, self._asked):
            return False
        await self._take(snapshot)
        return True

    def _took_answer(self, snapshot: TaskSnapshot, asked: Question) -> bool:
        if any(message.message_id == message_id(self._call, self._turn) for message in snapshot.history):
            return True
        return not (snapshot.status.state.interrupted and question_mark(snapshot.status) == asked.mark)

    async def _send(self) -> None:
        message = write_message(self._call, asked=self._asked, context_id=self.view.context_id, where=self._where)
        if self._delivery is Delivery.STREAM:
            try:
                await self._watch(lambda: self._client.stream(message, self._take, headers=self._headers))
            except Fault as fault:
                if self.view.task_id:
                    # The agent's own failure, told as an error in mid-stream: the task says what became of it.
                    self.view.whole = False
                    self._may_subscribe = False
                    if not await self._found_again_after(fault):
                        raise
                    return
                if fault.reason not in _NOT_OFFERED:
                    raise
                # Usually nothing was executed. An answer may have been: its task tells.
                if self._asked is not None and await self._found_again(self._asked.task_id):
                    return
                self._delivery, self._may_subscribe = Delivery.POLL, False
            except (AnswerTooLarge, RemoteRefused):
                raise
            except (RemoteUnavailable, ProtocolViolation) as error:
                if not self.view.task_id:
                    raise
                self.view.whole = False
                _log.info("a2a_stream_broke_off", agent=self._where, task=self.view.task_id, error=str(error))
            if self._delivery is Delivery.STREAM:
                if not self.view.task_id and self.view.answer is None:
                    raise RemoteUnavailable(self._where, "its stream ended before it named a task or answered")
                return

        async def send() -> None:
            immediately = self._delivery is Delivery.POLL
            await self._take(await self._client.send(message, return_immediately=immediately, headers=self._headers))

        if self._delivery is Delivery.POLL:
            await self._watch(send)
        else:
            await send()

    async def _found_again_after(self, fault: Fault) -> bool:
        try:
            await self._take(await self._client.get_task(self.view.task_id, headers=self._headers))
        except (Fault, AdapterError) as error:
            _log.info("a2a_task_lost", agent=self._where, task=self.view.task_id, fault=str(fault), error=str(error))
            return False
        # A failed task that does not say why: the error of the stream says more.
        return self.view.settled and (self.view.status.state is not TaskState.FAILED or bool(self.view.words()))

    async def _follow(self) -> None:
        """Wait until the task settles."""
        pause_s = self._patience.poll_first_s
        failures = 0
        while not self.view.settled:
            try:
                if self._may_subscribe:
                    await self._subscribe()
                    if self.view.settled:
                        return
                await self._take(await self._client.get_task(self.view.task_id, headers=self._headers))
                failures = 0
            except Fault as fault:
                if fault.reason == "TASK_NOT_FOUND":
                    # It took the task and lost it (a restart): the next attempt sends the message again.
                    why = f"it no longer knows the task {self.view.task_id}"
                    raise RemoteUnavailable(self._where, why) from fault
                why = f"the task {self.view.task_id} was begun and cannot be followed: {fault.message}"
                raise RemoteRefused(self._where, why, code=fault.code) from fault
            except RemoteUnavailable:
                failures += 1
                if failures >= self._patience.reattach_attempts:
                    raise
            if not self.view.settled:
                await anyio.sleep(pause_s)
                pause_s = min(pause_s * 1.6, self._patience.poll_max_s)

    async def _subscribe(self) -> None:
        self.view.whole = False  # until the snapshot comes that 1.0 begins with, and 0.3 does not
        try:
            await self._watch(lambda: self._client.subscribe(self.view.task_id, self._take, headers=self._headers))
        except Fault as fault:
            # Unsupported is also what a task that has ended meanwhile is answered with (A2A 1.0, section 3.1.6).
            _log.debug("a2a_not_subscribed", agent=self._where, task=self.view.task_id, reason=fault.reason)
            self._may_subscribe = False
        except AnswerTooLarge:
            raise
        except ProtocolViolation as error:
            _log.info("a2a_stream_broke_off", agent=self._where, task=self.view.task_id, error=str(error))
            self._may_subscribe = False

    async def _watch(self, stream: Callable[[], Awaitable[None]]) -> None:
        """Read a stream, and look after the task whenever it has been quiet for long: connections die unnoticed."""
        failure: Exception | None = None
        self._unnamed = anyio.CancelScope(shield=not self._named)
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                nonlocal failure
                try:
                    with self._unnamed:
                        await stream()
                except Exception as error:  # carried out of the group as it is, not in an ExceptionGroup
                    failure = error
                tasks.cancel_scope.cancel()

            tasks.start_soon(read)
            try:
                await self._until_settled_unseen()
            except anyio.get_cancelled_exc_class():
                # What the agent has begun can be stopped only by its name: we wait a moment for that.
                self._unnamed.deadline = anyio.current_time() + self._patience.cancel_s / 2
                raise
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _until_settled_unseen(self) -> None:
        out_of_reach = 0
        patience = self._patience
        first_s = min(patience.quiet_first_s if self._asked is None else patience.quiet_answer_s, patience.quiet_s)
        quiet_s, began = first_s, time.monotonic()
        asked_at = seen = self._last_news = time.monotonic()
        while out_of_reach < 2:
            await anyio.sleep(max(quiet_s / 10, asked_at + quiet_s - time.monotonic()))
            if seen != self._last_news:
                seen = asked_at = self._last_news
                quiet_s = first_s
            task_id = self._named
            if not task_id or time.monotonic() < asked_at + quiet_s:
                continue
            asked_at, patient = time.monotonic(), quiet_s >= patience.quiet_s
            quiet_s = min(quiet_s * 2, patience.quiet_s)
            try:
                snapshot = await self._client.get_task(task_id, headers=self._headers)
            except RemoteUnavailable:
                out_of_reach += patient  # a stream that is only slow is worth more than an answer in between
                continue
            except (Fault, AdapterError):
                continue  # the stream is all there is
            out_of_reach = 0
            early = self._asked is not None and asked_at < began + min(patience.quiet_first_s, patience.quiet_s)
            counts = snapshot.status.state.terminal if early else snapshot.status.state.settled
            if counts and await self._take(snapshot):
                return
            self._last_news = seen  # what we found by asking is no news of the stream
        self.view.whole = False

    async def _take(self, event: Event | None) -> bool:
        self._last_news = time.monotonic()
        if event is None:
            self.view.whole = False
            return False
        known = self.view.whole
        self._unnamed.shield = False
        for update in self.view.take(event):
            await self._report(update)
        if known and not self.view.whole:
            self._client.reader.note(Leniency.GAP)
        return self.view.settled

    async def _complete(self) -> None:
        """Fetch the whole task at its end, where something of it may have passed us by."""
        view = self.view
        if view.answer is not None:
            return
        silent = view.status.state is TaskState.COMPLETED and not view.artifacts and not view.words()
        if view.whole and (view.told_whole or not silent or view.last_words()):
            return
        try:
            await self._take(await self._client.get_task(view.task_id, headers=self._headers))
        except (Fault, AdapterError) as error:
            if isinstance(error, AnswerTooLarge):
                raise
            if not view.whole:
                why = f"its stream broke off and the task can no longer be read: {error}"
                raise RemoteUnavailable(self._where, why) from error
        if silent and (view.artifacts or view.words()):
            self._client.reader.note(Leniency.UNTOLD_RESULT)

    def _outcome(self) -> Outcome:
        view = self.view
        if view.answer is not None:
            return Completed(
                parts=view.answer.parts,
                usage=view.usage.total(),
                as_message=True,
                remote_context=view.context_id,
                raw=view.to_json(),
            )
        words, state = view.words(), view.status.state
        if state is TaskState.COMPLETED:
            if not words and not view.artifacts:
                words = view.last_words()
                if words:
                    self._client.reader.note(Leniency.ANSWER_IN_HISTORY)
            return Completed(
                parts=words,
                artifacts=view.artifacts,
                usage=view.usage.total(),
                remote_context=view.context_id,
                raw=view.to_json(),
            )
        if state.interrupted:
            pause = read_pause(view.status.message)
            asked = Question(
                task_id=view.task_id,
                context_id=view.context_id,
                turn=self._turn + 1,
                mark=question_mark(view.status),
                pause=pause,
            )
            if pause is not None:
                return _in_forms(pause, asked, raw=view.to_json())
            if not words and view.artifacts:
                words = _as_question(view.artifacts[-1].parts)
                self._client.reader.note(Leniency.QUESTION_IN_ARTIFACT)
            return InputRequired(
                question=words or (TextPart(text="The agent needs an answer, and does not say to what."),),
                state=asked.to_json(),
                auth=state is TaskState.AUTH_REQUIRED,
                raw=view.to_json(),
            )
        why = text_of(words) or f"the task {view.task_id} {_ENDED.get(state, 'failed')}, without a word"
        if state is TaskState.CANCELED:
            raise RemoteCanceled(self._where, why, words)
        if state is TaskState.REJECTED:
            raise RemoteRejected(self._where, why, words)
        raise RemoteRefused(self._where, why, words)


def _as_question(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return what a LangGraph interrupt asks: its value, out of `{"id": ..., "value": ...}`."""
    asked: list[Part] = []
    for part in parts:
        value = part.data.get("value") if isinstance(part, DataPart) and isinstance(part.data, Mapping) else None
        if value is None:
            asked.append(part)
        else:
            asked.append(TextPart(text=value) if isinstance(value, str) else DataPart(data=value))
    return tuple(asked)


def _in_forms(pause: Pause, asked: Question, *, raw: JsonObject) -> InputRequired:
    only, *others = pause.requests
    if others:
        return InputRequired.several([only, *others], state=asked.to_json(), raw=raw)
    return InputRequired(question=(*pause.said, *only.question), schema=only.schema, state=asked.to_json(), raw=raw)


_ENDED = {
    TaskState.FAILED: "failed",
    TaskState.REJECTED: "was rejected",
    TaskState.CANCELED: "was canceled",
}
