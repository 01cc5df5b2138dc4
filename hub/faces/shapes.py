"""The JSON of our own nouns, as REST, the command line and the console have it; `docs/rest.md` shows it.

Names are in snake_case and dates are RFC 3339 in UTC. Messages, parts and artifacts keep A2A's shape (A2A 1.0,
section 4.1), which is in camelCase. What is empty is written all the same, so that a reader need not guess.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from urllib.parse import urlsplit

from interhub.adapters import Completed, InputRequired, Outcome, Part, Usage
from interhub.adapters.content import artifact_to_json, message_to_json, part_to_json
from interhub.adapters.pool import ConnectionState
from interhub.agent_cards import AgentCard, Capability, Endpoint, Json, JsonObject, findings, hidden_in
from interhub.hub.push.config import PushConfig
from interhub.hub.supervisor.run import Approval, Event, Question, Run, RunError, StepView
from interhub.registry import Agent, Health
from interhub.registry.search import Match

Shape: TypeAlias = dict[str, Json]

_EXPANDED = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_SECRET = re.compile(r"key|token|secret|passw|pwd|auth(?!or(?!i))|credential|cookie|signature", re.IGNORECASE)
_SETTING = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)(?P<sign>=|: ?)(?P<value>.+)", re.DOTALL)
_TOKEN_URL = re.compile(r"@https?://[^@\s]+$")
HIDDEN = "(hidden)"
"""Stands for what may be a secret."""


def instant(at: datetime | None) -> str | None:
    """Write a date as RFC 3339 in UTC, to the microsecond, with `Z`."""
    if at is None:
        return None
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def agent_shape(
    agent: Agent, *, capabilities: bool = True, connections: Sequence[ConnectionState] | None = None
) -> Shape:
    """Write an agent; without `capabilities` only their number, for lists. `connections` are this process's to it."""
    card = agent.card
    shaped: Shape = {
        "id": agent.id,
        "tenant": agent.tenant,
        "adapter": agent.adapter,
        "name": card.name,
        "description": card.description,
        "version": card.version,
        "provider": card.provider,
        "endpoint": endpoint_shape(agent.endpoint),
        "health": health_shape(agent.health),
        "digest": agent.digest,
        "signature": {
            "state": card.signature.state.value,
            "key_id": card.signature.key_id,
            "key_source": card.signature.key_source,
            "whole": card.signature.whole,
            "why": card.signature.why,
        },
        "capability_count": len(card.capabilities),
        "created_at": instant(agent.created_at),
        "updated_at": instant(agent.updated_at),
    }
    if capabilities:
        shaped["capabilities"] = [capability_shape(capability) for capability in card.capabilities]
        shaped["card"] = _card_shape(card)
        shaped["warnings"] = [*(str(finding) for finding in findings(card)), *_elsewhere(agent)]
    if connections is not None:
        shaped["connections"] = [connection_shape(each) for each in connections]
    return shaped


def _elsewhere(agent: Agent) -> list[str]:
    """Say which interfaces of a card are on another host than the card: its author could have named any."""
    card_url = agent.endpoint.options.get("card_url")
    if not isinstance(card_url, str):
        return []
    own = urlsplit(card_url).hostname
    urls = dict.fromkeys(each.url for each in agent.card.interfaces if urlsplit(each.url).hostname != own)
    return [f"interface {url} is on another host than the card, {own}" for url in urls]


def connection_shape(connection: ConnectionState) -> Shape:
    """Write how a connection is."""
    next_try_s = connection.next_try_s
    return {
        "state": connection.state.value,
        "calls": connection.calls,
        "failures": connection.failures,
        "last_error": connection.error,
        "next_try_at": instant(datetime.now(UTC) + timedelta(seconds=next_try_s)) if next_try_s else None,
    }


def push_shape(config: PushConfig) -> Shape:
    """Write a webhook of a run and how far it was told, without its token and credentials."""
    return {
        "id": config.id,
        "url": config.destination.url,
        "version": config.version,
        "state": config.state.value,
        "sent": config.sent,
        "tries": config.tries,
        "next_try_at": instant(config.next_try_at),
        "last_error": config.last_error,
        "created_at": instant(config.created_at),
    }


