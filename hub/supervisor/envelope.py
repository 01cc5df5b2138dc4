"""What is recorded of a run, as JSON: what was asked, what a step gave. A replay must read exactly what was written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import orjson

from interhub.adapters import (
    Artifact,
    Budget,
    Completed,
    DataPart,
    InputRequest,
    InputRequired,
    Lineage,
    Message,
    Part,
    Principal,
    RemoteRefused,
    Resume,
    TextPart,
    Usage,
    text_of,
)
from interhub.adapters.content import (
    artifact_from_json,
    artifact_to_json,
    message_from_json,
    message_to_json,
    part_to_json,
    parts_from_json,
)
from interhub.agent_cards import Json, JsonObject
from interhub.hub.errors import problem_of

from .run import Assignment, RunError

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StepValue:
    """What a step, or a whole run, gave."""

    parts: tuple[Part, ...] = ()
    structured: Json = None
    artifacts: tuple[Artifact, ...] = ()
    usage: Usage | None = None
    as_message: bool = False
    """An agent answered with a message, and made no task of it."""

    @property
    def text(self) -> str:
        """The answer in words: its text, else that of its artifacts, else its data as JSON."""
        parts = self.parts or tuple(part for artifact in self.artifacts for part in artifact.parts)
        said = text_of(parts)
        if said or self.data is None:
            return said
        return orjson.dumps(self.data).decode()

    @property
    def data(self) -> Json:
        """The answer as data: its structured content, else its first data part, else that of its artifacts."""
        if self.structured is not None:
            return self.structured
        for part in (*self.parts, *(part for artifact in self.artifacts for part in artifact.parts)):
            if isinstance(part, DataPart):
                return part.data
        return None

    def dump(self) -> dict[str, Json]:
        """Write it as JSON, what is empty left out."""
        shaped: dict[str, Json] = {"parts": [part_to_json(part) for part in self.parts]}
        if self.structured is not None:
            shaped["structured"] = self.structured
        if self.artifacts:
            shaped["artifacts"] = [artifact_to_json(artifact) for artifact in self.artifacts]
        if self.usage is not None:
            shaped["usage"] = usage_to_json(self.usage)
        if self.as_message:
            shaped["as_message"] = True
        return shaped

    @staticmethod
    def load(shaped: JsonObject) -> "StepValue":
        """Read what `dump` wrote."""
        usage = shaped.get("usage")
        return StepValue(
            parts=parts_from_json(shaped.get("parts")),
            structured=shaped.get("structured"),
            artifacts=tuple(artifact_from_json(mapping(one)) for one in sequence(shaped.get("artifacts"))),
            usage=usage_from_json(usage) if isinstance(usage, Mapping) else None,
            as_message=shaped.get("as_message") is True,
        )

    @staticmethod
    def of(outcome: Completed) -> "StepValue":
        """Take what a call gave."""
        return StepValue(
            parts=outcome.parts,
            structured=outcome.structured,
            artifacts=outcome.artifacts,
            usage=outcome.usage,
            as_message=outcome.as_message,
        )

    @staticmethod
    def of_json(value: Json) -> "StepValue":
        """Make a value of what an output template gave: text is a text part, anything else data."""
        if isinstance(value, str):
            return StepValue(parts=(TextPart(text=value),))
        return StepValue(parts=(DataPart(data=value),), structured=value)


def named_artifacts(path: str, artifacts: Sequence[Artifact]) -> tuple[Artifact, ...]:
    """Return artifacts with their step before their id, so that those of two steps stay apart."""
    return tuple(named_artifact(path, artifact) for artifact in artifacts)


def named_artifact(path: str, artifact: Artifact) -> Artifact:
    """Return one artifact with its step before its id and in its metadata."""
    inner = artifact.metadata.get("interhub/step")
    step = f"{path}.{inner}" if isinstance(inner, str) else path
    return replace(
        artifact,
        artifact_id=f"{path}/{artifact.artifact_id}",
        metadata={**artifact.metadata, "interhub/step": step},
    )


def succeeded(value: StepValue, **more: Json) -> dict[str, Json]:
    """Write the envelope of a step that ended well."""
    return {"ok": True, "value": value.dump(), **more}


def failed(error: BaseException, **more: Json) -> dict[str, Json]:
    """Write the envelope of a step that failed, with the reason and message that every face gives."""
    problem = problem_of(error)
    said: dict[str, Json] = {"reason": problem.status.reason, "message": problem.message}
    if isinstance(error, RemoteRefused) and error.code is not None:
        said["code"] = error.code
    return {"ok": False, "error": said, **more}


def failed_because(reason: str, message: str, **more: Json) -> dict[str, Json]:
    """Write the envelope of a step that failed for a reason that is no exception."""
    return {"ok": False, "error": {"reason": reason, "message": message}, **more}


def attempts_of(envelope: JsonObject) -> int:
    """Return how many attempts an envelope says there were."""
    return int(number(envelope, "attempts")) or 1


def error_of(envelope: JsonObject) -> RunError:
    """Read the error of an envelope."""
    error = mapping(envelope.get("error"))
    code = error.get("code")
    return RunError(
        reason=text(error, "reason") or "INTERNAL",
        message=text(error, "message"),
        step=text(error, "step"),
        code=code if isinstance(code, int) else None,
    )


def question_to_json(asked: InputRequired) -> dict[str, Json]:
    """Write what an agent asks."""
    shaped: dict[str, Json] = {
        "parts": [part_to_json(part) for part in asked.question],
        "schema": asked.schema,
        "auth": asked.auth,
        "state": asked.state,
    }
    if asked.requests:
        shaped["requests"] = [
            {
                "key": request.key,
                "parts": [part_to_json(part) for part in request.question],
                "schema": request.schema,
                "auth": request.auth,
            }
            for request in asked.requests
        ]
    return shaped


def requests_from_json(shaped: Json) -> tuple[InputRequest, ...]:
    """Read what is asked at once."""
    return tuple(
        InputRequest(
            key=text(request, "key"),
            question=parts_from_json(request.get("parts")),
            schema=mapping(request.get("schema")) if request.get("schema") is not None else None,
            auth=request.get("auth") is True,
        )
        for request in map(mapping, sequence(shaped))
    )


def resume_to_json(resume: Resume) -> dict[str, Json]:
    """Write an answer that a call is to be given."""
    parts = [part_to_json(part) for part in resume.answer]
    return {"parts": parts, "state": resume.state, "accepted": resume.accepted}


def resume_from_json(shaped: JsonObject) -> Resume:
    """Read an answer that a call is to be given."""
    return Resume(
        answer=parts_from_json(shaped.get("parts")),
        state=shaped.get("state"),
        accepted=shaped.get("accepted") is True,
    )


def usage_to_json(usage: Usage) -> dict[str, Json]:
    """Write what a call used."""
    return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens, "cost_usd": usage.cost_usd}


def usage_from_json(shaped: JsonObject) -> Usage:
    """Read what a call used."""
    return Usage(
        input_tokens=int(number(shaped, "input_tokens")),
        output_tokens=int(number(shaped, "output_tokens")),
        cost_usd=number(shaped, "cost_usd"),
    )


def principal_to_json(principal: Principal) -> dict[str, Json]:
    """Write on whose behalf a run is."""
    return {"subject": principal.subject, "tenant": principal.tenant, "scopes": sorted(principal.scopes)}


def principal_from_json(shaped: JsonObject) -> Principal:
    """Read on whose behalf a run is."""
    scopes = frozenset(str(scope) for scope in sequence(shaped.get("scopes")))
    return Principal(subject=text(shaped, "subject"), tenant=text(shaped, "tenant"), scopes=scopes)


def budget_to_json(budget: Budget) -> dict[str, Json]:
    """Write what is left for a tree."""
    return {
        "depth": budget.depth,
        "calls": budget.calls,
        "tokens": budget.tokens,
        "cost_usd": budget.cost_usd,
        "fan_out": budget.fan_out,
        "until": budget.until,
    }


def budget_from_json(shaped: JsonObject) -> Budget:
    """Read what is left for a tree."""
    calls, tokens, cost = shaped.get("calls"), shaped.get("tokens"), shaped.get("cost_usd")
    fan_out, until = shaped.get("fan_out"), shaped.get("until")
    return Budget(
        depth=int(number(shaped, "depth")),
        calls=calls if isinstance(calls, int) else None,
        tokens=tokens if isinstance(tokens, int) else None,
        cost_usd=float(cost) if isinstance(cost, int | float) else None,
        fan_out=fan_out if isinstance(fan_out, int) else None,
        until=float(until) if isinstance(until, int | float) else None,
    )


def lineage_to_json(lineage: Lineage) -> dict[str, Json]:
    """Write where a run stands in the tree of its delegation."""
    return {
        "tree": lineage.tree,
        "branch": lineage.branch,
        "trail": list(lineage.trail),
        "limits": budget_to_json(lineage.limits) if lineage.limits is not None else None,
        "foreign": lineage.foreign,
    }


def lineage_from_json(shaped: JsonObject) -> Lineage:
    """Read where a run stands in the tree of its delegation."""
    limits = shaped.get("limits")
    return Lineage(
        limits=budget_from_json(mapping(limits)) if limits is not None else None,
        tree=text(shaped, "tree"),
        branch=text(shaped, "branch"),
        trail=tuple(str(agent) for agent in sequence(shaped.get("trail"))),
        foreign=text(shaped, "foreign"),
    )


def assignment_to_json(assignment: Assignment) -> dict[str, Json]:
    """Write what was asked for."""
    resume = assignment.resume
    return {
        **({"resume": resume_to_json(resume)} if resume is not None else {}),
        "version": VERSION,
        "principal": principal_to_json(assignment.principal),
        "goal": message_to_json(assignment.goal),
        "agent": assignment.agent_id,
        "capability": assignment.capability,
        "arguments": assignment.arguments,
        "workflow": assignment.workflow,
        "inputs": assignment.inputs,
        "members": list(assignment.members),
        "context": assignment.context_id,
        "key": assignment.idempotency_key,
        "budget": budget_to_json(assignment.budget),
        **({"lineage": lineage_to_json(assignment.lineage)} if assignment.lineage.branch else {}),
    }


def goal_from_json(shaped: JsonObject) -> Message:
    """Read the goal of what was asked for."""
    return message_from_json(mapping(shaped.get("goal")))


# Reading JSON whose shape we wrote ourselves


def mapping(value: Json) -> JsonObject:
    """Return an object, empty for anything else."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: Json) -> Sequence[Json]:
    """Return a list, empty for anything else."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def text(shaped: JsonObject, key: str) -> str:
    """Return a text, empty for anything else."""
    value = shaped.get(key)
    return value if isinstance(value, str) else ""


def number(shaped: JsonObject, key: str) -> float:
    """Return a number, 0 for anything else."""
    value = shaped.get(key)
    return value if isinstance(value, int | float) else 0.0


def normalised(value: object) -> dict[str, Json]:
    """Return an object as it will be read back: what a step returns the first time and on a replay is then the same."""
    return cast("dict[str, Json]", orjson.loads(orjson.dumps(value)))
