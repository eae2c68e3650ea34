//! Nothing that ships: the project's invariants, as tests below `tests/`.
