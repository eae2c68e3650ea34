//! A client for health checks and a proxy's own pages: one HTTP/1.1 GET.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use touchstone_spec::{Asked, Observation, Outcome};

use crate::errors::{broke, failed, foreign};
use crate::look::shown;
use crate::tcp::establish;

/// Longest response in bytes, head and body; metrics are the longest, with some 100 kB.
const RESPONSE_LIMIT: usize = 8 << 20;

/// Connects an unconnected, non-blocking, perhaps bound TCP socket to `to`, gets the path and resets
/// the connection; all of it takes `wait` at most.
///
/// `local_endpoints` is the number `localEndpoints` of a JSON body, as kube-proxy's health-check
/// node ports send it; `shown` holds what was looked for and is there. Redirections are not followed. An accepted connection that ends before
/// any answer is `Reset`; an answer that is no HTTP/1 response, is cut short or is longer than
/// 8 MiB breaks the probe.
pub async fn get_http(fd: OwnedFd, to: SocketAddr, asked: &Asked, wait: Duration) -> Observation {
    timeout(wait, get(fd, to, asked)).await.unwrap_or(Observation::Saw(Outcome::Dropped))
}

async fn get(fd: OwnedFd, to: SocketAddr, asked: &Asked) -> Observation {
    let path = asked.path.as_str();
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return broke("ask", to, format_args!("{path:?} is not a path"));
    }
    let mut stream = match establish(fd, to).await {
        Ok(stream) => stream,
        Err(seen) => return seen,
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: touchstone\r\nConnection: close\r\n\r\n"
    );
    if let Err(error) = stream.write_all(request.as_bytes()).await {
        return failed("send to", to, &error, None);
    }
    let mut response = Vec::new();
    let mut stage = Stage::Open;
    loop {
        match read(&response, stage) {
            Read::Complete { status, headers, body } => {
                let local_endpoints = local_endpoints(&body);
                let shown = shown(&asked.looks, &headers, &body);
                return Observation::Saw(Outcome::Http { status, local_endpoints, shown });
            }
            Read::More if response.len() >= RESPONSE_LIMIT => {
                return broke("read from", to, "its response is too long");
            }
            Read::More => {}
            Read::Short if response.is_empty() => return Observation::Saw(Outcome::Reset),
            Read::Short => return broke("read from", to, "its response was cut short"),
            Read::Foreign => return foreign(to, "an HTTP server", &response),
        }
        match stream.read_buf(&mut response).await {
            Ok(0) => stage = Stage::Ended,
            Ok(_) => {}
            Err(error) => return failed("read from", to, &error, None),
        }
    }
}

/// Whether more bytes can come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Ended,
}

/// What the bytes of a response amount to.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// A whole response.
    Complete { status: u16, headers: Headers, body: Vec<u8> },
    /// The beginning of one.
    More,
    /// The beginning of one, and nothing will follow.
    Short,
    /// Something else.
    Foreign,
}

/// Names and values of headers, as they came.
type Headers = Vec<(String, String)>;

/// How the end of a body is found (RFC 9112 section 6.3).
enum Framing {
    Length(usize),
    Chunked,
    UntilEnd,
}

fn read(response: &[u8], stage: Stage) -> Read {
    let incomplete = match stage {
        Stage::Open => Read::More,
        Stage::Ended => Read::Short,
    };
    let common = response.len().min(b"HTTP/1.".len());
    if response.get(..common) != b"HTTP/1.".get(..common) {
        return Read::Foreign;
    }
    let Some((head, rest)) = split_at(response, b"\r\n\r\n") else {
        return incomplete;
    };
    let Some((status, headers, framing)) = read_head(head) else {
        return Read::Foreign;
    };
    let body = match framing {
        Framing::Length(length) => rest.get(..length).map(<[u8]>::to_vec),
        Framing::Chunked => match unchunk(rest) {
            Ok(body) => body,
            Err(NotChunked) => return Read::Foreign,
        },
        Framing::UntilEnd => match stage {
            Stage::Open => None,
            Stage::Ended => Some(rest.to_vec()),
        },
    };
    match body {
        Some(body) => Read::Complete { status, headers, body },
        None => incomplete,
    }
}

