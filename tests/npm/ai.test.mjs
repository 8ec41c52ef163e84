// The Vercel AI SDK against a running server: CHATPORT_URL and CHATPORT_KEY say where. Run by
// tests/ecosystem/test_vercel_ai.py, with node's own test runner.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, generateObject, generateText, Output, stepCountIs, streamObject, streamText, tool } from 'ai';
import { z } from 'zod';

globalThis.AI_SDK_LOG_WARNINGS = false;

const { CHATPORT_URL, CHATPORT_KEY } = process.env;
const provider = (fields = {}) =>
  createOpenAICompatible({
    name: 'chatport',
    baseURL: `${CHATPORT_URL}/v1`,
    apiKey: CHATPORT_KEY,
    includeUsage: true,
    supportsStructuredOutputs: true,
    ...fields,
  });
const asked = { model: provider()('gpt-4'), prompt: 'Which city is in Italy?', temperature: 0, maxOutputTokens: 60, maxRetries: 0 };
const schema = z.object({
  name: z.enum(['Paris', 'Rome']),
  size: z.number().int().min(0).max(9),
  twin: z.enum(['Rome', 'Oslo']).nullable(),
});
const counted = (usage) => {
  assert.ok(usage.inputTokens > 0 && usage.outputTokens > 0);
  assert.equal(usage.totalTokens, usage.inputTokens + usage.outputTokens);
};
const weather = (cities = []) =>
  tool({
    description: 'Tells the weather in a city.',
    inputSchema: z.object({ city: z.enum(['Paris', 'Rome']), days: z.number().int().min(1).max(3).optional() }),
    execute: async ({ city }) => {
      cities.push(city);
      return { weather: `sunny in ${city}` };
    },
  });

test('text', async () => {
  const reply = await generateText({ ...asked, prompt: 'What is the capital of France?' });
  assert.equal(reply.text, 'The capital of France is Paris.');
  assert.equal(reply.finishReason, 'stop');
  assert.equal(reply.response.modelId, 'smollm2-135m');
  assert.ok(reply.response.headers['x-request-id'].startsWith('req_'));
  counted(reply.usage);
});

test('text that is cut', async () => {
  const reply = await generateText({ ...asked, maxOutputTokens: 3 });
  assert.equal(reply.finishReason, 'length');
  assert.equal(reply.usage.outputTokens, 3);
});

test('text streamed is the plain text', async () => {
  const stream = streamText({ ...asked, prompt: 'What is the capital of France?' });
  const pieces = [];
  for await (const piece of stream.textStream) pieces.push(piece);
  assert.ok(pieces.length > 1);
  assert.equal(pieces.join(''), 'The capital of France is Paris.');
  assert.equal(await stream.finishReason, 'stop');
  counted(await stream.usage);
});

test('an object', async () => {
  const { output, usage } = await generateText({ ...asked, output: Output.object({ schema }) });
  assert.deepEqual(schema.parse(output), output);
  counted(usage);
});

test('an object streamed grows into the plain one', async () => {
  const stream = streamText({ ...asked, output: Output.object({ schema }) });
  const parts = [];
  for await (const part of stream.partialOutputStream) parts.push(part);
  assert.ok(parts.length > 2);
  const whole = await stream.output;
  assert.deepEqual(parts.at(-1), whole);
  assert.deepEqual(whole, (await generateText({ ...asked, output: Output.object({ schema }) })).output);
});

test('objects in the former way', async () => {
  const { object } = await generateObject({ ...asked, schema });
  assert.deepEqual(schema.parse(object), object);
  const stream = streamObject({ ...asked, schema });
  for await (const part of stream.partialObjectStream) assert.equal(typeof part, 'object');
  assert.deepEqual(await stream.object, object);
});

test('a choice and a list', async () => {
  const choice = await generateText({ ...asked, output: Output.choice({ options: ['Paris', 'Rome'] }) });
  assert.ok(['Paris', 'Rome'].includes(choice.output));
  const element = z.object({ size: z.number().int().min(0).max(9) });
  const list = await generateText({ ...asked, output: Output.array({ element, minItems: 2, maxItems: 2 }) });
  assert.equal(list.output.length, 2);
});

