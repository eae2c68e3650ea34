//! Subject files: what is refused, and with which words; what is selected and rendered.

use std::collections::{BTreeMap, BTreeSet};

use touchstone_subject::{
    Catalog, KnownFailures, ModeName, Origin, Release, Selector, Subject, SubjectName,
    known_failures_schema, subject_schema,
};

type Done = Result<(), Box<dyn std::error::Error>>;

const GOOD: &str = "\
format: 1
about: A proxy for tests.
binary:
  name: my-proxy
  sources: [{ path: ./my-proxy }]
values: { period: 1s }
default-mode: one
modes:
  one: { about: The first. }
  two: { about: The second., values: { period: 2s } }
lab:
  args: ['--period={{ values.period }}']
";

fn check(text: &str, want: &str) -> Done {
    let name = SubjectName::new("my-proxy")?;
    let got = match Subject::from_text(name, Origin::Bundled, "subject.yaml", text) {
        Ok(_) => "accepted".to_owned(),
        Err(err) => err.to_string(),
    };
    assert_eq!(got, want, "\n{text}");
    Ok(())
}

fn without(line: &str) -> String {
    GOOD.replace(line, "")
}

#[test]
fn a_replacement_needs_one_file() -> Done {
    check(GOOD, "accepted")
}

#[test]
fn a_subject_runs_somewhere() -> Done {
    let lab = "lab:\n  args: ['--period={{ values.period }}']\n";
    check(
        &without(lab),
        "subject.yaml:1:9: it runs nowhere: add `binary` and `lab` for the lab, `cluster` for \
         clusters, or both",
    )?;
    let cluster = "cluster: { manifests: [proxy.yaml] }\n";
    check(&GOOD.replace(lab, cluster), "accepted")?;
    let alone = "format: 1\nabout: For clusters.\nuntested: true\n";
    check(&format!("{alone}{cluster}"), "accepted")
}

#[test]
fn what_puts_a_subject_into_a_cluster_is_checked() -> Done {
    let with = |cluster: &str| format!("{GOOD}cluster: {cluster}\n");
    check(&with("{ manifests: [a.yaml], own-network: true, made-by: helm }"), "accepted")?;
    check(
        &with("{ manifests: [] }"),
        "subject.yaml:13:23: no manifest puts it into a cluster; name files, or leave `cluster` out",
    )?;
    check(&with("{ manifests: [''] }"), "subject.yaml:13:24: the path of the manifest is empty")?;
    check(
        &with("{ manifests: [a.yaml], images: [{ archive: '' }] }"),
        "subject.yaml:13:53: the path of the archive is empty",
    )?;
    check(
        &with("{ manifests: [a.yaml], images: [{ binary: localhost/my-proxy:1 }] }"),
        "accepted",
    )?;
    for name in ["my-proxy:1", "localhost/my-proxy", "localhost/:1", "docker.io/my-proxy:1"] {
        check(
            &with(&format!("{{ manifests: [a.yaml], images: [{{ binary: '{name}' }}] }}")),
            &format!(
                "subject.yaml:13:52: `{name}` could be asked of a registry; name the image \
                 localhost/NAME:TAG"
            ),
        )?;
    }
    let alone = "format: 1\nabout: For clusters.\n";
    check(
        &format!(
            "{alone}cluster: {{ manifests: [a.yaml], images: [{{ binary: localhost/p:1 }}] }}\n"
        ),
        "subject.yaml:3:52: an image of the program needs a `binary`, which says where it is",
    )
}

#[test]
fn a_subject_without_a_binary_is_refused() -> Done {
    let binary = "binary:\n  name: my-proxy\n  sources: [{ path: ./my-proxy }]\n";
    check(
        &without(binary),
        "subject.yaml:1:9: `lab` needs a `binary`, which says where the program is",
    )?;
    check(
        &GOOD.replace("[{ path: ./my-proxy }]", "[]"),
        "subject.yaml:5:12: no source names a binary; add `path`, `download` or `go`",
    )?;
    check(
        &GOOD.replace("path: ./my-proxy", "go: { module: a.example/b, package: a.example/b/c }"),
        "subject.yaml:5:12: a download or a build needs `releases` beside `sources`",
    )
}

#[test]
fn an_unknown_key_is_refused_with_a_suggestion() -> Done {
    check(
        &GOOD.replace("default-mode", "defualt-mode"),
        "subject.yaml:7:1: unknown key `defualt-mode`, known are: format, about, reference, \
         untested, binary, values, default-mode, modes, configurations, features, lab, cluster; \
         did you mean `default-mode`?",
    )?;
    check(
        &GOOD.replace("{ path:", "{ paht:"),
        "subject.yaml:5:15: unknown choice `paht`, known are: path, download, go; \
         did you mean `path`?",
    )
}

#[test]
fn a_wrong_type_is_refused() -> Done {
    check(
        &GOOD.replace("modes:\n  one: { about: The first. }", "modes:\n  one: 1"),
        "subject.yaml:9:8: expected mapping start",
    )?;
    check(
        &GOOD.replace("format: 1", "format: 2"),
        "subject.yaml:1:9: format 2 is not known, this program reads format 1",
    )
}

