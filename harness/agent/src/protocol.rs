//! What an agent and the harness say to each other.
//!
//! Both sides send frames over one connection: four bytes with the length of what follows, most
//! significant first, and so many bytes of JSON, which are one message.
//! The harness begins with a [`Hello`], which every version of the protocol can read; the agent
//! says [`Greeting::Welcome`] or why not, and then closes the connection.
//! From then on the harness sends [`Order`]s, any number of them before the first is answered, and
//! the agent sends one [`Report`] for each, in the order in which they are done.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use touchstone_spec::{Flow, Observation, ServerWish};

/// Version of the protocol; a peer of another is turned away.
pub const VERSION: u32 = 2;

/// Longest frame in bytes, apart from its length.
pub const FRAME_LIMIT: usize = 4 << 20;

/// Longest first frame: nobody has shown a token yet.
pub const HELLO_LIMIT: usize = 1 << 10;

/// How often the harness says something at least.
pub const PING_EVERY: Duration = Duration::from_secs(10);

/// The first message of the harness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the harness.
    #[serde(rename = "touchstone-agent")]
    pub version: u32,
    /// The token of the run.
    pub token: String,
}

/// The first message of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Greeting {
    /// Orders may follow.
    Welcome,
    /// None will be obeyed.
    Refused {
        /// Why, with the remedy.
        why: String,
    },
}

/// What an agent is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Number of the order: used once on a connection.
    pub id: u64,
    /// What.
    pub task: Task,
}

/// The tasks of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Send one attempt of a flow: [`Done::Saw`].
    Probe {
        /// The flow.
        flow: Box<Flow>,
        /// Milliseconds to wait.
        wait: u64,
    },
    /// Open a flow and keep it under the number of the order: [`Done::Well`] or [`Done::Saw`].
    Open {
        /// The flow.
        flow: Box<Flow>,
        /// Milliseconds to wait.
        wait: u64,
    },
    /// Send one message over a kept flow: [`Done::Saw`].
    Ask {
        /// Number of the order that opened it.
        kept: u64,
        /// Milliseconds to wait.
        wait: u64,
    },
    /// Let identity servers listen, until they are closed under the number of the order:
    /// [`Done::Well`] or [`Done::Failed`].
    Serve(Vec<ServerWish>),
    /// Close a kept flow or servers: [`Done::Well`], also where there is nothing of that number.
    Close {
        /// Number of the order that opened them.
        opened: u64,
    },
    /// Say what the place is like: [`Done::Place`].
    Look,
    /// Nothing; shows that both sides are there: [`Done::Well`].
    Ping,
}

/// What a place is like.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Place {
    /// Every address that others may see, by interface.
    pub addresses: Vec<(String, IpAddr)>,
    /// Whether its kernel limits how many ICMP errors it sends to one address in a second, so that
    /// of many refusals few arrive.
    pub refusals_are_few: bool,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Number of the order.
    pub id: u64,
    /// What became of it.
    pub done: Done,
    /// The longest in milliseconds that the agent's clock was looked at too late since its last
    /// report.
    pub late: u64,
}

/// The results of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// It was done.
    Well,
    /// What was seen.
    Saw(Observation),
    /// What the place is like.
    Place(Place),
    /// It could not be done.
    Failed(String),
}

/// The digest by which an agent knows a token: SHA-256, in hexadecimal digits.
#[must_use]
pub fn digest(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A message as a frame.
///
/// # Errors
/// When it is longer than a frame may be.
pub fn frame<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > FRAME_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, too_long(length, FRAME_LIMIT)));
    }
    let length = u32::try_from(length).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

/// Reads one message of at most `limit` bytes; none when the peer has ended the connection between
/// two messages.
///
/// # Errors
/// What the connection said, `InvalidData` for a frame that is too long or no such message.
pub async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> io::Result<Option<T>> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut head = [0; 4];
    if from.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..]).await?;
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if length > limit {
        return Err(invalid(too_long(length, limit)));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    let message = serde_json::from_slice(&body);
    message.map(Some).map_err(|error| invalid(format!("not a message of the protocol: {error}")))
}

fn too_long(length: usize, limit: usize) -> String {
    format!("a frame of {length} bytes, of which {limit} are allowed")
}
