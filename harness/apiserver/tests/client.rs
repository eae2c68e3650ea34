//! Reading and writing over HTTP, with the `kube` crate as the client.

mod common;

use std::collections::BTreeSet;

use common::{client, serve, service, slice};
use hyper::http::Request;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use touchstone_apiserver::{FieldPath, How, Lie};

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A refusal as `code reason: message`.
fn refusal<T: std::fmt::Debug>(result: kube::Result<T>) -> String {
    match result {
        Err(kube::Error::Api(status)) => {
            format!("{} {}: {}", status.code, status.reason, status.message)
        }
        other => panic!("{other:?}"),
    }
}

/// Sends a request as it is; answers the body, or the refusal.
async fn send(
    client: &kube::Client,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> String {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    match client.request_text(request.body(body.to_vec()).unwrap()).await {
        Ok(text) => text,
        refused => refusal(refused),
    }
}

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];

#[tokio::test]
async fn objects_are_created_read_changed_and_deleted() {
    let served = serve();
    let api: Api<Service> = Api::default_namespaced(served.client());
    let made = object(service("web", json!({"ports": [{"port": 80}]})));
    let web = api.create(&PostParams::default(), &made).await.unwrap();
    assert_eq!(web.spec.as_ref().unwrap().cluster_ip.as_deref(), Some("10.96.0.2"));
    assert_eq!(
        refusal(api.create(&PostParams::default(), &made).await),
        "409 AlreadyExists: services \"web\" already exists"
    );
    assert_eq!(refusal(api.get("other").await), "404 NotFound: services \"other\" not found");
    assert_eq!(
        refusal(
            Api::<Service>::namespaced(served.client(), "no")
                .create(
                    &PostParams::default(),
                    &object(json!({
                        "metadata": {"name": "a"}, "spec": {"ports": [{"port": 1}]},
                    }))
                )
                .await
        ),
        "404 NotFound: namespaces \"no\" not found"
    );
    let mut changed = web.clone();
    changed.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    let newer = api.replace("web", &PostParams::default(), &changed).await.unwrap();
    let version =
        |it: &Service| it.metadata.resource_version.clone().unwrap().parse::<u64>().unwrap();
    assert!(version(&newer) > version(&web));
    changed.metadata.labels = None;
    assert_eq!(
        refusal(api.replace("web", &PostParams::default(), &changed).await),
        "409 Conflict: Operation cannot be fulfilled on services \"web\": the object has been modified; \
         please apply your changes to the latest version and try again"
    );
    let same = api.replace("web", &PostParams::default(), &newer).await.unwrap();
    assert_eq!(version(&same), version(&newer), "no change, no version");
    let wrong = DeleteParams::default()
        .preconditions(Preconditions { uid: Some("x".to_owned()), resource_version: None });
    assert!(refusal(api.delete("web", &wrong).await).starts_with("409 Conflict: Operation cannot be fulfilled on services \"web\": Precondition failed: UID in precondition: x"));
    let gone = api.delete("web", &DeleteParams::default()).await.unwrap();
    assert!(gone.right().is_some_and(|status| status.is_success()));
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items, Vec::new());
}

