//! A filter as a classic BPF program at the socket (`SO_ATTACH_FILTER`), so that the kernel does not copy what nobody wants.
//!
//! It decides about whole TCP and UDP packets straight behind an Ethernet header, or without one; whatever else there is (tags, labels, tunnels,
//! fragments, extension headers, short packets) it lets through, and [`super::frame::Chooser`] decides. So it never keeps away what that
//! would choose.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use libc::{
    BPF_ABS, BPF_ADD, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IMM, BPF_IND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP,
    BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_LEN, BPF_MEM, BPF_MISC, BPF_MSH, BPF_OR, BPF_RET, BPF_RSH, BPF_ST, BPF_TAX,
    BPF_TXA, BPF_W, BPF_X, sock_filter,
};
use weir_capture_common::dissect::Link;
use weir_filter::{Atom, PacketFilter, Prefix};

/// The kernel takes no longer ones (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;
/// The longest packet is shorter.
const WHOLE: u32 = 0x0004_0000;
const TCP: u32 = 6;
const UDP: u32 = 17;
/// Ports of tunnels, whose packets are not what they seem (VXLAN, Geneve).
const TUNNELS: [u32; 3] = [4789, 8472, 6081];
/// Words of the scratch memory: the answers, and both ports.
const ANSWERS: u32 = 0;
const PORTS: [u32; 2] = [2, 3];

/// The program of a filter; `None` = it accepts everything, or the program would be too long.
pub(super) fn program(filter: &PacketFilter, link: Link) -> Option<Vec<sock_filter>> {
    if filter.accepts_everything() {
        return None;
    }
    let mut code = Code::default();
    for word in [ANSWERS, ANSWERS + 1] {
        code.put(BPF_LD | BPF_IMM, 0);
        code.put(BPF_ST, word);
    }
    let start = match link {
        Link::Ethernet => {
            code.put(BPF_LD | BPF_H | BPF_ABS, 12);
            14
        }
        Link::Ip => {
            code.put(BPF_LD | BPF_B | BPF_ABS, 0);
            code.put(BPF_ALU | BPF_RSH | BPF_K, 4);
            0
        }
    };
    let (four, six) = if start == 0 { (4, 6) } else { (0x0800, 0x86dd) };
    let ipv6 = code.unless(BPF_JEQ, four);
    ipv4(&mut code, filter, start);
    let terms = code.jump();
    code.land(ipv6);
    // The accumulator still has it: nothing was loaded on this way.
    code.accept_unless(BPF_JEQ, six);
    ipv6_packet(&mut code, filter, start);
    code.land(terms);
    for term in &filter.terms {
        let words = [0, 32].map(|shift| ((term.care >> shift) as u32, (term.want >> shift) as u32));
        let mut others = Vec::new();
        for (word, (care, want)) in words.into_iter().enumerate() {
            code.put(BPF_LD | BPF_MEM, ANSWERS + word as u32);
            code.put(BPF_ALU | BPF_AND | BPF_K, care);
            others.push(code.unless(BPF_JEQ, want));
        }
        code.put(BPF_RET | BPF_K, WHOLE);
        code.land_all(others);
    }
    code.put(BPF_RET | BPF_K, 0);
    (code.0.len() <= MAX_INSTRUCTIONS).then_some(code.0)
}

