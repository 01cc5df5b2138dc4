"""Agents' ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interhub.registry import InvalidAgentId, check_id, near_ids, slug


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Weather Agent", "weather-agent"),
        ("GeoRoutePlanner", "geo-route-planner"),
        ("HTTPServer", "http-server"),
        ("mcp_server.git", "mcp-server-git"),
        ("  --Über-Agent!!  ", "uber-agent"),
        ("agent2", "agent2"),
        ("a" * 32, "a" * 32),
    ],
)
def test_an_id_is_made_of_a_name(name: str, wanted: str) -> None:
    assert slug(name) == wanted


def test_long_names_that_begin_alike_get_different_ids() -> None:
    ids = {slug("The very long name of an agent that " + end) for end in ("cooks", "sings", "cooks!")}
    assert len(ids) == 3


def test_names_without_latin_letters_get_different_ids() -> None:
    assert slug("天気") != slug("料理")
    assert slug("天気").startswith("agent-")


@given(st.text(), st.text())
def test_an_id_is_always_of_the_allowed_form_and_stable(name: str, other: str) -> None:
    made = slug(name)
    assert check_id(made) == made
    assert slug(name) == made
    assert slug(made) == made
    check_id(slug(name + other))


@given(st.text(max_size=40))
def test_what_is_allowed_can_be_part_of_a_tools_name(agent_id: str) -> None:
    try:
        check_id(agent_id)
    except InvalidAgentId:
        return
    assert 1 <= len(agent_id) <= 32
    assert set(agent_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert agent_id.strip("-") == agent_id


def test_near_ids_are_those_a_person_could_have_meant() -> None:
    known = ["weather", "weather-2", "cook", "git"]
    assert near_ids("Wether", known)[0] == "weather"
    assert near_ids("zzz", known) == ()
