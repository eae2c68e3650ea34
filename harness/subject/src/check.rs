//! What `subject.yaml` must fulfil beyond its types.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use crate::file::{FileError, Text};
use crate::format::{ImageSource, LogPlace, Source, SubjectFile};
use crate::name::ValueName;
use crate::template::Template;
use crate::{listed, suggest};

const LAUNCH_NAMES: &[&str] = &[
    "program",
    "release",
    "mode",
    "configuration",
    "values",
    "feature_gates",
    "run_dir",
    "api_server",
    "node.name",
    "node.addresses",
    "cluster_cidrs",
    "service_cidrs",
    "proxy.node_port_addresses",
    "proxy.detect_local",
    "proxy.bridge_interface",
    "proxy.interface_name_prefix",
    "proxy.masquerade_all",
    "proxy.localhost_node_ports",
    "proxy.sync_period",
    "proxy.min_sync_period",
    "proxy.scheduler",
    "proxy.strict_arp",
    "proxy.udp_timeout",
    "proxy.tcp_timeout",
    "proxy.tcp_fin_timeout",
    "proxy.exclude_cidrs",
];

const SOURCE_NAMES: &[&str] = &["release", "arch"];

type Checked = Result<(), Box<FileError>>;

pub(crate) fn check(text: Text<'_>, subject: &SubjectFile) -> Checked {
    check_places(text, subject)?;
    check_binary(text, subject)?;
    check_cluster(text, subject)?;
    check_modes(text, subject)?;
    check_values(text, subject)?;
    check_templates(text, subject)
}

/// It must run somewhere, and in the lab nothing runs without a program.
fn check_places(text: Text<'_>, subject: &SubjectFile) -> Checked {
    let lacks = |message: &str| Err(text.error(&subject.format, message, None));
    match (&subject.binary, &subject.lab, &subject.cluster) {
        (None, Some(_), _) => lacks("`lab` needs a `binary`, which says where the program is"),
        (_, None, None) => lacks(
            "it runs nowhere: add `binary` and `lab` for the lab, `cluster` for clusters, or both",
        ),
        (Some(_) | None, _, _) => Ok(()),
    }
}

fn check_cluster(text: Text<'_>, subject: &SubjectFile) -> Checked {
    let Some(cluster) = &subject.cluster else { return Ok(()) };
    if cluster.manifests.value.is_empty() {
        return Err(text.error(
            &cluster.manifests,
            "no manifest puts it into a cluster; name files, or leave `cluster` out",
            None,
        ));
    }
    for path in &cluster.manifests.value {
        if path.value.is_empty() {
            return Err(text.error(path, "the path of the manifest is empty", None));
        }
    }
    for image in &cluster.images {
        match image {
            ImageSource::Archive(path) if path.value.is_empty() => {
                return Err(text.error(path, "the path of the archive is empty", None));
            }
            ImageSource::Archive(_) => {}
            ImageSource::Binary(name) if subject.binary.is_none() => {
                let message = "an image of the program needs a `binary`, which says where it is";
                return Err(text.error(name, message, None));
            }
            ImageSource::Binary(name) if !is_local(&name.value) => {
                let message = format!(
                    "`{}` could be asked of a registry; name the image localhost/NAME:TAG",
                    name.value
                );
                return Err(text.error(name, message, None));
            }
            ImageSource::Binary(_) => {}
        }
    }
    Ok(())
}

/// Whether an image has a tag and the name of no registry that could be asked for it.
fn is_local(name: &str) -> bool {
    let Some((path, tag)) = name.strip_prefix("localhost/").and_then(|name| name.split_once(':'))
    else {
        return false;
    };
    let plain = |text: &str, more: &str| {
        text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
    };
    plain(path, "-_./") && plain(tag, "-_.")
}

