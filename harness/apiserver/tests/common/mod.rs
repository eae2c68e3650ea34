//! A server on a free loopback port.

#![allow(dead_code, reason = "each test program uses a part")]

use std::net::TcpListener;

use serde_json::{Value, json};
use touchstone_apiserver::{ApiServer, Config, ServeHandle};

/// A served API, and where it listens.
pub(crate) struct Served {
    pub(crate) server: ApiServer,
    pub(crate) url: String,
    handles: Vec<ServeHandle>,
}

/// Serves a new API to the watcher `test`.
pub(crate) fn serve() -> Served {
    let server = ApiServer::new(Config::default());
    let mut served = Served { server, url: String::new(), handles: Vec::new() };
    served.url = served.also("test", None);
    served
}

impl Served {
    /// Opens another listener on the same API.
    pub(crate) fn also(&mut self, watcher: &str, token: Option<&str>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let handle = self.server.serve(listener, watcher, token.map(str::to_owned)).unwrap();
        let url = format!("http://{}", handle.address());
        self.handles.push(handle);
        url
    }

    /// A client of the `kube` crate.
    pub(crate) fn client(&self) -> kube::Client {
        client(&self.url)
    }
}

/// A client of the `kube` crate for any listener.
pub(crate) fn client(url: &str) -> kube::Client {
    // Another test of this program may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = kube::Config::new(url.parse().unwrap());
    // A refusal is an answer here, not a reason to ask again.
    config.default_retry = false;
    kube::Client::try_from(config).unwrap()
}

pub(crate) fn service(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    })
}

pub(crate) fn slice(name: &str, service: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4", "ports": [{"name": "p", "port": 8080}], "endpoints": endpoints,
    })
}
