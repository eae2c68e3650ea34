//! The oracle: what the Service API allows for one flow in one world, with reasons.
