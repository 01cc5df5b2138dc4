// Asks an A2A agent with @a2a-js/sdk 1.x over each of its interfaces, and prints what came back as one JSON object.
// Usage: node a2a_js_client.cjs URL KEY
const { ClientFactory, DefaultAgentCardResolver, JsonRpcTransportFactory, RestTransportFactory } = require("@a2a-js/sdk/client");
const { Role, TaskState } = require("@a2a-js/sdk");

const [url, key] = process.argv.slice(2);
const fetchImpl = (input, init = {}) => {
  const headers = new Headers(init.headers);
  headers.set("authorization", `Bearer ${key}`);
  return fetch(input, { ...init, headers });
};
const options = { fetchImpl, legacyCompat: { enabled: true } };

const send = (text, { now = false, ...more } = {}) => ({
  tenant: "",
  metadata: undefined,
  message: {
    messageId: crypto.randomUUID(), role: Role.ROLE_USER, contextId: "", taskId: "", extensions: [],
    referenceTaskIds: [], metadata: { "interhub/agent": "clerk" },
    parts: [{ content: { $case: "text", value: text }, metadata: undefined, filename: "", mediaType: "text/plain" }],
    ...more,
  },
  configuration: {
    acceptedOutputModes: [], returnImmediately: now, historyLength: undefined, taskPushNotificationConfig: undefined,
  },
});
const state = (task) => TaskState[task.status.state];
const texts = (task) =>
  Object.fromEntries(task.artifacts.map((made) => [made.artifactId, made.parts.map((p) => p.content.value).join("")]));
const ended = (event) => event.payload.$case === "statusUpdate" && state(event.payload.value);

async function collect(stream) {
  const seen = { kinds: [], last: "", id: "" };
  for await (const event of stream) {
    if (seen.kinds.at(-1) !== event.payload.$case) seen.kinds.push(event.payload.$case);
    if (event.payload.$case === "task") seen.id = event.payload.value.id;
    seen.last = ended(event) || seen.last;
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

async function exercise(client, old) {
  const said = {};
  const blocking = await client.sendMessage(send("echo hello"));
  said.blocking = [state(blocking), texts(blocking)];
  const again = send("echo once");
  said.idempotent = (await client.sendMessage(again)).id === (await client.sendMessage(again)).id;
  said.stream = await collect(client.sendMessageStream(send("count 3")));
  const held = await client.sendMessage(send("hold", { now: true }));
  const following = collect(client.resubscribeTask({ id: held.id, tenant: "" }));
  said.got = state(await client.getTask({ id: held.id, tenant: "", historyLength: undefined }));
  said.canceled = state(await client.cancelTask({ id: held.id, tenant: "", metadata: undefined }));
  said.followed = await following;
  said.canceledAgain = await attempt(() => client.cancelTask({ id: held.id, tenant: "", metadata: undefined }));
  const asked = await client.sendMessage(send("ask"));
  const question = asked.status.message.parts[0].content.value;
  const answered = await client.sendMessage(send("blue", { taskId: asked.id, contextId: asked.contextId }));
  said.asked = [state(asked), question, state(answered), texts(answered), answered.id === asked.id];
  said.unknown = await attempt(() => client.getTask({ id: "nope", tenant: "", historyLength: undefined }));
  if (!old) {
    const page = { tenant: "", contextId: "", status: 0, pageSize: 2, pageToken: "", historyLength: undefined,
      statusTimestampAfter: undefined, includeArtifacts: false };
    const listed = await client.listTasks(page);
    said.listed = [listed.tasks.length, listed.nextPageToken !== ""];
    said.extended = (await client.getAgentCard()).skills.map((skill) => skill.id);
  }
  return said;
}

(async () => {
  const resolver = new DefaultAgentCardResolver(options);
  // A caller of 1.0 is given a card without 0.3: ask for that as one who says nothing.
  const silent = (input, init = {}) => {
    const headers = new Headers(init.headers);
    headers.delete("a2a-version");
    return fetchImpl(input, { ...init, headers });
  };
  const pure = await resolver.resolve(url);
  const dual = await new DefaultAgentCardResolver({ ...options, fetchImpl: silent }).resolve(url);
  const transports = [new JsonRpcTransportFactory(options), new RestTransportFactory(options)];
  const factory = new ClientFactory({ transports, cardResolver: resolver });
  const said = { pure: pure.supportedInterfaces.map((face) => `${face.protocolVersion} ${face.protocolBinding}`) };
  for (const face of dual.supportedInterfaces) {
    const client = await factory.createFromAgentCard({ ...dual, supportedInterfaces: [face] });
    const old = face.protocolVersion.startsWith("0.3");
    said[`${face.protocolVersion} ${face.protocolBinding}`] = await exercise(client, old);
  }
  console.log(JSON.stringify(said));
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
