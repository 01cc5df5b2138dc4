"""What the documents promise is there, and what is there is in the documents."""

import re
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from interhub.adapters import Adapter, Call, Completed, Principal, ignore, text_of
from interhub.hub.faces.mcp.definitions import own_tools
from interhub.hub.supervisor.model import STEP_KINDS, Plan, load_plan, plan_schema
from interhub.hub.supervisor.run import EventKind

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")])
WORKFLOWS = ROOT / "docs" / "workflows.md"
DEFINITIONS: list[dict[str, Any]] = list(cast("dict[str, Any]", plan_schema()["$defs"]).values())


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("kind", EventKind)
def test_every_kind_of_event_is_documented(kind: EventKind) -> None:
    assert f"| `{kind.value}` |" in (ROOT / "docs" / "events.md").read_text()


@pytest.mark.parametrize(
    "name",
    sorted({*STEP_KINDS, *Plan.model_fields, *(key for one in DEFINITIONS for key in one.get("properties", {}))}),
)
def test_every_key_of_a_workflow_is_documented(name: str) -> None:
    assert f"`{name}`" in WORKFLOWS.read_text()


def test_the_workflows_in_the_documents_are_ones() -> None:
    documents = [yaml.safe_load(block) for page in PAGES for block in code_blocks(page, "yaml")]
    workflows = [document for document in documents if document.get("kind") == "workflow"]
    assert len(workflows) >= 2
    for document in workflows:
        load_plan(document)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_tool_of_the_hub_and_its_arguments_are_documented() -> None:
    section = (ROOT / "docs" / "mcp.md").read_text().partition("\n## The hub's own tools\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, flags=re.MULTILINE)
    documented = {tool: set(re.findall(r"`(\w+)`", arguments)) for tool, arguments in rows}
    tools = own_tools(wait_s=50)
    assert documented == {tool.name: set(tool.input_schema["properties"]) for tool in tools}


async def test_the_adapter_in_the_documents_works() -> None:
    names: dict[str, Any] = {}
    for program in code_blocks(ROOT / "docs" / "adapters.md", "python"):
        exec(compile(program, "docs/adapters.md", "exec"), names)
    adapter: Adapter = names["EchoAdapter"]()
    card = await adapter.describe(names["endpoint"])
    async with adapter.connect(names["endpoint"], card=card, label="echo") as connection:
        asked = Call(
            capability="echo", arguments={"message": "hello"}, principal=Principal(subject="ann"), idempotency_key="1"
        )
        outcome = await connection.call(asked, ignore)
    assert isinstance(outcome, Completed)
    assert text_of(outcome.parts) == "hello"
