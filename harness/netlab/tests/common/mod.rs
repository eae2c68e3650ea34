//! Start a test program again inside its own namespaces.

use std::ffi::OsString;
use std::process::ExitCode;

use touchstone_sys::{InitRequest, UserNamespace, spawn_contained};

/// Is PID 1, if this process was started as one.
pub(crate) fn init() -> Option<ExitCode> {
    match InitRequest::from_args(std::env::args_os()) {
        Ok(None) => None,
        Ok(Some(request)) => Some(match request.run() {
            Ok(code) => ExitCode::from(code),
            Err(error) => complain(&error, error.code()),
        }),
        Err(error) => Some(complain(&error, error.code())),
    }
}

fn complain(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    #[expect(clippy::print_stderr)]
    {
        eprintln!("{text}");
    }
    ExitCode::from(code)
}

/// Runs this program again, with the same arguments, inside new namespaces; `inside` is what
/// tells it there where it is.
#[allow(dead_code, reason = "each test program uses its share of this module")]
pub(crate) fn contained(inside: &str) -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let mut env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    env.push((inside.into(), "1".into()));
    let started = spawn_contained(&argv, &env, UserNamespace::New, &[]);
    let mut contained = match started {
        Ok(contained) => contained,
        Err(error) => return complain(&error, 1),
    };
    match contained.wait_forwarding() {
        Ok(ended) => ExitCode::from(ended.code()),
        Err(error) => complain(&error, 1),
    }
}
