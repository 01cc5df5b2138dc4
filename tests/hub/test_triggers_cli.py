"""`interhub triggers`, `event`, and what controls runs, against a hub in a process of its own."""

from collections.abc import Iterator

import pytest

from tests.support.hub_process import Cli, cli, hub_process

PAYMENT = """
kind: workflow
name: payment
description: Wait for a payment.
inputs: {topic: {type: string, default: none}}
steps: [{id: paid, timeout_s: 30, wait: {event: order_paid}}]
output: "{{ inputs.topic }}: {{ steps.paid.data.amount }}"
"""
TEAM = """
kind: team
name: crew
description: Wait together.
members: [payment]
planner: {workflow: {steps: [{id: both, call: {agent: payment}}]}}
"""
TRIGGER = """kind: trigger
name: orders
event: order_placed
run: {agent: payment, inputs: {topic: "{{ event.data.order }}"}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    with hub_process(cli(tmp_path_factory.mktemp("triggers"))) as running:
        for name, text in (("payment", PAYMENT), ("crew", TEAM), ("orders", TRIGGER)):
            (running.cli.cwd / f"{name}.yaml").write_text(text)
        for name in ("payment", "crew"):
            said = running.cli("agents", "add", f"{name}.yaml")
            assert said.code == 0, said.err
        yield running.cli


def test_an_event_begins_a_run_another_wakes_it_and_it_is_done_again(run: Cli) -> None:
    added = run("triggers", "add", "orders.yaml")
    assert (added.code, added.out) == (0, "Added orders: event order_placed.\n"), added.err
    assert run("triggers", "add", "orders.yaml").code == 1
    begun = run("--json", "event", "order_placed", "--data", '{"order": "A7"}', "--id", "e1").document
    (run_id,) = begun["runs"]
    again = run("event", "order_placed", "--id", "e1").out
    assert again == f"The event was known already; nothing was begun again.\norders: had begun run {run_id}\n"

    assert run("runs", "pause", run_id).out == f"Run {run_id} is paused.\n"
    assert f"paused: interhub runs resume {run_id}" in run("runs", "show", run_id).out
    assert run("runs", "resume", run_id).out == f"Run {run_id} goes on.\n"
    assert run("event", "order_paid", "--data", '{"amount": 3}').out == f"Woke: {run_id}\n"
    assert "A7: 3" in run("runs", "watch", run_id).out

    again = run("runs", "rerun", run_id, "--from", "paid", "--detach").out.strip()
    assert f"again  {run_id} from paid" in run("runs", "show", again).out
    assert run("runs", "cancel", again).code == 0
    assert "did you mean 'paid'" in run("runs", "rerun", run_id, "--from", "pad").err
    assert run_id in run("triggers", "list").out
    assert run("triggers", "fire", "orders", "--data", "[]").err.strip().endswith("--data is not a JSON object")
    assert run("triggers", "remove", "orders").out == "Removed orders.\n"
    assert "there is no trigger 'orders'" in run("triggers", "fire", "orders").err


def test_a_webhooks_secret_is_said_once_and_mistakes_with_their_lines(run: Cli) -> None:
    (run.cwd / "hook.yaml").write_text("kind: trigger\nname: hook\nwebhook: {}\nrun: {agent: payment}\n")
    added = run("triggers", "add", "hook.yaml").out
    assert "/hooks/hook" in added
    secret = added.partition("Secret, said this once: ")[2].strip()
    assert secret.startswith("whsec_")
    assert secret not in run("--json", "triggers", "list").out
    (run.cwd / "bad.yaml").write_text("kind: trigger\nname: bad\nevent: e\nrun:\n  agent: paymnt\n")
    refused = run("triggers", "add", "bad.yaml")
    assert refused.code == 1
    assert "bad.yaml:5, run.agent" in refused.err
    assert "did you mean 'payment'" in refused.err
    (run.cwd / "bad.yaml").write_text("kind: trigger\nname: bad\nevent: e\nschedule: '@daily'\nrun: {agent: payment}\n")
    assert "this one has schedule and event" in run("triggers", "add", "bad.yaml").err
    assert "a trigger is added by `interhub triggers add`" in run("agents", "add", "hook.yaml").err


def test_a_registered_workflow_and_a_team_are_drawn(run: Cli) -> None:
    assert "paid: " in run("workflows", "show", "payment").out
    for named in ("crew", "crew.yaml"):
        shown = run("workflows", "show", named).out
        assert shown.startswith("team of payment; planner: workflow\n"), shown
        assert "both: call payment" in shown
    assert run("workflows", "check", "crew.yaml").code == 0
    assert "nobody" in run("workflows", "show", "nobody").err
