//! Wrong case files in, messages out.

use touchstone_case::{Library, Variant, check, compile, planned_book};
use touchstone_spec::Features;

const BEHAVIOURS: &str = "clusterip-basic: { statement: s, level: must, why: w, source: s }\n";

const GOOD: &str = "\
about: a
covers: [clusterip-basic]
level: must
axes: { family: [v4] }
world:
  services:
    web: { ports: [{ name: p, port: 80 }] }
  endpoints:
    web: { a: { node: n1 }, b: { node: n2 } }
steps:
  - expect:
      - { from: pod, to: web clusterIP, reaches: [a, b] }
";

fn messages(text: &str) -> String {
    match Library::of_texts([("behaviours.yaml", BEHAVIOURS), ("x/y.yaml", text)]) {
        Ok(_) => "fine".to_owned(),
        Err(errors) => errors.to_string(),
    }
}

/// Replaces a part of the good case and compares what is said about the result.
fn check_error(part: &str, with: &str, want: &str) {
    assert!(GOOD.contains(part), "no such part: {part}");
    let got = messages(&GOOD.replace(part, with));
    assert_eq!(got, want, "{with}");
}

#[test]
fn the_good_case_is_good() {
    assert_eq!(messages(GOOD), "fine");
}

#[test]
fn only_damage_goes_without_a_marker() {
    let alone = GOOD.replace("level: must\n", "level: must\nneeds: { alone: true }\n");
    let said =
        |change: &str| messages(&format!("{alone}  - change: [{change}]\n    marker: false\n"));
    assert_eq!(said("{ virtualServer: web clusterIP, on: n1, remove: true }"), "fine");
    assert_eq!(
        said("{ endpoint: web/a, remove: true }"),
        "x/y.yaml:14:5: `marker: false` is for damage alone: without a marker nobody knows when a \
         proxy has read a change of the API"
    );
    check_error(
        "  - expect:",
        "  - marker: false\n    expect:",
        "x/y.yaml:11:5: the first step has a marker in any case",
    );
}

#[test]
fn unknown_keys_come_with_a_suggestion() {
    check_error(
        "level: must",
        "levle: must",
        "x/y.yaml:3:1: unknown key `levle`; did you mean `level`?",
    );
    check_error(
        "ports: [{ name: p",
        "externalTrafficPolcy: Local, ports: [{ name: p",
        "x/y.yaml:7:12: unknown key `externalTrafficPolcy`; did you mean `externalTrafficPolicy`?",
    );
    check_error(
        "reaches: [a, b]",
        "reach: [a, b]",
        "x/y.yaml:12:41: unknown key `reach`; did you mean `reaches`?",
    );
    check_error(
        "family: [v4]",
        "familly: [v4]",
        "x/y.yaml:4:9: unknown key `familly`; did you mean `family`?",
    );
}

#[test]
fn a_snippet_shows_the_place() {
    let text = GOOD.replace("level: must", "levle: must");
    let errors = Library::of_texts([("behaviours.yaml", BEHAVIOURS), ("x/y.yaml", &text)])
        .expect_err("the key is wrong");
    let want = "  × x/y.yaml:3:1: unknown key `levle`; did you mean `level`?
   ╭─[x/y.yaml:3:1]
 2 │ covers: [clusterip-basic]
 3 │ levle: must
   · ──┬──
   ·   ╰── here
 4 │ axes: { family: [v4] }
   ╰────
  help: did you mean `level`?
";
    assert_eq!(errors.render(), want);
}

#[test]
fn values_of_the_wrong_type() {
    check_error("port: 80", "port: http", "x/y.yaml:7:37: expected a number up to 65535");
    check_error(
        "level: must",
        "level: shall",
        "x/y.yaml:3:8: unknown value `shall`; known: must, should, may, survey",
    );
    check_error(
        "to: web clusterIP",
        "to: { web: clusterIP }",
        "x/y.yaml:12:26: expected a word or a list of words, found map",
    );
}

