// Real HTTP with a collector that misbehaves: one fixed phrase for each kind, never its own words.
import assert from "node:assert/strict";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { after, before, test } from "node:test";

import type { Options } from "../src/sdk/config.js";
import {
  exchange,
  judge,
  LISTING_BYTES_MAX,
  readListing,
  REPLY_BYTES_MAX,
  TransportError,
  type Reply,
} from "../src/sdk/transport.js";
import { round } from "./sdk_rounds.js";
import { listing, World } from "./sdk_world.js";

const LIFE = new AbortController().signal;
const REPORT = new Uint8Array(100);

let server: Server;
let origin = "";
let behave: RequestListener = () => {};
let elsewhere = 0;
let seen: { headers: NodeJS.Dict<string | string[]>; bytes: number }[] = [];
const sockets = new Set<Socket>();

before(async () => {
  server = createServer((request, response) => {
    if (request.url === "/elsewhere") {
      elsewhere++;
      return response.writeHead(201).end();
    }
    let bytes = 0;
    request.on("data", (chunk: Buffer) => (bytes += chunk.length));
    request.on("end", () => {
      seen.push({ headers: request.headers, bytes });
      behave(request, response);
    });
    return undefined;
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

after(() => {
  for (const socket of sockets) socket.destroy();
  server.close();
});

/** Asks for the list, or sends a report; gives the phrase of the failure, or the reply. */
async function ask(report?: typeof REPORT, timeoutMs = 60_000): Promise<Reply | string> {
  const limit = report ? REPLY_BYTES_MAX : LISTING_BYTES_MAX;
  try {
    return await exchange(fetch, LIFE, `${origin}/v1`, report, false, limit, timeoutMs);
  } catch (error) {
    assert.ok(error instanceof TransportError);
    return error.message;
  }
}

const NONE = "no connection, or not HTTP";
const HOSTILE: [string, RequestListener, string][] = [
  ["a redirect", (_, to) => void to.writeHead(307, { location: "/elsewhere" }).end(), NONE],
  ["silence", () => {}, "no answer in time"],
  [
    "drops",
    (_, to) => {
      to.writeHead(201);
      const timer = setInterval(() => to.write(" "), 20);
      to.on("close", () => clearInterval(timer));
    },
    "no answer in time",
  ],
  [
    "an endless flood",
    (_, to) => {
      to.writeHead(201);
      const pour = (): void => {
        while (!to.destroyed && to.write(Buffer.alloc(65_536, " ")));
        if (!to.destroyed) to.once("drain", pour);
      };
      pour();
    },
    "the answer is too large",
  ],
  ["a cut connection", (_, to) => void to.socket!.destroy(), NONE],
  [
    "a cut answer",
    (_, to) => {
      to.writeHead(201, { "content-length": "1000" });
      to.write("{");
      setTimeout(() => to.socket?.destroy(), 20);
    },
    NONE,
  ],
  ["another protocol", (_, to) => void to.socket!.end("220 smtp.example ESMTP\r\n\r\n"), NONE],
  [
    "a broken content coding",
    (_, to) => void to.writeHead(201, { "content-encoding": "gzip" }).end("not packed"),
    NONE,
  ],
];

for (const [what, behaviour, phrase] of HOSTILE) {
  for (const report of [undefined, REPORT]) {
    test(`${what} in answer to ${report ? "a report" : "the question for rounds"}`, async () => {
      behave = behaviour;
      elsewhere = 0;
      assert.equal(await ask(report, phrase.endsWith("time") ? 200 : undefined), phrase);
      assert.equal(elsewhere, 0);
    });
  }
}

test("control: without refusing redirects the report goes elsewhere", async () => {
  behave = HOSTILE[0]![1];
  elsewhere = 0;
  await fetch(`${origin}/v1`, { method: "POST", body: "a report" });
  assert.equal(elsewhere, 1);
});

test("control: without a limit the flood does not end by itself", async () => {
  behave = HOSTILE[3]![1];
  const abort = new AbortController();
  const answer = await fetch(`${origin}/v1`, { signal: abort.signal });
  const reader = answer.body!.getReader();
  let bytes = 0;
  while (bytes < 4 * LISTING_BYTES_MAX) bytes += (await reader.read()).value!.length;
  abort.abort();
});

test("a report is one POST of exactly its bytes, without cookies or referrer", async () => {
  seen = [];
  behave = (_, to) => void to.writeHead(201, { "set-cookie": "you=again" }).end("{}");
  await ask(REPORT);
  await ask(REPORT);
  for (const { headers, bytes } of seen) {
    assert.equal(bytes, REPORT.length);
    assert.equal(headers["content-length"], `${REPORT.length}`);
    assert.equal(headers["content-type"], "text/plain");
    assert.ok(!("cookie" in headers) && !("referer" in headers) && !("authorization" in headers));
  }
});

test("a client whose life has ended stops waiting", async () => {
  behave = () => {};
  const life = new AbortController();
  setTimeout(() => life.abort(), 20);
  await assert.rejects(exchange(fetch, life.signal, `${origin}/v1`), { message: "stopped" });
});

for (const [name, value, read] of [
  ["retry-after", "120", 120],
  ["retry-after", "-1", undefined],
  ["retry-after", "1.5", undefined],
  ["retry-after", "Fri, 31 Dec 1999 23:59:59 GMT", undefined],
  ["retry-after", "9".repeat(5000), undefined],
  ["dandelion-window", "5 9", [5, 9]],
  ["dandelion-window", "9 5", undefined],
  ["dandelion-window", "5", undefined],
  ["dandelion-window", "5  9", undefined],
  ["dandelion-window", "5 9 11", undefined],
  ["dandelion-window", `5 ${"9".repeat(50)}`, undefined],
] as const) {
  test(`headers that make no sense are absent: ${name} ${value.slice(0, 20)}`, async () => {
    const answer = (): Promise<Response> =>
      Promise.resolve(new Response("{}", { status: 503, headers: { [name]: value } }));
    const reply = await exchange(answer as typeof fetch, LIFE, "/");
    assert.deepEqual(name === "retry-after" ? reply.retryAfter : reply.window, read);
  });
}

const item = { round: "0".repeat(32), envelope: "AAAA" };
const NO_LISTS: [string, unknown, number?][] = [
  ["nothing", undefined],
  ["null", null],
  ["a number", 7],
  ["a list", []],
  ["no rounds", {}],
  ["rounds that are no list", { rounds: {} }],
  ["a round that is no object", { rounds: [7] }],
  ["a round id of two digits", { rounds: [{ ...item, round: "00" }] }],
  ["a round id that is a path", { rounds: [{ ...item, round: "../".repeat(10) + "ab" }] }],
  ["an envelope that is a number", { rounds: [{ ...item, envelope: 7 }] }],
  ["an envelope that is no base64", { rounds: [{ ...item, envelope: "*" }] }],
  ["an envelope of nothing", { rounds: [{ round: item.round }] }],
  ["an envelope beyond measure", { rounds: [{ ...item, envelope: "A".repeat(400_000) }] }],
  ["too many rounds", { rounds: Array(65).fill(item) }],
  ["another status", { rounds: [] }, 404],
];

for (const [what, body, status = 200] of NO_LISTS) {
  test(`a list that is none: ${what}`, () => {
    const reply = { status, body, media: "", retryAfter: undefined, window: undefined };
    assert.throws(() => readListing(reply), TransportError);
  });
}

test("control: a list that is one", () => {
  const body = { rounds: [item, item] };
  const headers = { media: "", retryAfter: undefined, window: undefined };
  const listed = readListing({ status: 200, body, ...headers });
  assert.deepEqual(listed[1], { round: item.round, envelope: new Uint8Array(3) });
});

test("JSON nested beyond reason is no answer, and harms nobody", async () => {
  behave = (_, to) => void to.writeHead(200).end("[".repeat(1_000_000));
  const reply = await ask();
  assert.ok(typeof reply === "object" && reply.body === undefined);
  assert.equal(judge(reply).outcome, "waiting");
});

for (const [what, behaviour] of HOSTILE.filter(([name]) => !/silence|drops/.test(name))) {
  test(`a whole client that meets ${what} sends nothing`, async () => {
    behave = behaviour;
    const world = new World();
    const tab = world.tab({}, { fetch: (_, init) => fetch(`${origin}/v1`, init) });
    await tab.client.ready;
    tab.leave();
    assert.equal(tab.told[0]!.outcome, "unreachable");
    assert.deepEqual(tab.client.faults(), { listing: 1 });
    assert.equal(world.charged.size, 0);
  });
}

test("control: the same client with an honest collector", async () => {
  const honest = Buffer.from(await listing([round()]).arrayBuffer());
  behave = (request, to) =>
    void to
      .writeHead(request.method === "GET" ? 200 : 201)
      .end(request.method === "GET" ? honest : "{}");
  const world = new World();
  const options: Partial<Options> = { holdS: 0 };
  const tab = world.tab(options, { fetch: (_, init) => fetch(`${origin}/v1`, init) });
  await tab.client.ready;
  assert.equal(tab.told.at(-1)!.outcome, "accepted");
});