fn check_binary(text: Text<'_>, subject: &SubjectFile) -> Checked {
    let Some(binary) = &subject.binary else { return Ok(()) };
    if binary.sources.value.is_empty() {
        return Err(text.error(
            &binary.sources,
            "no source names a binary; add `path`, `download` or `go`",
            None,
        ));
    }
    let names = SOURCE_NAMES.iter().map(|&name| name.to_owned()).collect();
    for source in &binary.sources.value {
        let needs_release = match source {
            Source::Path(path) => {
                if path.value.is_empty() {
                    return Err(text.error(path, "the path of the binary is empty", None));
                }
                false
            }
            Source::Download { url, sha256 } => {
                url.check(text, &names)?;
                sha256.check(text, &names)?;
                true
            }
            Source::Go(_) => true,
        };
        if needs_release && binary.releases.is_none() {
            let message = "a download or a build needs `releases` beside `sources`";
            return Err(text.error(&binary.sources, message, None));
        }
    }
    if let Some(releases) = &binary.releases
        && !releases.supported.contains(&releases.default.value)
    {
        let message = format!(
            "the default release {} is not within the supported ones, {}",
            releases.default.value, releases.supported
        );
        return Err(text.error(&releases.default, message, None));
    }
    Ok(())
}

fn check_modes(text: Text<'_>, subject: &SubjectFile) -> Checked {
    for (feature, claim) in subject.modes.values().flat_map(|mode| &mode.without) {
        if !subject.features.contains_key(feature) {
            let message = format!(
                "the subject declares no `{}` that a mode could be without",
                feature.name()
            );
            return Err(text.error(claim, message, None));
        }
    }
    match &subject.default_mode {
        Some(mode) if !subject.modes.contains_key(&mode.value) => {
            let known = || subject.modes.keys().map(|mode| mode.as_str());
            let message =
                format!("no mode is called `{}`; there are: {}", mode.value, listed(known()));
            Err(text.error(mode, message, suggest(mode.value.as_str(), known())))
        }
        None if subject.modes.len() > 1 => {
            let message = format!(
                "of several modes one must be the `default-mode`: {}",
                listed(subject.modes.keys())
            );
            Err(match &subject.binary {
                Some(binary) => text.error(&binary.sources, message, None),
                None => text.error(&subject.format, message, None),
            })
        }
        Some(_) | None => Ok(()),
    }
}

fn check_values(text: Text<'_>, subject: &SubjectFile) -> Checked {
    let known: BTreeSet<&ValueName> = subject.values.keys().collect();
    let modes = subject.modes.values().flat_map(|mode| &mode.values);
    let configurations = subject.configurations.values().flat_map(|conf| &conf.values);
    for (name, value) in modes.chain(configurations) {
        if !known.contains(name) {
            let message = format!(
                "no value is called `{name}`; declared under `values` are: {}",
                listed(&known)
            );
            let meant = suggest(name.as_str(), known.iter().map(|name| name.as_str()));
            return Err(text.error(value, message, meant));
        }
    }
    Ok(())
}

fn check_templates(text: Text<'_>, subject: &SubjectFile) -> Checked {
    let mut names: BTreeSet<String> = LAUNCH_NAMES.iter().map(|&name| name.to_owned()).collect();
    names.extend(subject.values.keys().map(|name| format!("values.{name}")));
    for template in subject.modes.values().flat_map(|mode| mode.rules.iter().flatten()) {
        template.check(text, &names)?;
    }
    let Some(lab) = &subject.lab else { return Ok(()) };
    let log = match &lab.log {
        LogPlace::Output => None,
        LogPlace::File(path) => Some(path),
    };
    let templates: Vec<&Template> = lab
        .args
        .iter()
        .chain(lab.env.values())
        .chain(lab.files.values())
        .chain(&lab.healthz)
        .chain(&lab.livez)
        .chain(&lab.mode)
        .chain(&lab.metrics)
        .chain(log)
        .chain(&lab.clean_up)
        .collect();
    for template in templates {
        template.check(text, &names)?;
    }
    for (path, contents) in &lab.files {
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if path.is_empty() || !Path::new(path).components().all(plain) {
            let message = format!("the file `{path}` must lie below the run directory");
            return Err(text.error(contents.placed(), message, None));
        }
    }
    Ok(())
}
