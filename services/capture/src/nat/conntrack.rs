//! The kernel's table of connections over netlink (Linux, `net/netfilter/nf_conntrack_netlink.c`).

use std::{io, os::fd::AsFd as _, path::Path};

use netlink_packet_core::{
    DefaultNla, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla as _,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple as Part},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt},
};
use weir_capture_common::icmp::{self, Role};

use super::bindings::{Connection, Endpoint, Tuple};

/// Groups of events (`linux/netfilter/nfnetlink_compat.h`).
const NEW: u32 = 1;
const DESTROY: u32 = 3;
/// Room for the events of a second on a busy host; the kernel uses what it needs of it.
const EVENTS_BYTES: usize = 32 << 20;
/// Events that are read at one time.
const MOST_EVENTS: usize = 200_000;
/// The kernel fills at most 32 KB of a dump at once.
const BUFFER_BYTES: usize = 64 << 10;
/// How long a part of the table may take, in milliseconds.
const PATIENCE_MS: u16 = 2_000;
/// What an ICMP and an `ICMPv6` tuple have in place of ports (`enum ctattr_l4proto`): identifier, type, code.
const ICMP_ATTRIBUTES: [[u16; 3]; 2] = [[4, 5, 6], [7, 8, 9]];
/// 0 = conntrack makes no events.
const EVENTS: &str = "/proc/sys/net/netfilter/nf_conntrack_events";

