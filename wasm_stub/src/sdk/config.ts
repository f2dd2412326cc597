// What a page pins and what it allows (docs/protocol.md section 14, steps 1 to 3).
//
// The same words as in the configuration of the Python client. Left out: what consent means
// (`client`), and whether a round satisfies all this (`protocol/admit`).

import type { Bytes } from "../kernel/kernel.js";
import { rhoUnitsForEpsilon } from "../protocol/accounting.js";
import type { Floors, Pins } from "../protocol/admit.js";
import type { Receipt } from "./receipts.js";

/** Whom the page deals with. Anything else is refused (`pin_mismatch`). */
export interface PinnedConfig {
  /** Ed25519 identity of the collector, 64 hexadecimal digits. */
  readonly collector: string;
  /** The exact identities of all helpers, at least two, 64 hexadecimal digits each. */
  readonly helpers: readonly string[];
  /** The one scheme that may be used. */
  readonly scheme?: "oneshot";
  /** The suites that may be used: 1 is ChaCha20, 2 is AES-256-CTR. Both by default. */
  readonly suites?: readonly number[];
}

/** How far the page goes. */
export interface Policy {
  /** The least `cohort_min` of a round. 1000 by default. */
  readonly cohortMin?: number;
  /** The most that one round may cost, at `delta`. 1 by default. */
  readonly epsilonRound?: number;
  /** 1e-8 by default. */
  readonly delta?: number;
  /** The longest time from `opens` to `expires`, in seconds. 7 days by default. */
  readonly lifetimeMaxS?: number;
  /** Probability of taking part in a round. 1 by default. */
  readonly participation?: number;
  /** The most that all rounds together may cost within `periodS`, at `delta`. 4 by default. */
  readonly epsilonPeriod?: number;
  /** Seconds. 30 days by default. */
  readonly periodS?: number;
}

/** How much of what was recorded is kept; the oldest goes first. */
export interface Retention {
  /** Seconds. 30 days by default. */
  readonly retentionS?: number;
  /** 2000 by default. */
  readonly rowsMax?: number;
  /** Bytes of all rows as JSON. 1 MiB by default. */
  readonly bytesMax?: number;
}

/** Declared events and their columns; the JSON of the collector's registry fits. */
export interface Registry {
  readonly events: Readonly<
    Record<string, { readonly columns: Readonly<Record<string, unknown>> }>
  >;
}

/** What a person has said. Nothing is recorded or sent before `granted`. */
export type Consent = "granted" | "denied" | "pending";

/** A report that was just made. */
export interface MadeReport {
  readonly receipt: Receipt;
  /** What is masked in it: one integer per slot, zeros after a fault. */
  readonly values: Float64Array;
  /** The bytes that leave. */
  readonly body: Bytes;
}

/** What `init` takes. */
export interface Options {
  /** Origin of the collector, such as `https://collector.example`. */
  readonly endpoint: string;
  readonly config: PinnedConfig;
  readonly policy?: Policy;
  readonly retention?: Retention;
  /** With it, events and columns that it does not declare are not recorded. */
  readonly registry?: Registry;
  /** `pending` by default. */
  readonly consent?: Consent;
  /** Whether Global Privacy Control counts as `denied`, whatever else is said. True by default. */
  readonly honorGPC?: boolean;
  /**
   * The longest time, in seconds, that a report waits for the page to be left, so that what the
   * page records is in it. 300 by default; 0 makes it at once.
   */
  readonly holdS?: number;
  /**
   * Whether a page that is being left may use `navigator.sendBeacon` where `fetch` has no
   * `keepalive`. A beacon carries the collector's cookies, if it has any. False by default.
   */
  readonly beacon?: boolean;
  /** Told of every receipt when it is written. What it throws is swallowed. */
  readonly onReceipt?: (receipt: Receipt) => void;
  /**
   * Told of every report when it is made, before it is sent, for pages that show what leaves. It is
   * called while the page is left, too, so it has to be quick. What it throws is swallowed.
   */
  readonly onReport?: (made: MadeReport) => void;
}

/** A configuration that can be used: pins, floors, and the rest of it. */
export interface Config extends Pins, Floors {
  /** Without a trailing slash. */
  readonly endpoint: string;
  readonly participation: number;
  /** The most that all rounds of a period may cost, in units of 2^-40 rho. rho adds up. */
  readonly rhoPeriodMax: number;
  readonly periodS: number;
  readonly retention: Required<Retention>;
}

const DAY_S = 86_400;
/** What a browser takes for a secure origin. */
const SECURE = /^(https:|http:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$)/;

/**
 * Reads the options.
 *
 * @throws Error naming the option that cannot be used.
 */
export function readConfig({ endpoint, config, policy, retention }: Options): Config {
  const { origin, href } = new URL(endpoint);
  check(SECURE.test(origin) && href === origin + "/", "endpoint");
  const identities = [config.collector, ...config.helpers].map((each) => each.toLowerCase());
  const suites = config.suites ?? [1, 2];
  check(
    new Set(identities).size > 2 &&
      new Set(identities).size === identities.length &&
      identities.every((each) => /^[0-9a-f]{64}$/.test(each)) &&
      (config.scheme ?? "oneshot") === "oneshot" &&
      /^[12](,[12])*$/.test(suites.join()),
    "config",
  );
  const all = numbers("policy", policy, {
    cohortMin: 1000,
    epsilonRound: 1,
    delta: 1e-8,
    lifetimeMaxS: 7 * DAY_S,
    participation: 1,
    epsilonPeriod: 4,
    periodS: 30 * DAY_S,
  });
  return {
    endpoint: origin,
    collector: identities[0]!,
    helpers: identities.slice(1).sort(),
    suites,
    cohortMin: all.cohortMin,
    rhoRoundMax: rhoUnitsForEpsilon(all.epsilonRound, all.delta),
    lifetimeMaxS: all.lifetimeMaxS,
    participation: all.participation,
    rhoPeriodMax: rhoUnitsForEpsilon(all.epsilonPeriod, all.delta),
    periodS: all.periodS,
    retention: numbers("retention", retention, {
      retentionS: 30 * DAY_S,
      rowsMax: 2000,
      bytesMax: 1 << 20,
    }),
  };
}

/** The given numbers over the usual ones. A delta of 1 would promise nothing. */
function numbers<T extends object>(name: string, given: Partial<T> | undefined, usual: T): T {
  const all = { ...usual, ...given };
  for (const [key, value] of Object.entries(all) as [string, number][]) {
    // Written so that NaN is refused, too.
    const sound = typeof value === "number" && value >= 0;
    check(key in usual && sound && value < (key === "delta" ? 1 : 1e15), name);
  }
  return all;
}

function check(condition: unknown, name: string): asserts condition {
  if (!condition) throw new Error(`dandelion: ${name} cannot be used`);
}
