//! A host: a thread in a network namespace of its own. Threads that it starts are in the same namespace.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::mpsc::{Sender, channel},
    thread::JoinHandle,
};

use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};
use rtnetlink::{
    Handle, LinkMacVlan, LinkUnspec, LinkVeth, LinkVxlan, RouteMessageBuilder, new_connection,
    packet_route::{
        address::{AddressAttribute, AddressFlags},
        link::{LinkAttribute, LinkMessage, MacVlanMode},
    },
};

type Work = Box<dyn FnOnce() + Send>;

pub(crate) struct Host {
    work: Sender<Work>,
    namespace: OwnedFd,
}

/// Counters of an interface, as `/proc/net/dev` shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) dropped: u64,
}

impl Host {
    /// A new one, with nothing but its loopback interface.
    pub(crate) fn new() -> Self {
        let host = Self::start(|| unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace"));
        host.up("lo");
        host
    }

    /// The one that the test runs on.
    pub(crate) fn here() -> Self {
        Self::start(|| {})
    }

    fn start(enter: impl FnOnce() + Send + 'static) -> Self {
        let (work, inbox) = channel::<Work>();
        let (ready, namespace) = channel();
        std::thread::spawn(move || {
            enter();
            let namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
            ready.send(OwnedFd::from(namespace)).unwrap();
            for work in inbox {
                work();
            }
        });
        Self { work, namespace: namespace.recv().unwrap() }
    }

    /// Does something on this host.
    pub(crate) fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        self.spawn(work).join().expect("the work on the host succeeds")
    }

