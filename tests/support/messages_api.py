"""A scripted Messages API on loopback: a model for Claude Code that costs nothing and always does the same."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast


@dataclass
class ScriptedModel:
    """Uses one tool, then ends its turn with what the tool's result said."""

    tool: str
    arguments: dict[str, Any]
    url: str = ""
    offered: list[str] = field(default_factory=list[str])
    """The tools that the client offered it."""
    results: list[Any] = field(default_factory=list[Any])
    """The tool results that it was given."""

    def turn(self, request: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Return the content block and stop reason of its next turn."""
        offered = [tool["name"] for tool in request.get("tools", [])]
        if self.tool not in offered:
            return {"type": "text", "text": "title"}, "end_turn"  # the client's own small requests
        self.offered = offered
        last: list[Any] = request["messages"][-1]["content"]
        blocks = [cast("dict[str, Any]", block) for block in last if isinstance(block, dict)]
        found = [block for block in blocks if block.get("type") == "tool_result"]
        if not found:
            return {"type": "tool_use", "id": "toolu_1", "name": self.tool, "input": self.arguments}, "tool_use"
        self.results += found
        return {"type": "text", "text": f"The tool said: {json.dumps(found[0]['content'])}"}, "end_turn"


@contextmanager
def messages_api(model: ScriptedModel) -> Generator[ScriptedModel]:
    """Serve the model on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"{}")
            if not self.path.startswith("/v1/messages") or "count_tokens" in self.path:
                self._send("application/json", json.dumps({"input_tokens": 1}))
                return
            block, stop = model.turn(request)
            message = {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": request.get("model", ""),
                "content": [block],
                "stop_reason": stop,
                "stop_sequence": None,
                "usage": {"input_tokens": 1, "output_tokens": 1},
            }
            if request.get("stream"):
                self._send("text/event-stream", _streamed(message, block, stop))
            else:
                self._send("application/json", json.dumps(message))

        def do_GET(self) -> None:
            self._send("application/json", "{}")

        def do_HEAD(self) -> None:
            self._send("application/json", "")

        def _send(self, content_type: str, text: str) -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            model.url = f"http://127.0.0.1:{server.server_address[1]}"
            yield model
        finally:
            server.shutdown()
            thread.join()


def _streamed(message: dict[str, Any], block: dict[str, Any], stop: str) -> str:
    started: dict[str, Any] = {"type": "text", "text": ""}
    delta: dict[str, Any] = {"type": "text_delta", "text": block.get("text", "")}
    if block["type"] == "tool_use":
        started = {**block, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": started},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop, "stop_sequence": None},
            "usage": {"output_tokens": 1},
        },
        {"type": "message_stop"},
    ]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
