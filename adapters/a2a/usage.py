"""What an agent says that it used, out of the metadata of what it answers. A2A has no field for it.

Understood are Google ADK's (`adk_usage_metadata`, one for each answer of its model), interhub's own (`interhub/steps`),
and `usage` in the spellings of OpenAI, Anthropic and OpenTelemetry.
"""

from collections.abc import Iterable, Mapping
from math import isfinite

from interhub.adapters.base import Usage
from interhub.agent_cards import Json, JsonObject

_INPUT = ("inputTokens", "input_tokens", "promptTokens", "prompt_tokens", "promptTokenCount", "prompt_token_count")
_OUTPUT = (
    "outputTokens",
    "output_tokens",
    "completionTokens",
    "completion_tokens",
    "candidatesTokenCount",
    "candidates_token_count",
)
_THOUGHT = ("thoughtsTokenCount", "thoughts_token_count")
_COST = ("costUsd", "cost_usd")


class UsageCount:
    """Adds up what comes in, each said once."""

    def __init__(self) -> None:
        self._said: dict[str, Usage] = {}
        self._whole: Usage | None = None

    def take_task(self, metadata: JsonObject) -> None:
        """Take a whole task's, or that of an update of it: `usage` there is of all its answers."""
        self._whole = _of_steps(metadata.get("interhub/steps")) or _read(metadata.get("usage")) or self._whole
        if "adk_usage_metadata" in metadata:
            self.take("task", metadata)

    def take(self, place: str, metadata: JsonObject) -> None:
        """Take that of a message or an artifact; a second time at the same place, in the place of the first."""
        found = _read(metadata.get("adk_usage_metadata")) or _read(metadata.get("usage"))
        if found is not None:
            event = metadata.get("adk_event_id")  # ADK says it with everything that came of one event
            self._said[f"event {event}" if isinstance(event, str) else place] = found

    def total(self) -> Usage | None:
        """Return what was used; None where nothing was said."""
        return self._whole or _sum(self._said.values())


def _read(shaped: Json) -> Usage | None:
    if not isinstance(shaped, Mapping):
        return None
    found = Usage(
        input_tokens=int(_number(shaped, _INPUT)),
        output_tokens=int(_number(shaped, _OUTPUT) + _number(shaped, _THOUGHT)),
        cost_usd=_number(shaped, _COST),
    )
    return found if found != Usage() else None


def _of_steps(steps: Json) -> Usage | None:
    """Add up what the steps of a run of another interhub used; a step that says so counts those within it."""
    if not isinstance(steps, list):
        return None
    said = {str(step.get("path")): _read(step.get("usage")) for step in steps if isinstance(step, Mapping)}
    found = {f"{path}.": usage for path, usage in said.items() if usage is not None}
    within = {path for path in found for outer in found if path != outer and path.startswith(outer)}
    return _sum(usage for path, usage in found.items() if path not in within)


def _sum(usages: Iterable[Usage]) -> Usage | None:
    said = list(usages)
    if not said:
        return None
    return Usage(
        input_tokens=sum(one.input_tokens for one in said),
        output_tokens=sum(one.output_tokens for one in said),
        cost_usd=sum(one.cost_usd for one in said),
    )


def _number(shaped: JsonObject, names: tuple[str, ...]) -> float:
    for name in names:
        value = shaped.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and 0 < value < 1e15:
            return value
    return 0