#[test]
fn an_unknown_mode_is_refused() -> Done {
    check(
        &GOOD.replace("default-mode: one", "default-mode: ones"),
        "subject.yaml:7:15: no mode is called `ones`; there are: one, two; did you mean `one`?",
    )?;
    check(
        &without("default-mode: one\n"),
        "subject.yaml:5:12: of several modes one must be the `default-mode`: one, two",
    )
}

#[test]
fn an_unknown_value_or_template_name_is_refused() -> Done {
    check(
        &GOOD.replace("{ period: 2s }", "{ perod: 2s }"),
        "subject.yaml:10:47: no value is called `perod`; declared under `values` are: period; \
         did you mean `period`?",
    )?;
    let names = "api_server, cluster_cidrs, configuration, feature_gates, mode, node.addresses, \
                 node.name, program, proxy.bridge_interface, proxy.detect_local, \
                 proxy.exclude_cidrs, \
                 proxy.interface_name_prefix, proxy.localhost_node_ports, proxy.masquerade_all, \
                 proxy.min_sync_period, proxy.node_port_addresses, proxy.scheduler, proxy.strict_arp, \
                 proxy.sync_period, proxy.tcp_fin_timeout, proxy.tcp_timeout, \
                 proxy.udp_timeout, release, run_dir, service_cidrs, values, values.period";
    check(
        &GOOD.replace("values.period }}", "values.perod }}"),
        &format!(
            "subject.yaml:12:10: the template uses `values.perod`, known are: {names}; \
             did you mean `values.period`?"
        ),
    )?;
    check(
        &GOOD.replace("values.period }}", "values.period"),
        "subject.yaml:12:10: the template cannot be read in its line 1: unexpected end of input, \
         expected end of variable block",
    )
}

#[test]
fn a_bad_release_range_is_refused() -> Done {
    check(
        &GOOD.replace("The first.", "The first., releases: '1.30'"),
        "subject.yaml:9:39: `1.30` is not a range of releases (`1.30` lacks one of < <= > >= =); \
         write for example `>=1.29, <1.31`",
    )
}

fn select(text: &str) -> Result<String, Box<dyn std::error::Error>> {
    let selector: Selector = text.parse()?;
    Ok(match Catalog::bundled()?.select(&selector) {
        Ok(selection) => format!(
            "{} {} {} {}",
            selection.subject.name,
            selection.mode,
            selection.configuration,
            selection.release().map_or_else(|| "-".to_owned(), Release::to_string)
        ),
        Err(err) => err.to_string(),
    })
}

#[test]
fn the_bundled_subject_is_selected() -> Done {
    assert_eq!(select("kube-proxy")?, "kube-proxy iptables default v1.37.2");
    assert_eq!(select("kube-proxy:nftables+fast@v1.30.0")?, "kube-proxy nftables fast v1.30.0");
    Ok(())
}

#[test]
fn what_cannot_be_selected_says_what_exists() -> Done {
    assert_eq!(
        select("kube-prox")?,
        "no subject is called `kube-prox`; there are: antrea, calico-ebpf, cilium, kube-proxy, \
         kube-router, ovn-kubernetes; did you mean `kube-proxy`?"
    );
    assert_eq!(
        select("kube-proxy:nftable")?,
        "no mode is called `nftable`; there are: iptables, ipvs, nftables, userspace; \
         did you mean `nftables`?"
    );
    assert_eq!(
        select("kube-proxy+slow")?,
        "no configuration is called `slow`; there are: default, fast"
    );
    assert_eq!(
        select("kube-proxy:nftables@v1.25.4")?,
        "kube-proxy v1.25.4 has no mode nftables: it exists in >=1.29"
    );
    assert_eq!(
        select("kube-proxy@v1.20.0")?,
        "kube-proxy v1.20.0 is not supported: the subject's file describes >=1.25"
    );
    Ok(())
}

#[test]
fn features_follow_the_release_and_the_mode() -> Done {
    let catalog = Catalog::bundled()?;
    let selection = catalog.select(&"kube-proxy".parse()?)?;
    let has =
        |mode: &str, release: &str, feature: &str| -> Result<bool, Box<dyn std::error::Error>> {
            let release: Release = release.parse()?;
            let features = selection.subject.features(&ModeName::new(mode)?, Some(&release));
            Ok(features.keys().any(|name| name.name() == feature))
        };
    assert!(!has("iptables", "v1.25.4", "load-balancer-ip-mode")?);
    assert!(has("iptables", "v1.30.0", "load-balancer-ip-mode")?);
    assert!(!has("iptables", "v1.30.0", "node-hints")?);
    assert!(has("nftables", "v1.37.2", "node-hints")?);
    assert!(has("iptables", "v1.37.2", "localhost-node-ports")?);
    assert!(!has("nftables", "v1.37.2", "localhost-node-ports")?);
    assert!(has("iptables", "v1.25.4", "source-ranges")?);
    assert!(!has("userspace", "v1.25.4", "source-ranges")?);
    Ok(())
}

