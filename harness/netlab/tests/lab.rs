//! Real packets through real topologies; runs itself inside new namespaces, as any user.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, recvmsg, setsockopt, sockopt,
};
use socket2::{SockAddr, Socket};
use touchstone_netlab::{
    Error, Family, Filter, Moment, Namespace, NamespaceKind, NodeShape, Pod, Prefix, Shape, Tap,
    Topology, plan,
};

mod common;
#[path = "lab/networks.rs"]
mod networks;

const INSIDE: &str = "TOUCHSTONE_NETLAB_TEST_INSIDE";

/// Far more than an answer on this machine needs.
const SOON: Duration = Duration::from_secs(5);

/// Long enough for an answer that must not come, and shorter than the first resent SYN.
const QUIET: u16 = 400;

type Test = fn() -> Result<(), Failed>;

fn main() -> ExitCode {
    if let Some(code) = common::init() {
        return code;
    }
    if std::env::var_os(INSIDE).is_none() {
        return common::contained(INSIDE);
    }
    let tests: &[(&str, Test)] = &[
        ("pods reach each other and see the source", pods_reach_each_other),
        ("pods, nodes and outside clients reach each other", everybody_reaches_everybody),
        ("an outside client enters through the node of its address", outside_enters),
        ("a Service address that nobody handles ends in the sink", unhandled),
        ("a pod address that nobody has ends in the sink once", unknown_pod),
        ("a closed port refuses, a missing host is silent", refused_and_dropped),
        ("the error queue names the offender", offender),
        ("a resent SYN is seen", resent_syn),
        ("sockets come in batches", batches),
        ("two topologies are separate", separate),
        ("a removed pod is gone", removed),
        ("a pod has several addresses", several_addresses),
        ("a pod answers for a range", ranges),
        ("a small MTU does not break TCP", small_mtu),
        ("links without offloads carry TCP", networks::no_offloads),
        ("a node has further addresses", networks::further_addresses),
        ("nodes on one segment find each other, and nobody a Service", networks::one_segment),
        ("a network of one family has nothing of the other", networks::one_family),
        ("nodes have their own /run and host name", own_run),
        ("settings are made", settings),
        ("jobs answer to async callers", async_jobs),
        ("a panic of a job ends nothing", panics),
        ("threads and namespaces end", ends),
    ];
    let trials = tests.iter().map(|&(name, test)| Trial::test(name, test)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn topology() -> Result<Topology, Error> {
    Topology::new(&Shape {
        nodes: ["n1", "n2"].map(NodeShape::new).into(),
        outside: vec!["outside".to_owned()],
        ..Shape::default()
    })
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what().into()) }
}

fn any(family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(Prefix::any(family).address, port)
}

/// Waits for events; `false` if none came in time.
fn ready(fd: impl AsFd, flags: PollFlags, limit: PollTimeout) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd.as_fd(), flags)];
    Ok(poll(&mut fds, limit)? > 0)
}

fn soon() -> PollTimeout {
    PollTimeout::try_from(SOON).unwrap_or(PollTimeout::MAX)
}

/// Connects; `TimedOut` if nothing came back within the limit.
fn connect_within(
    namespace: &Namespace,
    source: IpAddr,
    to: SocketAddr,
    limit: PollTimeout,
) -> Result<(OwnedFd, io::Result<()>), Failed> {
    let socket = Socket::from(namespace.tcp_socket_from(SocketAddr::new(source, 0))?);
    let outcome = match socket.connect(&SockAddr::from(to)) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {
            if ready(&socket, PollFlags::POLLOUT, limit)? {
                socket.take_error()?.map_or(Ok(()), Err)
            } else {
                Err(io::ErrorKind::TimedOut.into())
            }
        }
        other => other,
    };
    Ok((socket.into(), outcome))
}

fn connect(namespace: &Namespace, source: IpAddr, to: SocketAddr) -> Result<TcpStream, Failed> {
    let (socket, outcome) = connect_within(namespace, source, to, soon())?;
    outcome.map_err(|error| format!("connect from {source} to {to}: {error}"))?;
    Ok(socket.into())
}

