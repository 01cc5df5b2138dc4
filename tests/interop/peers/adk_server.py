"""An agent of Google's ADK behind its own `to_a2a`: echoes, and deletes files once a person has confirmed it."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# It runs in an environment of its own.

import argparse
import json
import socket
import warnings

warnings.simplefilter("ignore")

import uvicorn  # noqa: E402
from google.adk.a2a.utils.agent_to_a2a import to_a2a  # noqa: E402
from google.adk.agents import LlmAgent  # noqa: E402
from google.adk.models import BaseLlm, LlmResponse  # noqa: E402
from google.adk.tools import FunctionTool  # noqa: E402
from google.genai import types  # noqa: E402


class Scripted(BaseLlm):
    """Says what was said; `delete X` calls the tool, and what the tool returned is told."""

    async def generate_content_async(self, llm_request, stream=False):
        last = llm_request.contents[-1].parts[-1]
        if last.function_response is not None:
            part = types.Part(text=f"the tool says {json.dumps(last.function_response.response, sort_keys=True)}")
        elif last.text.startswith("delete "):
            call = types.FunctionCall(name="delete_file", args={"path": last.text.removeprefix("delete ")})
            part = types.Part(function_call=call)
        else:
            part = types.Part(text=f"echo {last.text}")
        used = types.GenerateContentResponseUsageMetadata(prompt_token_count=7, candidates_token_count=3)
        yield LlmResponse(content=types.Content(role="model", parts=[part]), usage_metadata=used)


def delete_file(path: str) -> dict:
    """Delete a file."""
    return {"deleted": path}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    listening = socket.create_server(("127.0.0.1", parser.parse_args().port))
    port = listening.getsockname()[1]
    tool = FunctionTool(delete_file, require_confirmation=True)
    agent = LlmAgent(name="adk_clerk", description="Keeps files.", model=Scripted(model="scripted"), tools=[tool])
    app = to_a2a(agent, host="127.0.0.1", port=port)

    class Announcing(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            print(json.dumps({"url": f"http://127.0.0.1:{port}"}), flush=True)

    Announcing(uvicorn.Config(app, log_level="critical")).run(sockets=[listening])


if __name__ == "__main__":
    main()
