"""Microsoft's Agent Framework asks an agent of the hub by its `A2AAgent`: `agent_framework_client.py URL`."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# It runs in an environment of its own.

import asyncio
import json
import sys

import httpx
from a2a.client import A2ACardResolver
from agent_framework.a2a import A2AAgent


async def main() -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        card = await A2ACardResolver(http, sys.argv[1]).get_agent_card()
        async with A2AAgent(agent_card=card, http_client=http) as agent:
            echoed = await agent.run("echo hello")
            streamed = [update.text async for update in agent.run("count 3", stream=True)]
            session = agent.create_session()
            asked = await agent.run("ask", session=session)
            answered = await agent.run("blue", session=session)
    said = {"echo": echoed.text, "stream": "".join(streamed), "ask": asked.text, "answer": answered.text}
    print(json.dumps(said))


asyncio.run(main())
