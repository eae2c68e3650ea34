//! The harness's end of a connection to an agent.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use touchstone_spec::{Flow, Observation, ServerWish};

use crate::late::Lateness;
use crate::protocol::{
    Done, FRAME_LIMIT, Greeting, Hello, Order, PING_EVERY, Place, Report, Task, VERSION, frame,
    read,
};

/// How long an agent may take to greet.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
/// How long a report may be late, beyond what its task may take: for the way and for other tasks.
const LATE_LIMIT: Duration = Duration::from_secs(20);
/// Orders that are sent with one write.
const BATCH: usize = 256;

/// Why an agent cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It said no.
    #[error("the agent {name} refused the connection: {why}")]
    Refused {
        /// Of the agent.
        name: String,
        /// What it said.
        why: String,
    },
    /// It ended the connection without a word.
    #[error("the agent {name} ended the connection")]
    Ended {
        /// Of the agent.
        name: String,
    },
    /// It did not speak in time.
    #[error("the agent {name} did not answer within {} s", GREETING_LIMIT.as_secs())]
    Silent {
        /// Of the agent.
        name: String,
    },
    /// The connection broke, or what came over it is no protocol of ours.
    #[error("failed to talk to the agent {name}: {source}")]
    Connection {
        /// Of the agent.
        name: String,
        /// What happened.
        source: io::Error,
    },
}

/// An agent that obeys. What it has opened ends when this and everything that it gave are dropped.
#[derive(Debug, Clone)]
pub struct Agent(Arc<Line>);

#[derive(Debug)]
struct Line {
    name: String,
    orders: mpsc::UnboundedSender<Order>,
    desk: Arc<Mutex<Desk>>,
    tasks: [AbortHandle; 2],
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Desk {
    next: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Done>>,
    late: Lateness,
    /// Why nothing will be answered any more.
    gone: Option<String>,
}

impl Drop for Line {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Agent {
    /// Greets an agent over a connection to it; `name` is for messages.
    ///
    /// # Errors
    /// When it refuses, is silent, or is no agent of this protocol.
    pub async fn greet<S>(stream: S, name: &str, token: &str) -> Result<Agent, AgentError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let name = name.to_owned();
        let broke = |source| AgentError::Connection { name: name.clone(), source };
        let (mut from, mut to) = tokio::io::split(stream);
        let hello = Hello { version: VERSION, token: token.to_owned() };
        let greeting = async {
            to.write_all(&frame(&hello)?).await?;
            to.flush().await?;
            read::<Greeting>(&mut from, FRAME_LIMIT).await
        };
        let greeting = match timeout(GREETING_LIMIT, greeting).await {
            Ok(greeting) => greeting.map_err(broke)?,
            Err(_) => return Err(AgentError::Silent { name }),
        };
        match greeting {
            Some(Greeting::Welcome) => {}
            Some(Greeting::Refused { why }) => return Err(AgentError::Refused { name, why }),
            None => return Err(AgentError::Ended { name }),
        }
        let desk = Arc::new(Mutex::new(Desk::default()));
        let (orders, sent) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write(to, sent, Arc::clone(&desk)));
        let reader = tokio::spawn(hear(from, Arc::clone(&desk)));
        let tasks = [writer.abort_handle(), reader.abort_handle()];
        Ok(Agent(Arc::new(Line { name, orders, desk, tasks })))
    }

    /// What its place is like.
    ///
    /// # Errors
    /// When the agent does not tell.
    pub async fn look(&self) -> Result<Place, String> {
        match self.order(Task::Look, Duration::ZERO).await? {
            (_, Done::Place(place)) => Ok(place),
            (_, Done::Failed(why)) => Err(why),
            (_, Done::Well | Done::Saw(_)) => Err(self.nonsense()),
        }
    }

    /// Why it can no longer be used, if so.
    #[must_use]
    pub fn gone(&self) -> Option<String> {
        let why = lock(&self.0.desk).gone.clone()?;
        Some(format!("the connection to the agent {} ended: {why}", self.0.name))
    }

    /// The longest that it reported to have been late since a moment.
    #[must_use]
    pub fn late_since(&self, since: Instant) -> Duration {
        lock(&self.0.desk).late.worst_since(since)
    }

    /// Says why the connection ended, where somebody knows more than that it did.
    pub fn ended_by(&self, why: &str) {
        let mut desk = lock(&self.0.desk);
        desk.gone = Some(why.to_owned());
        desk.waiting.clear();
    }

    /// Sends one attempt of a flow and says what was seen within `wait`.
    pub async fn probe(&self, flow: &Flow, wait: Duration) -> Observation {
        let task = Task::Probe { flow: Box::new(flow.clone()), wait: millis(wait) };
        // A question may go on to an address with as much time again.
        match self.order(task, wait * 2).await {
            Ok((_, done)) => self.seen(done),
            Err(why) => Observation::ProbeBroke(why),
        }
    }

    /// Opens a flow that is kept.
    ///
    /// # Errors
    /// What was seen instead of a connection.
    pub async fn open(&self, flow: &Flow, wait: Duration) -> Result<RemoteFlow, Observation> {
        let task = Task::Open { flow: Box::new(flow.clone()), wait: millis(wait) };
        match self.order(task, wait).await {
            Ok((id, Done::Well)) => Ok(RemoteFlow(self.opened(id))),
            Ok((_, done @ (Done::Saw(_) | Done::Place(_) | Done::Failed(_)))) => {
                Err(self.seen(done))
            }
            Err(why) => Err(Observation::ProbeBroke(why)),
        }
    }