#[test]
fn an_exit_by_design_is_known_by_its_log() -> Done {
    let catalog = Catalog::bundled()?;
    let subject = catalog.select(&"kube-proxy".parse()?)?.subject;
    let new: Release = "v1.37.2".parse()?;
    let old: Release = "v1.30.0".parse()?;
    let deleted = "I1122 node.go:218] \"Node is being deleted\" node=\"n1\"";
    let when =
        |release, log: &str| subject.exit_by_design(Some(release), log).map(|exit| &*exit.when);
    assert_eq!(when(&new, deleted), Some("the own Node was deleted"));
    assert_eq!(when(&old, deleted), None);
    assert_eq!(when(&new, "panic: runtime error"), None);
    Ok(())
}

const KNOWN: &str = "\
format: 1
known-failures:
  - cases: [lifecycle/stale]
    axes: { family: v6 }
    modes: [iptables]
    releases: '<1.31'
    reason: A stale endpoint stays.
    evidence: Seen on v1.30.0.
    owner: someone
    expires: 2027-03-31
  - cases: [lifecycle/other]
    reason: r
    evidence: e
    owner: o
    expires: 2026-01-01
";

#[test]
fn known_failures_are_found_by_everything_they_name() -> Done {
    let known = KnownFailures::from_text("known-failures.yaml", KNOWN)?;
    let find = |mode: &str, release: &str, case: &str, family: &str| {
        let axes = BTreeMap::from([
            ("family".to_owned(), family.to_owned()),
            ("protocol".to_owned(), "tcp".to_owned()),
        ]);
        let found = known.find(&ModeName::new(mode)?, Some(&release.parse()?), case, &axes);
        Ok::<_, Box<dyn std::error::Error>>(found.map(|entry| entry.line))
    };
    assert_eq!(find("iptables", "v1.30.0", "lifecycle/stale", "v6")?, Some(3));
    assert_eq!(find("iptables", "v1.30.0", "lifecycle/stale", "v4")?, None);
    assert_eq!(find("iptables", "v1.31.0", "lifecycle/stale", "v6")?, None);
    assert_eq!(find("nftables", "v1.30.0", "lifecycle/stale", "v6")?, None);
    assert_eq!(find("nftables", "v1.30.0", "lifecycle/other", "v6")?, Some(11));
    Ok(())
}

#[test]
fn unused_and_expired_entries_are_listed() -> Done {
    let known = KnownFailures::from_text("known-failures.yaml", KNOWN)?;
    let lines = |mode: &str, used: &[u64]| {
        let used: BTreeSet<u64> = used.iter().copied().collect();
        let unused = known.unused(&ModeName::new(mode)?, Some(&"v1.30.0".parse()?), &used);
        Ok::<_, Box<dyn std::error::Error>>(
            unused.iter().map(|entry| entry.line).collect::<Vec<_>>(),
        )
    };
    assert_eq!(lines("iptables", &[])?, [3, 11]);
    assert_eq!(lines("iptables", &[3])?, [11]);
    assert_eq!(lines("nftables", &[])?, [11]);
    let today = time::macros::date!(2026 - 01 - 02);
    let expired: Vec<u64> = known.expired(today).iter().map(|entry| entry.line).collect();
    assert_eq!(expired, [11]);
    assert!(known.expired(time::macros::date!(2026 - 01 - 01)).is_empty());
    Ok(())
}

fn check_known(text: &str, want: &str) {
    let got = match KnownFailures::from_text("known-failures.yaml", text) {
        Ok(_) => "accepted".to_owned(),
        Err(err) => err.to_string(),
    };
    assert_eq!(got, want, "\n{text}");
}

#[test]
fn bad_known_failures_are_refused() {
    check_known(KNOWN, "accepted");
    check_known(
        &KNOWN.replace("    owner: o\n", ""),
        "known-failures.yaml:14:5: missing field `owner`",
    );
    check_known(
        &KNOWN.replace("lifecycle/other", "lifecycle/*"),
        "known-failures.yaml:11:13: `lifecycle/*` is not the exact id of a case; \
         choose variants by `axes`",
    );
    check_known(
        &KNOWN.replace("2026-01-01", "2026-13-01"),
        "known-failures.yaml:15:14: `2026-13-01` is not a day (the 'month' component could not \
         be parsed); write for example 2027-03-31",
    );
    check_known(
        &KNOWN.replace("[lifecycle/other]", "[]"),
        "known-failures.yaml:11:5: `cases` is empty: name at least one",
    );
    check_known(
        &KNOWN.replace("    modes:", "    mode:"),
        "known-failures.yaml:5:5: unknown key `mode`, known are: cases, axes, modes, releases, \
         intermittent, reason, evidence, link, owner, expires; did you mean `modes`?",
    );
}

#[test]
fn schemas_name_the_keys() -> Done {
    let subject = serde_json::to_value(subject_schema())?;
    let required = subject.pointer("/required").cloned().unwrap_or_default();
    assert_eq!(required, serde_json::json!(["format", "about"]));
    assert_eq!(subject.pointer("/additionalProperties"), Some(&serde_json::json!(false)));
    let known = serde_json::to_value(known_failures_schema())?;
    assert!(known.pointer("/properties/known-failures").is_some());
    Ok(())
}
