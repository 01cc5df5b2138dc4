// One of the two TypeScript SDKs uses the everything-server through a hub, and prints what it saw as JSON.
//
//   node mcp_ts_client.cjs '{"sdk": "client" | "sdk", "era": "legacy" | "auto" | "modern",
//                            "url": ..., "key": ...  |  "command": ..., "args": [...]}'
"use strict";

const wanted = JSON.parse(process.argv[2]);
const now = wanted.sdk === "client";

function library() {
  if (now) return { ...require("@modelcontextprotocol/client"), ...require("@modelcontextprotocol/client/stdio") };
  return {
    ...require("@modelcontextprotocol/sdk/client/index.js"),
    ...require("@modelcontextprotocol/sdk/client/streamableHttp.js"),
    ...require("@modelcontextprotocol/sdk/client/stdio.js"),
    ...require("@modelcontextprotocol/sdk/types.js"),
  };
}

const sdk = library();

function transport() {
  if (wanted.command) return new sdk.StdioClientTransport({ command: wanted.command, args: wanted.args, env: process.env });
  const headers = { Authorization: `Bearer ${wanted.key}` };
  return new sdk.StreamableHTTPClientTransport(new URL(wanted.url), { requestInit: { headers } });
}

async function main() {
  const report = { progress: [], asked: [], sampled: [] };
  let heardOfChange;
  const changed = new Promise((resolve) => (heardOfChange = resolve));
  const modes = { legacy: "legacy", auto: "auto", modern: { pin: "2026-07-28" } };
  const options = {
    capabilities: { elicitation: { form: {} }, sampling: {}, roots: {} },
    listChanged: { tools: { autoRefresh: false, onChanged: () => heardOfChange(true) } },
    ...(now ? { versionNegotiation: { mode: modes[wanted.era] } } : {}),
  };
  const client = new sdk.Client({ name: "ts", version: "1" }, options);
  const on = (method, schema, handler) => client.setRequestHandler(now ? method : sdk[schema], handler);
  on("elicitation/create", "ElicitRequestSchema", async ({ params }) => {
    report.asked.push(params.message);
    return { action: "accept", content: "name" in params.requestedSchema.properties ? { name: "tea" } : { ok: true } };
  });
  on("sampling/createMessage", "CreateMessageRequestSchema", async ({ params }) => {
    report.sampled.push(params.messages[0].content.text ?? params.messages[0].content[0].text);
    return { role: "assistant", model: "none", content: { type: "text", text: "Paris" } };
  });
  const call = (name, args = {}, more = {}) =>
    now
      ? client.callTool({ name, arguments: args }, more)
      : client.callTool({ name, arguments: args }, undefined, more);

  await client.connect(transport());
  report.tools = (await client.listTools()).tools.map((tool) => tool.name);
  report.era = now ? client.getProtocolEra() : "legacy";
  report.sum = (await call("add", { a: 20, b: 22 })).structuredContent;
  const onprogress = ({ progress, total, message }) => report.progress.push([progress, total, message]);
  await call("test_tool_with_progress", {}, { onprogress });
  report.failed = (await call("test_error_handling")).isError;
  report.ordered = (await call("order")).content[0].text;
  report.said = (
    report.era === "modern"
      ? await call("test_input_required_result_sampling")
      : await call("test_sampling", { prompt: "What is the capital of France?" })
  ).content[0].text;
  report.prompt = (await client.getPrompt({ name: "test_prompt_with_arguments", arguments: { arg1: "x", arg2: "y" } }))
    .messages[0].content.text;
  report.resource = (await client.readResource({ uri: "test://template/7/data" })).contents[0].text;
  report.refused = await call("no such tool").then(
    (result) => (result.isError ? "isError" : "answered"),
    (error) => error.code,
  );

  const before = (await call("count_cancelled")).structuredContent.cancelled;
  const stop = new AbortController();
  const slow = call("slow", { seconds: 600 }, { signal: stop.signal, onprogress: () => stop.abort("enough") });
  report.aborted = await slow.then(() => "answered", () => "aborted");
  do report.cancelled = (await call("count_cancelled")).structuredContent.cancelled - before;
  while (report.cancelled === 0);

  await call("test_trigger_tool_change");
  report.changed = await changed;
  await client.close();
  console.log(JSON.stringify(report));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
