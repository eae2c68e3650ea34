//! A subject's manifests and images: looked at before anything starts, rendered for one cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use ipnet::IpNet;
use minijinja::value::{Serde, Value};
use serde::Serialize;
use serde_json::Value as Json;

use crate::catalog::{Origin, Selection};
use crate::file::{FileError, Text};
use crate::format::ImageSource;
use crate::launch::values;
use crate::template::Template;

/// What manifests may know about the cluster that they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// An address of the API server that needs no Service.
    pub api_host: IpAddr,
    /// Its port.
    pub api_port: u16,
    /// Ranges of the pods' addresses, one for each family.
    pub cluster_cidrs: Vec<IpNet>,
    /// Ranges of the cluster IPs, one for each family.
    pub service_cidrs: Vec<IpNet>,
}

/// Everything that puts a subject into a cluster.
#[derive(Debug, Clone)]
pub struct Installation {
    /// Whether it makes the pods' interfaces itself.
    pub own_network: bool,
    /// What nodes must have beforehand.
    pub images: Vec<InstalledImage>,
    files: Vec<ManifestFile>,
    selection: Selection,
}

/// An image that every node gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstalledImage {
    /// An archive that is there.
    Archive(PathBuf),
    /// The subject's own program, in an image of this name.
    Binary(String),
}

#[derive(Debug, Clone)]
struct ManifestFile {
    path: PathBuf,
    template: Template,
}

/// A manifest as one cluster gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its file.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// What in it runs pods that can become ready.
    pub workloads: Vec<Workload>,
    /// Names of the kinds of objects that it adds to the API.
    pub new_kinds: Vec<String>,
}

/// An object that runs pods until it is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// `daemonset`, `deployment` or `statefulset`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Labels of its pods, as it selects them.
    pub labels: BTreeMap<String, String>,
}

/// A subject that cannot be put into a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bundled file stands alone.
    #[error(
        "{subject} is bundled without its manifests: take subjects/{subject}/subject.yaml of the \
         project into a folder of yours, put {file} beside it and name that file with \
         --subject{}", made_by(.made)
    )]
    Bundled {
        /// The subject.
        subject: String,
        /// The first file.
        file: String,
        /// Where it comes from.
        made: Option<String>,
    },
    /// A file is not there.
    #[error("{path}, which {subject} names, does not exist{}", made_by(.made))]
    Missing {
        /// The file.
        path: PathBuf,
        /// The subject.
        subject: String,
        /// Where it comes from.
        made: Option<String>,
    },
    /// A file cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is no template.
    #[error("{0} (text between {{% raw %}} and {{% endraw %}} stays as it is)")]
    Template(Box<FileError>),
    /// It is no YAML.
    #[error("a manifest is no YAML: {0}")]
    Yaml(Box<FileError>),
    /// It holds something else than API objects.
    #[error("document {number} of {path} is no API object: {lacks}")]
    Object {
        /// The file.
        path: PathBuf,
        /// Which document, from 1.
        number: usize,
        /// What it lacks.
        lacks: &'static str,
    },
}

fn made_by(made: &Option<String>) -> String {
    made.as_ref().map_or_else(String::new, |made| format!("; it comes from:\n{}", made.trim_end()))
}

const NAMES: &[&str] = &[
    "release",
    "mode",
    "configuration",
    "api_server",
    "api_host",
    "api_port",
    "cluster_cidrs",
    "service_cidrs",
];

#[derive(Serialize)]
struct Context<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<String>,
    mode: &'a str,
    configuration: &'a str,
    values: BTreeMap<&'a str, &'a Json>,
    api_server: String,
    api_host: IpAddr,
    api_port: u16,
    cluster_cidrs: &'a [IpNet],
    service_cidrs: &'a [IpNet],
}

impl Installation {
    /// Reads what a subject names; none where its file has no `cluster`.
    ///
    /// # Errors
    /// What is missing, with where it comes from, or the first mistake in a manifest.
    pub fn of(selection: &Selection) -> Result<Option<Self>, ManifestError> {
        let subject = &selection.subject;
        let Some(cluster) = &subject.file.cluster else { return Ok(None) };
        let names = cluster.manifests.value.iter().map(|path| path.value.as_str());
        if let (Origin::Bundled, Some(first)) = (&subject.origin, names.clone().next()) {
            return Err(ManifestError::Bundled {
                subject: subject.name.to_string(),
                file: first.to_owned(),
                made: cluster.made_by.clone(),
            });
        }
        let missing = |path: PathBuf| ManifestError::Missing {
            path,
            subject: subject.name.to_string(),
            made: cluster.made_by.clone(),
        };
        let mut files = Vec::new();
        for name in names {
            let path = subject.beside(name);
            let text = fs::read_to_string(&path).map_err(|source| {
                if source.kind() == io::ErrorKind::NotFound {
                    missing(path.clone())
                } else {
                    ManifestError::Read { path: path.clone(), source }
                }
            })?;
            files.push(ManifestFile { path, template: Template::of_file(text) });
        }
        let mut images = Vec::new();
        for image in &cluster.images {
            images.push(match image {
                ImageSource::Binary(name) => InstalledImage::Binary(name.value.clone()),
                ImageSource::Archive(name) => {
                    let path = subject.beside(&name.value);
                    if !path.is_file() {
                        return Err(missing(path));
                    }
                    InstalledImage::Archive(path)
                }
            });
        }
        let selection = selection.clone();
        let own_network = cluster.own_network;
        let installation = Self { own_network, images, files, selection };
        installation.check()?;
        Ok(Some(installation))
    }