fn accept(listener: &TcpListener) -> Result<(TcpStream, SocketAddr), Failed> {
    check(ready(listener, PollFlags::POLLIN, soon())?, || "nobody connected".into())?;
    Ok(listener.accept()?)
}

fn receive(socket: &UdpSocket) -> Result<(Vec<u8>, SocketAddr), Failed> {
    check(ready(socket, PollFlags::POLLIN, soon())?, || "no datagram came".into())?;
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer)?;
    Ok((buffer[..length].to_vec(), from))
}

/// TCP and UDP from one address to another, there and back; the source must arrive as it is.
fn exchange(
    from: &Namespace,
    source: IpAddr,
    to: &Namespace,
    address: IpAddr,
) -> Result<(), Failed> {
    let family = Family::of(address);
    let listener = to.tcp_listener(SocketAddr::new(address, 0))?;
    let target = listener.local_addr()?;
    let started = Instant::now();
    let client = connect(from, source, target)?;
    let (_server, seen) = accept(&listener)?;
    check(seen == client.local_addr()? && seen.ip() == source, || {
        format!("{source} was seen as {seen}")
    })?;
    let took = started.elapsed();
    check(took < Duration::from_millis(900), || format!("{source} -> {address} took {took:?}"))?;
    let server = to.udp_socket(SocketAddr::new(address, 0))?;
    let client = from.udp_socket(SocketAddr::new(source, 0))?;
    client.send_to(b"there", server.local_addr()?)?;
    let (text, seen) = receive(&server)?;
    check(text == b"there" && seen.ip() == source, || format!("{source} was seen as {seen}"))?;
    server.send_to(b"back", seen)?;
    let (text, seen) = receive(&client)?;
    check(text == b"back" && seen.ip() == address, || format!("{address} was seen as {seen}"))?;
    check(Family::of(seen.ip()) == family, || "family changed".into())
}

fn pods_reach_each_other() -> Result<(), Failed> {
    let topology = topology()?;
    let pods = topology.pods_on(&[("n1", 2), ("n2", 1)])?;
    for family in Family::BOTH {
        for from in &pods {
            for to in &pods {
                exchange(
                    from.namespace(),
                    from.address(family),
                    to.namespace(),
                    to.address(family),
                )?;
            }
        }
    }
    Ok(())
}

fn everybody_reaches_everybody() -> Result<(), Failed> {
    let topology = topology()?;
    let pod = topology.pod("n2")?;
    let outside = &topology.outside()[0];
    for family in Family::BOTH {
        let mut all: Vec<(&Namespace, IpAddr)> = vec![(pod.namespace(), pod.address(family))];
        for node in topology.nodes() {
            all.push((node.namespace(), node.address(family)));
            all.push((outside.namespace(), outside.address_through(family, node)));
        }
        for &(from, source) in &all {
            for &(to, address) in &all {
                exchange(from, source, to, address)?;
            }
        }
    }
    Ok(())
}

fn outside_enters() -> Result<(), Failed> {
    let topology = topology()?;
    let outside = &topology.outside()[0];
    let taps = topology.nodes().map(|node| Tap::open(node.namespace()));
    let taps: Vec<Tap> = taps.collect::<Result<_, _>>()?;
    let start = topology.sink().now();
    for range in plan::service_ranges() {
        let target = SocketAddr::new(inside(range), 53);
        for ((number, node), tap) in (1..).zip(topology.nodes()).zip(&taps) {
            let one_of_crowd = inside(plan::crowd_range(range.family(), number));
            for source in [outside.address_through(range.family(), node), one_of_crowd] {
                let socket = outside.namespace().udp_socket(SocketAddr::new(source, 0))?;
                socket.send_to(b"x", target)?;
                let filter = Filter { source: Some(source), ..Filter::to(target.ip(), 53) };
                check(tap.settle(&filter, Moment::default(), SOON) == 1, || {
                    format!("{source} -> {target} did not come through {}", node.name())
                })?;
                // The node has no proxy, so its packet goes to the sink, once.
                let in_sink = topology.sink().settle(&filter, start, SOON);
                check(in_sink == 1, || format!("{source} -> {target}: {in_sink} in the sink"))?;
                let elsewhere: usize =
                    taps.iter().map(|tap| tap.count(&filter, Moment::default())).sum();
                check(elsewhere == 1, || format!("{source} -> {target} came through both nodes"))?;
            }
        }
    }
    Ok(())
}

