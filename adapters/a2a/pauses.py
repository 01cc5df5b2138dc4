"""Questions that want more than words: kagent's extension for a human in the loop, and ADK's function calls.

Plain A2A pauses a task with a message, and any message answers it. These two take decisions and answers in a form of
their own and leave the task paused for anything else, so their requests become forms here, and answers to the forms
become what they want:

* kagent: https://kagent.dev/extensions/hitl/v1, a message extension (A2A 1.0, section 4.6). Tools to approve, or
  questions, are in the metadata of the status's message; so is the response in the answer's.
* ADK's `to_a2a`: data parts that are its function calls, marked `adk_type`; the answer is a function response.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import orjson

from interhub.adapters.base import InputRequest, Resume
from interhub.adapters.content import DataPart, Message, Part, TextPart, text_of
from interhub.agent_cards import Json, JsonObject

HITL_URI = "https://kagent.dev/extensions/hitl/v1"
"""kagent's extension."""

_ADK_TYPE, _ADK_LASTING = "adk_type", "adk_is_long_running"
_ADK_CONFIRMATION, _ADK_CREDENTIAL = "adk_request_confirmation", "adk_request_credential"
_YES = frozenset({"yes", "y", "ok", "approve", "approved", "accept", "accepted", "confirm", "confirmed"})


class Dialect(StrEnum):
    """How an answer is written."""

    KAGENT_APPROVAL = "kagent_approval"
    KAGENT_QUESTIONS = "kagent_questions"
    ADK = "adk"


class Want(StrEnum):
    """What one thing that is asked wants to hear."""

    DECISION = "decision"
    WORDS = "words"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One thing that is asked."""

    id: str
    """The agent's own, given back as it is."""
    key: str
    """Names it among the others, for people."""
    want: Want
    name: str = ""
    """The function that is called; of ADK only."""
    question: str = ""
    choices: tuple[str, ...] = ()
    multiple: bool = False

    @property
    def request(self) -> InputRequest:
        """The form of it."""
        if self.want is Want.DECISION:
            properties: dict[str, Json] = {
                "approved": {"type": "boolean", "title": "Approve"},
                "reason": {"type": "string", "title": "Why not"},
            }
            required = "approved"
        else:
            properties = {"answer": self._answer_schema()}
            required = "answer"
        schema: JsonObject = {"type": "object", "properties": properties, "required": [required]}
        return InputRequest(key=self.key, question=(TextPart(text=self.question),), schema=schema)

    def _answer_schema(self) -> JsonObject:
        if self.multiple and self.choices:
            return {"type": "array", "title": self.key, "items": {"type": "string", "enum": list(self.choices)}}
        # Not an enumeration: the extension lets people answer in words of their own.
        described = f"One of: {', '.join(self.choices)}; or your own words" if self.choices else ""
        schema: dict[str, Json] = {"type": "string", "title": self.key}
        return {**schema, "description": described} if described else schema