/// Puts a program in front of a socket.
pub(super) fn attach(socket: &impl AsFd, program: &mut [sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let size = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: a program and its length, alive during the call; the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn ipv4(code: &mut Code, filter: &PacketFilter, start: u32) {
    // A header of less than 20 bytes is none.
    code.put(BPF_LD | BPF_B | BPF_ABS, start);
    code.put(BPF_ALU | BPF_AND | BPF_K, 0x0f);
    code.accept_unless(BPF_JGE, 5);
    // More fragments follow, or it is a later one.
    code.put(BPF_LD | BPF_H | BPF_ABS, start + 6);
    code.accept_if(BPF_JSET, 0x3fff);
    code.transport(start + 9);
    // Long enough for the longest header that is looked at.
    code.put(BPF_LDX | BPF_B | BPF_MSH, start);
    code.put(BPF_MISC | BPF_TXA, 0);
    code.put(BPF_ALU | BPF_ADD | BPF_K, start + 20);
    code.put(BPF_MISC | BPF_TAX, 0);
    code.put(BPF_LD | BPF_W | BPF_LEN, 0);
    code.accept_unless_x(BPF_JGE);
    code.put(BPF_LDX | BPF_B | BPF_MSH, start);
    code.ports(BPF_IND, start);
    let addresses = [start + 12, start + 16];
    code.atoms(filter, start + 9, |code, prefix, hits| v4_prefix(code, prefix, addresses, hits));
}

fn ipv6_packet(code: &mut Code, filter: &PacketFilter, start: u32) {
    code.put(BPF_LD | BPF_W | BPF_LEN, 0);
    code.accept_unless(BPF_JGE, start + 40 + 20);
    code.transport(start + 6);
    code.ports(BPF_ABS, start + 40);
    let addresses = [start + 8, start + 24];
    code.atoms(filter, start + 6, |code, prefix, hits| v6_prefix(code, prefix, addresses, hits));
}

/// IPv4 addresses are those of `::ffff:0:0/96`.
fn v4_prefix(code: &mut Code, prefix: &Prefix, addresses: [u32; 2], hits: &mut Vec<usize>) {
    let Some(bits) = prefix.length.checked_sub(96).filter(|bits| *bits > 0) else {
        if prefix.contains(std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()) {
            hits.push(code.jump());
        }
        return;
    };
    let Some(address) = prefix.address.to_ipv4_mapped() else { return };
    let mask = u32::MAX << (32 - u32::from(bits));
    for at in addresses {
        code.put(BPF_LD | BPF_W | BPF_ABS, at);
        code.put(BPF_ALU | BPF_AND | BPF_K, mask);
        let other = code.unless(BPF_JEQ, address.to_bits() & mask);
        hits.push(code.jump());
        code.land(other);
    }
}

fn v6_prefix(code: &mut Code, prefix: &Prefix, addresses: [u32; 2], hits: &mut Vec<usize>) {
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix.length)).unwrap_or(0);
    let address = prefix.address.to_bits() & mask;
    for at in addresses {
        let mut others = Vec::new();
        for word in 0..4 {
            let shift = 96 - 32 * word;
            let (mask, wanted) = ((mask >> shift) as u32, (address >> shift) as u32);
            if mask != 0 {
                code.put(BPF_LD | BPF_W | BPF_ABS, at + 4 * word);
                code.put(BPF_ALU | BPF_AND | BPF_K, mask);
                others.push(code.unless(BPF_JEQ, wanted));
            }
        }
        hits.push(code.jump());
        code.land_all(others);
    }
}

/// Instructions; conditions jump over an unconditional one, whose distance is not limited to a byte.
#[derive(Default)]
struct Code(Vec<sock_filter>);

impl Code {
    fn put(&mut self, code: u32, k: u32) {
        self.0.push(sock_filter { code: code as u16, jt: 0, jf: 0, k });
    }

    /// Jumps to somewhere that is not known yet.
    fn jump(&mut self) -> usize {
        self.put(BPF_JMP | BPF_JA, 0);
        self.0.len() - 1
    }

    /// Lets a jump end here.
    fn land(&mut self, jump: usize) {
        self.0[jump].k = (self.0.len() - jump - 1) as u32;
    }

    fn land_all(&mut self, jumps: Vec<usize>) {
        for jump in jumps {
            self.land(jump);
        }
    }

    /// Jumps to somewhere, unless this holds for the accumulator.
    fn unless(&mut self, condition: u32, k: u32) -> usize {
        self.0.push(sock_filter { code: (BPF_JMP | condition | BPF_K) as u16, jt: 1, jf: 0, k });
        self.jump()
    }

    fn accept_unless(&mut self, condition: u32, k: u32) {
        self.0.push(sock_filter { code: (BPF_JMP | condition | BPF_K) as u16, jt: 1, jf: 0, k });
        self.put(BPF_RET | BPF_K, WHOLE);
    }

    fn accept_if(&mut self, condition: u32, k: u32) {
        self.0.push(sock_filter { code: (BPF_JMP | condition | BPF_K) as u16, jt: 0, jf: 1, k });
        self.put(BPF_RET | BPF_K, WHOLE);
    }

