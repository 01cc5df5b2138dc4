"""An agent of Strands behind its own A2A server (A2A 0.3): echoes, word by word."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# It runs in an environment of its own.

import argparse
import json
import socket

import uvicorn
from strands import Agent
from strands.models import Model
from strands.multiagent.a2a import A2AServer


class Scripted(Model):
    """Says what was said."""

    def update_config(self, **model_config):
        """Take nothing."""

    def get_config(self):
        return {"model_id": "scripted"}

    async def structured_output(self, output_model, prompt, system_prompt=None, **kwargs):
        raise NotImplementedError
        yield {}

    async def stream(self, messages, tool_specs=None, system_prompt=None, **kwargs):
        said = messages[-1]["content"][0]["text"]
        yield {"messageStart": {"role": "assistant"}}
        yield {"contentBlockStart": {"start": {}}}
        for word in f"echo {said}".split():
            yield {"contentBlockDelta": {"delta": {"text": f"{word} "}}}
        yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": "end_turn"}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    listening = socket.create_server(("127.0.0.1", parser.parse_args().port))
    port = listening.getsockname()[1]

    def agent(context_id):
        return Agent(model=Scripted(), name="strands_clerk", description="Echoes.", callback_handler=None)

    server = A2AServer(agent_factory=agent, host="127.0.0.1", port=port, enable_a2a_compliant_streaming=True)

    class Announcing(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            print(json.dumps({"url": f"http://127.0.0.1:{port}"}), flush=True)

    Announcing(uvicorn.Config(server.to_starlette_app(), log_level="critical")).run(sockets=[listening])


if __name__ == "__main__":
    main()