    /// Lets identity servers listen until what this gives is dropped.
    ///
    /// # Errors
    /// Which of them cannot listen, and why; none of them does then.
    pub async fn serve(&self, wishes: Vec<ServerWish>) -> Result<RemoteServers, String> {
        match self.order(Task::Serve(wishes), Duration::ZERO).await? {
            (id, Done::Well) => Ok(RemoteServers(self.opened(id))),
            (_, Done::Failed(why)) => Err(why),
            (_, Done::Saw(_) | Done::Place(_)) => Err(self.nonsense()),
        }
    }

    fn opened(&self, id: u64) -> Opened {
        Opened { agent: self.clone(), id }
    }

    fn seen(&self, done: Done) -> Observation {
        match done {
            Done::Saw(saw) => saw,
            Done::Failed(why) => Observation::ProbeBroke(why),
            Done::Well | Done::Place(_) => Observation::ProbeBroke(self.nonsense()),
        }
    }

    fn nonsense(&self) -> String {
        format!("the agent {} reported something else than was asked", self.0.name)
    }

    /// Gives an order and waits for its report.
    async fn order(&self, task: Task, takes: Duration) -> Result<(u64, Done), String> {
        let (tell, told) = oneshot::channel();
        let numbered = {
            let mut desk = lock(&self.0.desk);
            desk.next += 1;
            let id = desk.next;
            let gone = desk.gone.is_some();
            if !gone {
                desk.waiting.insert(id, tell);
            }
            (!gone).then_some(id)
        };
        let Some(id) = numbered else {
            return Err(self.gone().unwrap_or_else(|| self.nonsense()));
        };
        // Where nobody sends any more, the reason is there or comes at once.
        let _ = self.0.orders.send(Order { id, task });
        match timeout(takes + LATE_LIMIT, told).await {
            Ok(Ok(done)) => Ok((id, done)),
            Ok(Err(_)) => Err(self.gone().unwrap_or_else(|| self.nonsense())),
            Err(_) => {
                lock(&self.0.desk).waiting.remove(&id);
                Err(format!("the agent {} did not report in time", self.0.name))
            }
        }
    }
}

/// Something that an agent keeps open.
#[derive(Debug)]
struct Opened {
    agent: Agent,
    id: u64,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut desk = lock(&self.agent.0.desk);
        desk.next += 1;
        let (id, task) = (desk.next, Task::Close { opened: self.id });
        // An agent that is gone has closed it already.
        let _ = self.agent.0.orders.send(Order { id, task });
    }
}

/// A flow that an agent keeps.
#[derive(Debug)]
pub struct RemoteFlow(Opened);

impl RemoteFlow {
    /// Sends one message over it and waits at most `wait` for its answer.
    pub async fn ask(&mut self, wait: Duration) -> Observation {
        let Opened { agent, id } = &self.0;
        match agent.order(Task::Ask { kept: *id, wait: millis(wait) }, wait).await {
            Ok((_, done)) => agent.seen(done),
            Err(why) => Observation::ProbeBroke(why),
        }
    }
}

/// Identity servers of an agent, which listen until this is dropped.
#[derive(Debug)]
pub struct RemoteServers(#[expect(dead_code, reason = "dropping it closes them")] Opened);

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

fn lock(desk: &Mutex<Desk>) -> std::sync::MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the wait of everybody, once.
fn end(desk: &Mutex<Desk>, why: &str) {
    let mut desk = lock(desk);
    if desk.gone.is_none() {
        desk.gone = Some(why.to_owned());
    }
    desk.waiting.clear();
}

/// Sends orders, as many with one write as there are, and pings while there are none.
async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut orders: mpsc::UnboundedReceiver<Order>,
    desk: Arc<Mutex<Desk>>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        match timeout(PING_EVERY, orders.recv_many(&mut batch, BATCH)).await {
            Ok(0) => return,
            Ok(_) => {}
            // Its report finds nobody waiting.
            Err(_) => batch.push(Order { id: 0, task: Task::Ping }),
        }
        let mut bytes = Vec::new();
        for order in batch.drain(..) {
            match frame(&order) {
                Ok(frame) => bytes.extend(frame),
                Err(error) => {
                    if let Some(tell) = lock(&desk).waiting.remove(&order.id) {
                        let _ = tell.send(Done::Failed(error.to_string()));
                    }
                }
            }
        }
        let written = async {
            to.write_all(&bytes).await?;
            to.flush().await
        };
        if let Err(error) = written.await {
            return end(&desk, &error.to_string());
        }
    }
}

/// Hears reports until the connection ends.
async fn hear(mut from: impl AsyncRead + Unpin, desk: Arc<Mutex<Desk>>) {
    loop {
        // Pings are answered, so silence of several of them is an end.
        let why = match timeout(PING_EVERY * 4, read::<Report>(&mut from, FRAME_LIMIT)).await {
            Ok(Ok(Some(Report { id, done, late }))) => {
                let waiting = {
                    let mut desk = lock(&desk);
                    desk.late.note(late);
                    desk.waiting.remove(&id)
                };
                if let Some(tell) = waiting {
                    // Whoever gave up waiting needs no report.
                    let _ = tell.send(done);
                }
                continue;
            }
            Ok(Ok(None)) => "it closed the connection".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it was silent for {} s", (PING_EVERY * 4).as_secs()),
        };
        return end(&desk, &why);
    }
}
