// Verifies the hub's card with @a2a-js/sdk, and signs one with it. Usage: node a2a_js_signatures.cjs URL PRIVATE_JWK
// Prints { verified, tampered, signed } as one JSON object; `signed` is the hub's card with our signature only.
const { generateAgentCardSignature, verifyAgentCardSignature } = require("@a2a-js/sdk");

console.debug = () => {};
const [url, privateJwk] = process.argv.slice(2);

const attempt = async (wanted) => {
  try {
    await wanted();
    return true;
  } catch {
    return false;
  }
};

(async () => {
  const said = {};
  const verify = verifyAgentCardSignature(async (kid, jku) => {
    const { keys } = await (await fetch(jku)).json();
    return keys.find((key) => key.kid === kid);
  });
  // As it came: of a card that its own resolver has parsed, the SDK's verifier loses the security schemes.
  const card = await (await fetch(`${url}/.well-known/agent-card.json`, { headers: { "A2A-Version": "1.0" } })).json();
  said.verified = await attempt(() => verify(card));
  said.tampered = await attempt(() => verify({ ...card, name: "another" }));
  card.signatures = [];
  const key = JSON.parse(privateJwk);
  const sign = generateAgentCardSignature(key, { alg: "ES256", kid: key.kid, typ: "JOSE" });
  said.signed = { ...card, signatures: (await sign(card)).signatures };
  console.log(JSON.stringify(said));
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
