// An agent on @a2a-js/sdk's own server with the four capabilities of the conformance suite: A2A 1.0 and 0.3,
// JSON-RPC and HTTP+JSON. Run as `node js_agent.mjs --port 0 --log FILE`, with NODE_PATH naming the packages.

import { appendFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const modules = process.env.NODE_PATH; // ES modules do not look there by themselves
const require = createRequire(pathToFileURL(`${modules}/x.js`));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const express = (await load("express")).default;
const { AgentEvent, DefaultRequestHandler, InMemoryTaskStore } = await load("@a2a-js/sdk/server");
const { UserBuilder, agentCardHandler, jsonRpcHandler, restHandler } = await load("@a2a-js/sdk/server/express");
const { duplicateInterfacesForLegacy } = await load("@a2a-js/sdk/compat/v0_3");
const { Role, TaskState } = await load("@a2a-js/sdk");

const option = (name) => process.argv[process.argv.indexOf(name) + 1];
const write = (line) => appendFileSync(option("--log"), JSON.stringify(line) + "\n");

class Four {
  running = new Map(); // task id -> { stop, key }

  async execute({ userMessage, taskId, contextId, task }, bus) {
    const said = userMessage.parts.map((part) => (part.content?.$case === "text" ? part.content.value : "")).join("");
    const [kind, ...rest] = said.split(":");
    const text = rest.join(":");
    const key = userMessage.metadata?.["interhub.dev/idempotencyKey"] ?? "";
    const part = (value) => ({
      content: { $case: "text", value }, metadata: undefined, filename: "", mediaType: "text/plain",
    });
    const message = (words) => ({
      messageId: crypto.randomUUID(), role: Role.ROLE_AGENT, parts: [part(words)], taskId, contextId,
      extensions: [], metadata: undefined, referenceTaskIds: [],
    });
    const status = (state, words) => ({
      state, message: words === undefined ? undefined : message(words), timestamp: new Date().toISOString(),
    });
    const say = (state, words) =>
      bus.publish(AgentEvent.statusUpdate({ taskId, contextId, status: status(state, words), metadata: undefined }));
    if (task) {
      bus.publish(AgentEvent.task(task)); // every stream must begin with its task
      say(TaskState.TASK_STATE_COMPLETED, said);
      return bus.finished();
    }
    bus.publish(AgentEvent.task({
      id: taskId, contextId, status: status(TaskState.TASK_STATE_SUBMITTED), artifacts: [], history: [userMessage],
      metadata: undefined,
    }));
    write({ event: "started", text, key });
    if (kind === "echo") {
      say(TaskState.TASK_STATE_WORKING, "reading");
      say(TaskState.TASK_STATE_COMPLETED, text);
    } else if (kind === "fail") {
      say(TaskState.TASK_STATE_FAILED, text);
    } else if (kind === "ask") {
      say(TaskState.TASK_STATE_INPUT_REQUIRED, `really ${text}?`);
    } else {
      say(TaskState.TASK_STATE_WORKING, "going slowly");
      await new Promise((stop) => this.running.set(taskId, stop));
      write({ event: "canceled", key });
      say(TaskState.TASK_STATE_CANCELED, "stopped");
    }
    bus.finished();
  }

  cancelTask = async (taskId) => this.running.get(taskId)?.();
}

const server = createServer();
server.listen(Number(option("--port")), "127.0.0.1", () => {
  const url = `http://127.0.0.1:${server.address().port}`;
  const interfaces = [
    { url: `${url}/rpc`, protocolBinding: "JSONRPC", tenant: "", protocolVersion: "1.0" },
    { url: `${url}/rest`, protocolBinding: "HTTP+JSON", tenant: "", protocolVersion: "1.0" },
  ];
  const skill = (id) => ({
    id, name: id, description: id, tags: ["test"], examples: [], inputModes: [], outputModes: [],
    securityRequirements: [],
  });
  const card = {
    name: "four in JavaScript", description: "Echo, fail, slow and ask.", version: "1",
    provider: { organization: "interhub", url: "https://example.com" },
    supportedInterfaces: duplicateInterfacesForLegacy(interfaces, ["JSONRPC", "HTTP+JSON"]),
    capabilities: { streaming: true, pushNotifications: false, extensions: [], extendedAgentCard: false },
    securitySchemes: {}, securityRequirements: [], documentationUrl: "", signatures: [],
    defaultInputModes: ["text/plain"], defaultOutputModes: ["text/plain"],
    skills: ["echo", "fail", "slow", "ask"].map(skill),
  };
  const handler = new DefaultRequestHandler(card, new InMemoryTaskStore(), new Four());
  const shared = { requestHandler: handler, userBuilder: UserBuilder.noAuthentication, legacyCompat: { enabled: true } };
  const app = express();
  app.use("/.well-known/agent-card.json", agentCardHandler({ agentCardProvider: handler, ...shared }));
  app.use("/rpc", jsonRpcHandler(shared));
  app.use("/rest", restHandler(shared));
  server.on("request", app);
  console.log(JSON.stringify({ url }));
});
