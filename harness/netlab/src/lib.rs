//! Network namespaces, links, routes, and the sockets opened inside them.