/// Why conntrack cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A system call failed.
    #[error("cannot {0}")]
    System(&'static str, #[source] io::Error),
    /// The kernel refuses to tell.
    #[error("the kernel tells no connections: it has no conntrack over netlink, or the right CAP_NET_ADMIN is missing")]
    Refused(#[source] io::Error),
    /// Events are switched off.
    #[error("net.netfilter.nf_conntrack_events is 0")]
    NoEvents,
    /// It does not answer.
    #[error("no answer within {PATIENCE_MS} ms")]
    Timeout,
}

impl Error {
    /// With all its sources.
    pub(super) fn chain(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    New(Connection),
    Destroyed(Connection),
}

/// How a reading went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// Events were lost.
    pub(super) has_gap: bool,
    /// Messages that make no sense.
    pub(super) unreadable: u64,
}

/// A subscription.
#[derive(Debug)]
pub(super) struct Conntrack {
    events: Socket,
    buffer: Vec<u8>,
}

impl Conntrack {
    /// Subscribes to the events of this thread's network namespace.
    pub(super) fn open() -> Result<Self, Error> {
        let mut events =
            Socket::new(NETLINK_NETFILTER).map_err(|error| Error::System("open a netlink socket", error))?;
        let wrong = |error| Error::System("subscribe to conntrack's events", error);
        events.bind_auto().map_err(wrong)?;
        // As much as it may have: the right to have more may be missing.
        let _larger = setsockopt(&events, sockopt::RcvBufForce, &EVENTS_BYTES);
        events.add_membership(NEW).map_err(wrong)?;
        events.add_membership(DESTROY).map_err(wrong)?;
        if std::fs::read_to_string(Path::new(EVENTS)).is_ok_and(|value| value.trim() == "0") {
            return Err(Error::NoEvents);
        }
        Ok(Self { events, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Reads the events that wait.
    pub(super) fn events(&mut self, mut take: impl FnMut(Change)) -> Read {
        let mut read = Read::default();
        for _ in 0..MOST_EVENTS {
            match self.events.recv(&mut &mut self.buffer[..], libc::MSG_DONTWAIT) {
                Ok(size) => {
                    each(self.buffer.get(..size).unwrap_or_default(), |told| match told {
                        Told::Change(change) => take(change),
                        Told::Unreadable => read.unreadable += 1,
                        Told::Other | Told::Error(_) | Told::Done => {}
                    });
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => read.has_gap = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        read
    }

    /// Reads the whole table; returns how many messages made no sense.
    pub(super) fn table(&mut self, mut take: impl FnMut(Connection)) -> Result<u64, Error> {
        let mut socket =
            Socket::new(NETLINK_NETFILTER).map_err(|error| Error::System("open a netlink socket", error))?;
        let wrong = |error| Error::System("ask for the table of connections", error);
        socket.bind_auto().map_err(wrong)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(wrong)?;
        socket.send(&question(), 0).map_err(wrong)?;
        let (mut unreadable, mut end) = (0, None);
        while end.is_none() {
            wait(&socket)?;
            let size = match socket.recv(&mut &mut self.buffer[..], libc::MSG_DONTWAIT) {
                Ok(size) => size,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(wrong(error)),
            };
            each(self.buffer.get(..size).unwrap_or_default(), |told| match told {
                Told::Change(Change::New(connection)) => take(connection),
                Told::Unreadable => unreadable += 1,
                Told::Done => end = Some(Ok(unreadable)),
                Told::Error(error) => end = Some(Err(Error::Refused(error))),
                Told::Change(Change::Destroyed(_)) | Told::Other => {}
            });
        }
        end.unwrap_or(Ok(unreadable))
    }
}

fn wait(socket: &Socket) -> Result<(), Error> {
    match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PATIENCE_MS)) {
        Ok(0) => Err(Error::Timeout),
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(Error::System("wait for the table of connections", error.into())),
    }
}

fn question() -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let ask = NetfilterMessage::new(
        NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0),
        ConntrackMessage::Get(Vec::new()),
    );
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(ask));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

enum Told {
    Change(Change),
    Done,
    Error(io::Error),
    /// Of no use here.
    Other,
    Unreadable,
}

/// Tells the messages of a datagram.
fn each(mut bytes: &[u8], mut tell: impl FnMut(Told)) {
    while let Some(head) = bytes.first_chunk::<4>() {
        let length = u32::from_ne_bytes(*head) as usize;
        let Some(message) = bytes.get(..length).filter(|_| length >= 16) else { return tell(Told::Unreadable) };
        tell(told(message));
        // NLMSG_ALIGN
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn told(message: &[u8]) -> Told {
    let Ok(message) = NetlinkMessage::<NetfilterMessage>::deserialize(message) else { return Told::Unreadable };
    match message.payload {
        NetlinkPayload::Done(_) => Told::Done,
        NetlinkPayload::Error(error) if error.code.is_some() => Told::Error(error.to_io()),
        NetlinkPayload::InnerMessage(NetfilterMessage { inner: NetfilterMessageInner::Conntrack(inner), .. }) => {
            match inner {
                ConntrackMessage::New(attributes) => change(&attributes, Change::New),
                ConntrackMessage::Delete(attributes) => change(&attributes, Change::Destroyed),
                _ => Told::Other,
            }
        }
        _ => Told::Other,
    }
}

fn change(attributes: &[ConntrackAttribute], make: fn(Connection) -> Change) -> Told {
    let (mut original, mut reply) = (None, None);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(parts) => original = tuple(parts),
            ConntrackAttribute::CtaTupleReply(parts) => reply = tuple(parts),
            _ => {}
        }
    }
    match (original, reply) {
        (Some((original, there)), Some((reply, back))) => {
            Told::Change(make(Connection { original, reply, ids: [there, back] }))
        }
        // Its protocol has neither ports nor requests.
        _ => Told::Other,
    }
}

/// With the identifier that ICMP has.
fn tuple(parts: &[Part]) -> Option<(Tuple, u16)> {
    let (mut src, mut dst, mut protocol) = (None, None, None);
    let (mut ports, mut message) = ([None; 2], [None; 3]);
    for part in parts {
        match part {
            Part::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(address) => src = Some(*address),
                        IPTuple::DestinationAddress(address) => dst = Some(*address),
                        _ => {}
                    }
                }
            }
            Part::Proto(values) => {
                for value in values {
                    match value {
                        ProtoTuple::Protocol(number) => protocol = Some(u8::from(*number)),
                        ProtoTuple::SourcePort(port) => ports[0] = Some(*port),
                        ProtoTuple::DestinationPort(port) => ports[1] = Some(*port),
                        ProtoTuple::Other(value) => {
                            let kind = value.kind();
                            let place =
                                ICMP_ATTRIBUTES.iter().find_map(|kinds| kinds.iter().position(|of| *of == kind));
                            if let Some(place) = place {
                                message[place] = number(value);
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let protocol = protocol?;
    let (src_port, dst_port, id) = match (ports, message) {
        ([Some(src), Some(dst)], _) => (src, dst, 0),
        (_, [Some(id), Some(kind), Some(_)]) => {
            let (src, dst) = asked(protocol, u8::try_from(kind).ok()?)?;
            (src, dst, id)
        }
        _ => return None,
    };
    let tuple = Tuple {
        protocol,
        src: Endpoint { address: src?.into(), port: src_port },
        dst: Endpoint { address: dst?.into(), port: dst_port },
    };
    Some((tuple, id))
}

/// The ports of an ICMP message as a flow has them: who asks has the type of the request.
fn asked(protocol: u8, kind: u8) -> Option<(u16, u16)> {
    let (own, other) = icmp::ports(protocol, kind, 0);
    match icmp::role(protocol, kind) {
        Role::Asks => Some((own, 0)),
        Role::Answers => Some((0, other)),
        Role::Neither => None,
    }
}

/// One or two bytes in network order.
fn number(value: &DefaultNla) -> Option<u16> {
    let mut bytes = [0; 2];
    match value.value_len() {
        1 => value.emit_value(&mut bytes[1..]),
        2 => value.emit_value(&mut bytes),
        _ => return None,
    }
    Some(u16::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = [&(value.len() as u16 + 4).to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
        attribute(kind | 0x8000, &parts.concat())
    }

    fn tuple(kind: u16, src: [u8; 4], dst: [u8; 4], protocol: &[Vec<u8>]) -> Vec<u8> {
        let addresses = nested(1, &[attribute(1, &src), attribute(2, &dst)]);
        nested(kind, &[addresses, nested(2, protocol)])
    }

    /// As the kernel tells the end of a connection.
    fn told_end(original: &[u8], reply: &[u8]) -> Vec<u8> {
        let body = [
            &[2, 0, 0, 0],
            original,
            reply,
            &attribute(12, &1_234_u32.to_be_bytes()),
            &attribute(3, &0x21e_u32.to_be_bytes()),
        ]
        .concat();
        let head = [(body.len() as u32 + 16).to_ne_bytes(), [2, 1, 0, 0], [0; 4], [0; 4]].concat();
        [head, body].concat()
    }

    const CONTAINER: [u8; 4] = [10, 78, 0, 2];
    const HOST: [u8; 4] = [10, 77, 0, 1];
    const SERVER: [u8; 4] = [10, 77, 0, 2];

    /// From port 33444 of the container to port 443 of the server, behind the host.
    fn told_tcp() -> Vec<u8> {
        let ports = |src: u16, dst: u16| {
            [attribute(1, &[6]), attribute(2, &src.to_be_bytes()), attribute(3, &dst.to_be_bytes())]
        };
        told_end(&tuple(1, CONTAINER, SERVER, &ports(33444, 443)), &tuple(2, SERVER, HOST, &ports(443, 33444)))
    }

    /// A ping of the container, behind the host under another identifier.
    fn told_echo(request: u8, answer: u8, code: &[u8]) -> Vec<u8> {
        let message = |id: u16, kind| {
            [attribute(1, &[1]), attribute(4, &id.to_be_bytes()), attribute(5, &[kind]), attribute(6, code)]
        };
        told_end(&tuple(1, CONTAINER, SERVER, &message(7, request)), &tuple(2, SERVER, HOST, &message(9, answer)))
    }

    fn changes(bytes: &[u8]) -> (Vec<Change>, u64) {
        let (mut changes, mut unreadable) = (Vec::new(), 0);
        each(bytes, |told| match told {
            Told::Change(change) => changes.push(change),
            Told::Unreadable => unreadable += 1,
            Told::Done | Told::Error(_) | Told::Other => {}
        });
        (changes, unreadable)
    }

    #[test]
    fn messages_become_connections_and_torn_ones_are_counted() {
        let one = told_tcp();
        let (read, unreadable) = changes(&[one.clone(), one.clone()].concat());
        let [Change::Destroyed(connection), Change::Destroyed(_)] = read[..] else { panic!("{read:?}") };
        assert_eq!(unreadable, 0);
        assert_eq!(connection.original.src.address, std::net::IpAddr::from([10, 78, 0, 2]).into());
        assert_eq!(
            (connection.original.src.port, connection.reply.src.port, connection.reply.dst.port),
            (33444, 443, 33444)
        );
        assert_eq!(connection.ids, [0, 0]);
        // Nothing that is cut anywhere makes it stop working.
        for length in 0..one.len() {
            let (read, _) = changes(&one[..length]);
            assert!(read.is_empty());
        }
        let mut torn = one.clone();
        torn[..4].copy_from_slice(&8_u32.to_ne_bytes());
        assert_eq!(changes(&torn), (Vec::new(), 1));
    }

    #[test]
    fn a_ping_has_the_ports_of_its_flow_and_an_identifier() {
        let (read, unreadable) = changes(&told_echo(8, 0, &[0]));
        let [Change::Destroyed(ping)] = read[..] else { panic!("{read:?}") };
        assert_eq!(unreadable, 0);
        let ports = |tuple: Tuple| (tuple.protocol, tuple.src.port, tuple.dst.port);
        assert_eq!((ports(ping.original), ports(ping.reply), ping.ids), ((1, 8, 0), (1, 0, 8), [7, 9]));
        let [inside, outside] = ping.views();
        assert_eq!((inside.src.port, outside.src.port), (8, 8));
        assert_eq!(outside.src.address, std::net::IpAddr::from(HOST).into());
        // An error is of another conversation, and what is of no length that a number has tells nothing.
        for strange in [told_echo(3, 3, &[0]), told_echo(8, 0, &[0, 0, 0]), told_echo(8, 0, &[])] {
            assert_eq!(changes(&strange), (Vec::new(), 0));
        }
    }
}
