"""One step as it is handed to an agent: what is to be done, for whom, and the digest that binds an approval to it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import orjson

from interhub.adapters import Budget, Call, DataPart, Lineage, Message, Part, Principal, Resume, text_of
from interhub.adapters.content import part_to_json
from interhub.agent_cards import Json, JsonObject
from interhub.registry import Agent

from .model import Retry


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one step is to have done."""

    run_id: str
    """The root run, in whose journal it is told."""
    step: str
    """Path from the root run on."""
    key: str
    """The call's idempotency key, the same on every attempt."""
    principal: Principal
    agent_id: str = ""
    need: str = ""
    """In the place of an agent: whoever can do this."""
    capability: str = ""
    parts: tuple[Part, ...] = ()
    """What is said to the agent."""
    arguments: JsonObject | None = None
    """Arguments given outright."""
    message: Message | None = None
    """The goal as it came, where it is handed on whole."""
    members: tuple[str, ...] = ()
    trail: tuple[str, ...] = ()
    budget: Budget
    lineage: Lineage = field(default_factory=Lineage)
    """Where the run stands in the tree of a delegation; empty for one that begins it."""
    context_id: str = ""
    new_context: bool = False
    """The run begins the context."""
    timeout_s: float | None = None
    retry: Retry = field(default_factory=Retry)
    output_schema: JsonObject | None = None
    """What its answer must fit."""
    first_attempt: int = 1
    resume: Resume | None = None
    approved: str = ""
    """Digest of the call that a person approved."""
    why: str = ""

    @property
    def text(self) -> str:
        """What is said, in words."""
        return text_of(self.parts)

    @property
    def data(self) -> Json:
        """What is said, as data."""
        return next((part.data for part in self.parts if isinstance(part, DataPart)), None)


def call_digest(order: Order, agent: Agent, call: Call) -> str:
    """Return the digest that binds an answer to the exact call: agent, capability, arguments, message, run and asker.

    The agent is the one that the registry has now: another one under the same id is another.
    """
    return _digest(
        {
            "run": order.run_id,
            "step": order.step,
            "asker": order.principal.key,
            "trail": list(order.trail),
            "agent": agent.id,
            "card": agent.digest,
            "capability": call.capability,
            "arguments": dict(call.arguments),
            "parts": [part_to_json(part) for part in order.parts],
        }
    )


def direct_digest(agent: Agent, call: Call) -> str:
    """Return the digest that binds an answer to a call outside of any run: agent, capability, arguments and caller."""
    message = call.message
    return _digest(
        {
            "asker": call.principal.key,
            "agent": agent.id,
            "card": agent.digest,
            "capability": call.capability,
            "kind": call.kind.value,
            "arguments": dict(call.arguments),
            "parts": [part_to_json(part) for part in message.parts] if message is not None else None,
        }
    )


def question_digest(run_id: str, step: str, asker: str, parts: Sequence[Part], principal: Principal) -> str:
    """Return the digest of what a step of a plan asks by itself."""
    said: list[Json] = [part_to_json(part) for part in parts]
    return _digest({"run": run_id, "step": step, "asker": principal.key, "agent": asker, "parts": said})


def _digest(bound: dict[str, Json]) -> str:
    return f"sha256:{sha256(orjson.dumps(bound, option=orjson.OPT_SORT_KEYS)).hexdigest()}"
