//! The extension module `dandelion._kernel`: bytes in, bytes out (dandelion/_kernel.pyi).
//!
//! Wrong values are ValueError, wrong types TypeError, both naming the argument. Whatever takes time
//! in proportion to keys or slots runs without the interpreter lock. Copies of secrets made here
//! are erased; the `bytes` objects of the caller are the caller's.

// The macros of the binding expand to unsafe code; none is written here.
#![allow(unsafe_code)]

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use zeroize::Zeroizing;

use crate::curve::{self, Key, KEY_BYTES};
use crate::error::BadArgument;
use crate::gauss::VARIANCE_MAX;
use crate::kdf::{self, Dhkem, EXPAND_BYTES_MAX};
use crate::mask::{Round, PARTIES_MAX, SLOTS_MAX, THREADS_MAX};
use crate::pack::{self, Sign, Width};
use crate::prg::{Prg, Suite, STREAM_BYTES_MAX};

impl From<BadArgument> for PyErr {
    fn from(error: BadArgument) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

#[pyfunction]
fn x25519<'py>(py: Python<'py>, scalar: &[u8], point: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let scalar = Zeroizing::new(*array("scalar", scalar)?);
    let shared = Zeroizing::new(curve::x25519(&scalar, array("point", point)?));
    Ok(PyBytes::new(py, &shared[..]))
}

#[pyfunction]
fn x25519_public<'py>(py: Python<'py>, scalar: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let public = curve::x25519_public(array("scalar", scalar)?);
    Ok(PyBytes::new(py, &public))
}

#[pyfunction]
fn key_is_acceptable(key: &[u8]) -> bool {
    key.try_into().is_ok_and(curve::key_is_acceptable)
}

#[pyfunction]
fn first_unacceptable(py: Python<'_>, keys: &[u8]) -> PyResult<Option<usize>> {
    let keys = key_list("keys", keys)?;
    Ok(py.detach(|| curve::first_unacceptable(keys)))
}

#[pyfunction]
fn first_not_ascending(py: Python<'_>, keys: &[u8]) -> PyResult<Option<usize>> {
    let keys = key_list("keys", keys)?;
    Ok(py.detach(|| curve::first_not_ascending(keys)))
}

#[pyfunction]
fn hkdf_extract<'py>(py: Python<'py>, salt: &[u8], ikm: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &kdf::hkdf_extract(salt, ikm)[..])
}

#[pyfunction]
fn hkdf_expand<'py>(
    py: Python<'py>,
    key: &[u8],
    info: &[u8],
    length: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let length = integer("length", length, 0, EXPAND_BYTES_MAX as u64)? as usize;
    Ok(PyBytes::new(py, &kdf::hkdf_expand(key, &[info], length)?))
}

#[pyfunction]
fn expand<'py>(
    py: Python<'py>,
    key: &[u8],
    label: &str,
    info: &[u8],
    length: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let length = integer("length", length, 0, EXPAND_BYTES_MAX as u64)? as usize;
    Ok(PyBytes::new(py, &kdf::expand(key, label, info, length)?))
}

#[pyfunction]
fn dhkem_extract_and_expand<'py>(
    py: Python<'py>,
    dh: &[u8],
    kem_context: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let secret = Dhkem::default().extract_and_expand(array("dh", dh)?, &[kem_context]);
    Ok(PyBytes::new(py, &secret[..]))
}

#[pyfunction]
fn shared_secret<'py>(
    py: Python<'py>,
    scalar: &[u8],
    peer: &[u8],
    epk: &[u8],
    pk: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let scalar = array("scalar", scalar)?;
    let (peer, epk, pk) = (array("peer", peer)?, array("epk", epk)?, array("pk", pk)?);
    let secret = Dhkem::default()
        .shared_secret(scalar, peer, epk, pk)
        .ok_or_else(|| BadArgument::new("peer", "the Diffie-Hellman result is all zero"))?;
    Ok(PyBytes::new(py, &secret[..]))
}

#[pyfunction]
fn prg<'py>(
    py: Python<'py>,
    suite: &Bound<'py, PyAny>,
    seed: &[u8],
    length: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let suite = suite_of(suite)?;
    let seed = array("seed", seed)?;
    let length = integer("length", length, 0, STREAM_BYTES_MAX)?;
    let stream = py.detach(|| {
        let mut stream = Zeroizing::new(zeros(length)?);
        let complete = Prg::new(suite, seed).fill(&mut stream);
        complete.map(|()| stream).ok_or_else(|| too_large("length"))
    })?;
    Ok(PyBytes::new(py, &stream))
}

#[pyfunction]
fn mask_seed<'py>(
    py: Python<'py>,
    shared_secret: &[u8],
    ctx: &[u8],
    party: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let shared_secret = array("shared_secret", shared_secret)?;
    let seed = kdf::mask_seed(shared_secret, array("ctx", ctx)?, party_of(party)?);
    Ok(PyBytes::new(py, &seed[..]))
}

