//! Changes as netlink messages.

use std::net::IpAddr;

use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{
    NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
};

use super::{Change, End, LOOPBACK, MAIN_TABLE, Mac};
use crate::plan::{Family, Prefix};

/// The table of addresses that this host takes for its own.
const LOCAL_TABLE: u8 = 255;

/// The whole message for a change.
pub(super) fn message(change: &Change, number: u32) -> NetlinkMessage<RouteNetlinkMessage> {
    let (body, flags) = body(change);
    let mut message = NetlinkMessage::from(body);
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = number;
    message.finalize();
    message
}

fn body(change: &Change) -> (RouteNetlinkMessage, u16) {
    let new = NLM_F_CREATE | NLM_F_EXCL;
    let replace = NLM_F_CREATE | NLM_F_REPLACE;
    match change {
        Change::Veth { near, far, far_namespace, mtu } => {
            let mut peer = link_end(LinkMessage::default(), far, *mtu);
            peer.attributes.push(LinkAttribute::NetNsFd(*far_namespace));
            let mut link = link_end(link_up(near.index), near, *mtu);
            link.attributes.push(LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]));
            (RouteNetlinkMessage::NewLink(link), new)
        }
        Change::Bridge { link: end } => {
            let mut link = link_end(link_up(end.index), end, None);
            link.attributes.push(LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                // Nobody asks who listens to a group, so every port hears every group.
                LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
            ]));
            (RouteNetlinkMessage::NewLink(link), new)
        }
        Change::Port { index, bridge } => {
            let mut link = LinkMessage::default();
            link.header.index = *index;
            link.attributes.push(LinkAttribute::Controller(*bridge));
            (RouteNetlinkMessage::SetLink(link), 0)
        }
        Change::Up { index } => (RouteNetlinkMessage::SetLink(link_up(*index)), 0),
        Change::Mtu { index, mtu } => {
            let mut link = LinkMessage::default();
            link.header.index = *index;
            link.attributes.push(LinkAttribute::Mtu(*mtu));
            (RouteNetlinkMessage::SetLink(link), 0)
        }
        Change::DeleteRoute { to, index } => {
            let mut route = route(to, None, *index, None, MAIN_TABLE);
            route.header.scope = RouteScope::NoWhere;
            (RouteNetlinkMessage::DelRoute(route), 0)
        }
        Change::Address { index, prefix } => {
            (RouteNetlinkMessage::NewAddress(address(*index, prefix)), new)
        }
        Change::Route { to, via, index, source, table } => {
            (RouteNetlinkMessage::NewRoute(route(to, *via, *index, *source, *table)), replace)
        }
        Change::LocalRoute { to } => {
            let mut route = route(to, None, LOOPBACK, None, LOCAL_TABLE);
            route.header.kind = RouteType::Local;
            route.header.scope = RouteScope::Host;
            (RouteNetlinkMessage::NewRoute(route), replace)
        }
        Change::Rule { priority, interface, from, to, table } => {
            let rule = rule(*priority, interface, from.as_ref(), to.as_ref(), *table);
            (RouteNetlinkMessage::NewRule(rule), new)
        }
        Change::Neighbour { index, address, mac } => {
            (RouteNetlinkMessage::NewNeighbour(neighbour(*index, *address, *mac)), replace)
        }
    }
}

fn link_up(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

fn link_end(mut link: LinkMessage, end: &End, mtu: Option<u32>) -> LinkMessage {
    link.header.index = end.index;
    link.attributes.push(LinkAttribute::IfName(end.name.clone()));
    link.attributes.push(LinkAttribute::Address(end.mac.to_vec()));
    link.attributes.extend(mtu.map(LinkAttribute::Mtu));
    link
}

fn address(index: u32, prefix: &Prefix) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(prefix.family());
    message.header.prefix_len = prefix.length;
    message.header.flags = AddressHeaderFlags::Nodad;
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    // The long flags replace the short ones of the header.
    message.attributes = vec![
        AddressAttribute::Local(prefix.address),
        AddressAttribute::Address(prefix.address),
        AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute),
    ];
    message
}

fn route(
    to: &Prefix,
    via: Option<IpAddr>,
    index: u32,
    source: Option<IpAddr>,
    table: u8,
) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(to.family());
    message.header.destination_prefix_length = to.length;
    message.header.table = table;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    if to.length > 0 {
        message.attributes.push(RouteAttribute::Destination(to.address.into()));
    }
    match via {
        Some(gateway) => {
            // The gateway need not be an address of any known range: its neighbour entry says
            // all there is to know.
            message.header.flags = RouteFlags::Onlink;
            message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        }
        None => match to.family() {
            Family::V4 => message.header.scope = RouteScope::Link,
            Family::V6 => {}
        },
    }
    message.attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

fn rule(
    priority: u32,
    interface: &str,
    from: Option<&Prefix>,
    to: Option<&Prefix>,
    table: u8,
) -> RuleMessage {
    let mut message = RuleMessage::default();
    let any = from.or(to).map_or(Family::V4, Prefix::family);
    message.header.family = family(any);
    message.header.action = RuleAction::ToTable;
    message.header.table = table;
    message.attributes.push(RuleAttribute::Priority(priority));
    message.attributes.push(RuleAttribute::Iifname(interface.to_owned()));
    if let Some(from) = from {
        message.header.src_len = from.length;
        message.attributes.push(RuleAttribute::Source(from.address));
    }
    if let Some(to) = to {
        message.header.dst_len = to.length;
        message.attributes.push(RuleAttribute::Destination(to.address));
    }
    message
}

fn neighbour(index: u32, address: IpAddr, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(Family::of(address));
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        NeighbourAttribute::Destination(address.into()),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    message
}

pub(super) fn family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}
