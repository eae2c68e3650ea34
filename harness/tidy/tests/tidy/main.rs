//! What must stay true of the whole project, read from `cargo metadata` and from its text.

mod documents;
mod files;
mod layers;
mod project;
mod purity;
mod rust;
mod specification;
mod subjects;
mod system;
