//! A replacement of kube-proxy for a cluster of kind's: what its subject file says, looked at before
//! anything is started, and put into the cluster afterwards.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use touchstone_provider::image::Image;
use touchstone_provider::kind::{KindCluster, PodNetwork};
use touchstone_subject::{Installation, InstalledImage, loader};

use crate::failed::Failed;
use crate::subjects::{Chosen, find};

/// A replacement with everything that nodes must have.
#[derive(Debug)]
pub(crate) struct Replacement {
    installation: Installation,
    archives: Vec<Archive>,
    /// Digest of its program, where that is put into an image.
    pub(crate) digest: Option<String>,
}

/// An image as a file.
#[derive(Debug)]
enum Archive {
    At(PathBuf),
    Made(Image),
}

impl Replacement {
    /// What a subject's file says of clusters; none where it says nothing.
    pub(crate) fn of(
        chosen: &Chosen,
        binary: Option<&Path>,
    ) -> Result<Option<Replacement>, Failed> {
        let installation = Installation::of(&chosen.selection).map_err(Failed::harness)?;
        let Some(installation) = installation else { return Ok(None) };
        let mut archives = Vec::new();
        let mut digest = None;
        for image in &installation.images {
            archives.push(match image {
                InstalledImage::Archive(path) => Archive::At(path.clone()),
                InstalledImage::Binary(name) => {
                    let found = find(chosen, binary)?;
                    digest = Some(found.sha256);
                    Archive::Made(image_of(name, &found.program)?)
                }
            });
        }
        if binary.is_some() && digest.is_none() {
            return Err(Failed::usage(anyhow!(
                "--binary: the file of {} makes no image of its program; name one under \
                 `cluster.images` with `binary`",
                chosen.selector
            )));
        }
        Ok(Some(Replacement { installation, archives, digest }))
    }

    /// Who makes the pods' interfaces of its clusters.
    pub(crate) fn network(&self) -> PodNetwork {
        if self.installation.own_network { PodNetwork::Subject } else { PodNetwork::Kind }
    }

    /// Puts it into a cluster, whose folder is for files, and waits for it.
    pub(crate) async fn put_into(
        &self,
        cluster: &KindCluster,
        folder: &Path,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<(), Failed> {
        for archive in &self.archives {
            let path = match archive {
                Archive::At(path) => path.clone(),
                Archive::Made(image) => {
                    let path = folder.join("subject.tar");
                    std::fs::write(&path, &image.archive)
                        .with_context(|| format!("failed to write {}", path.display()))
                        .map_err(Failed::harness)?;
                    path
                }
            };
            match archive {
                Archive::At(path) => tell(&format!("loading {} onto the nodes", path.display())),
                Archive::Made(image) => {
                    tell(&format!("loading {} onto the nodes", image.reference))
                }
            }
            cluster.load(&path).await.map_err(Failed::harness)?;
        }
        let facts = cluster.surroundings().await.map_err(Failed::harness)?;
        let manifests = self.installation.render(&facts).map_err(Failed::harness)?;
        let installed = cluster.install(&manifests, self.network(), folder, tell);
        installed.await.map_err(Failed::harness)
    }
}

/// The program alone in an image, which has nothing that the program could load.
fn image_of(name: &str, program: &Path) -> Result<Image, Failed> {
    let shown = program.display();
    let unreadable = || format!("failed to read {shown}");
    let loader = loader(program).with_context(unreadable).map_err(Failed::harness)?;
    if let Some(loader) = loader {
        return Err(Failed::harness(anyhow!(
            "{shown} needs {loader}, which an image of the program alone does not have; build it \
             static (Go: CGO_ENABLED=0), or name the archive of an image under `cluster.images`"
        )));
    }
    let bytes = std::fs::read(program).with_context(unreadable).map_err(Failed::harness)?;
    let file = program.file_name().unwrap_or_default().to_string_lossy();
    Image::of_subject(name, &file, &bytes).map_err(Failed::harness)
}