#[test]
fn networks_that_cannot_be() {
    let with = |network: &str, axes: &str| {
        messages(&GOOD.replace(
            "axes: { family: [v4] }",
            &format!("needs: {{ alone: true, network: {network} }}\naxes: {{ family: {axes} }}"),
        ))
    };
    assert_eq!(with("{ only: v4 }", "[v4]"), "fine");
    let other = "nodes have v6 only, so `axes.family` is [v6]";
    assert!(with("{ only: v6 }", "[v4]").contains(other));
    assert!(with("{ mtu: 600 }", "[v4]").contains("an MTU is 1280 to 65535 bytes"));
    let twice = "`firewall` has the same owner twice";
    assert!(with("{ firewall: [policy, policy] }", "[v4]").contains(twice));
    assert!(with("{ moreNodeAddresses: 101 }", "[v4]").contains("at most 100 further addresses"));
    check_error(
        "reaches: [a, b]",
        "reaches: [a, b], source: balancr",
        "x/y.yaml:12:66: a source is client, node, node@n1, balancer or any",
    );
}

#[test]
fn names_that_do_not_exist() {
    check_error(
        "b: { node: n2 }",
        "b: { node: n9 }",
        "x/y.yaml:9:40: there is no node `n9`; known: n1, n2, n3",
    );
    check_error(
        "to: web clusterIP",
        "to: wbe clusterIP",
        "x/y.yaml:12:26: there is no Service `wbe`; did you mean `web`?",
    );
    check_error(
        "reaches: [a, b]",
        "reaches: [a, c]",
        "x/y.yaml:12:54: web has no endpoint `c` in this step; known: a, b",
    );
    check_error(
        "to: web clusterIP",
        "to: web clusterIP:q",
        "x/y.yaml:12:26: web has no port `q`; known: p",
    );
    check_error(
        "from: pod,",
        "from: outside3,",
        "x/y.yaml:12:17: there is no outside client `outside3`; did you mean `outside2`?",
    );
    check_error(
        "level: must",
        "level: must\nneeds: { features: [nodeport] }",
        "x/y.yaml:4:21: unknown feature `nodeport`; did you mean `node-port`?",
    );
    check_error(
        "[clusterip-basic]",
        "[clusterip-basics]",
        "x/y.yaml:2:10: unknown behaviour `clusterip-basics`; did you mean `clusterip-basic`?",
    );
}

#[test]
fn no_case_is_more_binding_than_what_it_covers() {
    let behaviours = BEHAVIOURS.replace("must", "should");
    let told = |case: &str| match Library::of_texts([
        ("behaviours.yaml", behaviours.as_str()),
        ("x/y.yaml", case),
    ]) {
        Ok(_) => "fine".to_owned(),
        Err(errors) => errors.to_string(),
    };
    let want =
        "x/y.yaml:2:10: the case is `must`, and nothing that it covers is more than `should`";
    assert_eq!(told(GOOD), want);
    assert_eq!(told(&GOOD.replace("level: must", "level: may")), "fine");
}

#[test]
fn only_load_balancers_have_their_addresses() {
    check_error(
        "web: { ports",
        "web: { loadBalancer: 1, ports",
        "x/y.yaml:7:26: `web` is not of type LoadBalancer, so it has no balancer; the API server \
         clears the balancer's addresses of every other Service; leave `loadBalancer` out, or write 0",
    );
    let none = GOOD.replace("web: { ports", "web: { loadBalancer: 0, ports");
    assert_eq!(messages(&none), "fine");
}

#[test]
fn every_error_of_a_step_is_told_at_once() {
    let text = GOOD.replace(
        "      - { from: pod, to: web clusterIP, reaches: [a, b] }",
        "      - { from: pds, to: web clusterIP, reaches: [a, b] }\n      \
         - { from: pod, to: web clusterIp, reaches: [a, b] }\n      \
         - { from: pod@n1, to: web nodePort, is: refused }\n      \
         - { from: pod@n1, to: web clusterIP@n1, is: refused }\n      \
         - { from: pod, to: web clusterIP }",
    );
    let want = "\
x/y.yaml:12:17: a vantage is `pod@n1`, `pod`, `node@n1`, `node`, `outside`, `outside2`, `neighbour` or `web/a`
x/y.yaml:13:26: `clusterIp` is not a frontend: clusterIP, nodePort, externalIP, loadBalancer, healthCheck, name or endpoint/NAME; did you mean `clusterIP`?
x/y.yaml:14:29: no flow comes of it: the Service never had such a frontend; check the Service's type, its families and its addresses
x/y.yaml:15:17: only packets from outside enter by a node; pod@n1 is inside; leave out `@n1`
x/y.yaml:16:9: a row has exactly one of `reaches`, `is`, `shows`, `listed` and `answers`";
    assert_eq!(messages(&text), want);
}

