"""What an A2A message asks of the hub: whom it is for, and with what. The keys of its metadata are in docs/a2a.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from interhub.adapters import DELEGATION_KEY, DataPart, Message, Principal
from interhub.agent_cards import JsonObject, Kind, empty_object
from interhub.hub.errors import BadRequest
from interhub.hub.supervisor.run import Assignment
from interhub.registry import Agent

PREFIX = "interhub/"
DELEGATE_SKILL = "delegate"
"""The skill of the hub's own card that takes any goal."""

_KNOWN = frozenset({"agent", "skill", "capability", "workflow", "inputs", "members", "question", "declined", "digest"})
_SKILL_ALIASES = ("skillId", "skill_id", "skill")
"""A2A has no field for the skill that is meant; these are what clients write into a message's metadata instead."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a message's metadata says."""

    agent_id: str = ""
    capability: str = ""
    workflow: JsonObject | None = None
    inputs: JsonObject = field(default_factory=empty_object)
    members: tuple[str, ...] = ()
    question_id: str = ""
    digest: str = ""
    mark: str = ""
    """Of the delegation that the message is part of."""
    declined: bool = False


def wishes_of(metadata: JsonObject, *, within: str = "") -> Wishes:
    """Read the metadata of a message; `within` is the agent whose own face it was sent to.

    Raises:
        BadRequest: a key of ours is unknown, of a wrong type, or contradicts another or the face.
    """
    for key in metadata:
        if key.startswith(PREFIX) and key.removeprefix(PREFIX) not in _KNOWN:
            near = get_close_matches(key, [PREFIX + name for name in sorted(_KNOWN)], n=1)
            raise BadRequest(f"metadata {key!r} is not known", f"did you mean {near[0]!r}?" if near else "")
    agent_id = _text(metadata, "agent") or within
    capability = _text(metadata, "capability")
    skill = _text(metadata, "skill") or next(
        (alias for name in _SKILL_ALIASES if isinstance(alias := metadata.get(name), str)), ""
    )
    if within and agent_id != within:
        raise BadRequest(f"this is the address of agent {within!r}", f"send messages for {agent_id!r} to /a2a")
    if skill and not capability:
        if agent_id:
            capability = skill
        elif skill != DELEGATE_SKILL:
            agent_id = skill  # the hub's skills are named for the agents behind them
    workflow = metadata.get(PREFIX + "workflow")
    document: JsonObject | None = None
    if isinstance(workflow, Mapping):
        document = workflow
    elif isinstance(workflow, str) and workflow:
        if agent_id and agent_id != workflow:
            raise BadRequest(f"{PREFIX}agent and {PREFIX}workflow name two agents", "give one of them")
        agent_id = workflow
    elif workflow is not None:
        raise _wrong("workflow", "the id of a registered workflow, or a workflow as an object")
    if document is not None and agent_id:
        raise BadRequest(f"a workflow given in {PREFIX}workflow is not for an agent", "leave the agent out")
    if capability and not agent_id:
        raise BadRequest(f"{PREFIX}capability says nothing without {PREFIX}agent", "name the agent as well")
    return Wishes(
        agent_id=agent_id,
        capability=capability,
        workflow=document,
        inputs=_object(metadata, "inputs"),
        members=_texts(metadata, "members"),
        question_id=_text(metadata, "question"),
        digest=_text(metadata, "digest"),
        mark=_mark(metadata),
        declined=_flag(metadata, "declined"),
    )


def assignment_of(message: Message, wishes: Wishes, *, principal: Principal, agent: Agent | None) -> Assignment:
    """Return what a message without a task begins; `agent` is the one that is wished for."""
    arguments: JsonObject = {}
    if agent is not None and wishes.capability:
        capability = agent.card.capability(wishes.capability)
        if capability is not None and capability.kind is not Kind.SKILL:
            arguments = data_of(message)
    return Assignment(
        principal=principal,
        goal=message,
        agent_id=wishes.agent_id,
        capability=wishes.capability,
        arguments=arguments,
        workflow=wishes.workflow,
        inputs=wishes.inputs or (data_of(message) if wishes.workflow is not None else {}),
        members=wishes.members,
        context_id=message.context_id,
        mark=wishes.mark,
        # Two agents may be sent the same message: what makes it one is the message and whom it was sent to.
        idempotency_key=f"{wishes.agent_id}:{message.message_id}" if wishes.agent_id else message.message_id,
    )


def data_of(message: Message) -> JsonObject:
    """Return the first data part that is an object: a tool's arguments, a workflow's inputs."""
    for part in message.parts:
        if isinstance(part, DataPart) and isinstance(part.data, Mapping):
            return part.data
    return {}


def _mark(metadata: JsonObject) -> str:
    mark = metadata.get(DELEGATION_KEY, "")
    if not isinstance(mark, str):
        raise BadRequest(f"metadata {DELEGATION_KEY!r} must be text", "pass it on as it came")
    return mark


def _text(metadata: JsonObject, name: str) -> str:
    value = metadata.get(PREFIX + name, "")
    if not isinstance(value, str):
        raise _wrong(name, "text")
    return value


def _flag(metadata: JsonObject, name: str) -> bool:
    value = metadata.get(PREFIX + name, False)
    if not isinstance(value, bool):
        raise _wrong(name, "true or false")
    return value


def _object(metadata: JsonObject, name: str) -> JsonObject:
    value = metadata.get(PREFIX + name, {})
    if not isinstance(value, Mapping):
        raise _wrong(name, "an object")
    return value


def _texts(metadata: JsonObject, name: str) -> tuple[str, ...]:
    value = metadata.get(PREFIX + name, ())
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _wrong(name, "a list of texts")
    texts = tuple(each for each in value if isinstance(each, str))
    if len(texts) != len(value):
        raise _wrong(name, "a list of texts")
    return texts


def _wrong(name: str, wanted: str) -> BadRequest:
    return BadRequest(f"metadata {PREFIX + name!r} must be {wanted}")
