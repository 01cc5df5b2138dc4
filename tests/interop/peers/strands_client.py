"""Strands asks an agent of the hub by its `A2AAgent`: `strands_client.py URL`, URL being the agent's address."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# It runs in an environment of its own.

import asyncio
import json
import sys

from strands.agent.a2a_agent import A2AAgent


async def main() -> None:
    agent = A2AAgent(sys.argv[1])

    async def say(text: str) -> str:
        result = await agent.invoke_async(text)
        return "".join(block.get("text", "") for block in result.message["content"])

    streamed = [type(event).__name__ async for event in agent.stream_async("count 3")]
    print(json.dumps({"name": agent.name, "echo": await say("echo hello"), "events": len(streamed)}))


asyncio.run(main())