def capability_shape(capability: Capability) -> Shape:
    """Write what an agent can do."""
    return {
        "name": capability.name,
        "kind": capability.kind.value,
        "title": capability.title,
        "description": capability.description,
        "tags": list(capability.tags),
        "examples": list(capability.examples),
        "input_schema": capability.input_schema,
        "output_schema": capability.output_schema,
    }


def endpoint_shape(endpoint: Endpoint) -> Shape:
    """Write where an agent is reached, without its secrets.

    Values of headers and environment are hidden, but for the names in `${NAME}`; so is what an address or a command
    gives by a name like `token`.
    """
    return {
        "binding": endpoint.binding.value,
        "url": _shown_url(endpoint.url),
        "version": endpoint.version,
        "command": _shown_command(endpoint.command),
        "cwd": endpoint.cwd,
        "headers": _hidden(endpoint.headers),
        "env": _hidden(endpoint.env),
        "options": _shown_options(endpoint.options),
    }


def health_shape(health: Health) -> Shape:
    """Write what was last seen of an agent."""
    return {
        "state": health.state.value,
        "last_error": health.last_error,
        "checked_at": instant(health.checked_at),
        "next_try_at": instant(health.next_try_at),
    }


def run_shape(run: Run, *, full: bool = True) -> Shape:
    """Write a run; when not `full`, without the steps, the answer and the artifacts, for lists."""
    shaped: Shape = {
        "id": run.id,
        "context_id": run.context_id,
        "subject": run.subject,
        "agent_id": run.agent_id,
        "state": run.state.value,
        "goal": message_to_json(run.goal),
        "error": None if run.error is None else _error_shape(run.error),
        "questions": [question_shape(question) for question in run.questions],
        "created_at": instant(run.created_at),
        "updated_at": instant(run.updated_at),
        "ended_at": instant(run.ended_at),
        "generation": run.generation,
        "paused": run.paused,
        "rerun_of": run.rerun_of or None,
        "rerun_from": run.rerun_from or None,
    }
    if full:
        shaped["parts"] = _parts(run.parts)
        shaped["structured"] = run.structured
        shaped["artifacts"] = [artifact_to_json(artifact) for artifact in run.artifacts]
        shaped["steps"] = [step_shape(step) for step in run.steps]
        shaped["plans"] = [
            {"path": plan.path, "round": plan.round, "planner": plan.planner, "why": plan.why} for plan in run.plans
        ]
        shaped["model_calls"] = [
            {
                "path": call.path,
                "purpose": call.purpose,
                "model": call.model,
                "outcome": call.outcome,
                "why": call.why,
                "usage": _usage(call.usage),
            }
            for call in run.model_calls
        ]
    return shaped


def step_shape(step: StepView) -> Shape:
    """Write a step of a run: who does it, for how long, how it went."""
    return {
        "path": step.path,
        "title": step.title,
        "agent_id": step.agent_id,
        "capability": step.capability,
        "state": step.state.value,
        "attempts": step.attempts,
        "started_at": instant(step.started_at),
        "ended_at": instant(step.ended_at),
        "why": step.why,
        "error": step.error,
        "usage": _usage(step.usage),
        "decided_by": step.decided_by,
    }


def question_shape(question: Question) -> Shape:
    """Write what a run asks a person."""
    return {
        "id": question.id,
        "run_id": question.run_id,
        "step": question.step,
        "agent_id": question.agent_id,
        "parts": _parts(question.parts),
        "schema": question.schema,
        "auth": question.auth,
        "capability": question.capability,
        "approval": question.approval,
        "asked_by": question.asked_by,
        "answer_by": list(question.answer_by),
        "digest": question.digest,
        "asked_at": instant(question.asked_at),
        "expires_at": instant(question.expires_at),
    }


def approval_shape(approval: Approval) -> Shape:
    """Write a question as those see it who may answer it."""
    return {
        **question_shape(approval.question),
        "state": approval.state,
        "answered_by": approval.answered_by,
        "accepted": approval.accepted,
        "for_me": approval.for_me,
    }


