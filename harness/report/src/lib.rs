//! Reports made from the event log: terminal, JSON, JUnit, Markdown.
