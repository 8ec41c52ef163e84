// Asks for each of CASES twice with the official JavaScript SDK, straight from UPSTREAM_URL and through Chatport, and
// prints what the SDK gave, as JSON. Run and compared by tests/blackbox/test_providers.py.
import OpenAI from 'openai';

const { CHATPORT_URL, CHATPORT_KEY, UPSTREAM_URL, CASES } = process.env;
const messages = [{ role: 'user', content: 'hi' }];

async function ask(baseURL, apiKey, model, way) {
  const client = new OpenAI({ apiKey, baseURL, maxRetries: 0 });
  try {
    if (way === 'whole') return { objects: [await client.chat.completions.create({ model, messages })] };
    const objects = [];
    const fields = { model, messages, stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await client.chat.completions.create(fields)) objects.push(chunk);
    return { objects };
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    // Where Python has a class of its own for a status without a class, JavaScript has APIError itself.
    const kind = error.constructor.name === 'APIError' ? 'APIStatusError' : error.constructor.name;
    return { error: [kind, error.status] };
  }
}

const answers = [];
for (const { name, way } of JSON.parse(CASES)) {
  answers.push({
    name,
    way,
    without: await ask(`${UPSTREAM_URL}/${name}/${way}`, 'k', 'far', way),
    with: await ask(`${CHATPORT_URL}/v1`, CHATPORT_KEY, `${name}/${way}`, way),
  });
}
console.log(JSON.stringify(answers));