test('a schema that is only told', async () => {
  const model = provider({ supportsStructuredOutputs: false })('rome');
  const { output } = await generateText({ ...asked, model, prompt: 'A city, as JSON.', output: Output.object({ schema }) });
  assert.deepEqual(output, { name: 'Rome', size: 3, twin: null });
});

for (const toolChoice of ['required', { type: 'tool', toolName: 'weather' }]) {
  const name = toolChoice.type ?? toolChoice;
  test(`a forced call: ${name}`, async () => {
    const cities = [];
    const reply = await generateText({ ...asked, tools: { weather: weather(cities) }, toolChoice });
    assert.ok(reply.toolCalls.length > 0);
    assert.ok(reply.toolCalls.every((call) => call.toolName === 'weather'));
    assert.deepEqual(reply.toolCalls.map((call) => call.input.city), cities);
    assert.equal(reply.toolResults[0].output.weather, `sunny in ${cities[0]}`);
  });

  test(`a forced call, streamed: ${name}`, async () => {
    const stream = streamText({ ...asked, tools: { weather: weather() }, toolChoice });
    const kinds = [];
    let input = '';
    for await (const part of stream.fullStream) {
      kinds.push(part.type);
      if (part.type === 'tool-input-delta') input += part.delta ?? part.inputTextDelta;
    }
    for (const kind of ['tool-input-start', 'tool-input-end', 'tool-call', 'tool-result', 'finish']) assert.ok(kinds.includes(kind), kind);
    const calls = await stream.toolCalls;
    if (calls.length === 1) assert.deepEqual(JSON.parse(input), calls[0].input);
  });
}

test('a call, its result, and what is said then', async () => {
  const reply = await generateText({
    ...asked,
    tools: { weather: weather() },
    stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? 'required' : 'none' }),
  });
  assert.equal(reply.steps.length, 2);
  assert.equal(reply.steps[0].finishReason, 'tool-calls');
  assert.ok(reply.text.length > 0);
  assert.ok(reply.steps[1].usage.inputTokens > reply.steps[0].usage.inputTokens - 200);
});

const errors = [
  ['400', { temperature: 9 }, 400, /temperature/, false],
  ['401', { model: provider({ apiKey: 'sk-wrong-wrong-wrong-wrong' })('gpt-4') }, 401, /API key/, false],
  ['404', { model: provider()('nobody') }, 404, /nobody/, false],
  ['429', { model: provider()('busy') }, 429, /429/, true],
  ['503', { model: provider()('down') }, 503, /503/, true],
];
for (const [name, fields, status, message, isRetryable] of errors) {
  test(`error ${name}`, async () => {
    await assert.rejects(generateText({ ...asked, ...fields }), (error) => {
      assert.ok(APICallError.isInstance(error));
      assert.equal(error.statusCode, status);
      assert.equal(error.isRetryable, isRetryable);
      assert.match(error.message, message);
      return true;
    });
  });
}

test('an error streamed', async () => {
  const seen = [];
  const stream = streamText({ ...asked, temperature: 9, onError: ({ error }) => seen.push(error) });
  for await (const part of stream.fullStream) assert.notEqual(part.type, 'text-delta');
  assert.equal(seen[0].statusCode, 400);
});

test('what is broken off leaves the server well', async () => {
  const controller = new AbortController();
  const stream = streamText({ ...asked, prompt: 'Count to a thousand.', maxOutputTokens: 1000, abortSignal: controller.signal });
  const kinds = [];
  for await (const part of stream.fullStream) {
    kinds.push(part.type);
    if (part.type === 'text-delta') controller.abort();
  }
  assert.ok(kinds.includes('abort'));
  const pending = generateText({ ...asked, abortSignal: AbortSignal.timeout(1) });
  await assert.rejects(pending, (error) => error.name === 'TimeoutError' || error.name === 'AbortError');
  assert.ok((await generateText({ ...asked, maxOutputTokens: 2 })).text);
});
