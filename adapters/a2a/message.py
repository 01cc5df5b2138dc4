"""What we say to an A2A agent: the message of a call, the same on every attempt, and the answer to its question."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import UUID, uuid5

from interhub.adapters.base import DELEGATION_KEY, Call, Resume
from interhub.adapters.content import DataPart, Message, Part, Role, TextPart
from interhub.adapters.errors import RemoteRefused
from interhub.agent_cards import Json, JsonObject

from .pauses import Pause

SKILL_KEY = "interhub.dev/skill"
"""Message metadata: id of the skill that is wanted. A2A itself lets a message name none."""
IDEMPOTENCY_KEY = "interhub.dev/idempotencyKey"
"""Message metadata: the call's idempotency key. The message id is made from it."""
MESSAGE_KEY = "interhub.dev/messageId"
"""Message metadata: the id of the message that the hub's own caller sent, where there was one."""
BUDGET_KEY = "interhub.dev/budget"
"""Message metadata: what is left for the whole tree: `{depth, calls?, tokens?, costUsd?, fanOut?, until?}`."""
DECLINED_KEY = "interhub.dev/declined"
"""Message metadata of an answer: true when the person declined to answer."""

_MESSAGE_IDS = UUID("6f2f9b1e-6d1c-5b0e-9a52-4f6d0c1f7a11")


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is needed to answer an InputRequired, in this or another process."""

    task_id: str
    context_id: str
    turn: int
    """How many messages this call has sent."""
    mark: str
    """Tells this question from a later one of the same task."""
    pause: Pause | None = None
    """What was asked, where the answer has a form of its own."""

    def to_json(self) -> JsonObject:
        """Write the state blob."""
        shaped: dict[str, Json] = {
            "taskId": self.task_id,
            "contextId": self.context_id,
            "turn": self.turn,
            "mark": self.mark,
        }
        return shaped if self.pause is None else {**shaped, "pause": self.pause.to_json()}

    @classmethod
    def from_json(cls, state: Json, where: str) -> "Question":
        """Read the state blob.

        Raises:
            RemoteRefused: it is none of ours.
        """
        if isinstance(state, Mapping):
            task_id, context_id = state.get("taskId"), state.get("contextId")
            turn, mark = state.get("turn"), state.get("mark")
            if isinstance(task_id, str) and task_id and isinstance(turn, int):
                return cls(
                    task_id=task_id,
                    context_id=str(context_id or ""),
                    turn=turn,
                    mark=str(mark or ""),
                    pause=_pause(state.get("pause"), where),
                )
        raise RemoteRefused(where, "the answer belongs to no question of this agent (its state is not one of A2A)")


def _pause(shaped: Json, where: str) -> Pause | None:
    if not isinstance(shaped, Mapping):
        return None
    try:
        return Pause.from_json(shaped)
    except (KeyError, TypeError, ValueError) as error:
        raise RemoteRefused(where, "the answer belongs to no question of this agent (its pause is none)") from error


def message_id(call: Call, turn: int) -> str:
    """Return the id of a call's message: the same on every attempt, another one for each answer to a question."""
    return str(uuid5(_MESSAGE_IDS, f"{call.idempotency_key}#{turn}"))


def write_message(call: Call, *, asked: Question | None, context_id: str, where: str) -> Message:
    """Write the message of a call, or its answer to what the agent `asked`.

    The caller's own message wins over arguments; its ids are the caller's, and do not become the message's own.

    Raises:
        RemoteRefused: there is nothing in it.
    """
    written = call.message or Message(role=Role.USER, parts=_argument_parts(call.arguments))
    parts, metadata, extensions = written.parts, {**call.meta, **written.metadata}, written.extensions
    if call.resume is not None and asked is not None and asked.pause is not None:
        answer = asked.pause.answer(call.resume)
        parts, extensions = answer.parts, (*extensions, *(each for each in answer.extensions if each not in extensions))
        metadata |= answer.metadata
    elif call.resume is not None:
        parts = _answer_parts(call.resume)
        if not call.resume.accepted:
            metadata[DECLINED_KEY] = True
    if not parts:
        raise RemoteRefused(where, "a message needs something in it: give `message` or `data`")
    said_in = call.resume.message_id if call.resume is not None else written.message_id
    metadata.pop(MESSAGE_KEY, None)
    if said_in and said_in != call.idempotency_key:
        metadata[MESSAGE_KEY] = said_in
    if call.capability:
        metadata[SKILL_KEY] = call.capability
    metadata[IDEMPOTENCY_KEY] = call.idempotency_key
    metadata.pop(DELEGATION_KEY, None)
    if call.mark:
        metadata[DELEGATION_KEY] = call.mark
    budget: dict[str, Json] = {
        "depth": call.budget.depth,
        "calls": call.budget.calls,
        "tokens": call.budget.tokens,
        "costUsd": call.budget.cost_usd,
        "fanOut": call.budget.fan_out,
        "until": call.budget.until,
    }
    metadata[BUDGET_KEY] = {name: left for name, left in budget.items() if left is not None}
    return replace(
        written,
        role=Role.USER,
        parts=parts,
        message_id=message_id(call, 0 if asked is None else asked.turn),
        context_id=context_id,
        task_id="" if asked is None else asked.task_id,
        metadata=metadata,
        extensions=extensions,
        reference_task_ids=(),
    )


def _argument_parts(arguments: JsonObject) -> tuple[Part, ...]:
    """`message` is text, `data` is data; a skill with a schema of its own gets its arguments as data."""
    if not arguments.keys() & {"message", "data"}:
        return (DataPart(data=arguments),) if arguments else ()
    parts: list[Part] = []
    message = arguments.get("message")
    if message is not None and message != "":
        parts.append(TextPart(text=message) if isinstance(message, str) else DataPart(data=message))
    if arguments.get("data") is not None:
        parts.append(DataPart(data=arguments["data"]))
    rest = {name: value for name, value in arguments.items() if name not in ("message", "data")}
    if rest:
        parts.append(DataPart(data=rest))
    return tuple(parts)


def _answer_parts(resume: Resume) -> tuple[Part, ...]:
    if resume.accepted:
        return resume.answer or (TextPart(text="(no text)"),)
    return resume.answer or (TextPart(text="The person declined to answer."),)
