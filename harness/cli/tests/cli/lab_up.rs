//! A lab for a person: the API from the host, the places from another terminal, and its end.

use std::path::PathBuf;
use std::time::Duration;

use crate::common::{Bench, Done, Part, RUN_LIMIT, Running, eventually};
use nix::sys::signal::Signal;
use touchstone_spec::CLIENT_PORT;

/// Path of kubectl where it is not on PATH.
const KUBECTL: &str = "TOUCHSTONE_KUBECTL";

const CLUSTER_IP: &str = "10.96.0.77";

/// A Service of port 80 with one endpoint, a client pod, which answers on [`CLIENT_PORT`].
fn objects(pod: &str) -> String {
    format!(
        "\
apiVersion: v1
kind: Service
metadata: {{ name: web, namespace: default }}
spec:
  clusterIP: {CLUSTER_IP}
  ports: [{{ name: p, port: 80, protocol: TCP }}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  namespace: default
  labels: {{ kubernetes.io/service-name: web }}
addressType: IPv4
ports: [{{ name: p, port: {CLIENT_PORT}, protocol: TCP }}]
endpoints: [{{ addresses: [\"{pod}\"], nodeName: n2, conditions: {{ ready: true }} }}]
"
    )
}

fn kubectl() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("kubectl"))
        .chain(std::env::var_os(KUBECTL).map(PathBuf::from))
        .find(|program| program.is_file())
        .unwrap_or_else(|| {
            panic!(
                "kubectl is neither on PATH nor named by {KUBECTL}; \
                 `touchstone subject fetch kubectl` gets one and prints its path"
            )
        })
}

/// A lab that is up, and the person's two tools.
struct Lab {
    bench: Bench,
    up: Running,
    kubeconfig: PathBuf,
}

impl Lab {
    fn up() -> Lab {
        let bench = Bench::new();
        let said = bench.path("said");
        // A place for the state of labs that is this test's alone.
        std::fs::create_dir(bench.path("state")).expect("a folder can be made");
        let program = env!("CARGO_BIN_EXE_touchstone");
        let text = format!("exec {program} lab up > said");
        let mut command = bench.command("sh", &["-c", &text]);
        command.env("TMPDIR", bench.path("state"));
        let mut up = Running::start(command);
        let told = eventually("the lab to be up", RUN_LIMIT, || {
            assert!(!up.has_ended(), "the lab did not come up");
            let text = std::fs::read_to_string(&said).unwrap_or_default();
            text.contains("Ctrl-C ends it").then_some(text)
        });
        let line = told.lines().find_map(|line| line.trim().strip_prefix("export KUBECONFIG="));
        let kubeconfig = PathBuf::from(line.unwrap_or_else(|| panic!("no KUBECONFIG in {told}")));
        Lab { bench, up, kubeconfig }
    }

    fn kubectl(&self, args: &[&str]) -> Done {
        let program = kubectl();
        let mut command = self.bench.command(program.to_str().expect("text"), args);
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", self.bench.path("state"));
        Running::start(command).finish(RUN_LIMIT)
    }

    fn shell(&self, args: &[&str]) -> Done {
        let mut command = self.bench.touchstone(&["lab", "shell"]);
        command.args(args).env("TMPDIR", self.bench.path("state"));
        Running::start(command).finish(RUN_LIMIT)
    }

    /// What curl on n1 saw of the Service: whether a connection was made.
    fn connects(&self) -> bool {
        let url = format!("http://{CLUSTER_IP}/");
        let curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{num_connects}", "-m", "2", &url];
        let mut args = vec!["n1", "--"];
        args.extend(curl);
        // What answers does not speak HTTP, so curl itself ends with an error.
        self.shell(&args).stdout.trim() == "1"
    }
}

#[test]
fn a_person_looks_around() {
    let lab = Lab::up();
    let namespaces = lab.bench.namespaces();
    lab.kubectl(&["get", "svc", "-A"]).code(0).says(&["NAMESPACE NAME TYPE", "canary"]);
    lab.kubectl(&["get", "nodes"]).code(0).says(&["n1", "n2", "n3"]);
    assert!(!lab.connects(), "there is no such Service yet");

    let pod = "jsonpath={.endpoints[1].addresses[0]}";
    let pod = lab.kubectl(&["get", "endpointslice", "canary-v4", "-n", "touchstone", "-o", pod]);
    let file = lab.bench.write("objects.yaml", &objects(pod.code(0).stdout.trim()));
    let file = file.to_str().expect("text");
    lab.kubectl(&["apply", "-f", file]).code(0).says(&["service/web created", "web-1 created"]);
    lab.kubectl(&["apply", "-f", file]).code(0).says(&["service/web unchanged"]);
    lab.kubectl(&["get", "svc", "web"]).code(0).says(&[CLUSTER_IP, "80/TCP"]);
    eventually("the Service to answer on n1", Duration::from_secs(30), || {
        lab.connects().then_some(())
    });
    lab.shell(&["n1", "--", "iptables-save", "-t", "nat"])
        .code(0)
        .says(&["default/web:p cluster IP", &format!("-d {CLUSTER_IP}/32")]);
    lab.shell(&["n1", "--", "conntrack", "-L"]).code(0).says(&[&format!("dst={CLUSTER_IP}")]);
    lab.shell(&["n1", "--", "sh", "-c", "exit 7"]).code(7);
    // From there it reaches the API server as the node's proxy does.
    let kubectl = kubectl();
    let there = ["n1", "--", kubectl.to_str().expect("text"), "get", "svc", "web"];
    lab.shell(&there).code(0).says(&[CLUSTER_IP]);
    lab.shell(&["n2", "--", "hostname"]).code(0).says(&["n2"]);
    // A client's network, without a proxy.
    lab.shell(&["outside", "--", "iptables-save", "-t", "nat"]).code(0);
    lab.shell(&["n9", "--", "true"]).code(64).complains(&["the lab has no place n9", "n1, n2, n3"]);

    lab.kubectl(&["delete", "-f", file]).code(0).says(&["\"web\" deleted", "\"web-1\" deleted"]);
    eventually("the Service to be gone from n1", Duration::from_secs(30), || {
        (!lab.connects()).then_some(())
    });

    let Lab { bench, up, kubeconfig } = lab;
    up.signal(Signal::SIGINT);
    up.finish(Duration::from_secs(20)).code(0);
    bench.nothing_is_left(&namespaces);
    assert!(!kubeconfig.exists(), "{} is left", kubeconfig.display());
    let shell = {
        let mut command = bench.touchstone(&["lab", "shell", "n1", "--", "true"]);
        command.env("TMPDIR", bench.path("state"));
        Running::start(command).finish(RUN_LIMIT)
    };
    shell.code(3).complains(&["no lab is open", "touchstone lab up"]);
}

#[test]
fn what_a_killed_lab_has_left_goes_with_the_next_look() {
    let lab = Lab::up();
    let namespaces = lab.bench.namespaces();
    lab.bench.process(Part::Outside).signal(Signal::SIGKILL);
    let Lab { bench, up, kubeconfig } = lab;
    let done = up.finish(Duration::from_secs(20));
    assert_eq!(done.signal(), Some(Signal::SIGKILL as i32), "{done}");
    bench.nothing_is_left(&namespaces);
    let mut command = bench.touchstone(&["lab", "shell", "n1", "--", "true"]);
    command.env("TMPDIR", bench.path("state"));
    Running::start(command).finish(RUN_LIMIT).code(3).complains(&["no lab is open"]);
    assert!(!kubeconfig.exists(), "{} is left", kubeconfig.display());
}

#[test]
fn a_lab_has_one_subject() {
    Bench::new()
        .call(&["lab", "up", "--subject", "kube-proxy", "--subject", "kube-proxy:nftables"])
        .code(64)
        .complains(&["a lab has one subject"]);
}
