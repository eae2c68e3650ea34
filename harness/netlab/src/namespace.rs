//! A network namespace and the thread that lives in it.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, getpid, gettid, sethostname};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::netlink::{self, Awaited, Change};
use crate::plan::Family;
use crate::settings::{self, Role, Unset};
use crate::sockets;

/// What a namespace shares with the rest of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// Everything but the network.
    Network,
    /// Its mounts and its host name are its own too, and `/run` is an empty tmpfs, so that each
    /// proxy has its own xtables lock.
    NetworkMountsAndHostName,
}

/// A kind of namespace that another process can join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamespaceKind {
    /// Interfaces, addresses, routes and sockets.
    Network,
    /// Mounts.
    Mount,
    /// Host name.
    HostName,
}

impl NamespaceKind {
    fn file(self) -> &'static str {
        match self {
            NamespaceKind::Network => "net",
            NamespaceKind::Mount => "mnt",
            NamespaceKind::HostName => "uts",
        }
    }
}

/// What to make; see [`Namespace::new`].
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) isolation: Isolation,
    pub(crate) role: Role,
    /// Families that it has addresses of.
    pub(crate) families: &'static [Family],
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, kept alive by a thread that lives in it.
///
/// Jobs run on that thread, one after the other; what they open belongs to the namespace.
/// Invariant: the thread joins no other namespace, ever.
///
/// Dropping it ends the thread after the jobs already given.
/// The kernel removes the namespace when its last socket and process are gone too.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    tid: Pid,
    network: OwnedFd,
    unset: Vec<Unset>,
}

impl Namespace {
    /// Makes a namespace with the kernel settings of `role` and `lo` up.
    ///
    /// # Errors
    ///
    /// The kernel refused a step, for lack of privilege as a rule.
    pub fn new(name: &str, isolation: Isolation, role: Role) -> Result<Self, Error> {
        let families = &Family::BOTH;
        Starting::begin(Wanted { name: name.to_owned(), isolation, role, families })?.finish()
    }

    /// Makes many at a time, each on its own thread.
    pub(crate) fn new_many(wanted: impl IntoIterator<Item = Wanted>) -> Result<Vec<Self>, Error> {
        let starting: Vec<_> = wanted.into_iter().map(Starting::begin).collect::<Result<_, _>>()?;
        // All are finished before the first failure is returned, so that no thread is left.
        let finished: Vec<_> = starting.into_iter().map(Starting::finish).collect();
        finished.into_iter().collect()
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Settings of its role that this kernel does not have or does not let us change.
    pub fn unset(&self) -> &[Unset] {
        &self.unset
    }

    /// Where a process of the same PID namespace finds the namespace to join.
    pub fn path(&self, kind: NamespaceKind) -> PathBuf {
        PathBuf::from(format!("/proc/{}/task/{}/ns/{}", getpid(), self.tid, kind.file()))
    }

    /// Number of the thread that lives in it.
    pub fn thread_id(&self) -> i32 {
        self.tid.as_raw()
    }

    pub(crate) fn network(&self) -> RawFd {
        self.network.as_raw_fd()
    }

    fn gone(&self) -> Error {
        Error::Gone { namespace: self.name.clone() }
    }

    /// Gives a job to the thread and does not wait.
    pub(crate) fn post(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let jobs = self.jobs.as_ref().ok_or_else(|| self.gone())?;
        jobs.send(Box::new(job)).map_err(|_| self.gone())
    }

    /// Gives a job to the thread; [`Answer::wait`] fetches the result.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Answer<'_, T>, Error> {
        let (sender, receiver) = mpsc::sync_channel(1);
        // Nobody may be waiting any more; then nobody misses the result.
        self.post(move || drop(sender.send(job())))?;
        Ok(Answer { namespace: self, receiver })
    }