/// An address of a range that is not its first.
fn inside(range: Prefix) -> IpAddr {
    match range.address {
        IpAddr::V4(first) => IpAddr::V4((first.to_bits() + 10).into()),
        IpAddr::V6(first) => IpAddr::V6((first.to_bits() + 10).into()),
    }
}

/// Connects to a place that must stay silent; one SYN must reach the sink with its source.
fn check_silent(
    topology: &Topology,
    namespace: &Namespace,
    source: IpAddr,
    target: SocketAddr,
) -> Result<(), Failed> {
    let start = topology.sink().now();
    let (_socket, outcome) = connect_within(namespace, source, target, PollTimeout::from(QUIET))?;
    check(outcome.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::TimedOut), || {
        format!("{source} -> {target}: {outcome:?}")
    })?;
    let filter = Filter { source: Some(source), ..Filter::to(target.ip(), target.port()) };
    let arrivals = topology.sink().arrivals(&filter, start);
    check(arrivals.len() == 1 && arrivals[0].protocol == 6, || {
        format!("{source} -> {target} in the sink: {arrivals:?}")
    })
}

fn unhandled() -> Result<(), Failed> {
    let topology = topology()?;
    let pod = topology.pod("n1")?;
    let node = topology.node("n2").ok_or("no node n2")?;
    for range in plan::service_ranges() {
        let (family, target) = (range.family(), SocketAddr::new(inside(range), 80));
        check_silent(&topology, pod.namespace(), pod.address(family), target)?;
        check_silent(&topology, node.namespace(), node.address(family), target)?;
    }
    Ok(())
}

fn unknown_pod() -> Result<(), Failed> {
    let topology = topology()?;
    let pods = topology.pods_on(&[("n1", 1), ("n2", 1)])?;
    for family in Family::BOTH {
        let target = SocketAddr::new(plan::pod_address(family, 1, 150), 80);
        for pod in &pods {
            check_silent(&topology, pod.namespace(), pod.address(family), target)?;
        }
        let nowhere = SocketAddr::new(plan::node_gateway(family, 9), 80);
        check_silent(&topology, pods[0].namespace(), pods[0].address(family), nowhere)?;
    }
    Ok(())
}

fn refused_and_dropped() -> Result<(), Failed> {
    let topology = topology()?;
    let pods = topology.pods_on(&[("n1", 1), ("n2", 1)])?;
    for family in Family::BOTH {
        let (from, to) = (&pods[0], &pods[1]);
        let target = SocketAddr::new(to.address(family), 9);
        let source = from.address(family);
        let (_socket, outcome) = connect_within(from.namespace(), source, target, soon())?;
        check(
            outcome.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused),
            || format!("{target}: {outcome:?}"),
        )?;
        let missing = SocketAddr::new(plan::pod_address(family, 2, 99), 9);
        check_silent(&topology, from.namespace(), source, missing)?;
    }
    Ok(())
}

fn offender() -> Result<(), Failed> {
    let topology = topology()?;
    let pods = topology.pods_on(&[("n1", 1), ("n2", 1)])?;
    for family in Family::BOTH {
        let target = SocketAddr::new(pods[1].address(family), 9);
        let socket = pods[0].namespace().udp_socket(any(family, 0))?;
        match family {
            Family::V4 => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
            Family::V6 => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
        }
        socket.send_to(b"x", target)?;
        check(ready(&socket, PollFlags::POLLERR, soon())?, || "no error came".into())?;
        let offender = read_offender(&socket)?;
        check(offender == Some(target.ip()), || format!("offender {offender:?}"))?;
    }
    Ok(())
}

