//! Why a command ends with another code than its verdict's.

use std::fmt;

/// A mistake on the command line or in a file that it names.
pub(crate) const USAGE: u8 = 64;
/// Trouble of the harness or the lab.
pub(crate) const HARNESS: u8 = 3;
/// Nothing, or less than planned, ran.
pub(crate) const PLAN: u8 = 4;

/// A command that failed, with its exit code.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) code: u8,
    pub(crate) why: anyhow::Error,
}

impl Failed {
    /// A mistake of the user's, in arguments or files.
    pub(crate) fn usage(why: impl Into<anyhow::Error>) -> Failed {
        Failed { code: USAGE, why: why.into() }
    }

    /// Trouble of the harness, the lab or the machine.
    pub(crate) fn harness(why: impl Into<anyhow::Error>) -> Failed {
        Failed { code: HARNESS, why: why.into() }
    }

    /// A plan that cannot be carried out.
    pub(crate) fn plan(why: impl Into<anyhow::Error>) -> Failed {
        Failed { code: PLAN, why: why.into() }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.why)
    }
}