    /// Runs a job in the namespace.
    ///
    /// Blocks: until this job and those before it have ended.
    ///
    /// # Errors
    ///
    /// The job panicked.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.begin(job)?.wait()
    }

    /// Runs a job in the namespace; it is given to the thread before this function returns.
    ///
    /// # Errors
    ///
    /// The job panicked.
    pub fn run_async<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        job: F,
    ) -> impl Future<Output = Result<T, Error>> + Send + 'static + use<T, F> {
        let (sender, receiver) = oneshot::channel();
        let posted = self.post(move || drop(sender.send(job())));
        let namespace = self.name.clone();
        async move {
            posted?;
            receiver.await.map_err(|_| Error::Gone { namespace })
        }
    }

    pub(crate) fn change(&self, changes: Vec<Change>) -> Result<(), Error> {
        self.begin_change(changes)?.finish()
    }

    /// Begins to make changes; more namespaces can begin before the first finishes.
    pub(crate) fn begin_change(&self, changes: Vec<Change>) -> Result<Changing<'_>, Error> {
        Ok(Changing(self.begin(move || netlink::apply(&changes))?))
    }

    /// Switches off what links take off their senders, on every link that is there.
    pub(crate) fn begin_no_offloads(&self) -> Result<Changing<'_>, Error> {
        let job = || {
            let names = nix::net::if_::if_nameindex().map_err(io::Error::from);
            let names = names.map_err(|source| netlink::Failed {
                act: "list the interfaces".to_owned(),
                source,
            })?;
            for name in names.iter().map(|i| i.name().to_string_lossy()).filter(|n| n != "lo") {
                touchstone_sys::switch_offloads_off(&name).map_err(|source| netlink::Failed {
                    act: format!("switch the offloads of {name} off"),
                    source,
                })?;
            }
            Ok(())
        };
        Ok(Changing(self.begin(job)?))
    }

    /// Waits until interfaces of this namespace carry packets.
    pub(crate) fn begin_carry(&self, indexes: Vec<u32>) -> Result<Changing<'_>, Error> {
        let job = move || {
            let carriers: Vec<_> = indexes.into_iter().map(Awaited::Carrier).collect();
            netlink::settle(&carriers)
        };
        Ok(Changing(self.begin(job)?))
    }

    fn open<T: Send + 'static>(
        &self,
        socket: impl FnOnce() -> String,
        open: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.run(open)?.map_err(|source| Error::Socket {
            namespace: self.name.clone(),
            socket: socket(),
            source,
        })
    }

    /// Opens an unconnected TCP socket in the namespace.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn tcp_socket(&self, family: Family) -> Result<OwnedFd, Error> {
        self.open(|| "a TCP socket".to_owned(), move || sockets::tcp_socket(family))
    }

    /// Opens many unconnected TCP sockets in the namespace with one request.
    ///
    /// # Errors
    ///
    /// What the kernel said about the first that failed.
    pub fn tcp_sockets(&self, family: Family, count: usize) -> Result<Vec<OwnedFd>, Error> {
        self.open(|| format!("{count} TCP sockets"), move || sockets::tcp_sockets(family, count))
    }

    /// Opens an unconnected TCP socket with a source address in the namespace.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn tcp_socket_from(&self, source: SocketAddr) -> Result<OwnedFd, Error> {
        self.open(
            || format!("a TCP socket from {source}"),
            move || sockets::tcp_socket_from(source),
        )
    }

    /// Opens a TCP listener in the namespace.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn tcp_listener(&self, address: SocketAddr) -> Result<TcpListener, Error> {
        self.open(|| format!("a TCP listener on {address}"), move || sockets::tcp_listener(address))
    }

    /// Opens a bound UDP socket in the namespace.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn udp_socket(&self, address: SocketAddr) -> Result<UdpSocket, Error> {
        self.open(|| format!("a UDP socket on {address}"), move || sockets::udp_socket(address))
    }

    /// Opens many UDP sockets, each bound to `address`, with one request.
    ///
    /// # Errors
    ///
    /// What the kernel said about the first that failed.
    pub fn udp_sockets(&self, address: SocketAddr, count: usize) -> Result<Vec<UdpSocket>, Error> {
        self.open(
            || format!("{count} UDP sockets on {address}"),
            move || sockets::udp_sockets(address, count),
        )
    }

    /// Opens a socket that sees every packet of the namespace.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn packet_socket(&self) -> Result<OwnedFd, Error> {
        self.open(|| "a packet socket".to_owned(), sockets::packet_socket)
    }

    /// Starts a process in the namespace; it also has the namespace's mounts and host name.
    ///
    /// It must not ask for a signal at its parent's death: the kernel would send it at the death
    /// of the namespace's thread.
    /// To keep the terminal's ^C from it, give it a process group of its own.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn spawn(&self, mut command: Command) -> Result<Child, Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        self.run(move || command.spawn())?.map_err(|source| Error::Spawn {
            namespace: self.name.clone(),
            program,
            source,
        })
    }

    /// Reads a kernel setting of the namespace, named as for sysctl(8).
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn setting(&self, setting: &str) -> Result<String, Error> {
        let path = setting.to_owned();
        self.run(move || settings::read(&path))?.map_err(|source| Error::ReadSetting {
            namespace: self.name.clone(),
            setting: setting.to_owned(),
            source,
        })
    }

    /// Changes a kernel setting of the namespace, named as for sysctl(8).
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn set(&self, setting: &str, value: &str) -> Result<(), Error> {
        let (path, text) = (setting.to_owned(), value.to_owned());
        self.run(move || settings::write(&path, &text))?.map_err(|source| Error::Setting {
            namespace: self.name.clone(),
            setting: setting.to_owned(),
            value: value.to_owned(),
            source,
        })
    }
}

