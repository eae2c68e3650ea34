//! Selection expressions in, ids out.

use touchstone_case::select::Selection;
use touchstone_case::{Library, Variant, digest};

fn library() -> Library {
    let case = |level: &str, axes: &str, service: &str, profile: &str| {
        format!(
            "about: a\ncovers: [b]\nlevel: {level}\naxes: {axes}\n{profile}world:\n  services:\n    \
             web: {{ {service}ports: [{{ name: p, port: 80 }}] }}\nsteps: [{{ matrix: true }}]\n"
        )
    };
    let basic = case("must", "{ protocol: [tcp, udp] }", "", "profile: [smoke]\n");
    let policy = case("should", "{ family: [dual] }", "type: NodePort, ", "");
    let even = case("survey", "{ family: [v6] }", "", "");
    Library::of_texts([
        ("behaviours.yaml", "b: { statement: s, level: must, why: w, source: s }"),
        ("cluster-ip/basic.yaml", basic.as_str()),
        ("cluster-ip/even.yaml", even.as_str()),
        ("node-port/basic.yaml", policy.as_str()),
    ])
    .unwrap_or_else(|errors| panic!("{}", errors.render()))
}

fn ids(selection: &Selection) -> String {
    let variants = library().variants();
    let ids: Vec<String> =
        variants.iter().filter(|variant| selection.matches(variant)).map(Variant::id).collect();
    ids.join(" ")
}

fn check(expression: &str, want: &str) {
    let got = match Selection::expression(expression) {
        Ok(selection) => ids(&selection),
        Err(error) => error.to_string(),
    };
    assert_eq!(got, want, "{expression}");
}

fn check_pattern(pattern: &str, want: &str) {
    let got = match Selection::pattern(pattern) {
        Ok(selection) => ids(&selection),
        Err(error) => error.to_string(),
    };
    assert_eq!(got, want, "{pattern}");
}

const BASIC: &str = "cluster-ip/basic[v4,tcp] cluster-ip/basic[v4,udp] \
                     cluster-ip/basic[v6,tcp] cluster-ip/basic[v6,udp]";
const EVEN: &str = "cluster-ip/even[v6,tcp]";
const NODE_PORT: &str = "node-port/basic[dual,tcp]";

#[test]
fn patterns() {
    check_pattern("cluster-ip", &format!("{BASIC} {EVEN}"));
    check_pattern("cluster-ip/*", &format!("{BASIC} {EVEN}"));
    check_pattern("*/basic", &format!("{BASIC} {NODE_PORT}"));
    check_pattern("cluster-ip/basic", BASIC);
    check_pattern("cluster-ip/basic[v6,udp]", "cluster-ip/basic[v6,udp]");
    check_pattern("nothing", "");
    assert_eq!(
        ids(&Selection::patterns([]).expect("no patterns are fine")),
        format!("{BASIC} {EVEN} {NODE_PORT}"),
    );
    assert_eq!(
        ids(&Selection::patterns(["node-port", "*/even"]).expect("two patterns")),
        format!("{EVEN} {NODE_PORT}"),
    );
}

#[test]
fn expressions() {
    check("all()", &format!("{BASIC} {EVEN} {NODE_PORT}"));
    check("none()", "");
    check("level(must)", BASIC);
    check("level(must) and protocol(udp)", "cluster-ip/basic[v4,udp] cluster-ip/basic[v6,udp]");
    check("level(must) & protocol(udp) & not family(v4)", "cluster-ip/basic[v6,udp]");
    check("area(cluster-ip) - profile(smoke)", EVEN);
    check("level(survey) or feature(node-port)", &format!("{EVEN} {NODE_PORT}"));
    check("!(level(survey) | level(must))", NODE_PORT);
    check(
        "level(survey) or level(must) and family(v4) and protocol(tcp)",
        &format!("cluster-ip/basic[v4,tcp] {EVEN}"),
    );
    check("id(*/basic) and family(dual)", NODE_PORT);
    check("covers(b) and id(node-port/basic[dual,tcp])", NODE_PORT);
    check("profile(all) and area(node-port)", NODE_PORT);
}

#[test]
fn wrong_expressions_show_where() {
    check(
        "level(must) and",
        "failed to read the selection: expected a set, such as `level(must)`, `not` or `(`\n  \
         level(must) and\n                 ^",
    );
    check(
        "level(mst)",
        "failed to read the selection: `mst` is not known; did you mean `must`?\n  \
         level(mst)\n        ^",
    );
    check(
        "lvl(must)",
        "failed to read the selection: there is no set `lvl`; did you mean `level`?\n  \
         lvl(must)\n  ^",
    );
    check(
        "(level(must)",
        "failed to read the selection: expected `)`\n  (level(must)\n              ^",
    );
    check(
        "level(must) level(may)",
        "failed to read the selection: expected `and`, `or` or the end\n  \
         level(must) level(may)\n              ^",
    );
}

#[test]
fn a_digest_tells_plans_apart_and_ignores_their_order() {
    let variants = library().variants();
    let whole = digest(&variants);
    assert_eq!(whole.len(), 64);
    assert_eq!(whole, digest(variants.iter().rev()));
    assert_ne!(whole, digest(&variants[1..]));
    let other = Library::of_texts([
        ("behaviours.yaml", "b: { statement: s, level: must, why: w, source: s }"),
        ("cluster-ip/even.yaml", &variants[4].case().text().replace("about: a", "about: b")),
    ])
    .unwrap_or_else(|errors| panic!("{}", errors.render()));
    assert_eq!(other.variants()[0].id(), variants[4].id());
    assert_ne!(digest(&other.variants()), digest(&variants[4..5]));
}
