"""Wrong arguments are refused by name, with ValueError or TypeError, and never more than that."""

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dandelion import _kernel, kernel

KEY = kernel.x25519_public(bytes(32))
VECTOR = np.array([1, 2, 3, 4])

# A right call of every function; the tests spoil one argument at a time.
CALLS: dict[str, dict[str, Any]] = {
    "x25519": {"scalar": KEY, "point": KEY},
    "x25519_many": {"scalars": KEY, "points": KEY},
    "x25519_public": {"scalar": KEY},
    "key_is_acceptable": {"key": KEY},
    "first_unacceptable": {"keys": KEY},
    "first_not_ascending": {"keys": KEY},
    "hkdf_extract": {"salt": b"", "ikm": b""},
    "hkdf_expand": {"key": KEY, "info": b"", "length": 32},
    "expand": {"key": KEY, "label": "mask", "info": b"", "length": 32},
    "dhkem_extract_and_expand": {"dh": KEY, "kem_context": b""},
    "shared_secret": {"scalar": KEY, "peer": KEY, "epk": KEY, "pk": KEY},
    "prg": {"suite": 1, "seed": KEY, "length": 10},
    "mask_seed": {"shared_secret": KEY, "ctx": KEY, "party": 1},
    "mask": {
        "suite": 1,
        "width": 32,
        "ctx": KEY,
        "ephemeral_secret": KEY,
        "mask_keys": KEY,
        "values": VECTOR,
    },
    "mask_many": {
        "suite": 1,
        "width": 32,
        "ctx": KEY,
        "ephemeral_secrets": KEY + KEY,
        "mask_keys": KEY,
        "values": np.array([[1, 2, 3, 4], [5, 6, 7, 8]]),
        "head": b"",
        "threads": 1,
    },
    "mask_sum": {
        "suite": 1,
        "width": 32,
        "slots": 4,
        "ctx": KEY,
        "party": 1,
        "secret": KEY,
        "ephemeral_keys": KEY,
        "threads": 1,
    },
    "pack": {"values": VECTOR, "width": 32},
    "unpack": {"payload": bytes(16), "width": 32},
    "add_payloads": {"total": bytes(4), "bodies": [bytes(8)], "offset": 4, "width": 32},
    "sub_payloads": {"total": bytes(4), "bodies": [bytes(8)], "offset": 4, "width": 32},
    "discrete_gaussian": {"suite": 1, "seed": KEY, "variance": 27, "count": 4},
}

WRONG_VALUES: dict[str, list[Any]] = {
    **{
        key: [b"", bytes(31), bytes(33)]
        for key in (
            *("scalar", "point", "dh", "peer", "epk", "pk", "seed"),
            *("shared_secret", "ctx", "ephemeral_secret", "secret"),
        )
    },
    "scalars": [bytes(31), bytes(33)],
    "points": [b"", bytes(31), bytes(33), KEY + KEY],
    "ephemeral_secrets": [bytes(31), bytes(33)],
    "keys": [bytes(31), bytes(33)],
    "mask_keys": [b"", bytes(31), bytes(33), KEY * 256],
    "ephemeral_keys": [bytes(31), bytes(33)],
    "label": ["", "two words", "a\x00b", "ä", "\n"],
    "suite": [0, 3, -1, 2**64],
    "width": [0, 8, 20, 31, 33, 48, 128, -16, 2**70],
    "party": [0, 256, -1, 2**64],
    "slots": [-1, 2**20 + 1, 2**64],
    "threads": [-1, 257, 2**64],
    "variance": [0, -1, 2**53, 2**64],
    "count": [-1, 2**20 + 1, 2**64],
    "values": [
        VECTOR.astype(np.int32),
        VECTOR.astype(np.uint64),
        VECTOR.astype(np.float64),
        VECTOR.astype(">i8"),
        VECTOR.reshape(2, 2),
        VECTOR[::2],
        VECTOR[:1].reshape(()),
        b"12345678",
    ],
    # A matrix is no vector to one client; to many it has a row for each of them.
    "mask_many values": [
        VECTOR.astype(np.int32),
        VECTOR.astype(">i8"),
        VECTOR[::2],
        VECTOR.reshape(4, 1),
        VECTOR.reshape(1, 4),
        VECTOR.reshape(2, 2, 1),
        VECTOR.reshape(2, 2).T,
        VECTOR[:1].reshape(()),
        b"12345678",
    ],
    "payload": [bytes(15), bytes(17)],
    "total": [bytes(3), bytes(5)],
    "bodies": [[bytes(7)], [bytes(8), bytes(7)]],
    "offset": [5, -1, 2**32, 2**64],
    "length": [-1, 2**64],
}

# Of any length: strings of their own right, and a key that is then merely unacceptable.
ANY_BYTES = {"key", "salt", "ikm", "info", "kem_context", "head"}

every_argument = pytest.mark.parametrize(
    "name, argument",
    [(name, argument) for name, right in CALLS.items() for argument in right],
)


