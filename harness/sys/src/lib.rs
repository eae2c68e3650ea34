//! The few system calls that no library wraps safely; the only home of unsafe code.
//!
//! - [`spawn_contained`] starts this program again as PID 1 of new namespaces, with no process in
//!   between, so that the death of the caller reaches everything inside.
//! - [`InitRequest`] is the other side: what that PID 1 does.
//! - [`be_init_of_kernel`] does the same as PID 1 of a kernel of its own.
//! - [`adopt`] takes over a descriptor that was handed down to a child.
//! - [`dies_with_its_starter`] has a helper program end with whoever started it.
//! - [`switch_offloads_off`] makes a link send packets as they would be on a wire.
//! - [`tcp_info`] reads the kernel's own account of a TCP connection.

mod child;
mod contain;
mod descriptor;
mod dies_with;
mod forbidden;
mod init;
mod offloads;
mod tcp_info;

pub use child::Act;
pub use contain::{ContainError, Contained, Ended, UserNamespace, spawn_contained};
pub use descriptor::{AdoptError, adopt};
pub use dies_with::dies_with_its_starter;
pub use forbidden::Switch;
pub use init::{EXIT_INIT_FAILED, EXIT_PROC_REFUSED, InitError, InitRequest, be_init_of_kernel};
pub use offloads::switch_offloads_off;
pub use tcp_info::{TcpInfo, tcp_info};