    /// Finds mistakes by rendering for a cluster that nobody has.
    fn check(&self) -> Result<(), ManifestError> {
        let mut names: BTreeSet<String> = NAMES.iter().map(|&name| name.to_owned()).collect();
        let declared = self.selection.subject.file.values.keys();
        names.extend(declared.map(|name| format!("values.{name}")));
        for file in &self.files {
            let name = file.path.display().to_string();
            let text = Text { file: &name, text: file.template.text() };
            file.template.check(text, &names).map_err(ManifestError::Template)?;
        }
        let nowhere = Surroundings {
            api_host: IpAddr::from([192, 0, 2, 1]),
            api_port: 6443,
            cluster_cidrs: vec![IpNet::from(IpAddr::from([192, 0, 2, 1]))],
            service_cidrs: vec![IpNet::from(IpAddr::from([192, 0, 2, 2]))],
        };
        self.render(&nowhere).map(drop)
    }

    /// The manifests for one cluster, in their order.
    ///
    /// # Errors
    /// The first mistake that shows only with these facts.
    pub fn render(&self, facts: &Surroundings) -> Result<Vec<Manifest>, ManifestError> {
        let selection = &self.selection;
        let host = match facts.api_host {
            IpAddr::V4(host) => host.to_string(),
            IpAddr::V6(host) => format!("[{host}]"),
        };
        let context = Value::from(Serde(Context {
            release: selection.release().map(ToString::to_string),
            mode: selection.mode.as_str(),
            configuration: selection.configuration.as_str(),
            values: values(selection),
            api_server: format!("https://{host}:{}", facts.api_port),
            api_host: facts.api_host,
            api_port: facts.api_port,
            cluster_cidrs: &facts.cluster_cidrs,
            service_cidrs: &facts.service_cidrs,
        }));
        let rendered = self.files.iter().map(|file| {
            let name = file.path.display().to_string();
            let text = file.template.render(&context).map_err(|error| {
                let text = Text { file: &name, text: file.template.text() };
                ManifestError::Template(text.error(file.template.placed(), error.to_string(), None))
            })?;
            look_into(&file.path, text)
        });
        rendered.collect()
    }
}

/// Finds what has to be waited for in a manifest.
fn look_into(path: &Path, text: String) -> Result<Manifest, ManifestError> {
    let name = path.display().to_string();
    let documents: Vec<Json> =
        Text { file: &name, text: &text }.parse_all().map_err(ManifestError::Yaml)?;
    let (mut workloads, mut new_kinds) = (Vec::new(), Vec::new());
    for (number, document) in (1..).zip(&documents) {
        let lacks = |lacks| ManifestError::Object { path: path.to_owned(), number, lacks };
        let list =
            document["items"].as_array().filter(|_| word(&document["kind"]).ends_with("List"));
        for object in list.map_or(std::slice::from_ref(document), Vec::as_slice) {
            for key in ["apiVersion", "kind"] {
                if word(&object[key]).is_empty() {
                    return Err(lacks(if key == "kind" {
                        "it has no `kind`"
                    } else {
                        "it has no `apiVersion`"
                    }));
                }
            }
            let name = word(&object["metadata"]["name"]);
            if name.is_empty() {
                return Err(lacks("its `metadata` has no `name`"));
            }
            match word(&object["kind"]) {
                kind @ ("DaemonSet" | "Deployment" | "StatefulSet") => {
                    workloads.push(workload(kind, name, object));
                }
                "CustomResourceDefinition" => new_kinds.push(name.to_owned()),
                _ => {}
            }
        }
    }
    if documents.is_empty() {
        let lacks = "the file holds none";
        return Err(ManifestError::Object { path: path.to_owned(), number: 1, lacks });
    }
    Ok(Manifest { path: path.to_owned(), text, workloads, new_kinds })
}

fn word(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}

fn workload(kind: &str, name: &str, object: &Json) -> Workload {
    let labels = object["spec"]["selector"]["matchLabels"].as_object();
    let namespace = word(&object["metadata"]["namespace"]);
    Workload {
        kind: kind.to_lowercase(),
        namespace: if namespace.is_empty() { "default" } else { namespace }.to_owned(),
        name: name.to_owned(),
        labels: labels
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), word(value).to_owned()))
            .collect(),
    }
}
