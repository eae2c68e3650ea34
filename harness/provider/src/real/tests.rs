//! The whole way of a run against the embedded API server, apart from what needs a kubelet.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use touchstone_apiserver::{ApiServer, Config, ServeHandle};
use touchstone_spec::api::{LoadBalancerIngress, Meta, Service, ServicePort, ServiceType};
use touchstone_spec::{Change, ClusterFacts, Family, NodeFacts, NodeSays};

use super::access::{Access, Asked, Harm, rights};
use super::agents::{AgentImage, Agents};
use super::deployments::Deployments;
use super::names::Names;
use super::objects::Objects;
use super::preview::preview;
use super::running::RealCluster;
use super::site::{Site, SiteRequest, zones};
use super::survey::survey;
use super::{clean, leftovers};
use crate::Cluster;
use crate::balancer::Balancer;

const RUN: &str = "20261126-120000-cafe";

struct Stand {
    api: ApiServer,
    kubeconfig: PathBuf,
    serving: ServeHandle,
    _folder: tempfile::TempDir,
}

/// A cluster of two nodes without kubelets.
fn stand(token: Option<&str>) -> Stand {
    let api = ApiServer::new(Config::default());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let serving = api.serve(listener, "test", token.map(str::to_owned)).expect("a server");
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = folder.path().join("kubeconfig");
    write(&kubeconfig, &format!("http://{}", serving.address()));
    for (name, ip) in [("worker", "192.0.2.2"), ("control-plane", "192.0.2.1")] {
        let taints = if name == "worker" { json!([]) } else { json!([{ "key": "busy" }]) };
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
            "spec": { "taints": taints, "podCIDRs": ["10.244.0.0/24"] },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": ip }],
                "conditions": [{ "type": "Ready", "status": "True" }],
            },
        });
        api.create(node).expect("a node");
    }
    Stand { api, kubeconfig, serving, _folder: folder }
}

fn write(path: &std::path::Path, server: &str) {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{ name: c, cluster: {{ \
         server: \"{server}\" }} }}]\nusers: [{{ name: u, user: {{}} }}]\ncontexts: [{{ name: c, \
         context: {{ cluster: c, user: u }} }}]\n"
    );
    std::fs::write(path, text).expect("a kubeconfig");
}

fn request(stand: &Stand) -> SiteRequest {
    SiteRequest {
        kubeconfig: stand.kubeconfig.clone(),
        image: AgentImage { reference: "localhost/touchstone-agent:1".into(), pulled: false },
        run: RUN.to_owned(),
        token: "secret".to_owned(),
        served: Family::BOTH.to_vec(),
        nodes: 2,
        addresses: 100,
        harm: Harm::Spared,
        outside: Vec::new(),
        keeper: None,
    }
}

/// Tells of every pod what a kubelet would.
async fn tell_pods(api: &ApiServer, status: &Value) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        for mut pod in api.list("Pod", None, "").expect("pods") {
            if pod["status"]["phase"] != status["phase"] {
                pod["status"] = status.clone();
                // It may just have been deleted.
                let _ = api.replace_status(pod);
            }
        }
    }
}

/// Opens a site whose pods have that status; gives the error.
async fn fails(stand: &Stand, status: Value) -> String {
    let told = Mutex::new(Vec::new());
    let request = request(stand);
    let tell = |line: &str| told.lock().expect("no panic").push(line.to_owned());
    let opening = Site::open(&request, &tell);
    tokio::select! {
        opened = opening => opened.err().map(|error| error.to_string()).expect("an error"),
        () = tell_pods(&stand.api, &status) => unreachable!("it never ends"),
    }
}