def function(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(kernel, name)
    return found


def test_the_calls_are_all_there_is_and_right() -> None:
    """The table above has every function of the kernel with every argument it has."""
    functions = {name for name in kernel.__all__ if callable(getattr(kernel, name))}
    assert set(CALLS) == functions
    for name, right in CALLS.items():
        assert list(inspect.signature(function(name)).parameters) == list(right)
        function(name)(**right)


def test_the_facade_hides_nothing() -> None:
    """``dandelion.kernel`` exports exactly what the extension module has."""
    public = {name for name in vars(_kernel) if not name.startswith("_")}
    assert public == set(kernel.__all__)


@every_argument
def test_wrong_values_are_refused_by_name(name: str, argument: str) -> None:
    """Each argument has values that break its contract, and the error begins with its name."""
    if argument in ANY_BYTES:
        assert isinstance(CALLS[name][argument], bytes)
        return
    for wrong in WRONG_VALUES.get(f"{name} {argument}", WRONG_VALUES[argument]):
        # A width or an offset may make a length wrong instead, which is named then.
        blamed = {"width": "width|payload", "offset": "offset|bodies"}.get(argument, argument)
        with pytest.raises(ValueError, match=f"^({blamed}): "):
            function(name)(**{**CALLS[name], argument: wrong})


@every_argument
@pytest.mark.parametrize(
    "wrong", [None, 1.5, object(), [1.5]], ids=["None", "float", "object", "list"]
)
def test_wrong_types_are_refused(name: str, argument: str, wrong: object) -> None:
    """Each argument refuses what is not of its type, and says which one it was."""
    if argument in ("threads", "head") and wrong is None:
        return
    with pytest.raises((TypeError, ValueError)) as caught:
        function(name)(**{**CALLS[name], argument: wrong})
    told = [str(caught.value), *getattr(caught.value, "__notes__", [])]
    assert any(argument in line for line in told), told


def test_integers_may_be_those_of_numpy() -> None:
    """Whatever Python takes for an index is an integer here."""
    width = np.int64(32)
    assert kernel.pack(VECTOR, width) == kernel.pack(VECTOR, 32)


@pytest.mark.parametrize("function_name", ["hkdf_expand", "expand"])
def test_hkdf_expand_has_a_longest_output(function_name: str) -> None:
    """255 blocks are the most that RFC 5869 allows."""
    right = CALLS[function_name]
    assert len(function(function_name)(**{**right, "length": 8160})) == 8160
    with pytest.raises(ValueError, match=r"^length: "):
        function(function_name)(**{**right, "length": 8161})


def test_a_zero_shared_point_is_refused_and_named() -> None:
    """The all-zero result stops every computation that would use it."""
    with pytest.raises(ValueError, match=r"^peer: .*all zero"):
        kernel.shared_secret(KEY, bytes(32), KEY, KEY)
    with pytest.raises(ValueError, match=r"^mask_keys: key 1 "):
        kernel.mask(1, 32, KEY, KEY, KEY + bytes(32), VECTOR)
    with pytest.raises(ValueError, match=r"^mask_keys: key 1 "):
        kernel.mask_many(1, 32, KEY, KEY * 100, KEY + bytes(32), VECTOR)
    with pytest.raises(ValueError, match=r"^ephemeral_keys: key 130 "):
        kernel.mask_sum(1, 32, 4, KEY, 1, KEY, KEY * 130 + bytes(64) + KEY * 100)


def test_a_short_body_is_named() -> None:
    """Of many bodies the error says which one is too short."""
    with pytest.raises(ValueError, match=r"^bodies: body 3 "):
        kernel.add_payloads(bytes(4), [bytes(8)] * 3 + [bytes(7)], 4, 32)


def test_inputs_are_left_as_they_were() -> None:
    """No function writes into what it was given."""
    values, total, body = VECTOR.copy(), bytes(4), b"\x01" * 8
    kernel.mask(1, 32, KEY, KEY, KEY, values)
    kernel.add_payloads(total, [body], 4, 32)
    assert values.tolist() == VECTOR.tolist()
    assert (total, body) == (bytes(4), b"\x01" * 8)


# Small numbers, so that no call is asked for gigabytes or hours.
anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 300),
    st.sampled_from([-(2**70), 2**53, 2**63, 2**64, 2**70]),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=70),
    st.just(KEY),
    st.lists(st.binary(max_size=10), max_size=3),
    st.just(VECTOR),
)


@settings(deadline=None, max_examples=200)
@given(data=st.data(), name=st.sampled_from(sorted(CALLS)))
def test_nothing_but_value_and_type_errors(data: st.DataObject, name: str) -> None:
    """Any arguments at all end in a result or in one of the two errors, not in a crash."""
    right = CALLS[name]
    spoilt = {
        argument: data.draw(anything)
        for argument in data.draw(st.sets(st.sampled_from(sorted(right)), min_size=1))
    }
    if isinstance(spoilt.get("length"), int) and spoilt["length"] > 300:
        spoilt["length"] = 2**64
    with contextlib.suppress(ValueError, TypeError):
        function(name)(**{**right, **spoilt})
