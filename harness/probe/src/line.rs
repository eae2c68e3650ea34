//! The lines that clients and servers exchange.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// First word of every line: the name of the format and its version.
const VERSION: &str = "touchstone/1";

/// Longest line in bytes, newline included: room for an identity of [`IDENTITY_LIMIT`] bytes and
/// two IPv6 addresses.
pub(crate) const LINE_LIMIT: usize = 512;

/// Longest identity in bytes, the longest name Kubernetes gives to a pod.
pub(crate) const IDENTITY_LIMIT: usize = 253;

/// Tells the answer to one request from the answers to all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nonce(u64);

impl Nonce {
    /// A nonce this process has not used before, and another process hardly ever.
    pub(crate) fn fresh() -> Nonce {
        static NEXT: LazyLock<AtomicU64> =
            LazyLock::new(|| AtomicU64::new(RandomState::new().build_hasher().finish()));
        Nonce(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn parse(word: &str) -> Option<Nonce> {
        let digits = word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !digits {
            return None;
        }
        u64::from_str_radix(word, 16).ok().map(Nonce)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The request that carries a nonce, newline included.
pub(crate) fn request(nonce: Nonce) -> String {
    format!("{VERSION} {nonce}\n")
}

/// Reads a request without its newline; none if it is anything else.
pub(crate) fn parse_request(line: &[u8]) -> Option<Nonce> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let version = words.next()?;
    let nonce = words.next()?;
    if version != VERSION || words.next().is_some() {
        return None;
    }
    Nonce::parse(nonce)
}

/// What a server says about itself and its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Of the request that is answered.
    pub(crate) nonce: Nonce,
    /// The client as the server saw it.
    pub(crate) peer: SocketAddr,
    /// The address on which the server was reached.
    pub(crate) local: SocketAddr,
}

impl Answer {
    /// The line that says so, newline included.
    pub(crate) fn line(&self, identity: &str) -> String {
        let Answer { nonce, peer, local } = self;
        format!("{VERSION} {nonce} {identity} {peer} {local}\n")
    }

    /// Reads a line without its newline; none if it is no answer of a touchstone server.
    pub(crate) fn parse(line: &[u8]) -> Option<Answer> {
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        let version = words.next()?;
        let nonce = Nonce::parse(words.next()?)?;
        let identity = words.next()?;
        let peer = words.next()?.parse().ok()?;
        let local = words.next()?.parse().ok()?;
        if version != VERSION || identity.is_empty() || words.next().is_some() {
            return None;
        }
        Some(Answer { nonce, peer, local })
    }
}

/// Whether a server may carry this identity: one word of printable ASCII.
pub(crate) fn is_identity(text: &str) -> bool {
    (1..=IDENTITY_LIMIT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_request(line: &str, want: Option<&str>) {
        let got = parse_request(line.as_bytes()).map(|nonce| nonce.to_string());
        assert_eq!(got.as_deref(), want, "{line:?}");
    }

    fn check_answer(line: &str, want: Option<&str>) {
        let got = Answer::parse(line.as_bytes())
            .map(|answer| format!("{} {} {}", answer.nonce, answer.peer, answer.local));
        assert_eq!(got.as_deref(), want, "{line:?}");
    }

    #[test]
    fn requests() {
        check_request("touchstone/1 00000000000000ff", Some("00000000000000ff"));
        check_request("touchstone/1 00000000000000FF", Some("00000000000000ff"));
        check_request("touchstone/1 ff", None);
        check_request("touchstone/1 +0000000000000ff", None);
        check_request("touchstone/1 00000000000000ff more", None);
        check_request("touchstone/2 00000000000000ff", None);
        check_request("GET / HTTP/1.1", None);
        check_request("", None);
    }

    #[test]
    fn answers() {
        check_answer(
            "touchstone/1 000000000000000a web-1 10.0.0.1:4000 10.0.0.2:80",
            Some("000000000000000a 10.0.0.1:4000 10.0.0.2:80"),
        );
        check_answer(
            "touchstone/1 000000000000000a web-1 [fd00::1]:4000 [fd00::2]:80",
            Some("000000000000000a [fd00::1]:4000 [fd00::2]:80"),
        );
        check_answer("touchstone/1 000000000000000a  10.0.0.1:4000 10.0.0.2:80", None);
        check_answer("touchstone/1 000000000000000a web-1 10.0.0.1 10.0.0.2:80", None);
        check_answer("touchstone/1 000000000000000a web-1 10.0.0.1:4000", None);
        check_answer("touchstone/2 000000000000000a web-1 10.0.0.1:4000 10.0.0.2:80", None);
        check_answer("SSH-2.0-OpenSSH", None);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let nonce = Nonce::fresh();
        assert_eq!(parse_request(request(nonce).trim_end().as_bytes()), Some(nonce));
        let answer = Answer {
            nonce,
            peer: SocketAddr::from(([0xffff; 8], u16::MAX)),
            local: SocketAddr::from(([0xffff; 8], u16::MAX)),
        };
        let line = answer.line(&"x".repeat(IDENTITY_LIMIT));
        assert!(line.len() <= LINE_LIMIT, "{} bytes", line.len());
        assert_eq!(Answer::parse(line.trim_end().as_bytes()), Some(answer));
    }

    #[test]
    fn identities() {
        assert!(is_identity("web-1.default"));
        assert!(!is_identity(""));
        assert!(!is_identity("two words"));
        assert!(!is_identity("line\n"));
        assert!(!is_identity(&"x".repeat(IDENTITY_LIMIT + 1)));
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(Nonce::fresh(), Nonce::fresh());
    }
}
