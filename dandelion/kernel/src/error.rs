//! The one error of the kernel: an argument that breaks its contract.

#![forbid(unsafe_code)]

use std::fmt;

/// Names the argument and says what is wrong with it; becomes `ValueError` in Python.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadArgument {
    pub name: &'static str,
    pub reason: String,
}

impl BadArgument {
    pub fn new(name: &'static str, reason: impl Into<String>) -> Self {
        Self { name, reason: reason.into() }
    }
}

impl fmt::Display for BadArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

impl std::error::Error for BadArgument {}
