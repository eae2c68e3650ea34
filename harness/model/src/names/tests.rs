//! What names stand for, in one small world.

use super::*;
use touchstone_spec::api::{
    Conditions, EndpointPort, Meta, SERVICE_NAME_LABEL, ServicePort, ServiceSpec,
};
use touchstone_spec::{Client, ClientKind, FrontendKind, Protocol};

fn meta(name: &str) -> Meta {
    Meta { name: name.to_owned(), namespace: "a".to_owned(), ..Meta::default() }
}

fn service(name: &str, ip: &str) -> Service {
    let port = ServicePort { name: "p".to_owned(), port: 80, ..ServicePort::default() };
    let spec = ServiceSpec {
        cluster_ip: Some(ip.to_owned()),
        cluster_ips: vec![ip.to_owned()],
        ports: vec![port],
        ..ServiceSpec::default()
    };
    Service { metadata: meta(name), spec, ..Service::default() }
}

fn external(name: &str, target: &str) -> Service {
    let spec = ServiceSpec {
        service_type: ServiceType::ExternalName,
        external_name: Some(target.to_owned()),
        ..ServiceSpec::default()
    };
    Service { metadata: meta(name), spec, ..Service::default() }
}

fn endpoint(address: &str, hostname: Option<&str>, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.to_owned()],
        hostname: hostname.map(str::to_owned),
        conditions: Conditions { ready: Some(ready), ..Conditions::default() },
        ..Endpoint::default()
    }
}

fn world() -> World {
    let mut metadata = meta("db-1");
    metadata.labels.insert(SERVICE_NAME_LABEL.to_owned(), "db".to_owned());
    World {
        services: vec![
            service("web", "10.96.0.20"),
            service("db", "None"),
            service("none", "None"),
            external("in", "web.a.svc.cluster.local"),
            external("out", "alias.example.test"),
            external("gone", "www.nowhere.example"),
        ],
        slices: vec![EndpointSlice {
            metadata,
            address_type: "IPv4".to_owned(),
            ports: vec![EndpointPort {
                name: Some("p".to_owned()),
                protocol: Protocol::Tcp,
                port: Some(8000),
            }],
            endpoints: vec![
                endpoint("10.244.1.20", Some("db-0"), true),
                endpoint("10.244.1.21", None, true),
                endpoint("10.244.1.22", Some("db-2"), false),
            ],
        }],
        ..World::default()
    }
}

fn asked(name: &str, types: &[RecordType], then: Option<u16>) -> String {
    let flow = Flow {
        client: Client {
            kind: ClientKind::Pod,
            place: "pod".to_owned(),
            node: None,
            address: IpAddr::from([10, 244, 1, 10]),
        },
        via: None,
        to: SocketAddr::from(([10, 96, 0, 10], 53)),
        protocol: Protocol::Tcp,
        frontend: FrontendKind::Name,
        question: Some(Question {
            name: name.to_owned(),
            types: types.iter().copied().collect(),
            search: Question::search_of("a"),
            then,
        }),
        size: 0,
        source_port: None,
        http: None,
        text: String::new(),
    };
    let words: Vec<String> = crate::expect(&world(), &flow, &Features::default())
        .allowed
        .iter()
        .map(|allowed| match allowed {
            Allowed::Answered(answer) => answer.to_string(),
            Allowed::Reached { .. }
            | Allowed::Http { .. }
            | Allowed::Refused
            | Allowed::Closed
            | Allowed::Dropped
            | Allowed::Unhandled => allowed.kind().to_string(),
        })
        .collect();
    words.join(" or ")
}

fn check(name: &str, kind: RecordType, want: &str) {
    assert_eq!(asked(name, &[kind], None), want, "{name} {kind}");
}

#[test]
fn names_of_services() {
    use RecordType::{A, Aaaa, Cname, Srv};
    check("web.a.svc.cluster.local.", A, "answers 10.96.0.20");
    check("WEB.a.svc.cluster.local.", A, "answers 10.96.0.20");
    check("web.a.svc.cluster.local.", Aaaa, "answers nothing (no record of that type)");
    check("web.a.svc.cluster.local.", Cname, "answers nothing (no record of that type)");
    check("nope.a.svc.cluster.local.", A, "answers that there is no such name");
    check("x.web.a.svc.cluster.local.", A, "answers that there is no such name");
    check("_p._tcp.web.a.svc.cluster.local.", Srv, "answers web.a.svc.cluster.local.:80");
    check("_p._udp.web.a.svc.cluster.local.", Srv, "answers that there is no such name");
}

#[test]
fn names_of_endpoints() {
    use RecordType::{A, Ptr, Srv};
    check("db.a.svc.cluster.local.", A, "answers 10.244.1.20, 10.244.1.21");
    check("db-0.db.a.svc.cluster.local.", A, "answers 10.244.1.20");
    check("db-2.db.a.svc.cluster.local.", A, "answers that there is no such name");
    check(
        "_p._tcp.db.a.svc.cluster.local.",
        Srv,
        "answers *.db.a.svc.cluster.local.:8000, db-0.db.a.svc.cluster.local.:8000",
    );
    check(
        "none.a.svc.cluster.local.",
        A,
        "answers nothing (no record of that type) or answers that there is no such name",
    );
    check("20.0.96.10.in-addr.arpa.", Ptr, "answers web.a.svc.cluster.local.");
    check("20.1.244.10.in-addr.arpa.", Ptr, "answers db-0.db.a.svc.cluster.local.");
    check("22.1.244.10.in-addr.arpa.", Ptr, "answers that there is no such name");
}

#[test]
fn aliases_are_followed() {
    use RecordType::{A, Cname};
    check("in.a.svc.cluster.local.", Cname, "answers alias of web.a.svc.cluster.local.");
    check("in.a.svc.cluster.local.", A, "answers 10.96.0.20, alias of web.a.svc.cluster.local.");
    check(
        "out.a.svc.cluster.local.",
        A,
        "answers 192.0.2.53, alias of alias.example.test., alias of host.example.test.",
    );
    check("gone.a.svc.cluster.local.", A, "answers alias of www.nowhere.example.");
}

#[test]
fn search_paths() {
    use RecordType::A;
    for name in ["web", "web.a", "web.a.svc", "web.a.svc.cluster.local"] {
        check(name, A, "answers 10.96.0.20");
    }
    check("nope", A, "answers that there is no such name");
    check("alias.example.test", A, "answers 192.0.2.53, alias of host.example.test.");
    let both = asked("web", &[RecordType::A, RecordType::Aaaa], None);
    assert_eq!(both, "answers 10.96.0.20");
}

#[test]
fn connections_go_to_what_was_told() {
    let a = [RecordType::A, RecordType::Aaaa];
    assert_eq!(asked("db", &a, Some(8000)), "reached or reached");
    assert_eq!(asked("db", &a, Some(80)), "refused");
    assert_eq!(asked("nope", &a, Some(80)), "answers that there is no such name");
}

#[test]
fn reverse_names() {
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.";
    assert_eq!(reverse(v6), "fd00:10:96::1".parse().ok());
    assert_eq!(reverse("20.0.96.10.in-addr.arpa."), "10.96.0.20".parse().ok());
    assert_eq!(reverse("0.96.10.in-addr.arpa."), None);
    assert_eq!(reverse("web.a.svc.cluster.local."), None);
}
