"""What the teams around a step let it do: each team's own policy, beside the hub's. The strictest decides."""

from collections.abc import Sequence

from interhub.adapters import Principal
from interhub.hub.policy import Allow, Ask, Decision, Deny
from interhub.registry import Agent, AgentNotFound, Registry

from .team_document import rules_of


async def strictest(
    registry: Registry, principal: Principal, trail: Sequence[str], agent: Agent, capability: str, decided: Decision
) -> Decision:
    """Return what holds for a call that the hub's policy has decided on so: a team may forbid or ask.

    `trail` names the teams and workflows around the call. One that is gone by now forbids nothing any more.
    """
    for name in trail:
        if isinstance(decided, Deny):
            break
        try:
            team = await registry.get(principal.tenant, name)
        except AgentNotFound:
            continue
        for rule in rules_of(team.endpoint.options):
            if not rule.covers(principal, agent.id, capability):
                continue
            said = f"the policy of the team {name}" + (f": {rule.why}" if rule.why else "")
            match rule.decision():
                case Deny():
                    decided = Deny(said)
                case Ask() if isinstance(decided, Allow):
                    decided = Ask(said)
                case _:
                    pass
            break
    return decided