fn read_offender(socket: &UdpSocket) -> Result<Option<IpAddr>, Failed> {
    let mut control = vec![0; 512];
    let mut nothing = [];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut nothing,
        Some(&mut control),
        MsgFlags::MSG_ERRQUEUE,
    )?;
    for message in message.cmsgs()? {
        if let ControlMessageOwned::Ipv4RecvErr(_, Some(address)) = message {
            return Ok(Some(IpAddr::V4(SockaddrIn::from(address).ip())));
        }
        if let ControlMessageOwned::Ipv6RecvErr(_, Some(address)) = message {
            return Ok(Some(IpAddr::V6(SockaddrIn6::from(address).ip())));
        }
    }
    Ok(None)
}

fn resent_syn() -> Result<(), Failed> {
    let topology = topology()?;
    let pod = topology.pod("n1")?;
    let source = pod.address(Family::V4);
    let target = SocketAddr::new(inside(plan::cluster_ips(Family::V4)), 80);
    let limit = PollTimeout::from(1500_u16);
    let (socket, _) = connect_within(pod.namespace(), source, target, limit)?;
    let info = touchstone_sys::tcp_info(&socket)?;
    check(info.resent() && info.total_retrans == 1, || format!("{info:?}"))?;
    let listener = pod.namespace().tcp_listener(SocketAddr::new(source, 0))?;
    let client = connect(pod.namespace(), source, listener.local_addr()?)?;
    let info = touchstone_sys::tcp_info(&client)?;
    check(!info.resent(), || format!("{info:?}"))
}

fn batches() -> Result<(), Failed> {
    let topology = topology()?;
    let pod = topology.pod("n1")?;
    let listener = pod.namespace().tcp_listener(any(Family::V4, 0))?;
    let target = SocketAddr::new(pod.address(Family::V4), listener.local_addr()?.port());
    let sockets = pod.namespace().tcp_sockets(Family::V4, 300)?;
    check(sockets.len() == 300, || format!("{} sockets", sockets.len()))?;
    for socket in sockets.into_iter().map(Socket::from) {
        let flags = fcntl(&socket, FcntlArg::F_GETFD)?;
        check(socket.nonblocking()? && flags & nix::libc::FD_CLOEXEC != 0, || {
            "wrong flags".into()
        })?;
        if let Err(error) = socket.connect(&SockAddr::from(target)) {
            check(error.raw_os_error() == Some(nix::libc::EINPROGRESS), || error.to_string())?;
        }
        accept(&listener)?;
    }
    let sockets = pod.namespace().udp_sockets(any(Family::V6, 0), 100)?;
    let ports: std::collections::BTreeSet<u16> =
        sockets.iter().map(|s| s.local_addr().map(|a| a.port())).collect::<Result<_, _>>()?;
    check(ports.len() == 100, || format!("{} ports", ports.len()))
}

fn separate() -> Result<(), Failed> {
    let (one, other) = (topology()?, topology()?);
    let (here, there) = (one.pod("n1")?, other.pod("n1")?);
    let address = here.address(Family::V4);
    check(address == there.address(Family::V4), || "the plan differs".into())?;
    let listener = here.namespace().tcp_listener(SocketAddr::new(address, 8080))?;
    let target = listener.local_addr()?;
    connect(here.namespace(), address, target)?;
    let (_socket, outcome) = connect_within(there.namespace(), address, target, soon())?;
    check(outcome.is_err(), || "the other topology answered".into())
}

fn removed() -> Result<(), Failed> {
    let topology = topology()?;
    let mut pods = topology.pods("n1", 3)?;
    let (third, second) = (pods.pop().ok_or("no pod")?, pods.pop().ok_or("no pod")?);
    let pod = &pods[0];
    for family in Family::BOTH {
        exchange(pod.namespace(), pod.address(family), second.namespace(), second.address(family))?;
    }
    let gone = second.addresses();
    second.remove()?;
    for address in gone {
        let source = pod.address(Family::of(address));
        check_silent(&topology, pod.namespace(), source, SocketAddr::new(address, 8080))?;
    }
    drop(third);
    let next = topology.pod("n1")?;
    check(next.number() == 4, || format!("number {} was given again at once", next.number()))?;
    exchange(pod.namespace(), pod.address(Family::V4), next.namespace(), next.address(Family::V4))
}