fn read_head(head: &[u8]) -> Option<(u16, Headers, Framing)> {
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?;
    let status = Some(status).filter(|text| text.len() == 3)?.parse().ok()?;
    let mut framing =
        if status == 204 || status == 304 { Framing::Length(0) } else { Framing::UntilEnd };
    let mut headers = Headers::new();
    let mut chunked = false;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            framing = Framing::Length(value.parse().ok()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked |= value.eq_ignore_ascii_case("chunked");
        }
        headers.push((name.to_owned(), value.to_owned()));
    }
    Some((status, headers, if chunked { Framing::Chunked } else { framing }))
}

/// A body that breaks the rules of chunked coding.
#[derive(Debug, PartialEq, Eq)]
struct NotChunked;

/// Joins the chunks of a body; none if the last one is not there yet.
fn unchunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, NotChunked> {
    let mut body = Vec::new();
    loop {
        let Some((size, after)) = split_at(rest, b"\r\n") else {
            return Ok(None);
        };
        let size = std::str::from_utf8(size).map_err(|_| NotChunked)?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| NotChunked)?;
        if size == 0 {
            return Ok(Some(body));
        }
        if size > RESPONSE_LIMIT {
            return Err(NotChunked);
        }
        let (Some(chunk), Some(end)) = (after.get(..size), after.get(size..size + 2)) else {
            return Ok(None);
        };
        if end != b"\r\n" {
            return Err(NotChunked);
        }
        body.extend_from_slice(chunk);
        rest = after.get(size + 2..).unwrap_or_default();
    }
}

fn split_at<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    Some((bytes.get(..at)?, bytes.get(at + mark.len()..)?))
}

fn local_endpoints(body: &[u8]) -> Option<u64> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    body.get("localEndpoints")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(response: &str, stage: Stage) -> String {
        match read(response.as_bytes(), stage) {
            Read::Complete { status, body, .. } => format!("{status} {}", body.escape_ascii()),
            Read::More => "more".to_owned(),
            Read::Short => "short".to_owned(),
            Read::Foreign => "foreign".to_owned(),
        }
    }

    fn check(response: &str, open: &str, ended: &str) {
        assert_eq!(show(response, Stage::Open), open, "{response:?}, open");
        assert_eq!(show(response, Stage::Ended), ended, "{response:?}, ended");
    }

    #[test]
    fn responses() {
        check("", "more", "short");
        check("HTT", "more", "short");
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", "more", "short");
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{", "more", "short");
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "200 {}", "200 {}");
        check("HTTP/1.1 503 Service Unavailable\r\n\r\n{}", "more", "503 {}");
        check("HTTP/1.0 204\r\nA: b\r\n\r\n", "204 ", "204 ");
        check("HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n", "foreign", "foreign");
        check("HTTP/1.1 yes OK\r\n\r\n", "foreign", "foreign");
        check("SSH-2.0", "foreign", "foreign");
    }

    #[test]
    fn chunks() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{head}2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n"), "200 abc", "200 abc");
        check(&format!("{head}2\r\nab\r\n"), "more", "short");
        check(&format!("{head}2\r\nabc\r\n"), "foreign", "foreign");
        check(&format!("{head}ffffffffffffffff\r\n"), "foreign", "foreign");
    }

    #[test]
    fn endpoints_of_a_body() {
        assert_eq!(local_endpoints(br#"{"service":{},"localEndpoints":3}"#), Some(3));
        assert_eq!(local_endpoints(br#"{"localEndpoints":"3"}"#), None);
        assert_eq!(local_endpoints(b"ok"), None);
    }
}
