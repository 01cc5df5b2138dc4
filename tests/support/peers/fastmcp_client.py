"""FastMCP's client, in an environment of its own: uses the everything-server at URL KEY, prints what it saw as JSON."""

import asyncio
import json
import sys
from typing import Any

from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport


async def main() -> None:
    wanted = json.loads(sys.argv[1])
    saw: dict[str, Any] = {"progress": [], "asked": [], "sampled": []}

    async def elicit(message: str, response_type: Any, params: Any, context: Any) -> dict[str, Any]:
        saw["asked"].append(message)
        return {"name": "tea"} if "What" in message else {"ok": True}

    async def sample(messages: Any, params: Any, context: Any) -> str:
        saw["sampled"].append(messages[0].content.text)
        return "Paris"

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        saw["progress"].append([progress, total])

    if "url" in wanted:
        transport: Any = StreamableHttpTransport(wanted["url"], headers={"Authorization": f"Bearer {wanted['key']}"})
    else:
        transport = StdioTransport(wanted["command"], wanted["args"], env=wanted["env"])
    async with Client(transport, elicitation_handler=elicit, sampling_handler=sample, progress_handler=hear) as client:
        saw["tools"] = [tool.name for tool in await client.list_tools()]
        saw["sum"] = (await client.call_tool("add", {"a": 20, "b": 22})).structured_content
        await client.call_tool("test_tool_with_progress", {})
        failed = await client.call_tool("test_error_handling", {}, raise_on_error=False)
        saw["failed"] = failed.is_error
        saw["ordered"] = (await client.call_tool("order", {})).content[0].text
        prompt = await client.get_prompt("test_prompt_with_arguments", {"arg1": "x", "arg2": "y"})
        saw["prompt"] = prompt.messages[0].content.text
        saw["resource"] = (await client.read_resource("test://template/7/data"))[0].text
    print(json.dumps(saw))


asyncio.run(main())
