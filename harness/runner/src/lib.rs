//! Select, schedule, act, settle, hold, probe; emits events.
//!
//! A run takes a fixed plan and one provider per subject, and tells everything that happens as
//! events. It decides verdicts; it prints nothing and writes no report.

mod affinity;
mod attempt;
mod batches;
mod cells;
mod clearing;
mod crowd;
mod deadline;
mod emit;
mod evidence;
mod exits;
mod expected;
mod forgetting;
mod ground;
mod leftovers;
mod losses;
mod machine;
mod markers;
mod moves;
mod own;
mod pace;
mod plan;
mod run;
mod sampling;
mod share;
mod shown;
mod step;
mod switch;
mod traffic;
mod worlds;

pub use emit::Emitter;
pub use plan::{FLOWS_GO, PROXY_STAYS_UP, RULES_GO, planned};
pub use run::{Person, RunSubject, Settings, run};
pub use share::Share;
