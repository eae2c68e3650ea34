//! The few system calls that no library wraps safely; the only home of unsafe code.
