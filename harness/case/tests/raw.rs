//! Slices that are written out, sizes, pages: case files in, scripts or messages out.

use touchstone_case::{Change, Library, Script, Variant, compile, planned_book};
use touchstone_spec::FrontendKind;

const HEAD: &str = "about: a\ncovers: [b]\nlevel: must\n";

fn messages(text: &str) -> String {
    match library(text) {
        Ok(_) => "fine".to_owned(),
        Err(errors) => errors,
    }
}

fn library(text: &str) -> Result<Library, String> {
    Library::of_texts([
        ("behaviours.yaml", "b: { statement: s, level: must, why: w, source: s }"),
        ("x/y.yaml", &format!("{HEAD}{text}")),
    ])
    .map_err(|errors| errors.to_string())
}

fn variant(text: &str) -> Variant {
    library(text).unwrap_or_else(|errors| panic!("{errors}")).variants().remove(0)
}

fn script(text: &str) -> Script {
    let variant = variant(text);
    compile(&variant, &mut planned_book(&variant)).unwrap_or_else(|error| panic!("{error}"))
}

/// The changes of a step in short.
fn changes(script: &Script, step: usize) -> Vec<String> {
    let each = script.steps[step].changes.iter().map(|change| match change {
        Change::ApplyService(service) => format!("service {}", service.metadata.name),
        Change::DeleteService { name, .. } => format!("no service {name}"),
        Change::ApplySlice(slice) => format!("slice {}", slice.metadata.name),
        Change::ApplyRawSlice(slice) => {
            let ports: Vec<String> =
                slice.ports.iter().map(|port| format!("{:?}:{:?}", port.name, port.port)).collect();
            let addresses: Vec<String> =
                slice.endpoints.iter().map(|endpoint| endpoint.addresses.join("+")).collect();
            format!(
                "raw {} {} {:?} {} {}",
                slice.metadata.name,
                slice.address_type,
                slice.service_key(),
                ports.join(" "),
                addresses.join(" ")
            )
        }
        Change::DeleteSlice { name, .. } => format!("no slice {name}"),
        Change::SetNode { .. }
        | Change::Deploy(_)
        | Change::Proxy { .. }
        | Change::ProxyRefuses { .. }
        | Change::VirtualServer { .. }
        | Change::ReloadFirewall { .. } => "other".to_owned(),
    });
    each.collect()
}

const RAW: &str = "\
axes: { family: [v4] }
world:
  services:
    web: { ports: [{ name: p, port: 80 }] }
    home: { ports: [{ name: p, port: 80 }] }
  endpoints:
    home: { a: { node: n1, slice: null } }
  slices:
    x:
      service: web
      ports: [{ name: null, port: 1 }, { port: 2 }, { name: p, port: null }]
      endpoints: [{ addresses: [$home/a, $home/a/other, $home/a/zeros, as-it-is] }, {}]
    y: { service: '', addressType: $other, endpoints: [{ addresses: [$home/a] }] }
steps:
  - matrix: false
    expect:
      - { from: pod, to: web clusterIP, is: refused }
  - change: [{ slice: x, set: { ports: [] } }, { slice: y, delete: true }, { service: web, delete: true }]
    matrix: false
    expect:
      - { from: pod, to: web clusterIP, is: [dropped, unhandled] }
";

#[test]
fn written_slices_are_as_they_are() {
    let script = script(RAW);
    let pod = "10.244.1.11+fd00:10:244:1::11+010.244.001.011+as-it-is";
    let ports = "None:Some(1) Some(\"\"):Some(2) Some(\"p\"):None";
    assert_eq!(
        changes(&script, 0),
        [
            "service home".to_owned(),
            "service web".to_owned(),
            format!("raw x-v4 IPv4 Some(\"{}/web\") {ports} {pod} ", script.namespace),
            "raw y IPv6 None  fd00:10:244:1::11".to_owned(),
        ]
    );
    // Written slices stay when their Service goes.
    assert_eq!(
        changes(&script, 1),
        [
            format!("raw x-v4 IPv4 Some(\"{}/web\")  {pod} ", script.namespace),
            "no slice y".to_owned(),
            "no service web".to_owned(),
        ]
    );
}

const HAND: &str = "\
axes: { family: [v4] }
world:
  slicesBy: hand
  services:
    web: { labels: { team: blue }, ports: [{ name: p, port: 80 }] }
  endpoints:
    web: { a: { node: n1 }, b: { node: n1 } }
steps:
  - expect:
      - { from: pod, to: web clusterIP, reaches: [a, b] }
  - change: [{ service: web, delete: true }]
    expect:
      - { from: pod, to: web clusterIP, is: [dropped, unhandled] }
";

#[test]
fn a_hand_writes_slices_first() {
    let script = script(HAND);
    assert_eq!(changes(&script, 0), ["slice web-v4-a", "slice web-v4-b", "service web"]);
    assert_eq!(changes(&script, 1), ["no slice web-v4-a", "no slice web-v4-b", "no service web"]);
    let labels = script.steps[0].world.slices.iter().map(|slice| slice.metadata.labels.len());
    assert_eq!(labels.collect::<Vec<_>>(), [1, 1]);
}

