//! Follows the interfaces and routes of the network namespace over rtnetlink.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection,
    packet_route::{
        link::LinkAttribute,
        route::{RouteAttribute, RouteMessage},
    },
};
use tokio::sync::watch::Sender;
use tracing::warn;
use weir_service::Shutdown;

use super::{Interface, Network, link_of};
use crate::Error;

/// Changes come in bursts; what comes within this time is looked at once.
const SETTLE: Duration = Duration::from_millis(20);
/// The kernel drops notifications when it is short of memory, so look now and then without one.
const REFRESH: Duration = Duration::from_secs(10);

/// Sends what there is, at once and after each change, until `shutdown`.
pub async fn watch(network: Sender<Network>, shutdown: Shutdown) -> Result<(), Error> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
    let (connection, handle, mut changes) = new_multicast_connection(&groups).map_err(Error::Netlink)?;
    let connection = tokio::spawn(connection);
    loop {
        match read(&handle).await {
            Ok(now) => {
                network.send_if_modified(|before| {
                    let changed = *before != now;
                    *before = now;
                    changed
                });
            }
            // A dump that was interrupted by a change, for example: there will be another one.
            Err(error) => {
                metrics::counter!("weir_capture_netlink_failures_total").increment(1);
                warn!(error = &error as &dyn std::error::Error, "cannot read the network interfaces");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            change = changes.next() => if change.is_none() { break },
            () = tokio::time::sleep(REFRESH) => {}
        }
        let settled = tokio::time::sleep(SETTLE);
        tokio::pin!(settled);
        loop {
            tokio::select! {
                () = &mut settled => break,
                change = changes.next() => if change.is_none() { break },
            }
        }
    }
    connection.abort();
    Ok(())
}

async fn read(handle: &Handle) -> Result<Network, Error> {
    let mut network = Network::default();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await? {
        let name = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        let Some(name) = name else { continue };
        network.interfaces.push(Interface {
            index: link.header.index,
            name,
            link: link_of(link.header.link_layer_type.into()),
        });
    }
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    for request in [v4, v6] {
        let mut routes = handle.route().get(request).execute();
        while let Some(route) = routes.try_next().await? {
            if route.header.destination_prefix_length == 0 && route.header.table == libc::RT_TABLE_MAIN {
                network.default_routes.extend(outputs(&route));
            }
        }
    }
    Ok(network)
}

/// Interfaces that a route leads to.
fn outputs(route: &RouteMessage) -> impl Iterator<Item = u32> {
    route.attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    })
}
