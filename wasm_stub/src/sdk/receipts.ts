// What the client did, kept so that its owner can read it (docs/protocol.md section 14).
//
// Left out: the receipt in words, which is loaded when somebody asks (`explain`).

/** How a round ended for this client; the same words as in the Python client. */
export type Outcome =
  | "accepted"
  | "duplicate"
  | "waiting"
  | "rejected"
  | "lapsed"
  | "refused"
  | "skipped"
  | "unreachable";

/** One round as this client saw it. */
export interface Receipt {
  readonly outcome: Outcome;
  /** Unix seconds. */
  readonly at: number;
  /** 32 hexadecimal digits; empty if no round was read. */
  readonly round: string;
  /** Query, question and scope as the descriptor states them. */
  readonly query: string;
  readonly sql: string;
  readonly scope: string;
  /** As the plan states them; what was charged is `rhoUnits`. */
  readonly epsilon: string;
  readonly delta: string;
  /** Charged to this client's own ledger, in units of 2^-40 rho; 0 if nothing was. */
  readonly rhoUnits: number;
  /** Length of the report's body; 0 while it is not made. */
  readonly bytesSent: number;
  /** How often the body was sent. */
  readonly attempts: number;
  /** Why, if something was refused or failed: a token of section 12. */
  readonly token: string;
  /** The same in a fixed phrase. Never input, never the peer's words. */
  readonly detail: string;
  /** A fault of plan or gate, for which zeros were sent. */
  readonly fault: string;
  /** The plan as canonical JSON, number of helpers and least cohort, for `explain`. */
  readonly plan: string;
  readonly helpers: number;
  readonly cohortMin: number;
}

/** A receipt that says little. */
export function receipt(fields: Partial<Receipt> & Pick<Receipt, "outcome" | "at">): Receipt {
  return {
    round: "",
    query: "",
    sql: "",
    scope: "",
    epsilon: "",
    delta: "",
    rhoUnits: 0,
    bytesSent: 0,
    attempts: 0,
    token: "",
    detail: "",
    fault: "",
    plan: "",
    helpers: 0,
    cohortMin: 0,
    ...fields,
  };
}
