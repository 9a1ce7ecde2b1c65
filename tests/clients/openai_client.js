// OpenAI's own Node client: node openai_client.js BASE_URL GUARDED_BASE_URL KEY
// Asks the first server for answers of every kind and the second, which is full, for its refusals;
// prints what it saw as JSON.
"use strict";

const OpenAI = require("openai");

const MODEL = "demo";
const CHAT = {
  model: MODEL,
  messages: [{ role: "user", content: "What is the capital of France?" }],
  temperature: 0,
  max_completion_tokens: 24,
};
const COMPLETION = { model: MODEL, prompt: "One, two, three,", temperature: 0, max_tokens: 8 };
// Outlasts the test, unless it is closed.
const ENDLESS = { model: MODEL, prompt: "Hello", max_tokens: 90000, ignore_eos: true, stream: true };

function connect(baseURL, apiKey) {
  return new OpenAI({ baseURL, apiKey, maxRetries: 0 });
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

// What the call was refused with: the client's class of error and what it read from the answer.
async function refusal(call) {
  try {
    await call;
  } catch (error) {
    const { status, param } = error;
    const retryAfter = error.headers?.get("retry-after");
    return { name: error.constructor.name, status, param, retryAfter };
  }
  throw new Error("the call was not refused");
}

async function answers(client) {
  const chat = client.chat.completions;
  const helper = chat.stream({ ...CHAT, stream_options: { include_usage: true } });
  const deltas = [];
  helper.on("content", (delta) => deltas.push(delta));
  return {
    chat: await chat.create({ ...CHAT, n: 2, logprobs: true, top_logprobs: 2 }),
    chatStream: await collect(await chat.create({ ...CHAT, n: 2, stream: true })),
    chatHelper: { answer: await helper.finalChatCompletion(), deltas },
    stopped: await chat.create({ ...CHAT, stop: [" Paris"] }),
    completion: await client.completions.create({ ...COMPLETION, logprobs: 2 }),
    completionStream: await collect(
      await client.completions.create({ ...COMPLETION, stream: true }),
    ),
    model: await client.models.retrieve(MODEL),
    models: (await client.models.list()).data,
  };
}

async function refusals(client, guardedURL, key) {
  const guarded = connect(guardedURL, key);
  const running = await guarded.completions.create(ENDLESS);
  // Its first chunk says that it no longer waits.
  await running[Symbol.asyncIterator]().next();
  const waiting = await guarded.completions.create(ENDLESS);
  const full = await refusal(guarded.completions.create(ENDLESS));
  waiting.controller.abort();
  running.controller.abort();
  return {
    badRequest: await refusal(client.chat.completions.create({ ...CHAT, temperature: 7 })),
    badRequestStream: await refusal(
      client.chat.completions.create({ ...CHAT, temperature: 7, stream: true }),
    ),
    notFound: await refusal(client.chat.completions.create({ ...CHAT, model: "gpt-9" })),
    noModel: await refusal(client.models.retrieve("gpt-9")),
    authentication: await refusal(connect(guardedURL, "wrong").models.list()),
    rateLimit: full,
  };
}

async function main(baseURL, guardedURL, key) {
  const client = connect(baseURL, "none");
  const seen = {
    answers: await answers(client),
    refusals: await refusals(client, guardedURL, key),
  };
  console.log(JSON.stringify(seen));
}

main(...process.argv.slice(2));