    /// Compared with the index register.
    fn accept_unless_x(&mut self, condition: u32) {
        self.0.push(sock_filter { code: (BPF_JMP | condition | BPF_X) as u16, jt: 1, jf: 0, k: 0 });
        self.put(BPF_RET | BPF_K, WHOLE);
    }

    /// Lets through what is neither TCP nor UDP.
    fn transport(&mut self, protocol_at: u32) {
        self.put(BPF_LD | BPF_B | BPF_ABS, protocol_at);
        self.0.push(sock_filter { code: (BPF_JMP | BPF_JEQ | BPF_K) as u16, jt: 2, jf: 0, k: TCP });
        self.accept_unless(BPF_JEQ, UDP);
    }

    /// Keeps both ports in mind, and lets tunnels through.
    fn ports(&mut self, mode: u32, at: u32) {
        for (word, offset) in PORTS.into_iter().zip([0, 2]) {
            self.put(BPF_LD | BPF_H | mode, at + offset);
            self.put(BPF_ST, word);
            for tunnel in TUNNELS {
                self.accept_if(BPF_JEQ, tunnel);
            }
        }
    }

    /// Answers all questions.
    fn atoms(&mut self, filter: &PacketFilter, protocol_at: u32, prefix: impl Fn(&mut Self, &Prefix, &mut Vec<usize>)) {
        for (bit, atom) in filter.atoms.iter().enumerate() {
            let mut hits = Vec::new();
            match atom {
                Atom::Addresses(prefixes) => prefixes.iter().for_each(|one| prefix(self, one, &mut hits)),
                Atom::Ports(ranges) => ranges.iter().for_each(|range| self.port_range(*range, &mut hits)),
                Atom::Protocols(protocols) => {
                    for protocol in protocols {
                        self.put(BPF_LD | BPF_B | BPF_ABS, protocol_at);
                        let other = self.unless(BPF_JEQ, (*protocol).into());
                        hits.push(self.jump());
                        self.land(other);
                    }
                }
                // Answered before, for the interface of the socket.
                Atom::Interface(_) => {}
            }
            let missed = self.jump();
            self.land_all(hits);
            let word = ANSWERS + bit as u32 / 32;
            self.put(BPF_LD | BPF_MEM, word);
            self.put(BPF_ALU | BPF_OR | BPF_K, 1 << (bit % 32));
            self.put(BPF_ST, word);
            self.land(missed);
        }
    }

    fn port_range(&mut self, (first, last): (u16, u16), hits: &mut Vec<usize>) {
        for word in PORTS {
            self.put(BPF_LD | BPF_MEM, word);
            let below = self.unless(BPF_JGE, first.into());
            self.0.push(sock_filter { code: (BPF_JMP | BPF_JGT | BPF_K) as u16, jt: 1, jf: 0, k: last.into() });
            hits.push(self.jump());
            self.land(below);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use proptest::prelude::*;

    use super::*;
    use crate::demand::frame::Chooser;

    /// A socket with a program in front, and its other end. A datagram is to the program what a frame is at a packet socket.
    fn socket(filter: &PacketFilter, link: Link) -> Option<(UnixDatagram, UnixDatagram)> {
        let (near, far) = UnixDatagram::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        attach(&far, &mut program(filter, link)?).expect("the kernel takes the program");
        Some((near, far))
    }

    fn passes((near, far): &(UnixDatagram, UnixDatagram), frame: &[u8]) -> bool {
        near.send(frame).unwrap();
        far.recv(&mut [0; 2048]).is_ok()
    }

    fn packet(six: bool, protocol: u8, ends: [u8; 2], ports: [u16; 2], fragment: u16, options: usize) -> Vec<u8> {
        let mut packet = Vec::new();
        let payload = 40;
        if six {
            packet.extend([0x60, 0, 0, 0, 0, payload, protocol, 64]);
            for end in ends {
                packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end]);
            }
        } else {
            let header = 20 + 4 * options;
            packet.extend([0x40 | (header / 4) as u8, 0, 0, header as u8 + payload, 0, 7]);
            packet.extend(fragment.to_be_bytes());
            packet.extend([64, protocol, 0, 0, 10, 0, 0, ends[0], 10, 0, 0, ends[1]]);
            packet.resize(header, 0);
        }
        packet.extend(ports[0].to_be_bytes());
        packet.extend(ports[1].to_be_bytes());
        packet.resize(packet.len() + usize::from(payload) - 4, 0);
        packet
    }

