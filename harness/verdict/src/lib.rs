//! Judgement of observations against an expectation, merging of verdicts, sample sizes.
