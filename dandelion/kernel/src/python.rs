//! The extension module `dandelion._kernel`: bytes in, bytes out (dandelion/_kernel.pyi).
//!
//! Wrong values are ValueError, wrong types TypeError, both naming the argument. Whatever takes time
//! in proportion to keys or slots runs without the interpreter lock. Copies of secrets made here
//! are erased; the `bytes` objects of the caller are the caller's.

// The macros of the binding expand to unsafe code; none is written here.
#![allow(unsafe_code)]

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use zeroize::Zeroizing;

use crate::curve;
use crate::error::BadArgument;
use crate::gauss::VARIANCE_MAX;
use crate::kdf::{self, Dhkem, EXPAND_BYTES_MAX};
use crate::ladder::{self, Pair};
use crate::mask::{Round, SLOTS_MAX};
use crate::pack::{self, Sign, Width};
use crate::prg::{Prg, Suite, STREAM_BYTES_MAX};

use arguments::{
    array, int64_vector, int64_vectors, integer, key_list, party_of, suite_of, threads_of, width_of,
};

mod arguments;

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
fn x25519_many<'py>(
    py: Python<'py>,
    scalars: &[u8],
    points: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let (scalars, points) = (key_list("scalars", scalars)?, key_list("points", points)?);
    if scalars.len() != points.len() {
        return Err(BadArgument::new("points", "must be as many as there are scalars").into());
    }
    let products = py.detach(|| {
        let pairs: Vec<Pair> = scalars.iter().zip(points).collect();
        ladder::x25519_many(&pairs)
    });
    Ok(PyBytes::new(py, products.as_flattened()))
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
#[pyo3(signature = (
    suite, width, ctx, ephemeral_secrets, mask_keys, values, head=None, threads=None
))]
#[pyo3(
    text_signature = "(suite, width, ctx, ephemeral_secrets, mask_keys, values, head=b'', threads=0)"
)]
// The arguments are those of the documented interface.
#[allow(clippy::too_many_arguments)]
fn mask_many<'py>(
    py: Python<'py>,
    suite: &Bound<'py, PyAny>,
    width: &Bound<'py, PyAny>,
    ctx: &[u8],
    ephemeral_secrets: &[u8],
    mask_keys: &[u8],
    values: &Bound<'py, PyAny>,
    head: Option<&[u8]>,
    threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let round = Round { suite: suite_of(suite)?, width: width_of(width)?, ctx: array("ctx", ctx)? };
    let secrets = key_list("ephemeral_secrets", ephemeral_secrets)?;
    let mask_keys = key_list("mask_keys", mask_keys)?;
    let (values, slots) = int64_vectors("values", values, secrets.len())?;
    let (head, threads) = (head.unwrap_or_default(), threads_of(threads)?);
    let reports = py.detach(|| {
        crate::mask::mask_many(round, secrets, mask_keys, &values, slots, head, threads)
    })?;
    Ok(reports.iter().map(|report| PyBytes::new(py, report)).collect())
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
    let threads = threads_of(threads)?;
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
    module.add("X25519_LANES", ladder::lanes())?;
    let [w16, w24, w32, w64] = Width::ALL.map(Width::bits);
    module.add("WIDTHS", (w16, w24, w32, w64))?;
    module.add_function(wrap_pyfunction!(x25519, module)?)?;
    module.add_function(wrap_pyfunction!(x25519_public, module)?)?;
    module.add_function(wrap_pyfunction!(x25519_many, module)?)?;
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
    module.add_function(wrap_pyfunction!(mask_many, module)?)?;
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

fn int64_bytes(values: &[i64]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::new());
    pack::append(&mut bytes, values, i64::to_le_bytes);
    bytes
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