    /// Starts a thread on this host.
    pub(crate) fn spawn<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
        let (started, thread) = channel();
        self.work.send(Box::new(move || started.send(std::thread::spawn(work)).unwrap())).unwrap();
        thread.recv().unwrap()
    }

    /// Asks rtnetlink on this host for something.
    pub(crate) fn netlink<R, F>(&self, ask: impl FnOnce(Handle) -> F + Send + 'static) -> R
    where
        R: Send + 'static,
        F: Future<Output = R>,
    {
        self.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (connection, handle, _) = new_connection().unwrap();
                tokio::spawn(connection);
                ask(handle).await
            })
        })
    }

    pub(crate) fn index(&self, name: &str) -> u32 {
        let name = name.to_owned();
        self.run(move || if_nametoindex(name.as_str()).unwrap())
    }

    /// Lays a wire from this host's interface to another host's. Both are down.
    pub(crate) fn wire(&self, name: &str, other: &Host, other_name: &str) {
        let (name, other_name, other_namespace) = (name.to_owned(), other_name.to_owned(), other.namespace.as_raw_fd());
        self.netlink(move |handle| async move {
            handle.link().add(LinkVeth::new(&name, &other_name).build()).execute().await.unwrap();
            let moved = LinkUnspec::new_with_name(&other_name).setns_by_fd(other_namespace).build();
            handle.link().set(moved).execute().await.unwrap();
        });
    }

    /// Lays a VXLAN tunnel over a wire, to the other host's address.
    pub(crate) fn vxlan(&self, name: &str, over: &str, to: &str) {
        let (name, over, to) = (name.to_owned(), self.index(over), to.parse().unwrap());
        self.netlink(move |handle| async move {
            let tunnel = LinkVxlan::new(&name, 42).dev(over).remote(to).port(4789).build();
            handle.link().add(tunnel).execute().await.unwrap();
        });
    }

    /// Gives the other host a device of its own on this host's interface, as containers have them without a bridge. It is down.
    pub(crate) fn macvlan(&self, name: &str, over: &str, other: &Host) {
        let (name, over, other) = (name.to_owned(), self.index(over), other.namespace.as_raw_fd());
        self.netlink(move |handle| async move {
            let device = LinkMacVlan::new(&name, over, MacVlanMode::Bridge).build();
            handle.link().add(device).execute().await.unwrap();
            let moved = LinkUnspec::new_with_name(&name).setns_by_fd(other).build();
            handle.link().set(moved).execute().await.unwrap();
        });
    }

    pub(crate) fn delete(&self, name: &str) {
        let index = self.index(name);
        self.netlink(move |handle| async move { handle.link().del(index).execute().await.unwrap() });
    }

    /// Gives an interface an address, which is usable at once.
    pub(crate) fn address(&self, name: &str, address: &str) {
        let (address, length) = address.split_once('/').unwrap();
        let (address, length): (IpAddr, u8) = (address.parse().unwrap(), length.parse().unwrap());
        let index = self.index(name);
        self.netlink(move |handle| async move {
            let mut request = handle.address().add(index, address, length);
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            request.execute().await.unwrap();
        });
    }

    pub(crate) fn default_route(&self, gateway: &str) {
        let gateway: IpAddr = gateway.parse().unwrap();
        self.netlink(move |handle| async move {
            let route = match gateway {
                IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build(),
                IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).build(),
            };
            handle.route().add(route).execute().await.unwrap();
        });
    }

    pub(crate) fn up(&self, name: &str) {
        self.change(LinkUnspec::new_with_name(name).up().build());
    }

    pub(crate) fn down(&self, name: &str) {
        self.change(LinkUnspec::new_with_name(name).down().build());
    }

    pub(crate) fn change(&self, message: LinkMessage) {
        self.netlink(move |handle| async move { handle.link().set(message).execute().await.unwrap() });
    }

    /// Lets TCP make super-packets of more than 64 KB (BIG TCP).
    pub(crate) fn big_tcp(&self, name: &str, bytes: u32) {
        let change = LinkUnspec::new_with_name(name)
            .append_extra_attribute(LinkAttribute::GsoMaxSize(bytes))
            .append_extra_attribute(LinkAttribute::GroMaxSize(bytes));
        self.change(change.build());
    }

    /// Writes a file of this host's `/proc/sys/net`.
    pub(crate) fn sysctl(&self, path: &str, value: &str) {
        let (path, value) = (format!("/proc/sys/net/{path}"), value.to_owned());
        self.run(move || std::fs::write(&path, value).unwrap());
    }

    /// What came in and went out of an interface.
    pub(crate) fn counters(&self, name: &str) -> (Counters, Counters) {
        let wanted = name.to_owned();
        self.run(move || {
            let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{wanted}:"))).unwrap();
            let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
            let counters =
                |at: usize| Counters { bytes: numbers[at], packets: numbers[at + 1], dropped: numbers[at + 3] };
            (counters(0), counters(8))
        })
    }

    /// Switches off what makes super-packets visible on the wire: the interface then counts the packets that a real wire would carry.
    /// The stack still makes super-packets above it, and cuts them when they leave.
    pub(crate) fn segment_before_wire(&self, name: &str) {
        /// `ETHTOOL_SGRO` with 0, and `ETHTOOL_SFEATURES` with all bits from `NETIF_F_TSO` to `NETIF_F_GSO_FRAGLIST` off
        /// (`linux/ethtool.h`, `linux/netdev_features.h`).
        const NO_GRO: [u32; 2] = [0x2c, 0];
        const NO_SEGMENTATION: [u32; 10] = [0x3b, 2, 0xffff_0000, 0, 0x0000_0007, 0, 0, 0, 0, 0];
        self.ethtool(name, &NO_GRO);
        self.ethtool(name, &NO_SEGMENTATION);
    }

    fn ethtool(&self, name: &str, command: &[u32]) {
        let (name, mut command) = (name.to_owned(), command.to_vec());
        self.run(move || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            // SAFETY: zeroes are a valid ifreq.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
                *to = from as libc::c_char;
            }
            request.ifr_ifru.ifru_data = command.as_mut_ptr().cast();
            // SAFETY: the command with its arguments, alive during the call.
            let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
            assert!(result >= 0, "ethtool {:#x}: {}", command[0], std::io::Error::last_os_error());
        });
    }
}
