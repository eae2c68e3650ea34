//! An embedded Kubernetes API: store, list, watch, defaulting, allocation, field lies.
//!
//! One [`ApiServer`] is one cluster's API.
//! The harness writes to it in process; proxies, `kubectl` and other clients reach the same store
//! over HTTP through any number of listeners, each with the name of the watcher behind it.
//! Objects are JSON values and unknown fields are kept.
//! Answers are always JSON; protobuf bodies are accepted for Events alone, and kept undecoded.

mod allocate;
mod answer;
mod discovery;
mod endpoint_slice;
mod fields;
mod http;
mod kinds;
mod lies;
mod log;
mod names;
mod patch;
mod route;
mod selector;
mod serve;
mod server;
mod service;
mod service_rules;
mod status;
mod store;
mod table;
mod watch;
mod write;

pub use allocate::Family;
pub use lies::{FieldPath, FieldPathError, How, Lie, Untellable, known_fields};
pub use log::{Event, Request};
pub use serve::ServeHandle;
pub use server::{ApiServer, Config};
pub use status::{Reason, Status};
