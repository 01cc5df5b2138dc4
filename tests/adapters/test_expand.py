"""`${NAME}` in headers and environments."""

import pytest

from interhub.adapters import BadEndpoint
from interhub.adapters.expand import expand, expand_all


@pytest.mark.parametrize(
    ("value", "expanded"),
    [
        ("plain $HOME {x}", "plain $HOME {x}"),
        ("Bearer ${TOKEN}", "Bearer s3cret"),
        ("${TOKEN}${TOKEN}", "s3crets3cret"),
        ("${NONE:-fallback}", "fallback"),
        ("${EMPTY:-fallback}", "fallback"),
        ("${EMPTY}", ""),
        ("${NONE:-}", ""),
        ("${TRICKY}", "${TOKEN}"),
    ],
)
def test_variables_are_taken_from_the_environment_once(value: str, expanded: str) -> None:
    assert expand(value, {"TOKEN": "s3cret", "EMPTY": "", "TRICKY": "${TOKEN}"}) == expanded


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(BadEndpoint, match="MY_KEY is not set"):
        expand_all({"a": "x", "b": "Bearer ${MY_KEY}"}, {"OTHER": "s3cret"})
