//! Shared words as plain values: API objects, frontends, vantages, flows, outcomes, verdicts, excuses, features.
