//! Case files: parse, validate, expand into plans, and compile worlds.
