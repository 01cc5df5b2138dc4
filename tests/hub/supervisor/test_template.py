"""Templates: values and texts, and what they may not do or cost."""

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interhub.agent_cards import Json
from interhub.hub.supervisor.template import TemplateFailed, references, render

VALUES = {"inputs": {"n": 3, "xs": [1, 2], "deep": {"a": None}, "items": [5]}, "goal": "hello", "steps": {}}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ inputs.n }}", 3),
        ("{{ inputs.xs }}", [1, 2]),
        (" {{ inputs.n }}", " 3"),
        ("{{ inputs.items }}", [5]),
        ("{{ inputs.deep.items()|list }}", [["a", None]]),
        ("{{ inputs.n }} of {{ inputs.n + 1 }}", "3 of 4"),
        ("{{ inputs.deep.a }}", None),
        ("{{ {'all': inputs.xs, 'b': inputs.n * 2} }}", {"all": [1, 2], "b": 6}),
        ("{% for x in inputs.xs %}{{ loop.index }}:{{ x }} {% endfor %}", "1:1 2:2 "),
        ("{{ inputs.xs|map('string')|join('-') }}", "1-2"),
        ("{{ goal ~ '!' ~ inputs.n }}", "hello!3"),
        ("{{ goal|upper }}", "HELLO"),
        ("{% set x = goal.title() %}{{ x }}.", "Hello."),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_one_expression_gives_its_value_and_anything_else_text(template: str, value: Json) -> None:
    assert render(template, VALUES) == value


@pytest.mark.parametrize(
    "template",
    [
        "{{ inputs.missing }}",
        "{{ inputs.deep.a.b }}",
        "{{ 1 / 0 }}",
        "{{ goal + 1 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ inputs.xs.append(3) }}",
        "{{ goal.format(1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ goal.ljust(100000000) }}",
        "{{ 'x' * 100000000 }}",
        "{{ 9 ** 999999999 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ goal|center(1000000000) }}",
        "{{ range(10 ** 9)|list }}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}" + "x" * 100 + "{% endfor %}",
        "{{ [goal] * 3 }}",
        "{{ cycler }}",
        "{{ lipsum() }}",
        "{{ inputs.xs|random }}",
        "{% include 'x' %}",
        "{% macro m() %}{% endmacro %}{{ m() }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ goal" + "|replace('', 'xxxxxxxxxxxxxxxx')" * 30 + " }}",
        "{% set a = goal %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}",
        "{% set a = goal %}" + "{% set a = a + a %}" * 60 + "{{ a }}",
        "{% set a = [goal] %}" + "{% set a = [a|join, a|join]|list %}" * 60 + "{{ a }}",
        "{{ (1).to_bytes(900000000, 'big')|length }}",
        "{{ [1]|batch(300000000, 'x')|list }}",
        "{{ [1]|slice(100000000)|list }}",
        "{{ 2|round(30000000, 'ceil') }}",
        "{% set a = [1] %}" + "{% set a = [a, a, a, a] %}" * 30 + "{{ a }}",
        "{% set a = [1] %}" + "{% set a = [a, a, a, a] %}" * 30 + "{{ a|tojson|length }}",
        "{% set a = [1] %}" + "{% set a = {'x': a, 'y': a} %}" * 60 + "{{ a == 1 }}",
        "{% set a = [1] %}" + "{% set a = dict(x=a, y=a) %}" * 60 + "{{ a|string|length }}",
        "{% set a = (1,) %}" + "{% set a = a + a %}" * 40 + "{{ a|length }}",
        "{% set a = goal %}" + "{% set a = a + a %}" * 16 + "{{ range(90000)|map('replace', '1', a)|list|length }}",
        "{% set a = goal %}"
        + "{% set a = a + a %}" * 16
        + "{% for i in range(99999) %}{% if a|upper == a.lower() %}x{% endif %}{% endfor %}",
    ],
)
def test_what_is_missing_forbidden_or_costly_fails_at_once(template: str) -> None:
    began = time.perf_counter()
    with pytest.raises(TemplateFailed):
        render(template, VALUES)
    assert time.perf_counter() - began < 2


def test_references_are_found_also_inside_loops_and_filters() -> None:
    found = references("{% for x in steps.a.data %}{{ x }}{{ inputs['n'] }}{% endfor %}{{ steps['b'].text|upper }}")
    assert {(one.root, one.name) for one in found} == {("steps", "a"), ("inputs", "n"), ("steps", "b")}


@given(st.text(alphabet="{}% abcinputs.+|()[]'\"0123456789~-", max_size=40))
def test_no_text_breaks_it(template: str) -> None:
    with suppress(TemplateFailed):
        references(template)
        render(template, VALUES)
