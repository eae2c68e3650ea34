//! The program as a user starts it.
//!
//! One binary, so that all these tests share the machine's room for labs.

mod bad_input;
mod cluster;
mod common;
mod doctor;
mod example;
mod kernel;
mod kind;
mod lab_up;
mod leftovers;
mod lies;
mod person;
mod proof;
mod releases;
mod spec;
