"""Constants of the protocol (docs/protocol.md sections 1, 3, 10, 11 and 13).

Every number here stands in the text; `tests/library/test_docs.py` compares the two.
"""

from typing import Final

LABEL_PREFIX: Final = b"dandelion/v1/"
DESCRIPTOR_MAGIC: Final = b"dandelion\x01"
MESSAGE_VERSION: Final = 1

SCHEME_ONESHOT: Final = 1

SUITE_X25519_CHACHA20: Final = 1
SUITE_X25519_AES256CTR: Final = 2
SUITES: Final = (SUITE_X25519_CHACHA20, SUITE_X25519_AES256CTR)

WIDTHS: Final = (16, 24, 32, 64)

HASH_BYTES: Final = 32
KEY_BYTES: Final = 32
SEED_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
ROUND_ID_BYTES: Final = 16

# Integers that JavaScript, too, holds exactly.
INTEGER_END: Final = 2**53

# Limits, section 13. Bytes unless the name says otherwise.
DESCRIPTOR_BYTES_MAX: Final = 131_072
PLAN_BYTES_MAX: Final = 65_536
PLAN_DEPTH_MAX: Final = 8
PLAN_WORK_MAX: Final = 262_144
PLAN_CONDITIONS_MAX: Final = 16
SLOTS_MAX: Final = 1_048_576
SHARD_BITS_MAX: Final = 8
COHORT_MAX_MAX: Final = 4_194_304
HELPERS_MIN: Final = 2
HELPERS_MAX: Final = 16
BEACON_BYTES_MAX: Final = 60_000
REPORT_HEADER_BYTES: Final = 49
COMMIT_REPORTS_MAX: Final = 1_024
JSON_BYTES_MAX: Final = 1_048_576
KEY_UNUSED_S: Final = 600
KEYS_UNUSED_MAX: Final = 64
ANSWER_DELAY_MS: Final = 1_000

# How many standard deviations of noise a sum may stray before it is implausible (3.2, 8).
NOISE_TAIL: Final = 12

# Budgets are integers in units of 2^-40 rho (section 16).
RHO_UNITS_PER_RHO: Final = 2**40

MEDIA_REPORT: Final = "application/vnd.dandelion.report"
MEDIA_ENVELOPE: Final = "application/vnd.dandelion.envelope"
MEDIA_ASK: Final = "application/vnd.dandelion.ask"
MEDIA_ANSWER: Final = "application/vnd.dandelion.answer"
MEDIA_RELEASE: Final = "application/vnd.dandelion.release"
MEDIA_PROBLEM: Final = "application/problem+json"
MEDIA_REPORT_SAFELISTED: Final = "text/plain"

PROBLEM_TYPE_PREFIX: Final = "urn:dandelion:problem:"
WINDOW_HEADER: Final = "Dandelion-Window"
