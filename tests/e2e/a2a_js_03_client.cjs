// Asks an A2A agent with @a2a-js/sdk 0.3, which knows nothing of 1.0, and prints what came back as one JSON object.
// Usage: node a2a_js_03_client.cjs URL KEY
const { ClientFactory, DefaultAgentCardResolver, JsonRpcTransportFactory, RestTransportFactory } = require("a2a03/client");

const [url, key] = process.argv.slice(2);
const fetchImpl = (input, init = {}) => {
  const headers = new Headers(init.headers);
  headers.set("authorization", `Bearer ${key}`);
  return fetch(input, { ...init, headers });
};

const send = (text, { blocking = true, ...more } = {}) => ({
  message: { kind: "message", messageId: crypto.randomUUID(), role: "user", parts: [{ kind: "text", text }], metadata, ...more },
  configuration: { blocking, acceptedOutputModes: [] },
});
const metadata = { "interhub/agent": "clerk" };
const texts = (task) =>
  Object.fromEntries((task.artifacts ?? []).map((made) => [made.artifactId, made.parts.map((p) => p.text).join("")]));

async function collect(stream) {
  const seen = { kinds: [], last: "", final: false };
  for await (const event of stream) {
    if (seen.kinds.at(-1) !== event.kind) seen.kinds.push(event.kind);
    if (event.kind === "status-update") [seen.last, seen.final] = [event.status.state, event.final];
  }
  return seen;
}

async function attempt(wanted) {
  try {
    return await wanted();
  } catch (error) {
    return { error: error.constructor.name, message: error.message };
  }
}

async function exercise(client) {
  const said = {};
  const blocking = await client.sendMessage(send("echo hello"));
  said.blocking = [blocking.status.state, texts(blocking)];
  said.stream = await collect(client.sendMessageStream(send("count 3")));
  const held = await client.sendMessage(send("hold", { blocking: false }));
  said.got = (await client.getTask({ id: held.id })).status.state;
  const following = collect(client.resubscribeTask({ id: held.id }));
  said.canceled = (await client.cancelTask({ id: held.id })).status.state;
  said.followed = await following;
  const asked = await client.sendMessage(send("ask"));
  const answered = await client.sendMessage(send("blue", { taskId: asked.id, contextId: asked.contextId }));
  said.asked = [asked.status.state, asked.status.message.parts[0].text, answered.status.state, texts(answered)];
  said.unknown = await attempt(() => client.getTask({ id: "nope" }));
  return said;
}

(async () => {
  const resolver = new DefaultAgentCardResolver({ fetchImpl });
  const card = await resolver.resolve(url);
  const said = { preferred: card.preferredTransport, version: card.protocolVersion };
  for (const Transport of [JsonRpcTransportFactory, RestTransportFactory]) {
    const transport = new Transport({ fetchImpl });
    const factory = new ClientFactory({ transports: [transport], cardResolver: resolver });
    said[transport.protocolName] = await exercise(await factory.createFromAgentCard(card));
  }
  console.log(JSON.stringify(said));
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
