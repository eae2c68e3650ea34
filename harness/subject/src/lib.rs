//! Proxies under test: where the binary comes from, how it starts, its features and known failures.
