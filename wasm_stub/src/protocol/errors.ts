// Errors with a token, and the closed list of tokens (docs/protocol.md section 12).
//
// The titles of the text are left out: a page shows its own words, and they weigh.

/** Tokens by the HTTP status that a problem document of theirs carries. */
const TOKENS = {
  400: [
    "truncated trailing bad_magic bad_version bad_integer bad_scheme bad_suite bad_time",
    "bad_slots bad_width bad_shards bad_cohort bad_bounds bad_noise overflow bad_scope",
    "bad_issuer bad_helpers bad_key bad_details bad_plan bad_signature bad_length",
    "wrong_round bad_set wrong_shard bad_answer bad_release implausible bad_request",
  ],
  401: ["unauthorized"],
  403: [
    "forbidden unknown_collector unknown_key unknown_scope floor_cohort floor_noise",
    "floor_time budget_exhausted pin_mismatch",
  ],
  404: ["not_found unknown_round unknown_query not_asked not_released"],
  405: ["method_not_allowed"],
  408: ["request_timeout"],
  409: [
    "not_open round_closed report_conflict query_exists not_closed set_conflict key_used",
    "key_gone key_consumed round_damaged",
  ],
  410: ["expired"],
  411: ["length_required"],
  413: ["too_large"],
  415: ["encoding_refused media_type"],
  422: ["cohort_too_small cohort_too_large sql_refused schema_refused"],
  429: ["too_many_keys too_many_rounds"],
  500: ["internal"],
  503: ["store_unavailable helper_unavailable overloaded draining"],
} as const;

type Words<Line extends string> = Line extends `${infer Word} ${infer Rest}`
  ? Word | Words<Rest>
  : Line;

type Lines = typeof TOKENS;

/** A token of section 12. */
export type Token = Words<Lines[keyof Lines][number]>;

/** HTTP status of a token, or undefined if the text has no such token. */
export function statusOf(token: string): number | undefined {
  for (const [status, lines] of Object.entries(TOKENS)) {
    if (lines.join(" ").split(" ").includes(token)) return +status;
  }
  return undefined;
}

/** The only error that functions of this package throw for what came from outside. */
export class DandelionError extends Error {
  // Declared and assigned: what a compiler makes of initialised fields weighs more.
  /** A token of section 12. */
  declare readonly token: Token;
  /** What exactly; never a piece of the input. */
  declare readonly detail: string;

  constructor(token: Token, detail = "") {
    super(detail ? `${token}: ${detail}` : token);
    this.token = token;
    this.detail = detail;
  }
}

/** Throws a {@link DandelionError}. */
export function fail(token: Token, detail?: string): never {
  throw new DandelionError(token, detail);
}

/** Throws a {@link DandelionError} unless the condition holds. */
export function need(condition: unknown, token: Token, detail?: string): asserts condition {
  if (!condition) fail(token, detail);
}