/// Replaces a part of a case and compares what is said about the result.
fn check_error(text: &str, part: &str, with: &str, want: &str) {
    assert!(text.contains(part), "no such part: {part}");
    let got = messages(&text.replace(part, with));
    assert!(got.contains(want), "{with}: {got}");
}

#[test]
fn wrong_slices() {
    check_error(RAW, "slice: x, set", "slice: xx, set", "there is no slice `xx`");
    check_error(RAW, "[$home/a, ", "[$home/c, ", "home has no endpoint `c` in this step; known: a");
    check_error(RAW, "[$home/a, ", "[$home/a/more, ", "`$home/a/more` names no endpoint");
    check_error(RAW, "slice: y, delete: true", "slice: y", "exactly one of `set`, `delete`");
    check_error(RAW, "family: [v4]", "family: [dual]", "a variant of both families has no other");
    check_error(RAW, "addressType: $other", "adressType: IPv6", "did you mean `addressType`?");
}

const PAGES: &str = "\
axes: { family: [v6] }
needs: { nodes: 2, outside: 1 }
world:
  services:
    web: { type: LoadBalancer, externalTrafficPolicy: Local, ports: [{ name: p, port: 80 }] }
  endpoints:
    web: { a: { node: n1 } }
steps:
  - matrix: false
    expect:
      - { from: pod@n2, to: web clusterIP, size: 4kB, reaches: a }
      - { from: outside, to: web healthCheck@n1, path: /x, shows: { json: { a.b: 1, c: null, d: $ns } } }
      - { from: [node@n1, node@n2], to: proxy mode@n1, shows: { text: $mode } }
      - { from: node@n1, to: proxy metrics@n1, shows: { metric: 'm{a=\"1\"}', atLeast: 0 } }
  - change: [{ endpoint: web/b, add: { node: n1 } }]
    matrix: false
    expect:
      - { from: node@n1, to: proxy metrics@n1, shows: { metric: 'm{a=\"1\"}', grows: true } }
";

#[test]
fn what_rows_ask_for() {
    let script = script(PAGES);
    let rows: Vec<&str> = script.steps[0].rows.iter().map(|row| row.text.as_str()).collect();
    let ns = &script.namespace;
    assert_eq!(
        rows,
        [
            "pod@n2 → web clusterIP of 4kB: reaches a",
            &format!(
                "outside → web healthCheck@n1 /x: http 200; json a.b is \"1\", json c is not \
                 there, json d is \"{ns}\""
            ),
            "node@n1 → proxy mode@n1: http 200; text is \"planned\"",
            "node@n2 → proxy mode@n1: http 200; text is \"planned\"",
            "node@n1 → proxy metrics@n1: http 200; metric m{a=\"1\"} is at least 0",
        ]
    );
    let flows: Vec<_> = script.steps[0].rows.iter().map(|row| &row.flow).collect();
    assert_eq!((flows[0].size, &flows[0].http), (4000, &None));
    assert_eq!(flows[1].http.as_ref().map(|asked| asked.path.as_str()), Some("/x"));
    // The node itself asks where the page is; others ask the node's address.
    assert_eq!(flows[2].frontend, FrontendKind::Page);
    assert_eq!(flows[2].to.to_string(), "127.0.0.1:1");
    assert_eq!(flows[3].to.to_string(), "[fd00:172:18:1::2]:1");
    let later = &script.steps[1].rows[0].text;
    assert!(later.ends_with("metric m{a=\"1\"} grows"), "{later}");
}

#[test]
fn what_pages_need() {
    let variant = variant(PAGES);
    assert!(variant.lab_needs().contains("pages"));
    let features: Vec<String> = variant.features().iter().map(ToString::to_string).collect();
    for feature in ["metrics", "proxy-mode-page", "health-check-node-port"] {
        assert!(features.iter().any(|known| known == feature), "{feature}");
    }
}

#[test]
fn wrong_questions() {
    check_error(PAGES, "4kB", "4k", "a size is written `500B`, `64kB` or `2MB`");
    check_error(PAGES, "size: 4kB, reaches", "path: /x, reaches", "`path` and `shows` are for");
    check_error(PAGES, "path: /x", "path: x", "`x` is not a path");
    check_error(PAGES, "proxy mode@n1", "proxy modes@n1", "`modes` is not a page of a proxy");
    check_error(PAGES, "text: $mode }", "text: $mode }, is: any", "exactly one of `reaches`");
    check_error(PAGES, "shows: { text: $mode }", "is: any", "a page of a proxy is pinned by");
    check_error(PAGES, "atLeast: 0", "atLeast: some", "exactly one of `is`, `atLeast`");
    check_error(PAGES, "atLeast: 0", "grows: true", "nothing to grow from");
    check_error(PAGES, "'m{a=\"1\"}', atLeast", "'m{a}', atLeast", "`m{a}` is not a metric");
    check_error(PAGES, "/x, shows: { json", "/x, shows: { is: 1, json", "are about a `metric`");
}
