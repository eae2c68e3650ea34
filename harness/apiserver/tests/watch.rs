//! Watches over HTTP: initial events, resuming, selectors, bookmarks, lies.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{client, serve, service};
use futures::{AsyncBufReadExt, Stream, StreamExt, TryStreamExt};
use hyper::http::Request;
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};
use std::pin::Pin;
use touchstone_apiserver::{FieldPath, How, Lie};

/// Longer than any event takes; reached only when a test fails.
const LIMIT: Duration = Duration::from_secs(20);

struct Watch(Pin<Box<dyn Stream<Item = Value>>>);

async fn watch(url: &str, query: &str) -> Watch {
    let path = format!("/api/v1/services?watch=true&{query}");
    let request = Request::get(path).body(Vec::new()).unwrap();
    let lines = client(url).request_stream(request).await.unwrap().lines();
    let values = lines.map_ok(|line| serde_json::from_str::<Value>(&line).unwrap());
    Watch(Box::pin(values.map(Result::unwrap)))
}

impl Watch {
    async fn next_value(&mut self) -> Option<Value> {
        tokio::time::timeout(LIMIT, self.0.next()).await.expect("no event within the limit")
    }

    /// The next event in short: what happened to which name, or which code.
    async fn next(&mut self) -> String {
        let Some(event) = self.next_value().await else {
            return "end".to_owned();
        };
        let object = &event["object"];
        let kind = event["type"].as_str().unwrap();
        match kind {
            "ERROR" => format!("ERROR {} {}", object["code"], object["reason"].as_str().unwrap()),
            "BOOKMARK" => {
                let annotations = object["metadata"]["annotations"].to_string();
                let shown =
                    if annotations == "null" { String::new() } else { format!(" {annotations}") };
                format!(
                    "BOOKMARK {}{shown}",
                    object["metadata"]["resourceVersion"].as_str().unwrap()
                )
            }
            _ => format!("{kind} {}", object["metadata"]["name"].as_str().unwrap()),
        }
    }
}

fn plain(name: &str) -> Value {
    service(name, json!({"ports": [{"port": 80}]}))
}

#[tokio::test]
async fn initial_events_end_with_their_bookmark() {
    let served = serve();
    served.server.create(plain("a")).unwrap();
    served.server.create(plain("b")).unwrap();
    let version = served.server.resource_version();
    let streamed = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=&allowWatchBookmarks=true";
    let mut watch = watch(&served.url, streamed).await;
    assert_eq!(watch.next().await, "ADDED a");
    assert_eq!(watch.next().await, "ADDED b");
    assert_eq!(
        watch.next().await,
        format!("BOOKMARK {version} {{\"k8s.io/initial-events-end\":\"true\"}}")
    );
    served.server.delete("Service", None, "a").unwrap();
    served
        .server
        .patch("Service", None, "b", &json!({"spec": {"externalIPs": ["1.2.3.4"]}}))
        .unwrap();
    assert_eq!(watch.next().await, "DELETED a");
    assert_eq!(watch.next().await, "MODIFIED b");
}

#[tokio::test]
async fn an_empty_list_still_has_its_bookmark() {
    let served = serve();
    let streamed = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1";
    let mut watch = watch(&served.url, streamed).await;
    assert!(watch.next().await.contains("initial-events-end"));
}

#[tokio::test]
async fn a_watch_resumes_where_it_is_told() {
    let served = serve();
    served.server.create(plain("a")).unwrap();
    let version = served.server.resource_version();
    served.server.create(plain("b")).unwrap();
    served.server.delete("Service", None, "a").unwrap();
    let mut resumed = watch(&served.url, &format!("resourceVersion={version}")).await;
    assert_eq!(resumed.next().await, "ADDED b");
    assert_eq!(resumed.next().await, "DELETED a");
    let mut fresh = watch(&served.url, "resourceVersion=0").await;
    assert_eq!(fresh.next().await, "ADDED b");
    served.server.forget_history();
    let mut late = watch(&served.url, &format!("resourceVersion={version}")).await;
    assert_eq!(late.next().await, "ERROR 410 Expired");
    assert_eq!(late.next().await, "end");
    served.server.create(plain("c")).unwrap();
    assert_eq!(fresh.next().await, "ADDED c", "who was up to date goes on");
}