#[tokio::test]
async fn patches_of_every_manner() {
    let served = serve();
    let api: Api<EndpointSlice> = Api::default_namespaced(served.client());
    let made = object(slice("s", "web", &["10.0.0.1"]));
    let s = api.create(&PostParams::default(), &made).await.unwrap();
    assert_eq!(
        (s.ports.unwrap()[0].protocol.as_deref(), s.metadata.generation),
        (Some("TCP"), Some(1))
    );
    let parameters = PatchParams::apply("test");
    let patches = [
        Patch::Merge(json!({"metadata": {"labels": {"a": "1"}}})),
        Patch::Strategic(json!({"metadata": {"labels": {"b": "2"}}})),
        Patch::Apply(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"labels": {"c": "3"}},
        })),
    ];
    for patch in patches {
        api.patch("s", &parameters, &patch).await.unwrap();
    }
    let operations = object(
        json!([{"op": "add", "path": "/endpoints/-", "value": {"addresses": ["10.0.0.2"]}}]),
    );
    let s = api.patch("s", &PatchParams::default(), &Patch::Json::<()>(operations)).await.unwrap();
    let labels: Vec<String> = s.metadata.labels.unwrap().into_keys().collect();
    assert_eq!(labels, ["a", "b", "c", "kubernetes.io/service-name"]);
    assert_eq!((s.endpoints.unwrap().len(), s.metadata.generation), (2, Some(2)));
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/s";
    let client = served.client();
    let wrong = [("Content-Type", "application/json-patch+json")];
    let body = br#"[{"op":"test","path":"/addressType","value":"IPv6"}]"#;
    assert!(send(&client, "PATCH", path, &wrong, body).await.starts_with("422 Invalid: "));
    assert!(
        send(&client, "PATCH", path, JSON, b"{}").await.starts_with(
            "415 UnsupportedMediaType: the body of the request was in an unknown format"
        )
    );
    let stale = br#"{"metadata":{"resourceVersion":"1"}}"#;
    let merge = [("Content-Type", "application/merge-patch+json")];
    assert!(send(&client, "PATCH", path, &merge, stale).await.starts_with("409 Conflict: "));
    let dry =
        send(&client, "PATCH", &format!("{path}?dryRun=All"), &merge, br#"{"endpoints":[]}"#).await;
    assert!(dry.contains(r#""endpoints":[]"#), "{dry}");
    assert_eq!(api.get("s").await.unwrap().endpoints.unwrap().len(), 2);
}

#[tokio::test]
async fn status_is_a_resource_of_its_own() {
    let served = serve();
    let api: Api<Node> = Api::all(served.client());
    let node = json!({"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}});
    api.create(&PostParams::default(), &object(node)).await.unwrap();
    let patch = Patch::Merge(json!({"spec": {"podCIDR": "10.1.0.0/24"}, "status": {"phase": "A"}}));
    let by_main = api.patch("n1", &PatchParams::default(), &patch).await.unwrap();
    let by_status = api
        .patch_status(
            "n1",
            &PatchParams::default(),
            &Patch::Merge(json!({
                "spec": {"podCIDR": "10.2.0.0/24"}, "status": {"phase": "B"},
            })),
        )
        .await
        .unwrap();
    let shown = |node: Node| {
        let status = node.status.unwrap();
        format!(
            "{:?} {:?} {}",
            node.spec.unwrap().pod_cidr,
            status.phase,
            status.addresses.unwrap().len()
        )
    };
    assert_eq!(shown(by_main), "Some(\"10.1.0.0/24\") None 1");
    assert_eq!(shown(by_status), "Some(\"10.1.0.0/24\") Some(\"B\") 1");
}

#[tokio::test]
async fn names_can_be_made_up_and_finalizers_hold() {
    let served = serve();
    let api: Api<ConfigMap> = Api::default_namespaced(served.client());
    let made = object(json!({"metadata": {"generateName": "c-", "finalizers": ["x.io/hold"]}}));
    let map = api.create(&PostParams::default(), &made).await.unwrap();
    let name = map.metadata.name.unwrap();
    assert!(name.len() == 7 && name.starts_with("c-"), "{name}");
    let held = api.delete(&name, &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch(&name, &PatchParams::default(), &release).await.unwrap();
    assert!(api.get_opt(&name).await.unwrap().is_none());
}

#[tokio::test]
async fn requests_that_make_no_sense_get_a_status() {
    let mut served = serve();
    let client = served.client();
    let table = [
        (
            "GET",
            "/apis/apps/v1/deployments",
            "404 NotFound: the server could not find the requested resource",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/services/web",
            "405 MethodNotAllowed: the server does not allow this method on the requested resource",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/services",
            "400 BadRequest: the object provided is unrecognized: EOF",
        ),
        (
            "GET",
            "/api/v1/services?labelSelector=a%20b",
            "400 BadRequest: unable to parse requirement",
        ),
        (
            "GET",
            "/api/v1/services?resourceVersion=x",
            "400 BadRequest: invalid resource version \"x\"",
        ),
        (
            "GET",
            "/api/v1/services?resourceVersion=999",
            "504 Timeout: Too large resource version: 999",
        ),
        ("GET", "/api/v1/services?continue=x", "400 BadRequest: continue key is not valid"),
        (
            "GET",
            "/api/v1/services?watch=1&sendInitialEvents=true",
            "422 Invalid: ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden",
        ),
        ("GET", "/healthz", "ok"),
        ("GET", "/livez/ping", "ok"),
    ];
    for (method, path, wanted) in table {
        let got = send(&client, method, path, &[], b"").await;
        assert!(got.starts_with(wanted), "{method} {path}: {got}");
    }
    let yaml = [("Content-Type", "application/yaml")];
    assert!(
        send(&client, "POST", "/api/v1/nodes", &yaml, b"a: b")
            .await
            .starts_with("415 UnsupportedMediaType")
    );
    let guarded = common::client(&served.also("person", Some("secret")));
    assert_eq!(
        send(&guarded, "GET", "/api/v1/nodes", &[], b"").await,
        "401 Unauthorized: Unauthorized"
    );
    let bearer = [("Authorization", "Bearer secret")];
    assert!(send(&guarded, "GET", "/api/v1/nodes", &bearer, b"").await.contains("NodeList"));
    // "person:secret" and "person:guess".
    let basic = [("Authorization", "Basic cGVyc29uOnNlY3JldA==")];
    assert!(send(&guarded, "GET", "/api/v1/nodes", &basic, b"").await.contains("NodeList"));
    let guess = [("Authorization", "Basic cGVyc29uOmd1ZXNz")];
    assert!(send(&guarded, "GET", "/api/v1/nodes", &guess, b"").await.starts_with("401"));
    assert!(send(&guarded, "GET", "/version", &[], b"").await.contains("touchstone"));
}

#[tokio::test]
async fn events_are_kept_even_undecoded_and_requests_are_logged() {
    let mut served = serve();
    let proxy = client(&served.also("n1", None));
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let protobuf = [
        ("Content-Type", "application/vnd.kubernetes.protobuf"),
        ("User-Agent", "kube-proxy/v1"),
        ("Accept", "*/*"),
    ];
    let got = send(&proxy, "POST", path, &protobuf, b"k8s\0...").await;
    assert!(got.contains(r#""kind":"Event""#), "{got}");
    let body = br#"{"metadata":{"name":"e"},"reason":"Started"}"#;
    let got = send(&proxy, "POST", path, JSON, body).await;
    assert!(got.contains(r#""uid""#), "{got}");
    let events = served.server.events();
    let shown: Vec<String> = events
        .iter()
        .map(|event| {
            format!(
                "{} {} {} {} {:?}",
                event.watcher,
                event.namespace,
                event.content_type,
                event.body.len(),
                event.object.as_ref().map(|object| object["reason"].clone())
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "n1 default application/vnd.kubernetes.protobuf 7 None",
            "n1 default application/json 44 Some(String(\"Started\"))",
        ]
    );
    let first =
        served.server.requests().into_iter().find(|request| request.watcher == "n1").unwrap();
    assert_eq!(
        (
            first.method.as_str(),
            first.path.as_str(),
            first.user_agent.as_str(),
            first.accept.as_str()
        ),
        ("POST", path, "kube-proxy/v1", "*/*")
    );
}

#[tokio::test]
async fn long_lists_come_in_pages_of_one_version() {
    let served = serve();
    let map =
        |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    for name in ["a", "b", "c", "d", "e"] {
        served.server.create(map(name)).unwrap();
    }
    let api: Api<ConfigMap> = Api::all(served.client());
    let first = api.list(&ListParams::default().limit(2)).await.unwrap();
    let (version, token) =
        (first.metadata.resource_version.clone(), first.metadata.continue_.clone().unwrap());
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    served.server.delete("ConfigMap", None, "c").unwrap();
    served.server.create(map("bb")).unwrap();
    let rest = api.list(&ListParams::default().continue_token(&token)).await.unwrap();
    let names: Vec<String> = rest.items.into_iter().filter_map(|map| map.metadata.name).collect();
    assert_eq!(
        (names, rest.metadata.resource_version),
        (vec!["c".to_owned(), "d".to_owned(), "e".to_owned()], version)
    );
    served.server.forget_history();
    let late = refusal(api.list(&ListParams::default().continue_token(&token)).await);
    assert!(late.starts_with("410 Expired: too old resource version"), "{late}");
}

#[tokio::test]
async fn lies_are_told_to_their_watcher_only() {
    let mut served = serve();
    let node = client(&served.also("n1", None));
    served
        .server
        .create(service("web", json!({"ports": [{"port": 80}], "sessionAffinity": "ClientIP"})))
        .unwrap();
    served.server.set_lies(vec![Lie {
        watcher: Some("n1".to_owned()),
        kind: "Service".to_owned(),
        spared: BTreeSet::new(),
        within: None,
        how: How::Set("spec.sessionAffinity".parse::<FieldPath>().unwrap(), json!("None")),
    }]);
    let path = "/api/v1/namespaces/default/services/web";
    for path in [path, "/api/v1/services"] {
        let truth = send(&served.client(), "GET", path, &[], b"").await;
        assert!(truth.contains(r#""sessionAffinity":"ClientIP""#), "{truth}");
        let lie = send(&node, "GET", path, &[], b"").await;
        assert!(lie.contains(r#""sessionAffinity":"None""#), "{lie}");
    }
    served.server.set_lies(Vec::new());
    assert!(send(&node, "GET", path, &[], b"").await.contains(r#""sessionAffinity":"ClientIP""#));
}
