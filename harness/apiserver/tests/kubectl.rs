//! The real `kubectl`, found on PATH, against the embedded API.

mod common;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{Served, serve, service, slice};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A served API and a home for kubectl.
struct Bench {
    served: Served,
    home: TempDir,
}

fn bench() -> Bench {
    let served = serve();
    let home = tempfile::tempdir().unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": served.url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(home.path().join("config"), config.to_string()).unwrap();
    Bench { served, home }
}

impl Bench {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(arguments)
            .env("KUBECONFIG", self.home.path().join("config"))
            .env("HOME", self.home.path());
        command
    }

    /// Runs kubectl, which must succeed, and answers what it printed.
    fn run(&self, arguments: &[&str]) -> String {
        let (fine, out, err) = self.outcome(arguments);
        assert!(fine, "kubectl {arguments:?}\n{out}{err}");
        out
    }

    /// Runs kubectl, which must fail, and answers its complaint.
    fn refused(&self, arguments: &[&str]) -> String {
        let (fine, out, err) = self.outcome(arguments);
        assert!(!fine, "kubectl {arguments:?} succeeded\n{out}");
        err
    }

    fn outcome(&self, arguments: &[&str]) -> (bool, String, String) {
        let output = self
            .command(arguments)
            .output()
            .expect("these tests need kubectl, and it was not found on PATH");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// The words of a table's lines, the age left out.
fn table(text: &str) -> Vec<Vec<String>> {
    let is_age = |word: &str| {
        word.len() > 1
            && word.ends_with(['s', 'm', 'h'])
            && word.trim_end_matches(['s', 'm', 'h']).chars().all(|one| one.is_ascii_digit())
    };
    text.lines()
        .map(|line| {
            line.split_whitespace()
                .map(|word| if is_age(word) { "AGE" } else { word })
                .map(str::to_owned)
                .collect()
        })
        .collect()
}

fn check(shown: &str, wanted: &str) {
    assert_eq!(table(shown), table(wanted), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn get_prints_the_usual_columns() {
    let bench = bench();
    let server = &bench.served.server;
    let ports = json!([{"name": "p", "port": 80, "nodePort": 30080}, {"name": "q", "port": 53, "protocol": "UDP"}]);
    let objects = [
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {
                "name": "n1", "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "192.168.0.1"}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"kubeletVersion": "v1.37.2"}}}),
        service(
            "web",
            json!({"selector": {"app": "web"}, "ports": [{"port": 80}], "clusterIP": "10.96.0.10"}),
        ),
        service("out", json!({"type": "NodePort", "ports": ports, "clusterIP": "10.96.0.11"})),
        service(
            "lb",
            json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
            "ports": [{"port": 80}], "clusterIP": "10.96.0.12"}),
        ),
        service("none", json!({"clusterIP": "None", "selector": {"a": "b"}})),
        service("alias", json!({"type": "ExternalName", "externalName": "example.com"})),
        slice("web-1", "web", &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]),
        slice("web-2", "web", &[]),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}}),
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Normal",
            "reason": "Started", "message": "up", "involvedObject": {"kind": "Node", "name": "n1"}}),
    ];
    for object in objects {
        server.create(object).unwrap();
    }
    server
        .patch_status(
            "Service",
            None,
            "lb",
            &json!({"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}),
        )
        .unwrap();
    let node_port =
        server.get("Service", None, "out").unwrap()["spec"]["ports"][1]["nodePort"].clone();
    check(
        &bench.run(&["get", "svc"]),
        &format!(
            "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE
            alias ExternalName <none> example.com <none> 1s
            lb LoadBalancer 10.96.0.12 1.2.3.4 80/TCP 1s
            none ClusterIP None <none> <none> 1s
            out NodePort 10.96.0.11 <none> 80:30080/TCP,53:{node_port}/UDP 1s
            web ClusterIP 10.96.0.10 <none> 80/TCP 1s"
        ),
    );
    check(
        &bench.run(&["get", "services", "web", "-o", "wide"]),
        "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE SELECTOR
         web ClusterIP 10.96.0.10 <none> 80/TCP 1s app=web",
    );
    check(
        &bench.run(&["get", "no", "-o", "wide"]),
        "NAME STATUS ROLES AGE VERSION INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME
         n1 Ready control-plane 1s v1.37.2 192.168.0.1 <none> <unknown> <unknown> <unknown>",
    );
    check(
        &bench.run(&["get", "endpointslices"]),
        "NAME ADDRESSTYPE PORTS ENDPOINTS AGE
         web-1 IPv4 8080 10.0.0.1,10.0.0.2,10.0.0.3 + 1 more... 1s
         web-2 IPv4 8080 <unset> 1s",
    );
    check(&bench.run(&["get", "cm"]), "NAME DATA AGE\n c 2 1s");
    check(&bench.run(&["get", "po"]), "NAME READY STATUS RESTARTS AGE\n p 0/1 Pending 0 1s");
    check(
        &bench.run(&["get", "ns"]),
        "NAME STATUS AGE\n default Active 1s\n kube-system Active 1s",
    );
    check(
        &bench.run(&["get", "servicecidrs"]),
        "NAME CIDRS AGE\n kubernetes 10.96.0.0/16,fd00:10:96::/112 1s",
    );
    check(
        &bench.run(&["get", "events"]),
        "LAST SEEN TYPE REASON OBJECT MESSAGE\n 1s Normal Started node/n1 up",
    );
    check(&bench.run(&["get", "svc", "-l", "nothing=here", "-A"]), "");
    let wide = bench.run(&["get", "svc", "-A", "--field-selector", "spec.type=NodePort"]);
    check(
        &wide,
        &format!(
            "NAMESPACE NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE
        default out NodePort 10.96.0.11 <none> 80:30080/TCP,53:{node_port}/UDP 1s"
        ),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_creates_and_changes() {
    let bench = bench();
    let service =
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports:\n  - port: 80\n";
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n\
                 addressType: IPv4\nendpoints:\n- addresses: [10.0.0.1]\n\
                 ports:\n- port: 80\n  name: p\n  protocol: TCP\n";
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  a: b\n";
    let file = bench.file("all.yaml", &[service, slice, map].join("---\n"));
    let file = file.to_str().unwrap();
    let apply = |more: &[&str]| bench.run(&[&["apply", "-f", file], more].concat());
    assert_eq!(
        apply(&[]),
        "service/web created\nendpointslice.discovery.k8s.io/web-1 created\nconfigmap/c created\n"
    );
    assert_eq!(
        apply(&[]),
        "service/web unchanged\nendpointslice.discovery.k8s.io/web-1 unchanged\nconfigmap/c unchanged\n"
    );
    let changed = service
        .replace("port: 80", "port: 81\n  - port: 82\n    name: b")
        .replace("port: 81", "port: 81\n    name: a")
        .replace("spec:\n", "spec:\n  type: NodePort\n");
    bench.file("all.yaml", &[changed.as_str(), slice].join("---\n"));
    let address =
        bench.served.server.get("Service", None, "web").unwrap()["spec"]["clusterIP"].clone();
    assert_eq!(
        apply(&[]),
        "service/web configured\nendpointslice.discovery.k8s.io/web-1 unchanged\n"
    );
    let web = bench.served.server.get("Service", None, "web").unwrap();
    assert_eq!(web["spec"]["clusterIP"], address);
    let ports: Vec<&Value> =
        web["spec"]["ports"].as_array().unwrap().iter().map(|port| &port["port"]).collect();
    assert_eq!(ports, [81, 82]);
    assert!(web["spec"]["ports"][0]["nodePort"].is_u64());
    assert_eq!(
        apply(&["--server-side", "--force-conflicts"]),
        "service/web serverside-applied\nendpointslice.discovery.k8s.io/web-1 serverside-applied\n"
    );
    assert_eq!(
        apply(&["--dry-run=server"]),
        "service/web unchanged (server dry run)\n\
         endpointslice.discovery.k8s.io/web-1 unchanged (server dry run)\n"
    );
    let bad = bench.file("bad.yaml", &service.replace("port: 80", "port: 0").replace("web", "bad"));
    let complaint = bench.refused(&["apply", "-f", bad.to_str().unwrap()]);
    assert!(
        complaint.contains(
            "The Service \"bad\" is invalid: \n* spec.ports[0].port: Invalid value: 0: \
             must be between 1 and 65535, inclusive"
        ) || complaint.contains(
            "The Service \"bad\" is invalid: spec.ports[0].port: Invalid value: 0: \
             must be between 1 and 65535, inclusive"
        ),
        "{complaint}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn patch_replace_label_and_delete() {
    let bench = bench();
    let server = &bench.served.server;
    server.create(service("web", json!({"ports": [{"port": 80, "name": "a"}]}))).unwrap();
    let patched = "service/web patched\n";
    assert_eq!(
        bench.run(&["patch", "svc", "web", "-p", r#"{"spec":{"ports":[{"port":81,"name":"b"}]}}"#]),
        patched
    );
    assert_eq!(
        bench.run(&[
            "patch",
            "svc",
            "web",
            "--type=merge",
            "-p",
            r#"{"spec":{"type":"NodePort"}}"#
        ]),
        patched
    );
    let operation = r#"[{"op":"replace","path":"/spec/ports/0/name","value":"c"}]"#;
    assert_eq!(bench.run(&["patch", "svc", "web", "--type=json", "-p", operation]), patched);
    assert_eq!(
        bench.run(&[
            "patch",
            "svc",
            "web",
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"conditions":[{"type":"T"}]},"spec":{"type":"ClusterIP"}}"#
        ]),
        patched
    );
    let web = server.get("Service", None, "web").unwrap();
    let names: Vec<&Value> =
        web["spec"]["ports"].as_array().unwrap().iter().map(|port| &port["name"]).collect();
    assert_eq!(names, ["c", "b"], "{web}");
    assert_eq!(
        (&web["spec"]["type"], &web["status"]["conditions"][0]["type"]),
        (&json!("NodePort"), &json!("T"))
    );
    assert_eq!(bench.run(&["label", "svc", "web", "a=b"]), "service/web labeled\n");
    assert_eq!(bench.run(&["annotate", "svc", "web", "a=b"]), "service/web annotated\n");
    assert_eq!(bench.run(&["get", "svc", "-l", "a in (b)", "-o", "name"]), "service/web\n");
    assert_eq!(bench.run(&["get", "svc", "web", "-o", "jsonpath={.spec.ports[0].name}"]), "c");
    assert!(bench.run(&["describe", "svc", "web"]).contains("Session Affinity:"));
    let complaint = bench.refused(&["get", "svc", "nobody"]);
    assert_eq!(complaint, "Error from server (NotFound): services \"nobody\" not found\n");
    let again = bench.file(
        "again.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 1}]}\n",
    );
    let complaint = bench.refused(&["create", "-f", again.to_str().unwrap()]);
    assert!(
        complaint.contains("(AlreadyExists)")
            && complaint.contains("services \"web\" already exists"),
        "{complaint}"
    );
    assert_eq!(bench.run(&["delete", "svc", "web"]).trim_end(), "service \"web\" deleted");
    server
        .create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}))
        .unwrap();
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "team"}});
    server.create(map("c")).unwrap();
    assert_eq!(
        bench.run(&["delete", "configmap", "--all", "-n", "team"]).trim_end(),
        "configmap \"c\" deleted"
    );
    server.create(map("d")).unwrap();
    bench.run(&["delete", "ns", "team"]);
    assert_eq!(server.list("ConfigMap", None, "").unwrap(), Vec::<Value>::new());
    let version = bench.run(&["version", "-o", "json"]);
    assert!(version.contains("v1.37.0+touchstone"), "{version}");
    assert!(bench.run(&["api-resources"]).contains("endpointslices"));
}

#[tokio::test(flavor = "multi_thread")]
async fn get_watch_shows_changes_as_rows() {
    let bench = bench();
    let server = &bench.served.server;
    server
        .create(service("web", json!({"ports": [{"port": 80}], "clusterIP": "10.96.0.10"})))
        .unwrap();
    let mut child = bench
        .command(&["get", "svc", "--watch", "--output-watch-events", "--request-timeout=30s"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("these tests need kubectl, and it was not found on PATH");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || table(&lines.next().unwrap().unwrap()).remove(0).join(" ");
    assert_eq!(next(), "EVENT NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE");
    assert_eq!(next(), "ADDED web ClusterIP 10.96.0.10 <none> 80/TCP AGE");
    server.patch("Service", None, "web", &json!({"spec": {"externalIPs": ["1.2.3.4"]}})).unwrap();
    assert_eq!(next(), "MODIFIED web ClusterIP 10.96.0.10 1.2.3.4 80/TCP AGE");
    server.delete("Service", None, "web").unwrap();
    assert_eq!(next(), "DELETED web ClusterIP 10.96.0.10 1.2.3.4 80/TCP AGE");
    child.kill().unwrap();
    child.wait().unwrap();
}
