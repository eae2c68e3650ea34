//! What a link takes off its senders: segmentation and checksums.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `ETHTOOL_SRXCSUM`, `ETHTOOL_STXCSUM`, `ETHTOOL_STSO`, `ETHTOOL_SGSO`, `ETHTOOL_SGRO` and
/// `ETHTOOL_SSG` of `linux/ethtool.h`. Segmentation goes before the checksums that it needs.
const COMMANDS: [u32; 6] = [0x1f, 0x24, 0x2c, 0x19, 0x17, 0x15];

/// `struct ethtool_value` of `linux/ethtool.h`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Switches off segmentation, its reversal and checksums of a link of this thread's network
/// namespace.
///
/// # Errors
///
/// What the kernel said: no such link, no privilege over the namespace, or a link whose offloads
/// cannot be switched.
pub fn switch_offloads_off(link: &str) -> io::Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    if link.len() >= name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in name.iter_mut().zip(link.bytes()) {
        *to = from.cast_signed() as libc::c_char;
    }
    let (family, kind) = (AddressFamily::Inet, SockType::Datagram);
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    for command in COMMANDS {
        let mut value = Value { command, data: 0 };
        let mut request = libc::ifreq {
            ifr_name: name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() },
        };
        #[expect(unsafe_code)]
        // SAFETY: the kernel reads the request and the value that it points to, both of which
        // live until the call returns; these commands write to neither.
        let result =
            unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_not_there_is_refused() {
        let error = switch_offloads_off("no-such-link").expect_err("no such link");
        assert!(matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EPERM)), "{error}");
        assert!(switch_offloads_off("a-name-that-is-too-long").is_err());
    }
}