#[tokio::test]
async fn a_watch_ends_at_its_time_with_a_bookmark() {
    let served = serve();
    let query = "timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion=1";
    let mut watch = watch(&served.url, query).await;
    assert!(watch.next().await.starts_with("BOOKMARK "));
    assert_eq!(watch.next().await, "end");
}

#[tokio::test]
async fn objects_come_and_go_as_they_match() {
    let served = serve();
    let query = "labelSelector=%21service.kubernetes.io%2Fservice-proxy-name%2C%21service.kubernetes.io%2Fheadless\
                 &fieldSelector=spec.clusterIP%21%3DNone&resourceVersion=0";
    let mut watch = watch(&served.url, query).await;
    let server = &served.server;
    let label = |value: Value| json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": value}}});
    server.create(service("headless", json!({"clusterIP": "None"}))).unwrap();
    server.create(plain("web")).unwrap();
    server.patch("Service", None, "web", &label(json!("mine"))).unwrap();
    let left = server.resource_version();
    server
        .patch("Service", None, "web", &json!({"metadata": {"annotations": {"unseen": "1"}}}))
        .unwrap();
    server.patch("Service", None, "web", &label(Value::Null)).unwrap();
    server.delete("Service", None, "headless").unwrap();
    server.delete("Service", None, "web").unwrap();
    assert_eq!(watch.next().await, "ADDED web");
    let gone = watch.next_value().await.unwrap();
    assert_eq!(
        (&gone["type"], &gone["object"]["metadata"]["resourceVersion"]),
        (&json!("DELETED"), &json!(left.to_string()))
    );
    assert_eq!(gone["object"]["metadata"]["labels"], Value::Null, "its last matching state");
    assert_eq!(watch.next().await, "ADDED web");
    assert_eq!(watch.next().await, "DELETED web");
}

#[tokio::test]
async fn watch_events_tell_the_lies_of_the_moment() {
    let mut served = serve();
    let url = served.also("n1", None);
    let mut watch = watch(&url, "resourceVersion=0").await;
    let server = &served.server;
    let lie = |path: &str| Lie {
        watcher: None,
        kind: "Service".to_owned(),
        spared: BTreeSet::new(),
        within: None,
        how: How::Hide(path.parse::<FieldPath>().unwrap()),
    };
    server.set_lies(vec![lie("spec.ports[1]")]);
    let two = json!({"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]});
    server.create(service("web", two)).unwrap();
    let told = watch.next_value().await.unwrap();
    assert_eq!(told["object"]["spec"]["ports"].as_array().unwrap().len(), 1);
    server.set_lies(Vec::new());
    server.patch("Service", None, "web", &json!({"metadata": {"labels": {"a": "b"}}})).unwrap();
    let told = watch.next_value().await.unwrap();
    assert_eq!(told["object"]["spec"]["ports"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_watcher_of_kube_follows_both_ways() {
    for streaming in [true, false] {
        let served = serve();
        served.server.create(plain("a")).unwrap();
        let mut config = watcher::Config::default();
        if streaming {
            config = config.streaming_lists();
        }
        let api: Api<Service> = Api::all(served.client());
        let mut events = Box::pin(watcher(api, config));
        let mut seen = Vec::new();
        while seen.len() < 5 {
            let event = tokio::time::timeout(LIMIT, events.next()).await.unwrap().unwrap().unwrap();
            let name = |service: Service| service.metadata.name.unwrap();
            seen.push(match event {
                Event::Init => "init".to_owned(),
                Event::InitApply(service) => format!("init {}", name(service)),
                Event::InitDone => {
                    served.server.create(plain("b")).unwrap();
                    served.server.delete("Service", None, "b").unwrap();
                    "done".to_owned()
                }
                Event::Apply(service) => format!("apply {}", name(service)),
                Event::Delete(service) => format!("delete {}", name(service)),
            });
        }
        assert_eq!(
            seen,
            ["init", "init a", "done", "apply b", "delete b"],
            "streaming: {streaming}"
        );
    }
}
