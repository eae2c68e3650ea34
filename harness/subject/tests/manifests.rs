//! What puts a subject into a cluster: files that are missing or wrong, and what becomes of them.

use std::path::Path;

use ipnet::IpNet;
use touchstone_subject::{
    Catalog, Installation, InstalledImage, ManifestError, Surroundings, Workload,
};

type Tried<T> = Result<T, Box<dyn std::error::Error>>;

const SUBJECT: &str = "\
format: 1
about: A proxy for tests.
values: { port: 9 }
cluster:
  images: [{ archive: image.tar }]
  manifests: [first.yaml, second.yaml]
  made-by: make manifests
";

const FIRST: &str = "\
apiVersion: v1
kind: Namespace
metadata: { name: proxies }
---
# Nothing.
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: things.example.test }
";

const SECOND: &str = r#"
apiVersion: v1
kind: List
items:
  - apiVersion: apps/v1
    kind: DaemonSet
    metadata: { name: proxy, namespace: proxies }
    spec:
      selector: { matchLabels: { app: proxy } }
      template: { args: ["{{ api_server }}", "{{ api_host }}:{{ api_port }}", "{{ values.port }}"] }
  - { apiVersion: apps/v1, kind: Deployment, metadata: { name: helper } }
"#;

fn surroundings() -> Tried<Surroundings> {
    Ok(Surroundings {
        api_host: "fd00::2".parse()?,
        api_port: 6443,
        cluster_cidrs: vec!["10.244.0.0/16".parse::<IpNet>()?],
        service_cidrs: vec!["10.96.0.0/16".parse()?],
    })
}

/// A subject's folder with these files; what is empty is not there.
fn folder(files: &[(&str, &str)]) -> Tried<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let whole = [
        ("my-proxy.yaml", SUBJECT),
        ("image.tar", "tar"),
        ("first.yaml", FIRST),
        ("second.yaml", SECOND),
    ];
    for (name, text) in whole.iter().chain(files) {
        std::fs::write(folder.path().join(name), text)?;
    }
    for (name, _) in files.iter().filter(|(_, text)| text.is_empty()) {
        std::fs::remove_file(folder.path().join(name))?;
    }
    Ok(folder)
}

fn installation(folder: &Path) -> Tried<Result<Installation, ManifestError>> {
    let selector = folder.join("my-proxy.yaml").display().to_string().parse()?;
    let selection = Catalog::bundled()?.select(&selector)?;
    match Installation::of(&selection) {
        Ok(Some(installation)) => Ok(Ok(installation)),
        Ok(None) => Err("there is no `cluster`".into()),
        Err(error) => Ok(Err(error)),
    }
}

#[test]
fn manifests_get_what_they_ask_of_the_cluster() -> Tried<()> {
    let folder = folder(&[])?;
    let installation = installation(folder.path())??;
    assert!(!installation.own_network);
    let archive = folder.path().canonicalize()?.join("image.tar");
    assert_eq!(installation.images, [InstalledImage::Archive(archive)]);
    let manifests = installation.render(&surroundings()?)?;
    let [first, second] = manifests.as_slice() else { return Err("two manifests".into()) };
    assert_eq!(first.text, FIRST, "what is no template stays as it is");
    assert_eq!(
        (first.new_kinds.as_slice(), first.workloads.len()),
        (["things.example.test".to_owned()].as_slice(), 0)
    );
    let line = r#"args: ["https://[fd00::2]:6443", "fd00::2:6443", "9"]"#;
    assert!(second.text.contains(line), "{}", second.text);
    let workload = |kind: &str, namespace: &str, name: &str, labels: &[(&str, &str)]| Workload {
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    };
    assert_eq!(
        second.workloads,
        [
            workload("daemonset", "proxies", "proxy", &[("app", "proxy")]),
            workload("deployment", "default", "helper", &[]),
        ]
    );
    Ok(())
}

fn refused(files: &[(&str, &str)], words: &[&str]) -> Tried<()> {
    let folder = folder(files)?;
    match installation(folder.path())? {
        Ok(_) => Err(format!("accepted: {files:?}").into()),
        Err(error) => {
            let said = error.to_string();
            for word in words {
                assert!(said.contains(word), "{word} is not in: {said}");
            }
            Ok(())
        }
    }
}

#[test]
fn mistakes_show_before_there_is_a_cluster() -> Tried<()> {
    refused(&[("second.yaml", "")], &["second.yaml, which", "does not exist", "make manifests"])?;
    refused(&[("image.tar", "")], &["image.tar, which", "does not exist"])?;
    refused(&[("first.yaml", "a: [b\nc: d\n")], &["no YAML", "first.yaml:2:"])?;
    refused(
        &[("first.yaml", "just words\n")],
        &["document 1 of", "first.yaml", "no `apiVersion`"],
    )?;
    refused(&[("first.yaml", "# nothing\n")], &["first.yaml", "holds none"])?;
    let nameless = format!("{FIRST}---\napiVersion: v1\nkind: Service\n");
    refused(&[("first.yaml", &nameless)], &["document 3 of", "no `name`"])?;
    let unknown = FIRST.replace("proxies", "'{{ api_hots }}'");
    refused(
        &[("first.yaml", &unknown)],
        &["first.yaml", "uses `api_hots`", "did you mean `api_host`?", "{% raw %}"],
    )?;
    refused(&[("first.yaml", "a: {{ values\n")], &["first.yaml", "cannot be read", "{% raw %}"])
}

#[test]
fn every_bundled_subject_can_be_selected_and_says_where_it_runs() -> Tried<()> {
    for subject in Catalog::bundled()?.iter() {
        let selection = Catalog::bundled()?.select(&subject.name.to_string().parse()?)?;
        assert!(
            !subject.features(&selection.mode, None).is_empty(),
            "{} promises nothing",
            subject.name
        );
        let Some(cluster) = &subject.file.cluster else {
            assert!(subject.file.lab.is_some(), "{} runs nowhere", subject.name);
            continue;
        };
        let made = cluster.made_by.as_deref().unwrap_or_default();
        assert!(!made.is_empty(), "nobody knows where the manifests of {} are", subject.name);
        let error = Installation::of(&selection).err().ok_or("manifests are bundled")?.to_string();
        assert!(error.contains("subjects/") && error.contains(made.trim_end()), "{error}");
    }
    Ok(())
}