fn several_addresses() -> Result<(), Failed> {
    let topology = topology()?;
    let mut pods = topology.pods_on(&[("n1", 1), ("n2", 1)])?;
    let extra: [IpAddr; 2] = ["10.244.1.211".parse()?, "fd00:10:244:1::211".parse()?];
    for address in extra {
        pods[0].add_address(address)?;
        let again = pods[0].add_address(address);
        check(matches!(again, Err(Error::Taken { .. })), || format!("{again:?}"))?;
        let family = Family::of(address);
        let (owner, other) = (&pods[0], &pods[1]);
        exchange(other.namespace(), other.address(family), owner.namespace(), address)?;
        exchange(owner.namespace(), address, other.namespace(), other.address(family))?;
    }
    let foreign = pods[0].add_address("10.244.2.211".parse()?);
    check(matches!(foreign, Err(Error::OutsideRange { .. })), || format!("{foreign:?}"))?;
    check(pods[0].addresses().len() == 4, || format!("{:?}", pods[0].addresses()))
}

fn ranges() -> Result<(), Failed> {
    let topology = topology()?;
    let mut pods = topology.pods_on(&[("n1", 1), ("n2", 1)])?;
    let range = Prefix::new("10.200.0.0".parse()?, 15);
    pods[0].answer_for(range)?;
    let (owner, other) = (&pods[0], &pods[1]);
    for address in ["10.200.0.1", "10.201.255.254"] {
        let address = address.parse()?;
        let source = other.address(Family::V4);
        exchange(other.namespace(), source, owner.namespace(), address)?;
    }
    let first = pods.swap_remove(0);
    first.remove()?;
    let other: &Pod = &pods[0];
    let target = SocketAddr::new("10.200.0.1".parse()?, 80);
    check_silent(&topology, other.namespace(), other.address(Family::V4), target)
}

fn small_mtu() -> Result<(), Failed> {
    use std::io::{Read, Write};
    let topology = topology()?;
    let pods = topology.pods_on(&[("n1", 1), ("n2", 1)])?;
    let node = topology.node("n2").ok_or("no node n2")?;
    let refused = node.set_mtu(1000);
    check(matches!(refused, Err(Error::Mtu { .. })), || format!("{refused:?}"))?;
    node.set_mtu(1300)?;
    pods[1].set_mtu(1400)?;
    for family in Family::BOTH {
        let listener =
            pods[1].namespace().tcp_listener(SocketAddr::new(pods[1].address(family), 0))?;
        let mut client =
            connect(pods[0].namespace(), pods[0].address(family), listener.local_addr()?)?;
        let (mut server, _) = accept(&listener)?;
        client.set_nonblocking(false)?;
        server.set_nonblocking(false)?;
        server.set_read_timeout(Some(SOON))?;
        client.write_all(&[7; 20_000])?;
        let mut buffer = vec![0; 20_000];
        server.read_exact(&mut buffer)?;
        let path = touchstone_sys::tcp_info(&client)?.path_mtu;
        check(path == 1300, || format!("path MTU {path}"))?;
    }
    Ok(())
}

fn own_run() -> Result<(), Failed> {
    let topology = topology()?;
    let node = |name: &str| topology.node(name).ok_or("no such node");
    let file = Path::new("/run/touchstone-test");
    node("n1")?.namespace().run(move || std::fs::write(file, "x"))??;
    let seen = node("n2")?.namespace().run(move || file.exists())?;
    check(!seen && !file.exists(), || "/run is shared".into())?;
    let mut cat = Command::new("cat");
    cat.arg("/proc/sys/kernel/hostname").arg(file).stdout(Stdio::piped());
    let output = node("n1")?.namespace().spawn(cat)?.wait_with_output()?;
    check(output.stdout == b"n1\nx", || format!("{output:?}"))?;
    let path = node("n1")?.namespace().path(NamespaceKind::Mount);
    let same = std::fs::read_link(path)? == std::fs::read_link("/proc/self/ns/mnt")?;
    check(!same, || "the node has the mounts of all".into())
}

