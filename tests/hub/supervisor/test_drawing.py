"""Workflows drawn for people."""

from interhub.hub.supervisor.drawing import mermaid, tree
from interhub.hub.supervisor.plan_check import check_plan
from tests.support.supervised import parsed

PLAN = check_plan(
    parsed(
        """
        name: trip
        inputs: {where: string}
        steps:
          - {id: book, timeout_s: 9, call: {agent: hotel, message: x, fallback: [{agent: inn}]},
               undo: [{id: u, call: {agent: hotel}}]}
          - {id: size, choose: [{when: 1 < 2, steps: [{id: a, wait: {seconds: 1}}]}],
               else: [{id: b, ask: {message: Go?}}]}
        on_failure: [{id: tell, on_error: continue, call: {need: tell them}}]
        """.replace("Go?", "'Go?'")
    )
)


def test_a_tree_shows_each_step_with_its_rules_and_what_is_within_it() -> None:
    assert tree(PLAN).splitlines() == [
        "trip (where)",
        "├─ book: call hotel, else inn [within 9 s]",
        "│  └─ undo",
        "│     └─ u: call hotel",
        "├─ size: choose",
        "│  ├─ when 1 < 2",
        "│  │  └─ a: wait 1.0 s",
        "│  └─ else",
        "│     └─ b: ask: Go?",
        "└─ when it has failed",
        "   └─ tell: call whoever can tell them [may fail]",
    ]


def test_a_mermaid_graph_has_an_arrow_from_each_step_to_the_next_and_closes_what_it_opens() -> None:
    lines = [line.strip() for line in mermaid(PLAN).splitlines()]
    assert lines[0] == "flowchart TD"
    assert "s_book --> s_size" in lines
    assert sum(line.startswith("subgraph") for line in lines) == lines.count("end")
