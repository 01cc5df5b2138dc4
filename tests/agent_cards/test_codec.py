"""Cards survive being stored, whatever is in them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interhub.agent_cards import (
    AgentCard,
    Binding,
    Capability,
    CardInvalid,
    Endpoint,
    Json,
    Kind,
    capability_from_json,
    capability_to_json,
    card_from_json,
    card_to_json,
    endpoint_from_json,
    endpoint_to_json,
)

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_object = st.dictionaries(st.text(), _json, max_size=3)
_texts = st.lists(st.text(), max_size=3).map(tuple)
_text_map = st.dictionaries(st.text(), st.text(), max_size=3)
_endpoint = st.builds(
    Endpoint,
    binding=st.sampled_from(Binding),
    url=st.text(),
    version=st.text(),
    tenant=st.text(),
    command=_texts,
    env=_text_map,
    cwd=st.text(),
    headers=_text_map,
    options=_object,
)
_capability = st.builds(
    Capability,
    name=st.text(),
    kind=st.sampled_from(Kind),
    title=st.text(),
    description=st.text(),
    tags=_texts,
    examples=_texts,
    input_schema=_object,
    output_schema=st.none() | _object,
    input_modes=_texts,
    output_modes=_texts,
    raw=_object,
)
_card = st.builds(
    AgentCard,
    name=st.text(),
    description=st.text(),
    version=st.text(),
    provider=st.text(),
    documentation_url=st.text(),
    icon_url=st.text(),
    capabilities=st.lists(_capability, max_size=2).map(tuple),
    interfaces=st.lists(_endpoint, max_size=2).map(tuple),
    streaming=st.booleans(),
    push_notifications=st.booleans(),
    extended_card=st.booleans(),
    input_modes=_texts,
    output_modes=_texts,
    instructions=st.text(),
    raw=_object,
)


@given(_endpoint)
def test_an_endpoint_comes_back_as_it_was(endpoint: Endpoint) -> None:
    assert endpoint_from_json(json.loads(json.dumps(endpoint_to_json(endpoint)))) == endpoint


@given(_capability)
def test_a_capability_comes_back_as_it_was(capability: Capability) -> None:
    assert capability_from_json(json.loads(json.dumps(capability_to_json(capability)))) == capability


@given(_card)
def test_a_card_comes_back_as_it_was(card: AgentCard) -> None:
    assert card_from_json(json.loads(json.dumps(card_to_json(card)))) == card


@pytest.mark.parametrize(
    ("stored", "path"),
    [
        ({"name": 1}, "name"),
        ({"name": "x", "capabilities": {}}, "capabilities"),
        ({"name": "x", "capabilities": [{"kind": "wish"}]}, "capabilities[0].kind"),
        ({"name": "x", "interfaces": [{"binding": "JSONRPC"}, {"binding": "PIGEON"}]}, "interfaces[1].binding"),
        ({"name": "x", "interfaces": [{"binding": "JSONRPC", "env": {"A": 1}}]}, "interfaces[0].env.A"),
        ({"name": "x", "streaming": "yes"}, "streaming"),
    ],
)
def test_what_was_not_stored_by_us_is_refused_with_its_place(stored: dict[str, Json], path: str) -> None:
    with pytest.raises(CardInvalid) as caught:
        card_from_json(stored)
    assert caught.value.paths == (path,)