#[pyfunction]
fn mask<'py>(
    py: Python<'py>,
    suite: &Bound<'py, PyAny>,
    width: &Bound<'py, PyAny>,
    ctx: &[u8],
    ephemeral_secret: &[u8],
    mask_keys: &[u8],
    values: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
    let round = Round { suite: suite_of(suite)?, width: width_of(width)?, ctx: array("ctx", ctx)? };
    let secret = array("ephemeral_secret", ephemeral_secret)?;
    let mask_keys = key_list("mask_keys", mask_keys)?;
    let values = int64_vector("values", values)?;
    let (epk, payload) = py.detach(|| crate::mask::mask(round, secret, mask_keys, &values))?;
    Ok((PyBytes::new(py, &epk), PyBytes::new(py, &payload)))
}

#[pyfunction]
#[pyo3(signature = (suite, width, slots, ctx, party, secret, ephemeral_keys, threads=None))]
#[pyo3(text_signature = "(suite, width, slots, ctx, party, secret, ephemeral_keys, threads=0)")]
// The arguments are those of the documented interface.
#[allow(clippy::too_many_arguments)]
fn mask_sum<'py>(
    py: Python<'py>,
    suite: &Bound<'py, PyAny>,
    width: &Bound<'py, PyAny>,
    slots: &Bound<'py, PyAny>,
    ctx: &[u8],
    party: &Bound<'py, PyAny>,
    secret: &[u8],
    ephemeral_keys: &[u8],
    threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let round = Round { suite: suite_of(suite)?, width: width_of(width)?, ctx: array("ctx", ctx)? };
    let slots = integer("slots", slots, 0, SLOTS_MAX as u64)? as usize;
    let party = party_of(party)?;
    let secret = array("secret", secret)?;
    let keys = key_list("ephemeral_keys", ephemeral_keys)?;
    let threads = match threads {
        None => 0,
        Some(threads) => integer("threads", threads, 0, THREADS_MAX as u64)? as usize,
    };
    let sum = py.detach(|| {
        crate::mask::mask_sum(round, slots, party, secret, keys, threads).map(Zeroizing::new)
    })?;
    Ok(PyBytes::new(py, &sum))
}

#[pyfunction]
#[pyo3(name = "pack")]
fn pack_values<'py>(
    py: Python<'py>,
    values: &Bound<'py, PyAny>,
    width: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let values = int64_vector("values", values)?;
    let width = width_of(width)?;
    let payload = py.detach(|| Zeroizing::new(pack::pack(width, &values)));
    Ok(PyBytes::new(py, &payload))
}

#[pyfunction]
fn unpack<'py>(
    py: Python<'py>,
    payload: &[u8],
    width: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let width = width_of(width)?;
    let values = py.detach(|| pack::unpack(width, payload).map(|values| int64_bytes(&values)))?;
    Ok(PyBytes::new(py, &values))
}

#[pyfunction]
fn add_payloads<'py>(
    py: Python<'py>,
    total: &[u8],
    bodies: Vec<Bound<'py, PyBytes>>,
    offset: &Bound<'py, PyAny>,
    width: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    fold(py, Sign::Plus, total, &bodies, offset, width)
}

#[pyfunction]
fn sub_payloads<'py>(
    py: Python<'py>,
    total: &[u8],
    bodies: Vec<Bound<'py, PyBytes>>,
    offset: &Bound<'py, PyAny>,
    width: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    fold(py, Sign::Minus, total, &bodies, offset, width)
}

#[pyfunction]
fn discrete_gaussian<'py>(
    py: Python<'py>,
    suite: &Bound<'py, PyAny>,
    seed: &[u8],
    variance: &Bound<'py, PyAny>,
    count: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let suite = suite_of(suite)?;
    let seed = array("seed", seed)?;
    let variance = integer("variance", variance, 1, VARIANCE_MAX)?;
    let count = integer("count", count, 0, SLOTS_MAX as u64)? as usize;
    let noise = py.detach(|| {
        crate::gauss::discrete_gaussian(suite, seed, variance, count)
            .map(|draws| int64_bytes(&draws))
    })?;
    Ok(PyBytes::new(py, &noise))
}

