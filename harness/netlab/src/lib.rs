//! Network namespaces, links, routes, and the sockets opened inside them.
//!
//! - [`Namespace`]: a network namespace and the thread that lives in it.
//! - [`Topology`]: nodes, outside clients, a fabric between them, and a sink for what nobody
//!   handled; [`Pod`]s are added on demand.
//! - [`plan`]: which address is whose.
//! - [`Tap`]: counts what arrives in a namespace.
//! - [`sockets`]: how sockets are opened, for callers that run their own jobs in a namespace.
//!
//! Everything must happen where namespaces may be made: as root, or in a process started by
//! [`touchstone_sys::spawn_contained`].
//! Nothing here leaves a trace: what is made ends with its owner, or with the process.

mod error;
mod namespace;
mod netlink;
pub mod plan;
mod pod;
mod settings;
pub mod sockets;
mod tap;
mod topology;
mod wiring;

pub use error::Error;
pub use namespace::{Isolation, Namespace, NamespaceKind};
pub use plan::{Family, Prefix};
pub use pod::{POD_LINK_PREFIX, Pod};
pub use settings::{Role, Unset};
pub use tap::{Arrival, Filter, Moment, Tap};
pub use topology::{Joined, Node, NodeShape, Offloads, Outside, Shape, Topology};
