"""The plan that chaos is made of: sixty calls, of every kind of step that the plan language has."""

import random
from typing import Any

PAIR = {
    "kind": "team",
    "name": "pair",
    "members": ["lasting"],
    "workflow": {
        "steps": [
            {
                "parallel": [
                    {"id": "p1", "call": {"agent": "lasting", "message": "work 60"}},
                    {
                        "id": "p2",
                        "call": {
                            "agent": "lasting",
                            "message": "flaky 40",
                            "retry": {"attempts": 4, "backoff_s": 0.05},
                        },
                    },
                ]
            }
        ]
    },
}
CREW = {
    "kind": "team",
    "name": "crew",
    "members": ["lasting", "pair"],
    "workflow": {
        "steps": [
            {"id": "c1", "call": {"agent": "lasting", "message": "work 80"}},
            {"id": "c2", "call": {"agent": "pair", "message": "deep"}},
            {"id": "c3", "call": {"agent": "lasting", "message": "work 50"}},
        ]
    },
}
TEAMS = (PAIR, CREW)
"""Registered beforehand, in this order: a crew has a pair in it."""

LEAVES = 60
"""Calls of the agent that one run makes."""


def chaos_plan(seed: int) -> dict[str, Any]:
    """Return the plan of a seed; seeds differ in how long each call works."""
    rng = random.Random(seed)

    def work(name: str, most_ms: int = 300) -> dict[str, Any]:
        return {"id": name, "call": {"agent": "lasting", "message": f"work {rng.randrange(20, most_ms)}"}}

    def flaky(name: str) -> dict[str, Any]:
        said = f"flaky {rng.randrange(20, 200)}"
        return {
            "id": name,
            "call": {"agent": "lasting", "message": said, "retry": {"attempts": 4, "backoff_s": 0.05}},
        }

    inner = {"steps": [work("i1"), {"parallel": [work(f"i{number}") for number in range(2, 6)]}, work("i6")]}
    return {
        "name": "chaos",
        "steps": [
            *(work(f"a{number}", 450) for number in range(8)),
            {"id": "fan", "parallel": [flaky(f"f{n}") if n % 4 == 0 else work(f"f{n}", 900) for n in range(16)]},
            {"id": "sub", "plan": {"workflow": inner}},
            {"id": "pause", "wait": {"seconds": 0.4}},
            {"id": "each", "map": {"over": "{{ [1, 2, 3, 4, 5] }}", "concurrency": 2, "steps": [work("m1")]}},
            {"id": "again", "loop": {"at_most": 3, "on_limit": "accept", "steps": [work("l1")]}},
            {"id": "either", "choose": [{"when": "{{ steps.a0.text }}", "steps": [work("e1")]}], "else": [work("e2")]},
            {
                "id": "teams",
                "parallel": [
                    *({"id": f"crew{n}", "call": {"agent": "crew", "message": "x"}} for n in range(3)),
                    *({"id": f"pair{n}", "call": {"agent": "pair", "message": "x"}} for n in range(2)),
                ],
            },
            {"id": "approve", "ask": {"message": "May it go on?", "approval": True}},
            {"id": "ask", "call": {"agent": "lasting", "message": "ask"}},
            *(work(f"z{number}", 450) for number in range(4)),
        ],
        "output": "{{ steps.ask.text }}",
    }
