// An agent on @a2a-js/sdk 0.3.14's own server with the four capabilities of the conformance suite: A2A 0.3, JSON-RPC and
// HTTP+JSON. Run as `node js_03_agent.mjs --port 0 --log FILE`, with NODE_PATH naming the packages.

import { appendFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const modules = process.env.NODE_PATH; // ES modules do not look there by themselves
const require = createRequire(pathToFileURL(`${modules}/x.js`));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const express = (await load("express")).default;
const { DefaultRequestHandler, InMemoryTaskStore } = await load("a2a03/server");
const { UserBuilder, agentCardHandler, jsonRpcHandler, restHandler } = await load("a2a03/server/express");

const option = (name) => process.argv[process.argv.indexOf(name) + 1];
const write = (line) => appendFileSync(option("--log"), JSON.stringify(line) + "\n");

class Four {
  running = new Map(); // task id -> stop

  async execute({ userMessage, taskId, contextId, task }, bus) {
    const said = userMessage.parts.map((part) => (part.kind === "text" ? part.text : "")).join("");
    const [kind, ...rest] = said.split(":");
    const text = rest.join(":");
    const key = userMessage.metadata?.["interhub.dev/idempotencyKey"] ?? "";
    const message = (words) => ({
      kind: "message", messageId: crypto.randomUUID(), role: "agent", parts: [{ kind: "text", text: words }], taskId,
      contextId,
    });
    const status = (state, words) => ({
      state, timestamp: new Date().toISOString(), ...(words === undefined ? {} : { message: message(words) }),
    });
    const say = (state, words, final = true) =>
      bus.publish({ kind: "status-update", taskId, contextId, status: status(state, words), final });
    if (task) {
      say("completed", said);
      return bus.finished();
    }
    bus.publish({ kind: "task", id: taskId, contextId, status: status("submitted"), history: [userMessage] });
    write({ event: "started", text, key });
    if (kind === "echo") {
      say("working", "reading", false);
      say("completed", text);
    } else if (kind === "fail") {
      say("failed", text);
    } else if (kind === "ask") {
      say("input-required", `really ${text}?`);
    } else {
      say("working", "going slowly", false);
      await new Promise((stop) => this.running.set(taskId, stop));
      write({ event: "canceled", key });
      say("canceled", "stopped");
    }
    bus.finished();
  }

  cancelTask = async (taskId) => this.running.get(taskId)?.();
}

const server = createServer();
server.listen(Number(option("--port")), "127.0.0.1", () => {
  const url = `http://127.0.0.1:${server.address().port}`;
  const skill = (id) => ({ id, name: id, description: id, tags: ["test"] });
  const card = {
    name: "four in older JavaScript", description: "Echo, fail, slow and ask.", version: "1", protocolVersion: "0.3.0",
    url: `${url}/rpc`, preferredTransport: "JSONRPC", additionalInterfaces: [{ url: `${url}/rest`, transport: "HTTP+JSON" }],
    capabilities: { streaming: true }, defaultInputModes: ["text/plain"], defaultOutputModes: ["text/plain"],
    skills: ["echo", "fail", "slow", "ask"].map(skill),
  };
  const requestHandler = new DefaultRequestHandler(card, new InMemoryTaskStore(), new Four());
  const shared = { requestHandler, userBuilder: UserBuilder.noAuthentication };
  const app = express();
  app.use("/.well-known/agent-card.json", agentCardHandler({ agentCardProvider: requestHandler }));
  app.use("/rpc", jsonRpcHandler(shared));
  app.use("/rest", restHandler(shared));
  server.on("request", app);
  console.log(JSON.stringify({ url }));
});
