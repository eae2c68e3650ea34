//! The lines that clients and servers exchange.

use std::fmt;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::chance;

/// First word of every line: the name of the format and its version.
const VERSION: &str = "touchstone/1";

/// Longest line in bytes, newline included: room for an identity of [`IDENTITY_LIMIT`] bytes and
/// two IPv6 addresses.
pub(crate) const LINE_LIMIT: usize = 512;

/// Longest identity in bytes, the longest name Kubernetes gives to a pod.
pub(crate) const IDENTITY_LIMIT: usize = 253;

/// Most bytes that a question may carry over TCP.
pub(crate) const PAYLOAD_LIMIT: u32 = 16 << 20;

/// Longest UDP datagram.
pub(crate) const DATAGRAM_LIMIT: usize = 65_535;

/// Tells the answer to one request from the answers to all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nonce(u64);

impl Nonce {
    /// A nonce this process has not used before, and another process hardly ever.
    pub(crate) fn fresh() -> Nonce {
        static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(chance()));
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

/// What a client asks: to be answered, and to have so many bytes that follow sent back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) nonce: Nonce,
    /// 0 for the ordinary question.
    pub(crate) size: u32,
}

impl Request {
    /// A question that was not asked before.
    pub(crate) fn fresh(size: u32) -> Request {
        Request { nonce: Nonce::fresh(), size }
    }

    /// All of it: the line, newline included, and the bytes that are to come back.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Request { nonce, size } = self;
        if *size == 0 {
            return format!("{VERSION} {nonce}\n").into_bytes();
        }
        let mut bytes = format!("{VERSION} {nonce} {size}\n").into_bytes();
        bytes.extend(self.payload());
        bytes
    }

    /// The bytes that are to come back; those of two questions differ.
    pub(crate) fn payload(&self) -> Vec<u8> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let mut payload = Vec::with_capacity(size + 8);
        let mut state = self.nonce.0;
        while payload.len() < size {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            payload.extend((state ^ (state >> 29)).to_le_bytes());
        }
        payload.truncate(size);
        payload
    }
}

/// Reads the line of a request without its newline; none if it is anything else.
pub(crate) fn parse_request(line: &[u8]) -> Option<Request> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let version = words.next()?;
    let nonce = words.next()?;
    let size = match words.next() {
        None => 0,
        Some(size) => size.parse().ok().filter(|size| (1..=PAYLOAD_LIMIT).contains(size))?,
    };
    if version != VERSION || words.next().is_some() {
        return None;
    }
    Some(Request { nonce: Nonce::parse(nonce)?, size })
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
        let got = parse_request(line.as_bytes()).map(|Request { nonce, size }| match size {
            0 => nonce.to_string(),
            size => format!("{nonce} {size}"),
        });
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
        check_request("touchstone/1 00000000000000ff 70", Some("00000000000000ff 70"));
        check_request("touchstone/1 00000000000000ff 0", None);
        check_request("touchstone/1 00000000000000ff 99999999", None);
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
        for size in [0, 1, 1000] {
            let request = Request::fresh(size);
            let bytes = request.bytes();
            let end = bytes.iter().position(|byte| *byte == b'\n').expect("a line");
            assert_eq!(parse_request(&bytes[..end]), Some(request));
            assert_eq!(bytes[end + 1..], request.payload());
        }
        let nonce = Nonce::fresh();
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
