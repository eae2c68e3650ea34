//! A real cluster, which somebody else started: any Kubernetes that a kubeconfig names.
//!
//! What runs inside is Services, slices and pods of the run's own namespaces; probes go through
//! agents in pods. Nothing that the run did not make is changed, unless harm is allowed.

mod access;
mod agents;
mod clean;
mod deployments;
mod keeper;
mod names;
mod objects;
mod preview;
mod room;
mod running;
mod seen;
mod site;
mod survey;
mod trouble;
mod userinfo;

#[cfg(test)]
mod tests;

pub use access::{Harm, rbac};
pub use agents::{AgentImage, agent_arguments};
pub use clean::{Leftover, clean, leftovers};
pub use keeper::Keeper;
pub use preview::{Preview, preview};
pub use site::{OutsideSeat, Site, SiteRequest, tag};