fn settings() -> Result<(), Failed> {
    let topology = topology()?;
    let pod = topology.pod("n1")?;
    let node = topology.node("n1").ok_or("no node n1")?.namespace();
    let unset: Vec<String> =
        topology.unset().values().flat_map(|all| all.iter()).map(|u| u.setting.clone()).collect();
    for (namespace, setting, value) in [
        (node, "net.ipv4.ip_forward", "1"),
        (node, "net.ipv6.conf.all.forwarding", "1"),
        (node, "net.ipv4.conf.eth0.rp_filter", "0"),
        (node, "net.ipv4.icmp_ratelimit", "0"),
        (node, "net.ipv4.icmp_ratemask", "0"),
        (node, "net.ipv6.icmp.ratelimit", "0"),
        (node, "net.ipv6.icmp.ratemask", ""),
        (node, "net.ipv4.conf.eth0.send_redirects", "0"),
        (node, "net.netfilter.nf_conntrack_tcp_timeout_time_wait", "2"),
        (pod.namespace(), "net.ipv4.ip_forward", "0"),
        (pod.namespace(), "net.ipv4.ip_local_port_range", "10240\t65535"),
        (pod.namespace(), "net.core.somaxconn", "4096"),
    ] {
        if unset.iter().any(|name| name == setting) {
            continue;
        }
        let seen = namespace.setting(setting)?;
        check(seen == value, || format!("{setting} is {seen:?}, not {value:?}"))?;
    }
    node.set("net.ipv4.conf.all.route_localnet", "1")?;
    let seen = node.setting("net.ipv4.conf.all.route_localnet")?;
    check(seen == "1", || format!("route_localnet is {seen:?}"))?;
    let missing = node.set("net.ipv4.no_such_setting", "1");
    check(matches!(missing, Err(Error::Setting { .. })), || format!("{missing:?}"))
}

fn async_jobs() -> Result<(), Failed> {
    let topology = topology()?;
    let pod = topology.pod("n1")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let name = "/proc/thread-self/ns/net";
    let first = pod.namespace().run_async(move || std::fs::read_link(name));
    let (one, two) = runtime.block_on(async {
        let second = pod.namespace().run_async(move || std::fs::read_link(name));
        tokio::join!(first, second)
    });
    let (one, two) = (one??, two??);
    let outside = std::fs::read_link(name)?;
    check(one == two && one != outside, || format!("{one:?} {two:?} {outside:?}"))
}

fn panics() -> Result<(), Failed> {
    let topology = topology()?;
    let node = topology.node("n1").ok_or("no node n1")?.namespace();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let lost = node.run(|| panic!("on purpose"));
    std::panic::set_hook(hook);
    check(matches!(lost, Err(Error::Gone { .. })), || format!("{lost:?}"))?;
    check(node.run(|| 1 + 1)? == 2, || "the thread is gone".into())
}

fn ends() -> Result<(), Failed> {
    let topology = topology()?;
    let pod = topology.pod("n1")?;
    let tasks: Vec<String> = topology
        .nodes()
        .map(|node| node.namespace())
        .chain([pod.namespace(), topology.fabric()])
        .map(|namespace| format!("/proc/self/task/{}", namespace.thread_id()))
        .collect();
    check(tasks.iter().all(|task| Path::new(task).exists()), || "no threads".into())?;
    drop(topology);
    // The pod keeps its node.
    pod.namespace().run(|| ())?;
    drop(pod);
    // A joined thread leaves /proc a moment later.
    let start = Instant::now();
    while tasks.iter().any(|task| Path::new(task).exists()) {
        check(start.elapsed() < SOON, || "a thread is left".into())?;
        std::thread::yield_now();
    }
    Ok(())
}
