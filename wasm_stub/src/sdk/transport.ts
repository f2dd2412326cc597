// HTTP to a collector (docs/protocol.md sections 10 and 12).
//
// A collector may be hostile: redirects are refused, answers are bounded in time and size, no
// cookie or referrer is sent, and an answer counts only if it is one that the text describes.
//
// Left out: what to send, and when (`client`).

import type { Bytes } from "../kernel/kernel.js";
import { statusOf } from "../protocol/errors.js";
import type { Outcome } from "./receipts.js";

/** Base64 of so many envelopes of the greatest length; more rounds than that are not read. */
const ROUNDS_MAX = 64;
/** Bytes. */
export const LISTING_BYTES_MAX = 4 * 1024 * 1024;
export const REPLY_BYTES_MAX = 65_536;
/** Milliseconds for a whole exchange. */
export const TIMEOUT_MS = 30_000;
/** Seconds. However long a collector asks a client to stay away, it comes back within a day. */
const ABSENCE_MAX_S = 86_400;
/** Twice the greatest descriptor, in characters. */
const ENVELOPE_CHARS_MAX = 262_144;

const MEDIA_PROBLEM = "application/problem+json";
/** Refusals that may end. */
const PASSING =
  /^(not_open|request_timeout|overloaded|draining|store_unavailable|helper_unavailable|internal)$/;

/** An HTTP answer, bounded in size. Headers that make no sense are absent. */
export interface Reply {
  readonly status: number;
  readonly body: unknown;
  readonly media: string;
  /** Seconds. */
  readonly retryAfter: number | undefined;
  /** Unix seconds. */
  readonly window: readonly [number, number] | undefined;
}

/** One open round of the listing: what the collector calls it, and its envelope. */
export interface Listed {
  readonly round: string;
  readonly envelope: Bytes;
}

/** What an answer to a report means. */
export interface Verdict {
  readonly outcome: Outcome;
  readonly token: string;
  readonly detail: string;
}

/** No usable answer. The message is one of a few fixed phrases, never the peer's words. */
export class TransportError extends Error {}

/**
 * One exchange. The request is on its way when this returns, before its promise is awaited.
 *
 * @param life aborted when the client may no longer talk.
 * @param report the body of a POST; a GET without it.
 * @param leaving whether the request must outlive the page.
 * @throws TransportError no usable answer; a report may have been taken or not.
 */
export async function exchange(
  call: typeof fetch,
  life: AbortSignal,
  url: string,
  report?: Bytes,
  leaving = false,
  limit = report ? REPLY_BYTES_MAX : LISTING_BYTES_MAX,
  timeoutMs = TIMEOUT_MS,
): Promise<Reply> {
  const abort = new AbortController();
  let phrase = "no connection, or not HTTP";
  const stop = (why: string): void => {
    phrase = why;
    abort.abort();
  };
  const timer = setTimeout(stop, timeoutMs, "no answer in time");
  const end = (): void => stop("stopped");
  life.addEventListener("abort", end);
  try {
    const answer = await call(url, {
      credentials: "omit",
      referrerPolicy: "no-referrer",
      redirect: "error",
      cache: "no-store",
      signal: abort.signal,
      // `text/plain` is what a page may send across origins without asking first (10.2).
      ...(report && {
        method: "POST",
        body: report,
        headers: { "content-type": "text/plain" },
        keepalive: leaving,
      }),
    });
    const chunks: Uint8Array[] = [];
    let size = 0;
    const source = answer.body?.getReader();
    for (let part; source && !(part = await source.read()).done; ) {
      chunks.push(part.value);
      if ((size += part.value.length) > limit) {
        stop("the answer is too large");
        throw 0;
      }
    }
    const { status, headers } = answer;
    const window = /^(\d{1,12}) (\d{1,12})$/.exec(headers.get("dandelion-window") ?? "");
    const retry = headers.get("retry-after") ?? "";
    return {
      status,
      body: parse(await new Blob(chunks as BlobPart[]).text()),
      media: (headers.get("content-type") ?? "").split(";")[0]!.trim().toLowerCase(),
      retryAfter: /^\d{1,9}$/.test(retry) ? +retry : undefined,
      window: window && +window[1]! <= +window[2]! ? [+window[1]!, +window[2]!] : undefined,
    };
  } catch {
    throw new TransportError(phrase);
  } finally {
    clearTimeout(timer);
    life.removeEventListener("abort", end);
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * Open rounds of `GET /v1/rounds` (section 10.1).
 *
 * @throws TransportError the answer is none.
 */
export function readListing({ status, body }: Reply): Listed[] {
  if (status !== 200) throw new TransportError(`status ${status}`);
  try {
    // What it claims to be; whatever it is instead, throws.
    const { rounds } = body as { rounds: { round: string; envelope: string }[] };
    if (!(rounds.length <= ROUNDS_MAX)) throw 0;
    return rounds.map(({ round, envelope }) => {
      if (!/^[0-9a-f]{32}$/.test(round) || !(envelope.length <= ENVELOPE_CHARS_MAX)) throw 0;
      const bytes = Uint8Array.from(atob(envelope), (char) => char.charCodeAt(0));
      return { round: `${round}`, envelope: bytes };
    });
  } catch {
    throw new TransportError("not a list of rounds");
  }
}

/**
 * What the answer to a report means (sections 10.2 and 12).
 *
 * Only a problem document with a known token and its own status refuses for good. Whatever else
 * arrives, perhaps from a proxy in between, leaves the report waiting.
 */
export function judge({ status, body, media }: Reply): Verdict {
  const { result, type } = (body ?? {}) as { result?: unknown; type?: unknown };
  const end = (outcome: Outcome, token = "", detail = ""): Verdict => ({ outcome, token, detail });
  if (status === 201) return end("accepted");
  // 200 says "counted already", but so does many a login page of a hotel.
  if (status === 200 && result === "duplicate") return end("duplicate");
  const token = /^urn:dandelion:problem:(\w+)$/.exec(`${type}`)?.[1] ?? "";
  if (media !== MEDIA_PROBLEM || statusOf(token) !== status) {
    return end("waiting", "", `status ${status}`);
  }
  return end(status === 429 || PASSING.test(token) ? "waiting" : "rejected", token);
}

/**
 * Seconds to wait after the given attempt, from 1: uniform below a bound that doubles up to
 * `mostS`, and at least what the server asked for. `random` is uniform in [0, 1).
 */
export function backoff(
  random: () => number,
  attempt: number,
  retryAfter = 0,
  mostS = 60,
): number {
  return Math.min(retryAfter, ABSENCE_MAX_S) + random() * Math.min(mostS, 2 ** (attempt - 1));
}

/** When to come back: uniform in the window, and within a day from now (section 10.3). */
export function visit([from, to]: readonly [number, number], now: number, drawn: number): number {
  return Math.min(Math.max(from + drawn * (to - from), now), now + ABSENCE_MAX_S);
}