impl AsFd for Namespace {
    /// The network namespace, as `setns` takes it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.network.as_fd()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // The last owner can be a job of this very thread, which cannot wait for itself.
            if thread.thread().id() != thread::current().id() {
                // A panic of a job has been told to the one who gave the job.
                let _ = thread.join();
            }
        }
    }
}

/// The result of a job that may still run.
pub(crate) struct Answer<'a, T> {
    namespace: &'a Namespace,
    receiver: mpsc::Receiver<T>,
}

impl<T> Answer<'_, T> {
    pub(crate) fn wait(self) -> Result<T, Error> {
        self.receiver.recv().map_err(|_| self.namespace.gone())
    }
}

/// Changes that may still be under way.
pub(crate) struct Changing<'a>(Answer<'a, Result<(), netlink::Failed>>);

impl Changing<'_> {
    pub(crate) fn finish(self) -> Result<(), Error> {
        let namespace = self.0.namespace.name.clone();
        self.0.wait()?.map_err(|failed| Error::Change {
            namespace,
            act: failed.act,
            source: failed.source,
        })
    }
}

struct Ready {
    tid: Pid,
    network: OwnedFd,
    unset: Vec<Unset>,
}

/// A namespace whose thread is at work on it.
struct Starting {
    name: String,
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
    ready: mpsc::Receiver<Result<Ready, Error>>,
}

impl Starting {
    fn begin(wanted: Wanted) -> Result<Self, Error> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (sender, ready) = mpsc::sync_channel(1);
        let name = wanted.name.clone();
        let thread = thread::Builder::new()
            // The kernel shows 15 bytes of it.
            .name(wanted.name.clone())
            .stack_size(512 * 1024)
            .spawn(move || {
                let entered = enter(&wanted);
                let failed = entered.is_err();
                if sender.send(entered).is_err() || failed {
                    return;
                }
                for job in queue {
                    // The thread outlives a job's panic; the one who gave the job sees its
                    // channel close.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            })
            .map_err(|source| Error::Thread { namespace: name.clone(), source })?;
        Ok(Self { name, jobs, thread, ready })
    }

    fn finish(self) -> Result<Namespace, Error> {
        match self.ready.recv() {
            Ok(Ok(Ready { tid, network, unset })) => Ok(Namespace {
                name: self.name,
                jobs: Some(self.jobs),
                thread: Some(self.thread),
                tid,
                network,
                unset,
            }),
            Ok(Err(error)) => {
                let _ = self.thread.join();
                Err(error)
            }
            Err(_) => Err(Error::Gone { namespace: self.name }),
        }
    }
}

/// Puts this thread into new namespaces and prepares them.
fn enter(wanted: &Wanted) -> Result<Ready, Error> {
    let create = |act: &'static str| {
        let namespace = wanted.name.clone();
        move |source: io::Error| Error::Create { namespace, act, source }
    };
    let own = match wanted.isolation {
        Isolation::Network => CloneFlags::CLONE_NEWNET,
        Isolation::NetworkMountsAndHostName => {
            CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS
        }
    };
    unshare(own).map_err(io::Error::from).map_err(create("leave the shared namespaces"))?;
    match wanted.isolation {
        Isolation::Network => {}
        Isolation::NetworkMountsAndHostName => {
            own_run().map_err(create("mount a private /run"))?;
            sethostname(&wanted.name).map_err(io::Error::from).map_err(create("set host name"))?;
        }
    }
    let unset = settings::apply(wanted.role).map_err(|refused| Error::Setting {
        namespace: wanted.name.clone(),
        setting: refused.setting,
        value: refused.value,
        source: refused.source,
    })?;
    if !wanted.families.contains(&Family::V6) {
        settings::no_ipv6().map_err(create("switch IPv6 off"))?;
    }
    netlink::apply(&[Change::Up { index: netlink::LOOPBACK }])
        .map_err(|failed| create("set lo up")(failed.source))?;
    let network = std::fs::File::open("/proc/thread-self/ns/net")
        .map_err(create("open /proc/thread-self/ns/net"))?;
    Ok(Ready { tid: gettid(), network: network.into(), unset })
}

fn own_run() -> io::Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), "/run", Some("tmpfs"), flags, Some("mode=755"))?)
}
