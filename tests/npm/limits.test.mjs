// The official JavaScript SDK and what a limit or a budget tells it: CHATPORT_URL says where; CHATPORT_KEY has 60 requests
// a minute, CHATPORT_SMALL 3 tokens a minute, CHATPORT_SPENT a budget that is used up. Run by tests/blackbox/test_limits.py.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';

const { CHATPORT_URL, CHATPORT_KEY, CHATPORT_SMALL, CHATPORT_SPENT } = process.env;

// A client that notes what it asked and when.
const counted = (apiKey, options = {}) => {
  const sent = [];
  const noting = (url, init) => {
    sent.push(performance.now());
    return fetch(url, init);
  };
  return { sent, client: new OpenAI({ apiKey, baseURL: `${CHATPORT_URL}/v1`, fetch: noting, ...options }) };
};
const ask = (client, content = 'hi') =>
  client.chat.completions.create({ model: 'echo', messages: [{ role: 'user', content }] });

test('a limit: the SDK waits as it is told, and gets its answer', async () => {
  const { client: unwilling } = counted(CHATPORT_KEY, { maxRetries: 0 });
  let refusal;
  while (!refusal) await ask(unwilling).catch((error) => (refusal = error));
  assert.ok(refusal instanceof OpenAI.RateLimitError);
  assert.equal(refusal.code, 'rate_limit_exceeded');
  const told = Number(refusal.headers.get('retry-after-ms')) || 1000 * Number(refusal.headers.get('retry-after'));
  assert.ok(told > 0 && told <= 1100);
  const { client, sent } = counted(CHATPORT_KEY);
  const reply = await ask(client);
  assert.equal(reply.choices[0].message.content, 'hi');
  assert.equal(sent.length, 2);
  assert.ok(sent[1] - sent[0] >= 0.5 * told);
});

test('a limit that no wait helps with is not tried again', async () => {
  const { client, sent } = counted(CHATPORT_SMALL);
  await assert.rejects(ask(client, 'a b c d e f g h'), OpenAI.RateLimitError);
  assert.equal(sent.length, 1);
});

test('a budget that is used up is not tried again', async () => {
  const { client, sent } = counted(CHATPORT_SPENT);
  await assert.rejects(ask(client), (error) => {
    assert.ok(error instanceof OpenAI.AuthenticationError);
    assert.equal(error.code, 'insufficient_quota');
    return true;
  });
  assert.equal(sent.length, 1);
});
