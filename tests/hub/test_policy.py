"""Whom the rules deny a whole agent, and whom only some of it."""

from datetime import UTC, datetime

import pytest

from interhub.adapters import Principal
from interhub.agent_cards import AgentCard, Binding, Endpoint
from interhub.hub.policy import Effect, Rule, RulePolicy, TenantPolicy
from interhub.registry import Agent

EVE = Principal(subject="eve")
PAYROLL = Agent(
    id="payroll",
    adapter="mcp",
    card=AgentCard(name="Payroll"),
    endpoint=Endpoint(binding=Binding.MCP_HTTP, url="http://127.0.0.1:9/mcp"),
    digest="",
    created_at=datetime.now(UTC),
    updated_at=datetime.now(UTC),
)
NOTHING = Rule(effect=Effect.DENY, agents=("pay*",), principals=("eve",), why="it is private")
SOME = ("read_*",)


@pytest.mark.parametrize(
    "rules",
    [
        (NOTHING,),
        (Rule(effect=Effect.DENY, capabilities=SOME), NOTHING),
        (Rule(effect=Effect.ALLOW, principals=("ada",)), Rule(effect=Effect.ALLOW, agents=("x",)), NOTHING),
    ],
    ids=["all", "some, then all", "others may"],
)
def test_who_is_denied_every_capability_is_shut_out(rules: tuple[Rule, ...]) -> None:
    policy = RulePolicy(rules, TenantPolicy())
    for _ in range(2):
        denied = policy.shuts_out(PAYROLL, EVE)
        assert denied is not None
        assert denied.why == "it is private"
    assert policy.shuts_out(PAYROLL, Principal(subject="ada")) is None


@pytest.mark.parametrize(
    "rules",
    [
        (),
        (Rule(effect=Effect.DENY, capabilities=("delete_*", "?*")),),
        (Rule(effect=Effect.ALLOW, capabilities=SOME), NOTHING),
        (Rule(effect=Effect.ASK, capabilities=SOME), NOTHING),
        (Rule(effect=Effect.ASK),),
    ],
    ids=["none", "some", "some may", "some are asked about", "all are asked about"],
)
def test_who_may_use_something_is_not(rules: tuple[Rule, ...]) -> None:
    policy = RulePolicy(rules, TenantPolicy())
    assert policy.shuts_out(PAYROLL, EVE) is None


def test_another_tenant_is_shut_out_whatever_the_rules_allow() -> None:
    policy = RulePolicy((Rule(effect=Effect.ALLOW),), TenantPolicy())
    assert policy.shuts_out(PAYROLL, Principal(subject="eve", tenant="other")) is not None
