//! Case files: parsed, validated, expanded into variants and compiled into scripts.
//!
//! A case is data: what the world looks like, how it changes, and what some flows must meet.
//! [`Library`] holds the cases, [`Variant`] is one case at one point of its axes, and [`compile`]
//! turns a variant and a [`Book`] (the cluster's facts and addresses to hand out) into a
//! [`Script`] in which every object, address and flow is concrete.
//!
//! Invariants: no clock, no randomness, no network; only `files` reads files; a compiled script
//! depends on nothing but the variant and the book.

mod asks;
mod behaviour;
mod book;
mod case;
mod clients;
mod compile;
mod deployed;
mod error;
mod files;
mod goals;
mod grammar;
mod harm;
mod lab_needs;
mod library;
mod listed;
mod matrix;
mod objects;
mod pages;
mod pin;
mod place;
mod question;
mod raw;
mod refused;
mod rows;
mod schema;
mod script;
pub mod select;
mod slices;
mod specification;
mod state;
pub mod text;
mod trace;
mod under_way;
mod vantages;
mod variant;
mod weight;

pub use behaviour::{Behaviour, Difference};
pub use book::{Allocator, Book, BookError, namespace_end, planned_book};
pub use case::{Case, CaseId, NAME_SERVER, Needs};
pub use compile::compile;
pub use error::{CaseError, CaseErrors};
pub use library::Library;
pub use pin::{Growth, Pin, PinConflict, PinnedOutcome, PinnedSource, Shows, Spread, check};
pub use place::{At, Place};
pub use question::ask;
pub use schema::case_schema;
pub use script::{Change, Keep, Names, ProxyAction, Row, Script, ScriptStep, ServerWish, Traffic};
pub use specification::{Specified, TOPICS, Topic, UnknownBehaviour};
pub use text::{CaseFile, FamilyAxis};
pub use variant::{Variant, digest};
