// A gRPC client made from the proto files alone: node grpc_client.js ADDRESS MODEL
// Streams a chat, cancels a second one, runs a third into its deadline; prints what it saw as JSON.
"use strict";

const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const PROTOS = path.join(__dirname, "..", "..", "protos");
const DEADLINE_MS = 500;
const LONG = { max_tokens: 4096, ignore_eos: true };

const definition = protoLoader.loadSync("octavo/v1/inference.proto", {
  includeDirs: [PROTOS],
  keepCase: true,
  enums: String,
  longs: Number,
  defaults: true,
  oneofs: true,
});
const { Inference } = grpc.loadPackageDefinition(definition).octavo.v1;

function chatRequest(model, stop) {
  return {
    options: { model, sampling: { temperature: 0 }, stop, return_token_ids: true },
    messages: [{ role: "user", content: "What is the capital of France?" }],
  };
}

// Reads the stream to its end. `onEvent` is called with each event and the call.
function read(call, onEvent) {
  return new Promise((resolve) => {
    const seen = { kinds: [], text: "", token_ids: [], sequence_numbers: [] };
    call.on("data", (event) => {
      seen.kinds.push(event.event);
      seen.sequence_numbers.push(event.sequence_number);
      if (event.event === "delta") {
        seen.text += event.delta.text;
        seen.token_ids.push(...event.delta.token_ids);
      } else if (event.event === "finished" || event.event === "usage") {
        seen[event.event] = event[event.event];
      }
      onEvent?.(event, call);
    });
    call.on("error", (error) => resolve({ ...seen, code: grpc.status[error.code] }));
    call.on("end", () => resolve({ ...seen, code: "OK" }));
  });
}

async function main(address, model) {
  const client = new Inference(address, grpc.credentials.createInsecure());
  const chat = await read(client.Chat(chatRequest(model, { max_tokens: 32 })));
  const cancelled = await read(client.Chat(chatRequest(model, LONG)), (event, call) => {
    if (event.event === "delta") call.cancel();
  });
  const deadline = new Date(Date.now() + DEADLINE_MS);
  const late = await read(client.Chat(chatRequest(model, LONG), { deadline }));
  client.close();
  console.log(JSON.stringify({ chat, cancelled, late }));
}

main(process.argv[2], process.argv[3]);
