"""A worker without a framework, which behaves as badly as its first argument says."""

import json
import os
import sys
import time


def send(frame: object) -> None:
    print(json.dumps(frame), flush=True)


def main() -> None:
    mode = sys.argv[1]
    if mode == "exit":
        print("cannot find my head", file=sys.stderr)
        sys.exit(3)
    if mode == "garbage":
        for number in range(100):
            print(f"loading shard {number} of 100", flush=True)
    if mode == "silent":
        time.sleep(60)
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"jsonrpc": "2.0", "id": request["id"]}
        if request["method"] == "initialize":
            if mode == "chatty":
                print("one stray line", flush=True)
            send(
                {**answer, "result": {"agentCard": {"name": "bare"}, "concurrent": mode == "shared", "stateful": False}}
            )
            continue
        if mode == "odd":
            send({**answer, "id": [1], "result": {}})
            continue
        if mode == "odder":
            send({"jsonrpc": "2.0", "method": "StreamResponse", "params": [1]})
            continue
        if mode == "crash":
            print("going down", file=sys.stderr)
            os._exit(7)
        if mode == "stuck" and request["method"] == "SendStreamingMessage":
            continue
        if mode == "shared" and not os.path.exists("was-stuck"):  # all its calls hang, and one is cancelled
            if request["method"] == "CancelTask":
                open("was-stuck", "w").close()
            continue
        key = request["params"].get("message", {}).get("messageId")
        send({**answer, "result": {"task": {"id": key, "status": {"state": "TASK_STATE_COMPLETED"}}, "clean": True}})


main()