@dataclass(frozen=True, kw_only=True)
class Pause:
    """What a task waits for."""

    dialect: Dialect
    asked: tuple[Asked, ...]
    request_id: str = ""
    """Of kagent's questions: names them all."""
    said: tuple[Part, ...] = field(default=(), compare=False)
    """What the agent said for people to read."""

    @property
    def requests(self) -> list[InputRequest]:
        """A form for each thing that is asked; there is one at least."""
        return [one.request for one in self.asked]

    def to_json(self) -> JsonObject:
        """Write what the answer needs."""
        asked: list[Json] = [
            {"id": one.id, "key": one.key, "want": one.want.value, "name": one.name} for one in self.asked
        ]
        return {"dialect": self.dialect.value, "requestId": self.request_id, "asked": asked}

    @classmethod
    def from_json(cls, shaped: JsonObject) -> "Pause":
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        asked = shaped["asked"]
        if not isinstance(asked, Sequence) or isinstance(asked, str):
            raise ValueError("asked is a list")
        return cls(
            dialect=Dialect(str(shaped["dialect"])),
            request_id=str(shaped["requestId"]),
            asked=tuple(
                Asked(id=str(one["id"]), key=str(one["key"]), want=Want(str(one["want"])), name=str(one["name"]))
                for one in asked
                if isinstance(one, Mapping)
            ),
        )

    def answer(self, resume: Resume) -> "Answer":
        """Write what a person answered in the agent's own form. What is not plainly approved is rejected."""
        given = [self._given(one, resume) for one in self.asked]
        said = ", ".join(f"{one.key}: {_in_words(one, value)}" for one, value in zip(self.asked, given, strict=True))
        if self.dialect is Dialect.ADK:
            responses = [_adk_response(one, value) for one, value in zip(self.asked, given, strict=True)]
            return Answer(parts=tuple(responses))
        if self.dialect is Dialect.KAGENT_APPROVAL:
            approvals: list[Json] = [_approval(one, value) for one, value in zip(self.asked, given, strict=True)]
            payload: JsonObject = {"type": "tool_approval_response", "approvals": approvals}
        else:
            answers: list[Json] = [{"answer": _answers(value)} for value in given]
            payload = {"type": "ask_user_response", "id": self.request_id, "answers": answers}
        return Answer(parts=(TextPart(text=said),), metadata={HITL_URI: payload}, extensions=(HITL_URI,))

    def _given(self, one: Asked, resume: Resume) -> Json:
        """Return the answer to one thing: what its form holds, or words; None where there is none."""
        words = text_of(resume.answer)
        if not resume.accepted:
            return {"approved": False, "reason": words} if one.want is Want.DECISION else None
        data = next((part.data for part in resume.answer if isinstance(part, DataPart)), None)
        if data is None:
            if one.want is Want.DECISION and len(self.asked) > 1:
                return {"approved": False, "reason": words}  # one word cannot stand for several decisions
            return words or None
        if len(self.asked) > 1:
            return data.get(one.key) if isinstance(data, Mapping) else None
        return data


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer as the agent wants it, for the message that carries it."""

    parts: tuple[Part, ...]
    metadata: JsonObject = field(default_factory=dict[str, Json])
    extensions: tuple[str, ...] = ()


def read_pause(message: Message | None) -> Pause | None:
    """Return what the message of a paused task asks in one of the forms that we know; None for plain words."""
    if message is None:
        return None
    payload = message.metadata.get(HITL_URI)
    if HITL_URI in message.extensions and isinstance(payload, Mapping):
        return _kagent(payload, message)
    return _adk(message)


def _kagent(payload: JsonObject, message: Message) -> Pause | None:
    nested = payload.get("nested")
    tools = _tools(nested if isinstance(nested, Mapping) else payload)
    who = nested.get("subagent_name") if isinstance(nested, Mapping) else None
    asker = f"{who}: " if isinstance(who, str) and who else ""
    if payload.get("type") == "tool_approval_request" and tools:
        hint = payload.get("hint")
        before = f"{hint}\n" if isinstance(hint, str) and hint else ""
        names = _distinct([name for _, name, _ in tools])
        asked = [
            Asked(id=id, key=key, want=Want.DECISION, question=f"{asker}{before if not n else ''}{_may(name, args)}")
            for n, ((id, name, args), key) in enumerate(zip(tools, names, strict=True))
        ]
        return Pause(dialect=Dialect.KAGENT_APPROVAL, asked=tuple(asked), said=message.parts)
    request_id = tools[0][0] if isinstance(nested, Mapping) and tools else payload.get("id")
    questions = payload.get("questions")
    if payload.get("type") != "ask_user_request" or not isinstance(request_id, str) or not isinstance(questions, list):
        return None
    questioned: list[Asked] = []
    for number, question in enumerate(questions, 1):
        shaped = _object(question)
        choices = shaped.get("choices")
        offered = tuple(str(each) for each in choices) if isinstance(choices, list) else ()
        words = f"{asker}{shaped.get('question') or ''}" + (f" ({', '.join(offered)})" if offered else "")
        questioned.append(
            Asked(
                id=request_id,
                key=f"question-{number}",
                want=Want.WORDS,
                question=words,
                choices=offered,
                multiple=shaped.get("multiple") is True,
            )
        )
    if not questioned:
        return None
    return Pause(dialect=Dialect.KAGENT_QUESTIONS, asked=tuple(questioned), request_id=request_id, said=message.parts)


def _tools(holder: JsonObject) -> list[tuple[str, str, Json]]:
    shaped = holder.get("tools")
    return [
        (str(tool["id"]), str(tool.get("name") or "a tool"), tool.get("args"))
        for tool in (shaped if isinstance(shaped, list) else [])
        if isinstance(tool, Mapping) and isinstance(tool.get("id"), str) and tool["id"]
    ]


def _adk(message: Message) -> Pause | None:
    calls: list[tuple[str, str, JsonObject]] = []
    for part in message.parts:
        if not isinstance(part, DataPart) or part.metadata.get(_ADK_TYPE) != "function_call":
            continue
        data = _object(part.data)
        id, name, args = data.get("id"), data.get("name"), data.get("args")
        if part.metadata.get(_ADK_LASTING) is not True or not isinstance(id, str) or not isinstance(name, str):
            continue
        if name == _ADK_CREDENTIAL:
            return None  # it wants an OAuth exchange; the person is told to authenticate
        calls.append((id, name, _object(args)))
    if not calls:
        return None
    asked: list[Asked] = []
    shown = [_original(args) if name == _ADK_CONFIRMATION else (name, args) for _, name, args in calls]
    for (id, name, args), (tool, given), key in zip(calls, shown, _distinct([tool for tool, _ in shown]), strict=True):
        if name == _ADK_CONFIRMATION:
            confirmation = args.get("toolConfirmation")
            hint = confirmation.get("hint") if isinstance(confirmation, Mapping) else None
            words = (f"{hint}\n" if isinstance(hint, str) and hint else "") + _may(tool, given)
            asked.append(Asked(id=id, key=key, want=Want.DECISION, name=name, question=words))
        else:
            words = f"What is the result of {tool}({_written(given)})?"
            asked.append(Asked(id=id, key=key, want=Want.WORDS, name=name, question=words))
    said = tuple(part for part in message.parts if isinstance(part, TextPart))
    return Pause(dialect=Dialect.ADK, asked=tuple(asked), said=said)


def _object(value: Json) -> JsonObject:
    return value if isinstance(value, Mapping) else {}


def _original(args: JsonObject) -> tuple[str, Json]:
    call = args.get("originalFunctionCall")
    if not isinstance(call, Mapping):
        return "a tool", {}
    return str(call.get("name") or "a tool"), call.get("args")


def _adk_response(one: Asked, value: Json) -> DataPart:
    if one.want is Want.DECISION:
        approved, reason = _decision(value)
        response: dict[str, Json] = {"confirmed": approved}
        if reason:
            response["payload"] = {"reason": reason}
    else:
        response = {"result": value.get("answer", value) if isinstance(value, Mapping) else value}
    data: JsonObject = {"id": one.id, "name": one.name, "response": response}
    return DataPart(data=data, metadata={_ADK_TYPE: "function_response"})


def _approval(one: Asked, value: Json) -> JsonObject:
    approved, reason = _decision(value)
    decided: dict[str, Json] = {"id": one.id, "approved": approved}
    return {**decided, "rejection_reason": reason} if reason and not approved else decided


def _decision(value: Json) -> tuple[bool, str]:
    if isinstance(value, Mapping):
        reason = value.get("reason")
        return value.get("approved") is True, reason if isinstance(reason, str) else ""
    if isinstance(value, str):
        approved = value.strip().rstrip(".!").lower() in _YES
        return approved, "" if approved else value.strip()
    return value is True, ""


def _answers(value: Json) -> list[Json]:
    if isinstance(value, Mapping):
        value = value.get("answer")
    if value is None:
        return []
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _in_words(one: Asked, value: Json) -> str:
    if one.want is Want.DECISION:
        approved, reason = _decision(value)
        return "approved" if approved else "rejected" + (f" ({reason})" if reason else "")
    return "; ".join(map(str, _answers(value))) or "(declined)"


def _may(name: str, args: Json) -> str:
    return f"May it call {name}({_written(args)})?"


def _written(args: Json) -> str:
    if not args:
        return ""
    if isinstance(args, Mapping):
        return ", ".join(f"{name}={orjson.dumps(value).decode()}" for name, value in args.items())
    return orjson.dumps(args).decode()


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names, each but the first of the same with a number."""
    seen: dict[str, int] = {}
    distinct: list[str] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return distinct
