//! Networks that differ from the plain one.

use std::io::{Read, Write};
use std::net::SocketAddr;

use libtest_mimic::Failed;
use touchstone_netlab::{Family, Joined, NodeShape, Offloads, Shape, Topology, plan};

use super::{SOON, accept, check, connect, connect_within, exchange, soon};

fn shape() -> Shape {
    Shape {
        nodes: ["n1", "n2"].map(NodeShape::new).into(),
        outside: vec!["outside".to_owned()],
        ..Shape::default()
    }
}

pub(crate) fn no_offloads() -> Result<(), Failed> {
    let topology = Topology::new(&Shape { offloads: Offloads::Off, ..shape() })?;
    let pods = topology.pods_on(&[("n1", 1), ("n2", 1)])?;
    for family in Family::BOTH {
        let address = SocketAddr::new(pods[1].address(family), 0);
        let listener = pods[1].namespace().tcp_listener(address)?;
        let mut client =
            connect(pods[0].namespace(), pods[0].address(family), listener.local_addr()?)?;
        let (mut server, _) = accept(&listener)?;
        client.set_nonblocking(false)?;
        server.set_nonblocking(false)?;
        server.set_read_timeout(Some(SOON))?;
        client.write_all(&[7; 20_000])?;
        server.read_exact(&mut vec![0; 20_000])?;
    }
    // Every link is switched, also those of pods: a second time changes nothing.
    pods[0].namespace().run(|| touchstone_sys::switch_offloads_off("eth0"))??;
    Ok(())
}

pub(crate) fn further_addresses() -> Result<(), Failed> {
    let topology = Topology::new(&Shape { further_addresses: 2, ..shape() })?;
    let node = topology.node("n1").ok_or("no node n1")?;
    let other = topology.node("n2").ok_or("no node n2")?;
    let outside = &topology.outside()[0];
    for family in Family::BOTH {
        for number in 1..=2 {
            let further = plan::further_address(family, node.number(), number);
            let source = outside.address_through(family, node);
            exchange(outside.namespace(), source, node.namespace(), further)?;
            exchange(other.namespace(), other.address(family), node.namespace(), further)?;
        }
    }
    let too_many = Topology::new(&Shape { further_addresses: 101, ..shape() });
    check(too_many.is_err(), || "more addresses than the plan has".into())
}

pub(crate) fn one_segment() -> Result<(), Failed> {
    let topology = Topology::new(&Shape { joined: Joined::OneSegment, ..shape() })?;
    let neighbour = topology.neighbour().ok_or("no neighbour")?;
    let (one, two) = (topology.node("n1").ok_or("no n1")?, topology.node("n2").ok_or("no n2")?);
    let pods = topology.pods_on(&[("n1", 1), ("n2", 1)])?;
    let outside = &topology.outside()[0];
    for family in Family::BOTH {
        let (first, second) = (pods[0].address(family), pods[1].address(family));
        exchange(one.namespace(), one.address(family), two.namespace(), two.address(family))?;
        exchange(pods[0].namespace(), first, pods[1].namespace(), second)?;
        let source = outside.address_through(family, two);
        exchange(outside.namespace(), source, pods[0].namespace(), first)?;
        let source = plan::node_address(family, plan::NEIGHBOUR);
        exchange(neighbour, source, pods[1].namespace(), second)?;
        let service = plan::load_balancer_ips(family).address;
        let target = SocketAddr::new(service, 80);
        let (_socket, outcome) = connect_within(neighbour, source, target, soon())?;
        let unknown = outcome
            .as_ref()
            .is_err_and(|error| error.raw_os_error() == Some(nix::libc::EHOSTUNREACH));
        check(unknown, || format!("{target}: {outcome:?}"))?;
    }
    // What one of them takes for its own, it answers for.
    let family = Family::V4;
    let service = plan::load_balancer_ips(family);
    two.answer_for(service)?;
    let source = plan::node_address(family, plan::NEIGHBOUR);
    exchange(neighbour, source, two.namespace(), service.address)
}

pub(crate) fn one_family() -> Result<(), Failed> {
    for only in Family::BOTH {
        let topology = Topology::new(&Shape { only: Some(only), ..shape() })?;
        let pods = topology.pods_on(&[("n1", 1), ("n2", 1)])?;
        let (first, second) = (&pods[0], &pods[1]);
        check(first.addresses() == [first.address(only)], || format!("{:?}", first.addresses()))?;
        exchange(first.namespace(), first.address(only), second.namespace(), second.address(only))?;
        let absent = match only {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        };
        let node = topology.node("n1").ok_or("no node n1")?;
        let bound = SocketAddr::new(node.address(absent), 0);
        let listener = node.namespace().tcp_listener(bound);
        check(listener.is_err(), || format!("n1 has {}", node.address(absent)))?;
    }
    Ok(())
}
