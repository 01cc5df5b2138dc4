"""What recorded envelopes come to as events: the same fact for the same envelope, so a replay tells nothing new."""

from datetime import UTC, datetime

from interhub.agent_cards import Json, JsonObject

from .envelope import StepValue, usage_to_json
from .journal import Fact
from .run import EventKind

SHOWN_CHARS = 2000
"""Of an answer, in its event."""


def routed_fact(run_id: str, step: str, envelope: JsonObject) -> Fact | None:
    """Return the event of a step's routing out of its envelope; None where it was not routed."""
    routed = envelope.get("routed")
    if not isinstance(routed, dict):
        return None
    payload: dict[str, Json] = {name: envelope.get(name, "") for name in ("agent", "capability")}
    payload["why"] = routed.get("why", "")
    attempt = routed.get("attempt")
    return Fact(
        run_id=run_id,
        kind=EventKind.STEP_ROUTED,
        step=step,
        attempt=attempt if isinstance(attempt, int) else 1,
        payload=payload,
    )


def end_fact(run_id: str, step: str, envelope: JsonObject, value: StepValue | None = None) -> Fact:
    """Return the event of a step's end; the same for the same envelope, so that it is told once."""
    ok = envelope.get("ok") is True
    payload: dict[str, Json] = {"agent": envelope.get("agent", ""), "capability": envelope.get("capability", "")}
    if ok:
        inline = envelope.get("value")
        taken = value if value is not None else StepValue.load(inline) if isinstance(inline, dict) else StepValue()
        payload["text"] = taken.text[:SHOWN_CHARS]
        payload["artifacts"] = [artifact.name or artifact.artifact_id for artifact in taken.artifacts]
        if taken.usage is not None:
            payload["usage"] = usage_to_json(taken.usage)
    else:
        payload["reason"] = ""
        error = envelope.get("error")
        if isinstance(error, dict):
            payload |= {"reason": error.get("reason", ""), "message": error.get("message", "")}
    attempts = envelope.get("attempts")
    at = envelope.get("at")
    return Fact(
        run_id=run_id,
        kind=EventKind.STEP_COMPLETED if ok else EventKind.STEP_FAILED,
        step=step,
        attempt=attempts if isinstance(attempts, int) else 1,
        at=datetime.fromisoformat(at) if isinstance(at, str) else datetime.now(UTC),
        payload=payload,
    )


def final_fact(root: str, envelope: JsonObject) -> Fact:
    """Return the event of a run's end, with its outcome."""
    if envelope.get("ok") is True:
        result: dict[str, Json] = {key: envelope[key] for key in ("value", "blob") if key in envelope}
        return Fact(run_id=root, kind=EventKind.RUN_COMPLETED, payload={"result": result})
    return Fact(run_id=root, kind=EventKind.RUN_FAILED, payload={"error": envelope.get("error")})