#[test]
fn questions_are_checked() {
    let good = GOOD.replace("axes:", "needs: { dns: true }\naxes:");
    let row = |row: &str| good.replace("{ from: pod, to: web clusterIP, reaches: [a, b] }", row);
    let check = |text: &str, want: &str| assert_eq!(messages(&row(text)), want, "{text}");
    check("{ from: pod, asks: web A, answers: web clusterIP }", "fine");
    check(
        "{ from: pod, asks: web, answers: web clusterIP }",
        "x/y.yaml:13:28: a question is a name and a type, `web.$ns.svc A`, or an address and PTR, \
         `web clusterIP PTR`",
    );
    check(
        "{ from: pod, asks: web A, answers: web }",
        "x/y.yaml:13:44: `web` is no answer; an answer is `web clusterIP`, `web endpoint/a`, a \
         whole name, an address, `nothing` or `nxdomain`",
    );
    check(
        "{ from: pod, asks: web A, answers: [web clusterIP, nothing] }",
        "x/y.yaml:13:9: `nothing` and `nxdomain` do not stand beside records",
    );
    check(
        "{ from: pod, asks: web A, over: sctp, answers: web clusterIP }",
        "x/y.yaml:13:41: `sctp` is neither udp nor tcp",
    );
    check(
        "{ from: outside, asks: web A, answers: web clusterIP }",
        "x/y.yaml:13:17: clients outside the cluster do not ask its name server",
    );
    check(
        "{ from: pod, asks: web A, to: web clusterIP, answers: web clusterIP }",
        "x/y.yaml:13:9: a row has exactly one of `to` and `asks`",
    );
    check(
        "{ from: pod, to: web clusterIP, answers: web clusterIP }",
        "x/y.yaml:13:9: `answers` belongs to `asks`, or to a target `web name`, and stands alone",
    );
    check_error(
        "{ from: pod, to: web clusterIP, reaches: [a, b] }",
        "{ from: pod, asks: web A, answers: web clusterIP }",
        "x/y.yaml:12:28: the row asks for a name; write `needs: { dns: true }`",
    );
}

#[test]
fn changes_are_checked() {
    let step = |change: &str| format!("{GOOD}  - change: [{change}]\n");
    let check = |change: &str, want: &str| assert_eq!(messages(&step(change)), want, "{change}");
    check("{ endpoint: web/b, remove: true }", "fine");
    check("{ service: web, delete: true }", "fine");
    check(
        "{ endpoint: web/z, remove: true }",
        "x/y.yaml:13:26: web has no endpoint `z` in this step; known: a, b",
    );
    check(
        "{ endpoint: web/b }",
        "x/y.yaml:13:14: a change has exactly one of `set`, `add` or `remove`",
    );
    check(
        "{ endpoint: web/b, set: { node: n3 } }",
        "x/y.yaml:13:46: an endpoint cannot move; remove it, and add one of another name",
    );
    check(
        "{ proxy: n1, restart: true }",
        "x/y.yaml:13:14: stopping a proxy touches other cases on the cluster; write `needs: { alone: true }`",
    );
    check(
        "{ endpont: web/b, remove: true }",
        "x/y.yaml:13:16: unknown key `endpont`; did you mean `endpoint`?",
    );
    check(
        "{ endpoint: web/b, set: { redy: false } }",
        "x/y.yaml:13:40: unknown key `redy`; did you mean `ready`?",
    );
}

#[test]
fn a_source_port_is_for_what_is_kept() {
    let row = "      - { from: pod, to: web clusterIP, reaches: [a, b] }\n";
    let traffic = |end: &str| {
        format!(
            "{row}  - change: [{{ endpoint: web/b, remove: true }}]\n    traffic: {{ from: pod, to: \
             web clusterIP, rate: 9/s, {end} }}\n"
        )
    };
    let want = "x/y.yaml:14:69: `sourcePort` is for `keep: connection` over TCP or UDP, from 1 on";
    check_error(row, &traffic("sourcePort: 7000"), want);
    let want = want.replace("69", "87");
    check_error(row, &traffic("keep: connection, sourcePort: 0"), &want);
    check_error(row, &traffic("keep: connection, sourcePort: 7000"), "fine");
}

