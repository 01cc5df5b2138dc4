"""What steps gave, as templates see it."""

from interhub.adapters.content import artifact_to_json
from interhub.agent_cards import Json

from .envelope import StepValue


class Shown(str):
    """A value as templates see it: its text, and `text`, `data`, `artifacts`, `error`, `errors`."""

    text: str
    data: Json
    artifacts: list[Json]
    error: Json
    errors: list[Json]

    @staticmethod
    def of(value: StepValue, error: Json = None, errors: list[Json] | None = None) -> "Shown":
        """Make one of a value."""
        shown = Shown(value.text)
        shown.text = str(value.text)
        shown.data = value.data
        shown.artifacts = [artifact_to_json(artifact) for artifact in value.artifacts]
        shown.error = error
        shown.errors = errors if errors is not None else [error] if error is not None else []
        return shown
