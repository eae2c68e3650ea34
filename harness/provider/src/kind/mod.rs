//! Clusters that kind makes on this machine.
//!
//! This creates and deletes them, and puts things into them, by the programs `docker` and `kind` as
//! a person would; what runs in them is the business of whoever is given their kubeconfig.

mod cluster;
mod config;
mod install;
mod keeper;
mod kernel;
mod leftovers;
mod outside;
mod thaw;
mod tools;
mod trouble;

pub use cluster::{KindCluster, KindRequest, NodeImage, PROXY, check, create};
pub use config::{PodNetwork, ProxyMode};
pub use keeper::KindKeeper;
pub use kernel::Kernel;
pub use leftovers::{Held, Leftover, hold, leftovers};
pub use outside::OutsideClient;
pub use tools::Tools;
pub use trouble::KindError;
