//! Reports of small logs, each made in code.

mod beside;
mod cut;
mod exit_codes;
mod hostile;
mod log;
mod model;
mod snapshots;
mod writing;
