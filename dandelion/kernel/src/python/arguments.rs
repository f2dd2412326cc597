//! Arguments from Python, judged: what is wrong with one says its name.

#![forbid(unsafe_code)]

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use zeroize::Zeroizing;

use crate::curve::{Key, KEY_BYTES};
use crate::error::BadArgument;
use crate::mask::{PARTIES_MAX, THREADS_MAX};
use crate::pack::Width;
use crate::prg::Suite;

impl From<BadArgument> for PyErr {
    fn from(error: BadArgument) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

pub fn array<'a, const N: usize>(name: &'static str, bytes: &'a [u8]) -> PyResult<&'a [u8; N]> {
    let wrong = || BadArgument::new(name, format!("must have {N} bytes, not {}", bytes.len()));
    Ok(bytes.try_into().map_err(|_| wrong())?)
}

pub fn key_list<'a>(name: &'static str, bytes: &'a [u8]) -> PyResult<&'a [Key]> {
    match bytes.as_chunks::<KEY_BYTES>() {
        (keys, []) => Ok(keys),
        _ => {
            let reason = format!("its length must be a multiple of {KEY_BYTES} bytes");
            Err(BadArgument::new(name, reason).into())
        }
    }
}

/// An integer of Python within `least..=most`, whatever its size there.
pub fn integer(
    name: &'static str,
    value: &Bound<'_, PyAny>,
    least: u64,
    most: u64,
) -> PyResult<u64> {
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

pub fn suite_of(value: &Bound<'_, PyAny>) -> PyResult<Suite> {
    Ok(Suite::try_from(integer("suite", value, 1, 2)?)?)
}

pub fn width_of(value: &Bound<'_, PyAny>) -> PyResult<Width> {
    Ok(Width::try_from(integer("width", value, 16, 64)?)?)
}

pub fn party_of(value: &Bound<'_, PyAny>) -> PyResult<u8> {
    Ok(integer("party", value, 1, PARTIES_MAX as u64)? as u8)
}

pub fn threads_of(value: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
    value.map_or(Ok(0), |value| Ok(integer("threads", value, 0, THREADS_MAX as u64)? as usize))
}

/// A copy of a one-dimensional contiguous buffer of int64 in the byte order of the machine.
pub fn int64_vector(name: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Zeroizing<Vec<i64>>> {
    let (values, shape) = int64s(name, value)?;
    match shape[..] {
        [_] => Ok(values),
        _ => Err(not_int64s(name).into()),
    }
}

/// A copy of a vector, or of a matrix with `rows` rows, and the length of the vector or of a row.
pub fn int64_vectors(
    name: &'static str,
    value: &Bound<'_, PyAny>,
    rows: usize,
) -> PyResult<(Zeroizing<Vec<i64>>, usize)> {
    let (values, shape) = int64s(name, value)?;
    match shape[..] {
        [slots] => Ok((values, slots)),
        [height, slots] if height == rows => Ok((values, slots)),
        _ => Err(BadArgument::new(name, "must be one vector or one row for each secret").into()),
    }
}

/// A copy of a contiguous buffer of int64 in the byte order of the machine, and its shape.
fn int64s(
    name: &'static str,
    value: &Bound<'_, PyAny>,
) -> PyResult<(Zeroizing<Vec<i64>>, Vec<usize>)> {
    let py = value.py();
    let wrong = || not_int64s(name);
    let buffer = match PyBuffer::<i64>::get(value) {
        Ok(buffer) => buffer,
        Err(error) if error.is_instance_of::<PyBufferError>(py) => return Err(wrong().into()),
        Err(error) => return Err(type_error(py, name, &error)),
    };
    // The binding takes a foreign byte order for the machine's own.
    let foreign: &[u8] = if cfg!(target_endian = "little") { b">!" } else { b"<" };
    let swapped = buffer.format().to_bytes().first().is_some_and(|order| foreign.contains(order));
    if swapped || !buffer.is_c_contiguous() {
        return Err(wrong().into());
    }
    Ok((Zeroizing::new(buffer.to_vec(py)?), buffer.shape().to_vec()))
}

fn not_int64s(name: &'static str) -> BadArgument {
    BadArgument::new(name, "must be a one-dimensional contiguous buffer of int64")
}

fn type_error(py: Python<'_>, name: &str, error: &PyErr) -> PyErr {
    PyTypeError::new_err(format!("{name}: {}", error.value(py)))
}
