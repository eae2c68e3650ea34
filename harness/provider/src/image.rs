//! Images of one static program as one file, which container runtimes import without any registry:
//! the agent's, and those of subjects that are put into a cluster.
//!
//! It is an OCI layout (image-spec 1.1) and what `docker load` reads (`manifest.json`) at once:
//! both name the same three blobs. Nothing in it depends on when and where it is written, so the
//! same agent gives the same bytes.

use std::io;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// Name of the image without its tag. Its registry is none that could be asked for it.
const NAME: &str = "localhost/touchstone-agent";
/// The agent's program in the image.
const PROGRAM: &str = "touchstone-agent";
/// User and group of the agent.
const USER: u64 = 65_532;

/// An image in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name; the agents' is new for each other content, so that no node takes an old one for
    /// it.
    pub reference: String,
    /// The file.
    pub archive: Vec<u8>,
}

impl Image {
    /// The agents' image, with that program, which must be static, for the machine that this runs
    /// on.
    ///
    /// # Errors
    /// None that memory does not have.
    pub fn of(program: &[u8]) -> io::Result<Image> {
        Image::with(None, PROGRAM, USER, program)
    }

    /// An image by this name with nothing in it but `/{file}`, a static program, which root starts:
    /// what that may do is said where it is run.
    ///
    /// # Errors
    /// None that memory does not have.
    pub fn of_subject(reference: &str, file: &str, program: &[u8]) -> io::Result<Image> {
        Image::with(Some(reference), file, 0, program)
    }

    fn with(name: Option<&str>, file: &str, user: u64, program: &[u8]) -> io::Result<Image> {
        let layer = tar_of(&[(file, 0o755, program)])?;
        let config = pretty(&json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": [format!("/{file}")],
                "User": format!("{user}:{user}"),
                "WorkingDir": "/",
            },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
            "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "touchstone" }],
        }));
        let manifest = pretty(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        }));
        let reference = name.map_or_else(
            || format!("{NAME}:{}", hex(&manifest).get(..12).unwrap_or_default()),
            str::to_owned,
        );
        let tag = reference.rsplit(':').next().unwrap_or_default();
        let mut listed = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        listed["platform"] = json!({ "architecture": architecture(), "os": "linux" });
        listed["annotations"] = json!({
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = pretty(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [listed],
        }));
        let of_docker = pretty(&json!([{
            "Config": blob(&config),
            "RepoTags": [reference],
            "Layers": [blob(&layer)],
        }]));
        let layout = pretty(&json!({ "imageLayoutVersion": "1.0.0" }));
        let mut files = [
            (blob(&config), config),
            (blob(&layer), layer),
            (blob(&manifest), manifest),
            ("index.json".to_owned(), index),
            ("manifest.json".to_owned(), of_docker),
            ("oci-layout".to_owned(), layout),
        ];
        files.sort();
        let files: Vec<(&str, u32, &[u8])> =
            files.iter().map(|(path, bytes)| (path.as_str(), 0o644, bytes.as_slice())).collect();
        Ok(Image { archive: tar_of(&files)?, reference })
    }
}

/// Files in a tar archive, with folders before them; nobody's, and as old as time.
fn tar_of(files: &[(&str, u32, &[u8])]) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    let mut folders = Vec::new();
    for (path, mode, bytes) in files {
        for (end, _) in path.match_indices('/') {
            let folder = &path[..=end];
            if !folders.contains(&folder) {
                tar.append_data(&mut header(EntryType::Directory, 0o755, 0), folder, io::empty())?;
                folders.push(folder);
            }
        }
        let size = bytes.len() as u64;
        tar.append_data(&mut header(EntryType::Regular, *mode, size), path, *bytes)?;
    }
    tar.into_inner()
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn pretty(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn blob(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", hex(bytes))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

/// The machine's architecture as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn unpacked(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().expect("a tar archive") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            assert_eq!(entry.header().mtime().expect("a time"), 0, "{path}");
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("its bytes");
            if entry.header().entry_type().is_file() {
                files.insert(path, bytes);
            }
        }
        files
    }

    fn json_of(files: &BTreeMap<String, Vec<u8>>, path: &str) -> Value {
        serde_json::from_slice(&files[path]).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The blob that a descriptor names, which must be what it says.
    fn follow<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
        let named = descriptor["digest"].as_str().expect("a digest");
        let path = format!("blobs/sha256/{}", named.strip_prefix("sha256:").expect("SHA-256"));
        let bytes = &files[&path];
        assert_eq!(digest(bytes), named);
        assert_eq!(descriptor["size"], json!(bytes.len()), "{path}");
        bytes
    }

    #[test]
    fn the_same_program_gives_the_same_bytes() {
        let first = Image::of(b"program").expect("an image");
        assert_eq!(first, Image::of(b"program").expect("an image"));
        let other = Image::of(b"another").expect("an image");
        assert_ne!(first.archive, other.archive);
        assert_ne!(first.reference, other.reference);
    }

    #[test]
    fn digests_lead_from_the_index_to_the_program() {
        let image = Image::of(b"program").expect("an image");
        let files = unpacked(&image.archive);
        assert_eq!(json_of(&files, "oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }));
        let index = json_of(&files, "index.json");
        assert_eq!(
            index["manifests"][0]["annotations"]["io.containerd.image.name"],
            json!(image.reference)
        );
        let manifest: Value =
            serde_json::from_slice(follow(&files, &index["manifests"][0])).expect("a manifest");
        let config: Value =
            serde_json::from_slice(follow(&files, &manifest["config"])).expect("a configuration");
        let layer = follow(&files, &manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"], json!([digest(layer)]));
        assert_eq!(config["config"]["Entrypoint"], json!(["/touchstone-agent"]));
        assert_eq!(unpacked(layer), BTreeMap::from([(PROGRAM.to_owned(), b"program".to_vec())]));
    }

    #[test]
    fn an_image_of_a_subject_has_the_name_that_its_file_says() {
        let name = "localhost/a/proxy:test";
        let image = Image::of_subject(name, "proxy", b"program").expect("an image");
        assert_eq!(image.reference, name);
        let files = unpacked(&image.archive);
        assert_eq!(json_of(&files, "manifest.json")[0]["RepoTags"], json!([name]));
        let annotations = &json_of(&files, "index.json")["manifests"][0]["annotations"];
        assert_eq!(annotations["io.containerd.image.name"], json!(name));
        assert_eq!(annotations["org.opencontainers.image.ref.name"], json!("test"));
    }

    #[test]
    fn docker_finds_the_same_blobs() {
        let image = Image::of(b"program").expect("an image");
        let files = unpacked(&image.archive);
        let of_docker = json_of(&files, "manifest.json");
        assert_eq!(of_docker[0]["RepoTags"], json!([image.reference]));
        let index = json_of(&files, "index.json");
        let manifest: Value =
            serde_json::from_slice(follow(&files, &index["manifests"][0])).expect("a manifest");
        let config = of_docker[0]["Config"].as_str().expect("a path");
        assert_eq!(files[config], follow(&files, &manifest["config"]));
        let layer = of_docker[0]["Layers"][0].as_str().expect("a path");
        assert_eq!(files[layer], follow(&files, &manifest["layers"][0]));
    }
}
