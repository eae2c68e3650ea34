//! Identity-echo servers and the clients that ask them, over TCP, UDP and HTTP.
