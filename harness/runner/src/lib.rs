//! Select, schedule, act, settle, hold, probe; emits events.