def event_shape(event: Event) -> Shape:
    """Write a fact about a run."""
    return {
        "run_id": event.run_id,
        "seq": event.seq,
        "kind": event.kind.value,
        "step": event.step,
        "attempt": event.attempt,
        "at": instant(event.at),
        "payload": event.payload,
    }


def match_shape(match: Match) -> Shape:
    """Write a capability that fits a need, and why."""
    return {
        "agent_id": match.agent_id,
        "capability": match.capability.name,
        "kind": match.capability.kind.value,
        "title": match.capability.title,
        "description": match.capability.description,
        "score": round(match.score, 4),
        "is_match": match.is_match,
        "lexical": round(match.lexical, 4),
        "embedding": round(match.embedding, 4),
        "terms": list(match.terms),
        "why": match.why,
        "warnings": [str(finding) for finding in hidden_in(match.capability)],
    }


def outcome_shape(outcome: Outcome) -> Shape:
    """Write how a direct call ended: `outcome` is `completed` or `input_required`."""
    match outcome:
        case Completed():
            return {
                "outcome": "completed",
                "parts": _parts(outcome.parts),
                "structured": outcome.structured,
                "artifacts": [artifact_to_json(artifact) for artifact in outcome.artifacts],
                "usage": _usage(outcome.usage),
            }
        case InputRequired():
            return {
                "outcome": "input_required",
                "question": _parts(outcome.question),
                "schema": outcome.schema,
                "auth": outcome.auth,
                "state": outcome.state,
            }


def _error_shape(error: RunError) -> Shape:
    return {"reason": error.reason, "message": error.message, "step": error.step}


def _usage(usage: Usage | None) -> Json:
    if usage is None:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": usage.cost_usd,
    }


def _parts(parts: tuple[Part, ...]) -> list[Json]:
    return [part_to_json(part) for part in parts]


def _card_shape(card: AgentCard) -> Shape:
    return {
        "documentation_url": card.documentation_url,
        "icon_url": card.icon_url,
        "streaming": card.streaming,
        "input_modes": list(card.input_modes),
        "output_modes": list(card.output_modes),
        "instructions": card.instructions,
    }


def _hidden(values: Mapping[str, str]) -> Shape:
    return {name: value if _is_only_names(value) else HIDDEN for name, value in values.items()}


def _shown_options(options: JsonObject) -> Shape:
    """Write what only this binding knows; of credentials their names only."""
    given = options.get("credentials")
    if not isinstance(given, Mapping):
        return dict(options)
    return {**options, "credentials": {name: _shown_credential(value) for name, value in given.items()}}


def _shown_credential(value: Json) -> str:
    said = value if isinstance(value, str) else ""
    rest = _EXPANDED.sub("", _TOKEN_URL.sub("", said))
    return said if rest != said and rest in ("", ":") else HIDDEN


def _shown_url(url: str) -> str:
    address, mark, query = url.partition("?")
    scheme, slashes, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    if "@" in host:
        host = f"{HIDDEN}@{host.rpartition('@')[2]}"
        address = f"{scheme}{slashes}{host}{slash}{path}"
    return address + mark + "&".join(_shown_setting(pair) for pair in query.split("&"))


def _shown_command(command: Sequence[str]) -> list[Json]:
    shown: list[Json] = []
    named = False  # the argument before names a secret
    for argument in command:
        hide = named and not argument.startswith("-") and not _is_only_names(argument)
        shown.append(HIDDEN if hide else _shown_setting(argument))
        named = argument.startswith("-") and "=" not in argument and _SECRET.search(argument) is not None
    return shown


def _shown_setting(setting: str) -> str:
    """Write `name=value` or `Name: value` without the value where the name says that it is secret."""
    found = _SETTING.fullmatch(setting)
    if found is None or _SECRET.search(found["name"]) is None or _is_only_names(found["value"].strip()):
        return setting
    return f"{found['name']}{found['sign']}{HIDDEN}"


def _is_only_names(value: str) -> bool:
    """True for `${TOKEN}` and `Bearer ${TOKEN}`: such values are names, not secrets."""
    rest = _EXPANDED.sub("", value)
    return rest != value and rest.strip().lower() in ("", "bearer", "basic", "token")
