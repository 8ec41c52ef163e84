// The official JavaScript SDK against a running server: CHATPORT_URL and CHATPORT_KEY say where, CHATPORT_MODEL which
// model. Run by tests/blackbox/test_npm.py, with node's own test runner.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';

const { CHATPORT_URL, CHATPORT_KEY, CHATPORT_MODEL, CHATPORT_SCRIPTED } = process.env;
const client = new OpenAI({ apiKey: CHATPORT_KEY, baseURL: `${CHATPORT_URL}/v1`, maxRetries: 0 });
const messages = [{ role: 'user', content: 'one two three four five' }];
const ask = (fields = {}, options = {}) =>
  client.chat.completions.create({ model: CHATPORT_MODEL, messages, max_tokens: 24, ...fields }, options);
const onlyScripted = { skip: !CHATPORT_SCRIPTED };

test('plain', async () => {
  const reply = await ask();
  assert.equal(reply.object, 'chat.completion');
  assert.equal(typeof reply.choices[0].message.content, 'string');
  assert.equal(reply.choices[0].message.refusal, null);
  assert.ok(reply._request_id.startsWith('req_'));
  assert.equal(reply.usage.total_tokens, reply.usage.prompt_tokens + reply.usage.completion_tokens);
});

test('streamed, it is the plain reply', async () => {
  const fields = { temperature: 0, seed: 7 };
  let text = '';
  for await (const chunk of await ask({ ...fields, stream: true })) text += chunk.choices[0]?.delta?.content ?? '';
  assert.equal(text, (await ask(fields)).choices[0].message.content);
});

test('streamed with usage', async () => {
  const chunks = [];
  for await (const chunk of await ask({ stream: true, stream_options: { include_usage: true } })) chunks.push(chunk);
  const last = chunks.pop();
  assert.deepEqual(last.choices, []);
  assert.ok(last.usage.total_tokens > 0);
  assert.ok(chunks.every((chunk) => chunk.usage === null));
});

test('the stream helper', async () => {
  const runner = client.chat.completions.stream({ model: CHATPORT_MODEL, messages, max_tokens: 24 });
  const pieces = [];
  runner.on('content', (piece) => pieces.push(piece));
  assert.equal(pieces.join(''), '');
  const final = await runner.finalChatCompletion();
  assert.equal(pieces.join(''), final.choices[0].message.content);
});

test('a stream that is broken off leaves the server well', async () => {
  const stream = await ask({ stream: true, max_tokens: 400 });
  for await (const chunk of stream) {
    assert.ok(chunk.id);
    break;
  }
  const controller = new AbortController();
  const pending = ask({ max_tokens: 400 }, { signal: controller.signal });
  controller.abort();
  await assert.rejects(pending, OpenAI.APIUserAbortError);
  assert.ok((await ask()).id);
});

const errors = [
  ['400', { temperature: 9 }, OpenAI.BadRequestError, 400, 'temperature', false],
  ['404', { model: 'nobody' }, OpenAI.NotFoundError, 404, 'model', false],
  ['429', { model: 'busy' }, OpenAI.RateLimitError, 429, null, true],
  ['500', { model: 'broken' }, OpenAI.InternalServerError, 500, null, true],
  ['503', { model: 'down' }, OpenAI.InternalServerError, 503, null, true],
];
for (const [name, fields, kind, status, param, scripted] of errors) {
  for (const stream of [false, true]) {
    test(`error ${name}${stream ? ', streamed' : ''}`, { skip: scripted && !CHATPORT_SCRIPTED }, async () => {
      await assert.rejects(ask({ ...fields, stream }), (error) => {
        assert.ok(error instanceof kind);
        assert.equal(error.status, status);
        assert.equal(error.param, param);
        assert.ok(error.requestID.startsWith('req_'));
        return true;
      });
    });
  }
}

test('error 401', async () => {
  const stranger = client.withOptions({ apiKey: 'sk-wrong-wrong-wrong-wrong' });
  await assert.rejects(stranger.models.list(), (error) => {
    assert.ok(error instanceof OpenAI.AuthenticationError);
    assert.equal(error.code, 'invalid_api_key');
    return true;
  });
});

test('models', async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes('gpt-4'));
  assert.equal((await client.models.retrieve(CHATPORT_MODEL)).id, CHATPORT_MODEL);
});

test('a model with a slash in its name', onlyScripted, async () => {
  assert.equal((await client.models.retrieve('library/poem:1')).id, 'library/poem:1');
});

test('tools', onlyScripted, async () => {
  const tools = [{ type: 'function', function: { name: 'look_up', parameters: { type: 'object', properties: {} } } }];
  const reply = await ask({ tools, tool_choice: 'required' });
  assert.equal(reply.choices[0].message.tool_calls[0].function.name, 'look_up');
});

test('stored completions, page by page', async () => {
  const mark = `npm-${Date.now()}`;
  const made = [];
  for (let i = 0; i < 5; i++) made.push((await ask({ store: true, metadata: { mark }, max_tokens: 2 })).id);
  const listed = [];
  for await (const one of client.chat.completions.list({ limit: 2, metadata: { mark } })) listed.push(one.id);
  assert.deepEqual(listed, made);
  const kept = await client.chat.completions.retrieve(made[0]);
  assert.deepEqual(kept.metadata, { mark });
  assert.equal((await client.chat.completions.update(made[0], { metadata: { mark: 'x' } })).metadata.mark, 'x');
  const inputs = [];
  for await (const message of client.chat.completions.messages.list(made[0])) inputs.push(message.content);
  assert.deepEqual(inputs, [messages[0].content]);
  for (const id of made) assert.equal((await client.chat.completions.delete(id)).deleted, true);
  await assert.rejects(client.chat.completions.retrieve(made[0]), OpenAI.NotFoundError);
});
