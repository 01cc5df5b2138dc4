"""Adapters of other packages."""

from importlib.metadata import EntryPoint

from interhub.adapters.loading import load_adapters
from interhub.adapters.testing import ScriptedAdapter, ScriptedAgent


def _point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group="interhub.adapters")


def test_a_plug_in_is_added_beside_the_built_in_adapters() -> None:
    own = ScriptedAdapter(ScriptedAgent("a"))
    adapters = load_adapters({"own": own}, plug_ins=[_point("more", "interhub.adapters.local:LocalAdapter")])
    assert adapters["own"] is own
    assert adapters["more"].name == "local"


def test_a_broken_plug_in_is_left_out() -> None:
    broken = [
        _point("gone", "no.such.module:Adapter"),
        _point("wrong", "interhub.adapters.expand:expand"),
        _point("none", "interhub.adapters.pool:PoolKey"),
        _point("odd", "interhub.adapters.errors:BadEndpoint"),
    ]
    assert load_adapters({}, plug_ins=broken) == {}


def test_a_plug_in_cannot_replace_a_built_in_adapter() -> None:
    own = ScriptedAdapter(ScriptedAgent("a"))
    assert load_adapters({"own": own}, plug_ins=[_point("own", "interhub.adapters.local:LocalAdapter")]) == {"own": own}
