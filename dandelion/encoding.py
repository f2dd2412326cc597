"""Bytes: a reader that refuses, the three labelled functions, and canonical JSON
(docs/protocol.md 1 to 3.3).

Leaves out: the layout of any message (`descriptor`, `messages`) and everything about X25519
(`kernel`).
"""

import hashlib
import json
import math
import re
import struct
from typing import Final, TypeAlias

from nacl.bindings import crypto_core_ed25519_is_valid_point
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from dandelion.errors import WireError
from dandelion.params import (
    INTEGER_END,
    LABEL_PREFIX,
    PLAN_BYTES_MAX,
    PLAN_DEPTH_MAX,
    SEED_BYTES,
    SIGNATURE_BYTES,
)

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int"

_KEY: Final = re.compile(r"[a-z_]+")


class Reader:
    """Takes fields off the front of a message.

    Every method raises `WireError`: `truncated` if the field ends beyond the input, `bad_integer`
    for an 8-byte integer of 2^53 or more, `trailing` (from `end`) if bytes are left.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self._at + size
        if end > len(self._data):
            raise WireError("truncated")
        field = self._data[self._at : end]
        self._at = end
        return field

    def _integer(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def u8(self) -> int:
        """One byte."""
        return self._integer(1)

    def u16(self) -> int:
        """Two bytes, big-endian."""
        return self._integer(2)

    def u32(self) -> int:
        """Four bytes, big-endian."""
        return self._integer(4)

    def u64(self) -> int:
        """Eight bytes, big-endian, below 2^53."""
        value = self._integer(8)
        if value >= INTEGER_END:
            raise WireError("bad_integer")
        return value

    def var(self, length_bytes: int) -> bytes:
        """A field with its own length in front ("n+" in the tables)."""
        return self.take(self._integer(length_bytes))

    @property
    def left(self) -> int:
        """Bytes not yet taken."""
        return len(self._data) - self._at

    def rest(self) -> bytes:
        """All bytes not yet taken."""
        return self.take(self.left)

    def end(self) -> None:
        """Refuses leftovers."""
        if self.left:
            raise WireError("trailing")


def u16(value: int) -> bytes:
    """Two bytes, big-endian."""
    return struct.pack(">H", value)


def u32(value: int) -> bytes:
    """Four bytes, big-endian."""
    return struct.pack(">I", value)


def label(name: str) -> bytes:
    """`L(s)` of section 1: what keeps two kinds of statement apart."""
    return LABEL_PREFIX + name.encode("ascii") + b"\x00"


def digest(name: str, *parts: bytes) -> bytes:
    """`digest(s, body)` of section 1, 32 bytes; the body is the concatenation of `parts`."""
    state = hashlib.sha256(label(name))
    for part in parts:
        state.update(part)
    return state.digest()


def identity_of(seed: bytes) -> bytes:
    """Ed25519 public key (32 bytes) of a 32-byte seed."""
    return bytes(_signing_key(seed).verify_key)


def sign(seed: bytes, name: str, body: bytes) -> bytes:
    """`sign(identity, s, body)` of section 1: a 64-byte Ed25519 signature, RFC 8032."""
    return _signing_key(seed).sign(label(name) + body).signature


def verify(identity: bytes, name: str, body: bytes, signature: bytes) -> None:
    """Strict check of a signature (section 2).

    Key and R must be canonical encodings of points of the prime-order subgroup. Versions of
    libsodium differ in whether they multiply by the cofactor; for such points it makes no
    difference, so every verifier gives one verdict.

    Raises:
        WireError: `bad_signature`.
    """
    if len(identity) != SEED_BYTES or len(signature) != SIGNATURE_BYTES:
        raise WireError("bad_signature")
    if not all(map(crypto_core_ed25519_is_valid_point, (identity, signature[:SEED_BYTES]))):
        raise WireError("bad_signature")
    try:
        VerifyKey(identity).verify(label(name) + body, signature)
    except BadSignatureError:
        raise WireError("bad_signature") from None


def _signing_key(seed: bytes) -> SigningKey:
    if len(seed) != SEED_BYTES:
        raise ValueError("an identity seed has 32 bytes")
    return SigningKey(seed)


def canonical_json(value: Json) -> bytes:
    """The one byte form of a plan (section 3.3).

    Raises:
        WireError: `bad_plan` if the value has no canonical form.
    """
    _check_json(value, 1)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise WireError("bad_plan", "a lone surrogate") from None
    if len(data) > PLAN_BYTES_MAX:
        raise WireError("bad_plan", "too long")
    return data


def parse_canonical_json(data: bytes) -> dict[str, Json]:
    """The object whose canonical form is exactly `data`.

    Raises:
        WireError: `bad_plan` if there is none.
    """
    if len(data) > PLAN_BYTES_MAX:
        raise WireError("bad_plan", "too long")
    # Judged before parsing: nesting is what makes a parser recurse, digits are what makes int()
    # slow.
    if _nesting(data) > PLAN_DEPTH_MAX:
        raise WireError("bad_plan", "too deep")
    try:
        value = json.loads(
            data.decode("utf-8"), parse_int=_parse_int, parse_float=_refuse, parse_constant=_refuse
        )
    except (ValueError, RecursionError):
        raise WireError("bad_plan", "not JSON") from None
    if not isinstance(value, dict):
        raise WireError("bad_plan", "not an object")
    # Writing again settles everything at once: order, duplicates, white space, escapes.
    if canonical_json(value) != data:
        raise WireError("bad_plan", "not canonical")
    return value


def _parse_int(text: str) -> int:
    if len(text) > len(str(-INTEGER_END)):
        raise ValueError
    return int(text)


def _refuse(text: str) -> int:
    raise ValueError


def _nesting(data: bytes) -> int:
    depth = deepest = 0
    in_string = escaped = False
    for byte in data:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:  # \
                escaped = True
            elif byte == 0x22:  # "
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _check_json(value: object, depth: int) -> None:
    match value:
        case bool():
            raise WireError("bad_plan", "booleans are not allowed")
        case int():
            if abs(value) >= INTEGER_END:
                raise WireError("bad_plan", "an integer of 2^53 or more")
        case str():
            pass
        case dict():
            _check_depth(depth)
            for key, item in value.items():
                if not isinstance(key, str) or not _KEY.fullmatch(key):
                    raise WireError("bad_plan", "a key that is not [a-z_]+")
                _check_json(item, depth + 1)
        case list():
            _check_depth(depth)
            for item in value:
                _check_json(item, depth + 1)
        case _:
            raise WireError("bad_plan", "only objects, arrays, strings and integers are allowed")


def _check_depth(depth: int) -> None:
    if depth > PLAN_DEPTH_MAX:
        raise WireError("bad_plan", "too deep")


def ceil_sqrt(value: int) -> int:
    """The least integer whose square is at least `value`, for any size of it."""
    root = math.isqrt(value)
    return root if root * root == value else root + 1
