//! What interfaces a network namespace has, asked from inside.

use std::os::fd::{AsRawFd as _, OwnedFd};

use futures::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, new_connection,
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
        nsid::{NsidAttribute, NsidMessage},
    },
};
use weir_capture_common::dissect::Link;

use crate::{Error, interfaces::link_of};

/// An interface that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) name: String,
    /// What its frames start with; `None` = a kind of device that Weir cannot read.
    pub(super) link: Option<Link>,
    pub(super) below: Below,
}

/// Which interface of the namespace that is captured in shows the same packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Below {
    /// None.
    Nothing,
    /// The other end of a pair.
    Pair,
    /// The one with this index, which carries the packets of several such devices (macvlan, ipvlan).
    Parent(u32),
}

/// Asks in the network namespace of the calling thread; `home` is the one that is captured in.
pub(super) async fn look(home: &OwnedFd) -> Result<Vec<Device>, Error> {
    let (connection, mut handle, _) = new_connection().map_err(Error::Netlink)?;
    let connection = tokio::spawn(connection);
    let found = read(&mut handle, home).await;
    connection.abort();
    // Its socket would keep the namespace alive.
    let _aborted = connection.await;
    found
}

async fn read(handle: &mut Handle, home: &OwnedFd) -> Result<Vec<Device>, Error> {
    let id = id_of(handle, home).await?;
    let mut links = handle.link().get().execute();
    let mut devices = Vec::new();
    while let Some(link) = links.try_next().await? {
        devices.extend(device(&link, id));
    }
    Ok(devices)
}

/// The number that this namespace has for another one; `None` = it has none, so nothing here leads there.
async fn id_of(handle: &mut Handle, other: &OwnedFd) -> Result<Option<i32>, Error> {
    let mut question = NsidMessage::default();
    question.attributes.push(NsidAttribute::Fd(other.as_raw_fd().cast_unsigned()));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(question));
    request.header.flags = NLM_F_REQUEST;
    let mut answers = handle.request(request)?;
    while let Some(answer) = answers.next().await {
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(answer)) => {
                let mut attributes = answer.attributes.into_iter();
                return Ok(attributes.find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) if id >= 0 => Some(id),
                    _ => None,
                }));
            }
            NetlinkPayload::Error(error) => return Err(rtnetlink::Error::NetlinkError(error).into()),
            _ => {}
        }
    }
    Ok(None)
}

fn device(link: &LinkMessage, home: Option<i32>) -> Option<Device> {
    if !link.header.flags.contains(LinkFlags::Up) {
        return None;
    }
    let (mut name, mut other, mut other_namespace, mut kind) = (None, None, None, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Link(index) => other = Some(*index),
            LinkAttribute::LinkNetNsId(id) => other_namespace = Some(*id),
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
            }
            _ => {}
        }
    }
    let leads_home = other_namespace.is_some() && other_namespace == home;
    let below = match (kind, other) {
        (Some(InfoKind::Veth | InfoKind::Netkit), _) if leads_home => Below::Pair,
        (Some(InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan | InfoKind::IpVtap), Some(index))
            if leads_home =>
        {
            Below::Parent(index)
        }
        _ => Below::Nothing,
    };
    let index = link.header.index;
    Some(Device { index, name: name?, link: link_of(link.header.link_layer_type.into()), below })
}
