//! Judgement of observations against an expectation, merging of verdicts, sample sizes.
//!
//! Pure: what was seen and what was allowed come in, a judgement goes out.

mod cell;
mod merge;
mod sample;

pub use cell::{CellJudgement, CellTally, Wrong, judge_one};
pub use merge::{CaseFacts, Listed, decide};
pub use sample::{FALSE_ALARM_RATE, even_share_slack, miss_probability, samples_to_see_all};
