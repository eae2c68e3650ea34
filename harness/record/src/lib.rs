//! The event log of a run: events, writer, reader, and the format's version.