fn namespaces(api: &ApiServer) -> Vec<String> {
    let list = api.list("Namespace", None, "").expect("namespaces");
    let names = list.iter().filter_map(|object| object["metadata"]["name"].as_str());
    names.filter(|name| name.starts_with("touchstone")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found() {
    let stand = stand(None);
    let access = Access::open(&stand.kubeconfig, Harm::Spared).await.expect("access");
    let found = survey(&access).await.expect("a cluster");
    let names: Vec<&str> = found.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["worker", "control-plane"], "those with taints come last");
    assert!(!found.service_cidrs.is_empty());
    let preview = preview(&stand.kubeconfig, Harm::Spared, RUN, 2, 100).await.expect("a preview");
    assert_eq!(preview.nodes["n1"], "worker");
    assert_eq!(namespaces(&stand.api), Vec::<String>::new(), "a preview makes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_missing_is_named_and_nothing_is_left() {
    let stand = stand(None);
    let waiting = json!({ "reason": "ErrImageNeverPull", "message": "not present" });
    let status = json!({
        "phase": "Pending", "containerStatuses": [{
            "name": "agent", "state": { "waiting": waiting }, "image": "", "imageID": "",
            "ready": false, "restartCount": 0,
        }],
    });
    // The phase is the one that pods have anyway; another one makes the test's kubelet speak.
    let status = json!({ "phase": "Unknown", "containerStatuses": status["containerStatuses"] });
    let error = fails(&stand, status).await;
    assert!(error.contains("failed to start the agent"), "{error}");
    assert!(error.contains("touchstone cluster image --out FILE"), "{error}");
    assert_eq!(namespaces(&stand.api), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_ended_is_named() {
    let stand = stand(None);
    let error = fails(&stand, json!({ "phase": "Failed", "reason": "Evicted" })).await;
    assert!(error.contains("it ended: Evicted"), "{error}");
    assert_eq!(namespaces(&stand.api), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_is_what_is_printed() {
    let stand = stand(None);
    // Pods that run and are not reached: the embedded API server forwards no ports.
    let access = Access::open(&stand.kubeconfig, Harm::Allowed).await.expect("access");
    let names = Names::of(RUN);
    survey(&access).await.expect("a cluster");
    let agents = Agents::new(
        access.clone(),
        names.clone(),
        request(&stand).image,
        "secret".to_owned(),
        [("n1".to_owned(), "worker".to_owned())].into(),
    );
    access.need("/api/v1/namespaces", &names.namespace(&names.home())).await.expect("made");
    let wishes = [touchstone_spec::PodWish {
        key: "a".into(),
        node: "n1".into(),
        addresses: 1,
        deployed: false,
    }];
    let running = json!({ "phase": "Running", "podIPs": [{ "ip": "10.244.0.9" }] });
    tokio::select! {
        taken = agents.take(&wishes) => {
            let error = taken.expect_err("no port is forwarded").to_string();
            assert!(error.contains("failed to reach the agent pod-n1-1 on worker"), "{error}");
        }
        () = tell_pods(&stand.api, &running) => unreachable!("it never ends"),
    }
    access.delete("/api/v1/namespaces/none/pods/none").await.expect("nothing to delete");
    let nodes = [("n1".to_owned(), "worker".to_owned())].into();
    let objects = Objects::new(access.clone(), names.clone(), nodes);
    exercise(&objects).await;
    clean::remove(&access, &names.tag).await;

    let used: BTreeSet<Asked> = access.used();
    for right in rights(Harm::Allowed) {
        for verb in right.verbs {
            // Newer API servers ask for it where older ones ask for `get` (one connection, two
            // names).
            if right.resource == "pods/portforward" && *verb == "create" {
                continue;
            }
            let is_used = used.iter().any(|asked| {
                asked.group == right.group
                    && asked.resource == right.resource
                    && asked.verb == *verb
            });
            // What only controllers and kubelets answer to is tried on real clusters.
            let of_controllers = right.group == "apps" || right.resource == "pods/status";
            // A name server is looked up only where there is one; its slices are then listed.
            let of_names = right.resource == "endpointslices" && *verb == "list";
            assert!(
                is_used || of_names || of_controllers,
                "{verb} {} is printed and never used",
                right.resource
            );
        }
    }
}

/// Makes every kind of change.
async fn exercise(objects: &Objects) {
    let namespace = "touchstone-test".to_owned();
    let mut service = Service {
        metadata: Meta { name: "web".into(), namespace: namespace.clone(), ..Meta::default() },
        ..Service::default()
    };
    service.spec.service_type = ServiceType::LoadBalancer;
    service.spec.ports = vec![ServicePort { port: 80, ..ServicePort::default() }];
    let ip = "198.18.0.1".parse().ok();
    service.status.load_balancer.ingress =
        vec![LoadBalancerIngress { ip, ..LoadBalancerIngress::default() }];
    let slice = touchstone_spec::api::EndpointSlice {
        metadata: Meta { name: "web-1".into(), namespace: namespace.clone(), ..Meta::default() },
        address_type: "IPv4".to_owned(),
        ports: Vec::new(),
        endpoints: Vec::new(),
    };
    let (name, zone) = ("web".to_owned(), Some("z1".to_owned()));
    for change in [
        Change::ApplyService(service.clone()),
        Change::ApplyService(service),
        Change::ApplySlice(slice.clone()),
        Change::ApplySlice(slice),
        Change::SetNode { node: "n1".to_owned(), says: NodeSays::zone(zone) },
        Change::DeleteService { namespace: namespace.clone(), name },
        Change::DeleteSlice { namespace, name: "web-1".to_owned() },
    ] {
        objects.apply(&change).await.expect("a change");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_printed_never_leaves() {
    let stand = stand(None);
    let access = Access::open(&stand.kubeconfig, Harm::Spared).await.expect("access");
    let before = stand.api.requests().len();
    let error = access.list("/api/v1/configmaps", "").await.expect_err("no right").to_string();
    assert!(error.contains("not among the rights of a run"), "{error}");
    assert_eq!(stand.api.requests().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_lives_as_long_as_its_clients() {
    let stand = stand(None);
    let names = Names::of(RUN);
    stand.api.create(names.namespace(&names.home())).expect("a namespace");
    let create = |name: &str| {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "status": { "phase": "Running" },
            "metadata": { "name": name, "namespace": names.home() },
        });
        names.mark(&mut pod);
        stand.api.create(pod).expect("a pod");
    };
    let alive = async || {
        let found = leftovers(&stand.kubeconfig).await.expect("leftovers");
        found.first().expect("a leftover").alive
    };
    create("pod-n1-1");
    assert!(!alive().await, "an endpoint that no run has met waits for ten minutes");
    create("host-n1");
    assert!(alive().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_are_found_by_label() {
    let stand = stand(None);
    let names = Names::of(RUN);
    for name in [names.home(), format!("{}t1", names.of_cases("c1"))] {
        stand.api.create(names.namespace(&name)).expect("a namespace");
    }
    let other = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "mine" } });
    stand.api.create(other).expect("a namespace");
    let found = leftovers(&stand.kubeconfig).await.expect("leftovers");
    let [left] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((left.tag.as_str(), left.namespaces.len(), left.alive), (&*names.tag, 2, false));
    assert_eq!(clean(&stand.kubeconfig, &left.tag).await.expect("cleaned"), Vec::<String>::new());
    assert_eq!(leftovers(&stand.kubeconfig).await.expect("leftovers"), []);
    assert!(stand.api.get("Namespace", None, "mine").is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_that_cannot_be_used() {
    let stand = stand(Some("token"));
    let open = |path: PathBuf| async move {
        let opened = Access::open(&path, Harm::Spared).await;
        opened.err().map(|error| error.to_string()).expect("an error")
    };
    let refused = open(stand.kubeconfig.clone()).await;
    assert!(refused.contains("does not accept the kubeconfig's credentials"), "{refused}");

    let missing = open(stand.kubeconfig.with_file_name("none")).await;
    assert!(missing.contains("failed to read the kubeconfig"), "{missing}");

    let broken = stand.kubeconfig.with_file_name("broken");
    std::fs::write(&broken, "kind: [").expect("a file");
    let broken = open(broken).await;
    assert!(broken.contains("failed to read the kubeconfig"), "{broken}");

    let nobody = stand.kubeconfig.with_file_name("nobody");
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
    write(&nobody, &format!("http://{}", port.expect("a port")));
    let nobody = open(nobody).await;
    assert!(nobody.contains("cannot be reached"), "{nobody}");
}

/// As `touchstone lab up` writes it.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_the_address_logs_in_and_is_never_shown() {
    let stand = stand(Some("secret"));
    let address = stand.serving.address();
    let open = |server: String| {
        write(&stand.kubeconfig, &server);
        Access::open(&stand.kubeconfig, Harm::Spared)
    };
    let access = open(format!("http://person:secret@{address}")).await.expect("the right password");
    assert_eq!(access.server(), format!("http://{address}/"));

    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
    let nobody = port.expect("a port");
    for (server, what) in [
        (format!("http://person:hunter2@{address}"), "does not accept"),
        (format!("http://person:hunter2@{nobody}"), "cannot be reached"),
        (format!("http://person:hunter2@{nobody}:1:2"), "failed to read"),
    ] {
        let error = open(server).await.err().map(|error| error.to_string()).expect("an error");
        assert!(error.contains(what) && !error.contains("hunter2"), "{error}");
    }
}

/// Zones that a run sets are gone when its cluster is closed, and those of others are back.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_get_back_the_zones_that_they_had_and_are_cordoned_no_more() {
    let stand = stand(None);
    let access = Access::open(&stand.kubeconfig, Harm::Allowed).await.expect("access");
    let names = Names::of(RUN);
    let real: BTreeMap<String, String> =
        [("n1".to_owned(), "worker".to_owned()), ("n2".to_owned(), "control-plane".to_owned())]
            .into();
    let objects = Objects::new(access.clone(), names.clone(), real.clone());
    let mine =
        Change::SetNode { node: "n1".to_owned(), says: NodeSays::zone(Some("mine".to_owned())) };
    objects.apply(&mine).await.expect("a zone of the owner's");
    let zone_of = |node: &str| {
        let node = stand.api.get("Node", None, node).expect("a node");
        node["metadata"]["labels"][touchstone_spec::api::ZONE_LABEL].as_str().map(str::to_owned)
    };
    let node = |name: &str, zone: Option<&str>| NodeFacts {
        name: name.to_owned(),
        zone: zone.map(str::to_owned),
        ..NodeFacts::default()
    };
    let found = [node("n1", Some("mine")), node("n2", None)];
    let (set, undo) = zones(&found, &[node("n1", None), node("n2", Some("z2"))]);
    for change in &set {
        objects.apply(change).await.expect("a zone");
    }
    assert_eq!((zone_of("worker"), zone_of("control-plane").as_deref()), (None, Some("z2")));
    // The other node's owner has cordoned it, which is no business of the run's.
    let cordoned = |node: &str| {
        let node = stand.api.get("Node", None, node).expect("a node");
        node["spec"]["unschedulable"].as_bool() == Some(true)
    };
    let cordon = json!({ "spec": { "unschedulable": true } });
    let owned = access.send(Method::PATCH, "/api/v1/nodes/control-plane", Some(&cordon)).await;
    owned.expect("cordoned by its owner");
    let says = NodeSays { unschedulable: true, ..NodeSays::default() };
    let change = Change::SetNode { node: "n1".to_owned(), says };
    objects.apply(&change).await.expect("cordoned");
    assert!(cordoned("worker"));
    let token = "secret".to_owned();
    let agents =
        Arc::new(Agents::new(access.clone(), names.clone(), request(&stand).image, token, real));
    let cluster = RealCluster {
        facts: ClusterFacts::default(),
        deployments: Arc::new(Deployments::new(access, names, Arc::clone(&agents))),
        agents,
        objects,
        keeper: None,
        undo,
        flows: Vec::new(),
        unready: OnceLock::new(),
        balancer: Balancer::default(),
        services: Mutex::default(),
        how_to_join: Vec::new(),
    };
    assert_eq!(cluster.close().await, Vec::<String>::new());
    assert_eq!((zone_of("worker").as_deref(), zone_of("control-plane")), (Some("mine"), None));
    assert_eq!((cordoned("worker"), cordoned("control-plane")), (false, true));
}

/// An API server whose user may do all but create pods.
fn strict() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || review(stream));
        }
    });
    port
}

fn review(mut stream: std::net::TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().expect("the same stream"));
    loop {
        let mut length = 0;
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line != "\r\n" {
            if let Some(number) = line.to_lowercase().strip_prefix("content-length:") {
                length = number.trim().parse().expect("a length");
            }
            line.clear();
        }
        if line.is_empty() {
            return;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
        let asked = &asked["spec"]["resourceAttributes"];
        let refused = asked["resource"] == json!("pods")
            && asked["subresource"] == json!("")
            && asked["verb"] == json!("create");
        let answer = json!({ "gitVersion": "v1.37.2", "status": { "allowed": !refused } });
        let answer = answer.to_string();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
        // The client may be gone.
        let _ = write!(stream, "{head} {}\r\n\r\n{answer}", answer.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_missing_are_named_before_anything_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = folder.path().join("kubeconfig");
    write(&kubeconfig, &format!("http://127.0.0.1:{}", strict()));
    let opened = Access::open(&kubeconfig, Harm::Spared).await;
    let error = opened.err().map(|error| error.to_string()).expect("an error");
    assert!(error.contains("create pods; `touchstone cluster rbac` prints"), "{error}");
    // Patching nodes is no right that is printed without it.
    let opened = Access::open(&kubeconfig, Harm::Allowed).await;
    let error = opened.err().map(|error| error.to_string()).expect("an error");
    assert!(error.contains("`touchstone cluster rbac --harmful` prints"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_not_ready_are_named() {
    let stand = stand(None);
    for name in ["worker", "control-plane"] {
        let mut node = stand.api.get("Node", None, name).expect("a node");
        node["status"]["conditions"] =
            json!([{ "type": "Ready", "status": "False", "message": "kubelet stopped" }]);
        stand.api.replace_status(node).expect("a status");
    }
    let error = preview(&stand.kubeconfig, Harm::Spared, RUN, 2, 100).await.expect_err("no node");
    let error = error.to_string();
    for word in ["worker: it is not ready: kubelet stopped", "kubectl get nodes"] {
        assert!(error.contains(word), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_disappears_is_named_and_not_waited_for() {
    let stand = stand(None);
    let access = Access::open(&stand.kubeconfig, Harm::Spared).await.expect("access");
    let names = Names::of(RUN);
    access.need("/api/v1/namespaces", &names.namespace(&names.home())).await.expect("made");
    let real = [("n1".to_owned(), "gone".to_owned())].into();
    let agents = Agents::new(access, names, request(&stand).image, "secret".to_owned(), real);
    let post = agents.post("pod-n1-1".to_owned(), "n1", false).expect("a post");
    let error = agents.man(&[post]).await.expect_err("no such node").to_string();
    assert!(error.contains("the node gone can no longer be used"), "{error}");
    assert!(error.contains("kubectl describe node gone"), "{error}");
}