#[pymodule]
fn _kernel(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("KERNEL_VERSION", crate::VERSION)?;
    module.add("SUITE_X25519_CHACHA20", Suite::X25519ChaCha20 as u8)?;
    module.add("SUITE_X25519_AES256CTR", Suite::X25519Aes256Ctr as u8)?;
    let [w16, w24, w32, w64] = Width::ALL.map(Width::bits);
    module.add("WIDTHS", (w16, w24, w32, w64))?;
    module.add_function(wrap_pyfunction!(x25519, module)?)?;
    module.add_function(wrap_pyfunction!(x25519_public, module)?)?;
    module.add_function(wrap_pyfunction!(key_is_acceptable, module)?)?;
    module.add_function(wrap_pyfunction!(first_unacceptable, module)?)?;
    module.add_function(wrap_pyfunction!(first_not_ascending, module)?)?;
    module.add_function(wrap_pyfunction!(hkdf_extract, module)?)?;
    module.add_function(wrap_pyfunction!(hkdf_expand, module)?)?;
    module.add_function(wrap_pyfunction!(expand, module)?)?;
    module.add_function(wrap_pyfunction!(dhkem_extract_and_expand, module)?)?;
    module.add_function(wrap_pyfunction!(shared_secret, module)?)?;
    module.add_function(wrap_pyfunction!(prg, module)?)?;
    module.add_function(wrap_pyfunction!(mask_seed, module)?)?;
    module.add_function(wrap_pyfunction!(mask, module)?)?;
    module.add_function(wrap_pyfunction!(mask_sum, module)?)?;
    module.add_function(wrap_pyfunction!(pack_values, module)?)?;
    module.add_function(wrap_pyfunction!(unpack, module)?)?;
    module.add_function(wrap_pyfunction!(add_payloads, module)?)?;
    module.add_function(wrap_pyfunction!(sub_payloads, module)?)?;
    module.add_function(wrap_pyfunction!(discrete_gaussian, module)?)?;
    Ok(())
}

fn fold<'py>(
    py: Python<'py>,
    sign: Sign,
    total: &[u8],
    bodies: &[Bound<'py, PyBytes>],
    offset: &Bound<'py, PyAny>,
    width: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let width = width_of(width)?;
    let offset = integer("offset", offset, 0, u64::from(u32::MAX))? as usize;
    let bodies: Vec<&[u8]> = bodies.iter().map(|body| body.as_bytes()).collect();
    let output = py.detach(|| pack::fold_payloads(width, sign, total, &bodies, offset))?;
    Ok(PyBytes::new(py, &output))
}

fn array<'a, const N: usize>(name: &'static str, bytes: &'a [u8]) -> PyResult<&'a [u8; N]> {
    let wrong = || BadArgument::new(name, format!("must have {N} bytes, not {}", bytes.len()));
    Ok(bytes.try_into().map_err(|_| wrong())?)
}

fn key_list<'a>(name: &'static str, bytes: &'a [u8]) -> PyResult<&'a [Key]> {
    match bytes.as_chunks::<KEY_BYTES>() {
        (keys, []) => Ok(keys),
        _ => {
            let reason = format!("its length must be a multiple of {KEY_BYTES} bytes");
            Err(BadArgument::new(name, reason).into())
        }
    }
}

/// An integer of Python within `least..=most`, whatever its size there.
fn integer(name: &'static str, value: &Bound<'_, PyAny>, least: u64, most: u64) -> PyResult<u64> {
    let py = value.py();
    let wrong = || BadArgument::new(name, format!("must be from {least} to {most}"));
    match value.extract::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        Ok(_) => Err(wrong().into()),
        // Negative, or above 64 bits.
        Err(error) if error.is_instance_of::<PyOverflowError>(py) => Err(wrong().into()),
        Err(error) => Err(type_error(py, name, &error)),
    }
}

fn suite_of(value: &Bound<'_, PyAny>) -> PyResult<Suite> {
    Ok(Suite::try_from(integer("suite", value, 1, 2)?)?)
}

fn width_of(value: &Bound<'_, PyAny>) -> PyResult<Width> {
    Ok(Width::try_from(integer("width", value, 16, 64)?)?)
}

fn party_of(value: &Bound<'_, PyAny>) -> PyResult<u8> {
    Ok(integer("party", value, 1, PARTIES_MAX as u64)? as u8)
}

/// A copy of a one-dimensional contiguous buffer of int64 in the byte order of the machine.
fn int64_vector(name: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Zeroizing<Vec<i64>>> {
    let py = value.py();
    let wrong = || BadArgument::new(name, "must be a one-dimensional contiguous buffer of int64");
    let buffer = match PyBuffer::<i64>::get(value) {
        Ok(buffer) => buffer,
        Err(error) if error.is_instance_of::<PyBufferError>(py) => return Err(wrong().into()),
        Err(error) => return Err(type_error(py, name, &error)),
    };
    // The binding takes a foreign byte order for the machine's own.
    let foreign: &[u8] = if cfg!(target_endian = "little") { b">!" } else { b"<" };
    let swapped = buffer.format().to_bytes().first().is_some_and(|order| foreign.contains(order));
    if swapped || buffer.dimensions() != 1 || !buffer.is_c_contiguous() {
        return Err(wrong().into());
    }
    Ok(Zeroizing::new(buffer.to_vec(py)?))
}

fn int64_bytes(values: &[i64]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(pack::bytes_of(values, i64::to_le_bytes))
}

fn zeros(length: u64) -> Result<Vec<u8>, BadArgument> {
    let length = usize::try_from(length).map_err(|_| too_large("length"))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| too_large("length"))?;
    bytes.resize(length, 0);
    Ok(bytes)
}

fn too_large(name: &'static str) -> BadArgument {
    BadArgument::new(name, "more than this machine can hold")
}

fn type_error(py: Python<'_>, name: &str, error: &PyErr) -> PyErr {
    PyTypeError::new_err(format!("{name}: {}", error.value(py)))
}
