//! The program `touchstone-agent`, which is alone in its container.

use std::net::SocketAddr;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use touchstone_agent::{Limits, serve};

const USAGE: &str = "usage: touchstone-agent ADDRESS:PORT SHA256-OF-TOKEN

Probes for touchstone from inside a pod or node. It obeys whoever shows the token, and ends when
nobody has talked to it for a while. touchstone starts it; there is nothing to set by hand.";

/// Exit code of wrong usage.
const WRONG: u8 = 64;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let listen = args.next().and_then(|text| text.parse::<SocketAddr>().ok());
    let (Some(listen), Some(digest), None) = (listen, args.next(), args.next()) else {
        return complain(USAGE, WRONG);
    };
    if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return complain(USAGE, WRONG);
    }
    // Thousands of probes are in flight at a time; a lower limit only shows where a socket cannot
    // be opened, and there it is named.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("failed to start the async runtime: {error}"), 1),
    };
    let ended = runtime.block_on(async {
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|error| format!("failed to listen on {listen}: {error}"))?;
        // The first process of a container gets no signal that it does not ask for.
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        tokio::select! {
            ended = serve(listener, digest.to_ascii_lowercase(), Limits::default()) => {
                ended.map_err(|error| format!("failed to accept on {listen}: {error}"))
            }
            _ = terminate.recv() => Ok(()),
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => complain(&why, 1),
    }
}

#[expect(clippy::print_stderr, reason = "the one place from which the program speaks")]
fn complain(why: &str, code: u8) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(code)
}