    fn on(link: Link, six: bool, packet: &[u8]) -> Vec<u8> {
        let ether_type: [u8; 2] = if six { [0x86, 0xdd] } else { [8, 0] };
        match link {
            Link::Ethernet => [&[2; 12][..], &ether_type, packet].concat(),
            Link::Ip => packet.to_vec(),
        }
    }

    #[test]
    fn a_filter_that_accepts_everything_needs_no_program_and_a_long_one_has_none() {
        assert!(program(&PacketFilter::everything(), Link::Ip).is_none());
        let many: Vec<_> = (0..250).map(|n| format!("2001:db8::{n:x}")).collect();
        let filter = PacketFilter::read(&format!("ip in ({})", many.join(", "))).unwrap();
        assert!(program(&filter, Link::Ethernet).is_none());
    }

    fn comparison() -> impl Strategy<Value = String> {
        prop_oneof![
            (0..4_u8, 28..=32_u8).prop_map(|(end, length)| format!("ip in 10.0.0.{end}/{length}")),
            (0..4_u8, 125..=128_u8).prop_map(|(end, length)| format!("ip in fd00::{end}/{length}")),
            Just("ip in ::/0".to_owned()),
            Just("ip in fd00::/8".to_owned()),
            Just("ip in 0.0.0.0/0".to_owned()),
            (0..6_u16).prop_map(|port| format!("port = {port}")),
            (0..6_u16, prop_oneof!["<", "<=", ">", ">="]).prop_map(|(port, than)| format!("port {than} {port}")),
            prop_oneof!["protocol = tcp", "protocol in (udp, icmp)"],
        ]
    }

    fn filter() -> impl Strategy<Value = String> {
        comparison().prop_recursive(3, 10, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|inside| format!("not ({inside})")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) and ({b})")),
                (inner.clone(), inner).prop_map(|(a, b)| format!("({a}) or ({b})")),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_kernel_decides_about_plain_packets_as_user_space_does(
            text in filter(), ethernet: bool, six: bool, tcp: bool, ends in (0..4_u8, 0..4_u8), ports in (0..7_u16, 0..7_u16),
            options in 0..4_usize,
        ) {
            let Ok(filter) = PacketFilter::read(&text) else { return Ok(()) };
            let link = if ethernet { Link::Ethernet } else { Link::Ip };
            let protocol = if tcp { 6 } else { 17 };
            let frame = on(link, six, &packet(six, protocol, [ends.0, ends.1], [ports.0, ports.1], 0, options));
            let chosen = Chooser::default().choose(&frame, link, &filter).is_some();
            let Some(socket) = socket(&filter, link) else { return Ok(()) };
            prop_assert_eq!(passes(&socket, &frame), chosen, "{}: {:?}", text, frame);
        }

        #[test]
        fn the_kernel_keeps_nothing_away_that_user_space_chooses(
            text in filter(), ethernet: bool, six: bool, protocol in prop_oneof![Just(6_u8), Just(17), Just(1), Just(4), Just(47), any::<u8>()],
            ports in prop_oneof![(0..7_u16, 0..7_u16), Just((9, 4789)), Just((9, 6081))], fragment in prop_oneof![Just(0_u16), any::<u16>()],
            changed in proptest::collection::vec((0..80_usize, any::<u8>()), 0..4), length in 1..100_usize,
        ) {
            let Ok(filter) = PacketFilter::read(&text) else { return Ok(()) };
            let link = if ethernet { Link::Ethernet } else { Link::Ip };
            let mut frame = on(link, six, &packet(six, protocol, [1, 2], [ports.0, ports.1], fragment, 0));
            for (at, byte) in changed {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            frame.truncate(length);
            let chosen = Chooser::default().choose(&frame, link, &filter).is_some();
            let Some(socket) = socket(&filter, link) else { return Ok(()) };
            prop_assert!(passes(&socket, &frame) || !chosen, "{}: {:?}", text, frame);
        }
    }
}
