//! An embedded Kubernetes API: store, list, watch, defaulting, allocation, field lies.
