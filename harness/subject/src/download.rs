//! Downloads a program and checks it against its published checksum.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::cache::CacheError;
use crate::examine::hex;
use crate::process::block_on;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
const WHOLE_LIMIT: Duration = Duration::from_secs(15 * 60);

/// A download that failed.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The client cannot be made, for example because the machine has no root certificates.
    #[error("failed to prepare a download: {reason}")]
    Prepare {
        /// What is missing.
        reason: String,
    },
    /// No answer, or an answer that breaks off.
    #[error("failed to download {url}: {reason}")]
    Transfer {
        /// The address.
        url: String,
        /// What happened, innermost cause last.
        reason: String,
    },
    /// The server refuses.
    #[error("failed to download {url}: the server answers {status}")]
    Status {
        /// The address.
        url: String,
        /// The server's answer.
        status: String,
    },
    /// The checksum's text does not begin with a checksum.
    #[error("failed to check the download: {url} holds no SHA-256")]
    NoChecksum {
        /// The address of the checksum.
        url: String,
    },
    /// The program is not the one that was published.
    #[error("failed to check {url}: its SHA-256 is {got}, published is {want}")]
    Checksum {
        /// The address.
        url: String,
        /// The digest of what came.
        got: String,
        /// The digest that was published.
        want: String,
    },
    /// It cannot be written.
    #[error("failed to write {path}: {source}")]
    Write {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The cache does not take it.
    #[error("{reason}")]
    Cache {
        /// What the cache says.
        reason: String,
    },
}

impl From<CacheError> for DownloadError {
    fn from(err: CacheError) -> Self {
        Self::Cache { reason: err.to_string() }
    }
}

/// Downloads `url` to `into`.
///
/// The checksum comes first: it is small, and without it the program is of no use.
/// Blocks for at most [`WHOLE_LIMIT`], where nothing answers for [`CONNECT_LIMIT`].
pub(crate) fn download(url: &str, sha256_url: &str, into: &Path) -> Result<(), DownloadError> {
    let late = || DownloadError::Transfer {
        url: url.to_owned(),
        reason: format!("it did not end within {} min", WHOLE_LIMIT.as_secs() / 60),
    };
    block_on(|| async move {
        let transfer = transfer(url, sha256_url, into);
        tokio::time::timeout(WHOLE_LIMIT, transfer).await.unwrap_or_else(|_| Err(late()))
    })
    .map_err(|err| DownloadError::Prepare { reason: err.to_string() })?
}

async fn transfer(url: &str, sha256_url: &str, into: &Path) -> Result<(), DownloadError> {
    // An error means that a provider is installed already, which is just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_LIMIT)
        .read_timeout(SILENCE_LIMIT)
        .build()
        .map_err(|err| DownloadError::Prepare { reason: causes(&err) })?;
    let published = get(&client, sha256_url).await?.text().await.map_err(|err| {
        DownloadError::Transfer { url: sha256_url.to_owned(), reason: causes(&err) }
    })?;
    let want = published
        .split_whitespace()
        .next()
        .filter(|word| word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit()))
        .ok_or_else(|| DownloadError::NoChecksum { url: sha256_url.to_owned() })?
        .to_ascii_lowercase();
    let mut response = get(&client, url).await?;
    let write = |source| DownloadError::Write { path: into.to_owned(), source };
    let mut file = File::create(into).map_err(write)?;
    let mut hash = Sha256::new();
    while let Some(piece) = response
        .chunk()
        .await
        .map_err(|err| DownloadError::Transfer { url: url.to_owned(), reason: causes(&err) })?
    {
        hash.update(&piece);
        file.write_all(&piece).map_err(write)?;
    }
    file.sync_all().map_err(write)?;
    let got = hex(&hash.finalize());
    if got == want {
        Ok(())
    } else {
        Err(DownloadError::Checksum { url: url.to_owned(), got, want })
    }
}

async fn get(client: &reqwest::Client, url: &str) -> Result<reqwest::Response, DownloadError> {
    let response = client
        .get(url)
        .send()
        .await
        .map_err(|err| DownloadError::Transfer { url: url.to_owned(), reason: causes(&err) })?;
    let status = response.status();
    if status.is_success() {
        Ok(response)
    } else {
        Err(DownloadError::Status { url: url.to_owned(), status: status.to_string() })
    }
}

/// What went wrong underneath: the client's own words only repeat the address.
fn causes(err: &dyn std::error::Error) -> String {
    let mut texts = Vec::new();
    let mut cause = err.source();
    while let Some(err) = cause {
        texts.push(err.to_string());
        cause = err.source();
    }
    if texts.is_empty() { err.to_string() } else { texts.join(": ") }
}
