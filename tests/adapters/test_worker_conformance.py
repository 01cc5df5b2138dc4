"""LangGraph and CrewAI workers keep the contract of every adapter."""

import pytest

from interhub.adapters.conformance import CHECKS, Check
from tests.support.workers import FourHarness

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["langgraph", "crewai"])
def harness(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FourHarness:
    framework: str = request.param
    return FourHarness(framework, tmp_path_factory.mktemp(framework))


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_it_keeps_the_contract(check: Check, harness: FourHarness) -> None:
    if check.applies_to(harness):
        await check(harness)
