//! A number by chance, for what is only to differ.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number that differs each time, also between processes; no secret.
#[must_use]
pub fn chance() -> u64 {
    // Each state of the standard library's hash has keys of its own.
    RandomState::new().build_hasher().finish()
}