#[test]
fn ids_are_paths_and_are_taken_once() {
    let load = |paths: [&str; 2]| {
        let texts = paths.map(|path| (path, GOOD));
        Library::of_texts([("behaviours.yaml", BEHAVIOURS)].into_iter().chain(texts))
            .map_or_else(|errors| errors.to_string(), |_| "fine".to_owned())
    };
    assert_eq!(load(["x/y.yaml", "x/z.yaml"]), "fine");
    assert_eq!(load(["x/y.yaml", "x/y.yml"]), "x/y.yml: the id `x/y` is taken by x/y.yaml");
    assert_eq!(
        load(["x/y.yaml", "Y.yaml"]),
        "Y.yaml: `Y` is not an id: AREA/NAME of lower-case letters, digits and -",
    );
}

#[test]
fn a_pin_against_the_model_shows_both_and_the_reasons() {
    let text = GOOD.replace("reaches: [a, b]", "reaches: a, source: client");
    let library = Library::of_texts([("behaviours.yaml", BEHAVIOURS), ("x/y.yaml", &text)])
        .unwrap_or_else(|errors| panic!("{}", errors.render()));
    let variants = library.variants();
    let variant: &Variant = &variants[0];
    assert!(compile(variant, &mut planned_book(variant)).is_ok());
    let conflicts = check(variant, &Features::default()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(conflicts.len(), 3, "one for each node's client pod");
    let shown = conflicts[0].to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "x/y.yaml:12: the outcomes differ in x/y[v4,tcp] (step 1)");
    assert_eq!(lines[1], "  flow:  pod@n1 → web clusterIP (tcp 10.96.0.16:80)");
    assert_eq!(lines[2], "  pin:   reaches a; source client");
    assert_eq!(lines[3], "  model: reached web/a as pod@n1, reached web/b as pod@n1");
    assert!(lines[4].starts_with("    because "), "{shown}");
}

#[test]
fn endpoints_outside_and_loopback_addresses_have_their_places() {
    let said = |endpoint: &str, row: &str| {
        messages(
            &GOOD
                .replace("b: { node: n2 }", &format!("b: {endpoint}"))
                .replace("  - expect:\n", &format!("  - expect:\n      - {row}\n")),
        )
    };
    let check = |endpoint: &str, row: &str, want: &str| {
        let got = said(endpoint, row);
        assert!(got.contains(want), "{endpoint}, {row}: {got}");
    };
    let reached = "{ from: node@n2, to: web clusterIP, reaches: [a, b] }";
    check("{ outside: outside2 }", reached, "fine");
    check("{ outside: outside9 }", reached, "there is no outside client `outside9`");
    check("{ outside: outside, node: n1 }", reached, "neither `node` nor `hostNetwork`");
    check("{ outside: outside, ports: { p: 1 } }", reached, "collides with other cases");
    let on_host = "{ node: n2, hostNetwork: true }";
    let loopback =
        |from: &str| format!("{{ from: {from}, to: web endpoint/b@loopback, is: reached }}");
    check(on_host, &loopback("node@n2"), "fine");
    check(on_host, &loopback("node@n1"), "not to be sent to from node@n1");
    check(on_host, &loopback("pod@n2"), "not to be sent to from pod@n2");
    check("{ node: n2 }", &loopback("node@n2"), "is in no node's network");
}

#[test]
fn clients_of_the_step_before_leave_new_endpoints_to_others() {
    let said = |more: u8| {
        messages(&format!(
            "\
about: a
covers: [clusterip-basic]
level: must
axes: {{ family: [v4] }}
world:
  services:
    web: {{ type: NodePort, sessionAffinity: ClientIP, ports: [{{ name: p, port: 80 }}] }}
  endpoints:
    web: {{ a: {{ node: n1 }}, b: {{ node: n2 }} }}
steps:
  - expect:
      - {{ from: outside, to: web nodePort@n1, clients: 40, reaches: [a, b], sticky: true }}
  - change: [{{ endpoint: web/c, add: {{ node: n2 }} }}]
    expect:
      - {{ from: outside, to: web nodePort@n1, clients: {more}, reaches: [a, b, c], sticky: true }}
"
        ))
    };
    assert_eq!(said(94), "fine");
    assert!(said(93).contains("40 of these clients have an endpoint"), "{}", said(93));
    assert!(said(93).contains("write 94 clients or more"), "{}", said(93));
}
