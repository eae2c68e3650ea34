//! The kernel's own account of a TCP connection.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Length of the part of the kernel's `struct tcp_info` that is read here (stable since 2.6).
const LENGTH: usize = 104;

/// What `getsockopt(TCP_INFO)` says, as far as probes need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpInfo {
    /// State of the connection as in the kernel's `TCP_ESTABLISHED` = 1 and so on.
    pub state: u8,
    /// Retransmissions of the segment that is unanswered now; 0 after an answer.
    pub retransmits: u8,
    /// Exponent of the current back-off.
    pub backoff: u8,
    /// Retransmissions since the socket was made, SYNs included.
    ///
    /// It stays after the connection was made and after the attempt failed.
    pub total_retrans: u32,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: u32,
    /// Segments sent and not yet acknowledged.
    pub unacked: u32,
    /// Segments the kernel takes for lost.
    pub lost: u32,
    /// Path MTU in bytes.
    pub path_mtu: u32,
}

impl TcpInfo {
    fn parse(bytes: &[u8; LENGTH]) -> Self {
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            u32::from_ne_bytes(word)
        };
        Self {
            state: bytes[0],
            retransmits: bytes[2],
            backoff: bytes[4],
            unacked: word(24),
            lost: word(32),
            path_mtu: word(60),
            rtt_us: word(68),
            total_retrans: word(100),
        }
    }

    /// Whether anything was sent twice, for example the SYN of a connect.
    pub fn resent(&self) -> bool {
        self.retransmits > 0 || self.total_retrans > 0
    }
}

/// Reads the account of a TCP socket, connected or failed.
///
/// # Errors
///
/// What the kernel said: the descriptor is not a TCP socket, or the kernel knows a shorter
/// structure than every kernel since 2.6 does.
pub fn tcp_info(socket: impl AsFd) -> io::Result<TcpInfo> {
    let mut bytes = [0_u8; LENGTH];
    let mut length = LENGTH as libc::socklen_t;
    #[expect(unsafe_code)]
    // SAFETY: the kernel writes at most `length` bytes, which is the buffer's size, and then the
    // number of bytes written into `length`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < LENGTH {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("the kernel's tcp_info has {length} bytes, {LENGTH} are needed"),
        ));
    }
    Ok(TcpInfo::parse(&bytes))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_on_loopback_is_established_and_nothing_was_resent() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let stream = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let info = tcp_info(&stream).expect("tcp_info");
        assert_eq!((info.state, info.resent()), (1, false));
        assert!(info.path_mtu > 1000, "{info:?}");
    }

    #[test]
    fn a_file_has_no_account() {
        let file = std::fs::File::open("/dev/null").expect("/dev/null");
        let error = tcp_info(&file).expect_err("not a socket");
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
    }
}
