//! Bytes of a TCP connection, cut into lines.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::line::LINE_LIMIT;

/// A connection that is read line by line.
/// Reading may be cancelled at any point and taken up again.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: TcpStream,
    /// What has arrived and was not yet handed out.
    buffer: Vec<u8>,
}

/// What came next on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A line, without its newline.
    Line(Vec<u8>),
    /// More than a line may have; these are the first bytes.
    TooLong(Vec<u8>),
    /// The peer ended the connection; these bytes came after the last newline.
    Ended(Vec<u8>),
}

impl Lines {
    pub(crate) fn new(stream: TcpStream) -> Lines {
        Lines { stream, buffer: Vec::with_capacity(LINE_LIMIT) }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Waits for the next line, the end, or too many bytes without a newline.
    pub(crate) async fn next(&mut self) -> io::Result<Next> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(Next::Line(line));
            }
            if self.buffer.len() >= LINE_LIMIT {
                return Ok(Next::TooLong(std::mem::take(&mut self.buffer)));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(Next::Ended(std::mem::take(&mut self.buffer)));
            }
        }
    }

    /// Waits for so many bytes; none if the peer ends the connection before.
    pub(crate) async fn take(&mut self, count: usize) -> io::Result<Option<Vec<u8>>> {
        while self.buffer.len() < count {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
        let rest = self.buffer.split_off(count);
        Ok(Some(std::mem::replace(&mut self.buffer, rest)))
    }

    /// Sends all of `bytes`.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }
}
