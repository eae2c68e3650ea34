//! What supplies a cluster: the lab, clusters of kind's, a real cluster that somebody else started,
//! and a simulation that answers from the model.
//!
//! The runner knows a cluster by the trait [`Cluster`] only; what starts one is a [`Provider`].

mod balancer;
mod canary;
mod cluster;
mod corefile;
pub mod image;
pub mod kind;
pub mod lab;
mod owners;
pub mod real;
mod sim;

pub use cluster::{
    Broken, Cluster, ClusterError, ClusterRequest, Kept, Notice, Provider, Servers, Started,
};
pub use sim::{Defect, Sim};
