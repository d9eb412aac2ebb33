use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use weir_flow::Record;
use weir_proto::CarvedFlow;

use super::*;
use crate::analysis::{Live, analyse};

fn recording(name: &str) -> File {
    File::open(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(name)).unwrap()
}

/// The flows of a recording, and the packets of each.
fn flows(name: &str) -> BTreeMap<u64, (CarvedFlow, u64)> {
    let mut flows = BTreeMap::<u64, (CarvedFlow, u64)>::new();
    let config = weir_flow::Config::default();
    analyse(recording(name), Limits::default(), config, &Live::default(), |record| {
        if let Record::Flow(flow) = record {
            let entry = flows.entry(flow.flow_id).or_insert_with(|| {
                let carved = CarvedFlow {
                    flow_id: flow.flow_id,
                    src_ip_high: flow.src_ip_high,
                    src_ip_low: flow.src_ip_low,
                    dst_ip_high: flow.dst_ip_high,
                    dst_ip_low: flow.dst_ip_low,
                    src_port: flow.src_port,
                    dst_port: flow.dst_port,
                    protocol: flow.protocol,
                    vlan: flow.vlan,
                    tunnel: flow.tunnel.clone(),
                    start_time: flow.start_time,
                    end_time: flow.end_time,
                    comment: format!("flow {}", flow.flow_id),
                };
                (carved, 0)
            });
            entry.0.start_time = entry.0.start_time.min(flow.start_time);
            entry.0.end_time = entry.0.end_time.max(flow.end_time);
            entry.1 += flow.tx_packets + flow.rx_packets;
        }
        Ok(())
    })
    .unwrap();
    flows
}

fn carved(name: &str, wanted: &CarvePackets) -> (u64, Vec<u8>) {
    let mut output = Vec::new();
    let packets = carve(recording(name), Limits::default(), wanted, &mut output).unwrap();
    (packets, output)
}

/// Numbers, times, lengths and bytes of the packets of a file.
fn packets(file: Vec<u8>) -> Vec<((u64, u16), u32, Vec<u8>)> {
    let mut file = CaptureFile::open(io::Cursor::new(file), Limits::default(), &Progress::default()).unwrap();
    let mut all = Vec::new();
    while let Some(packet) = file.next_packet().unwrap() {
        all.push(((packet.time_us, packet.nanoseconds), packet.original_length, packet.data.to_vec()));
    }
    all
}

#[test]
fn each_flow_has_as_many_packets_as_its_rows_say() {
    for name in ["ethernet-ns.pcap", "any-sll.pcap", "any-sll2-snap96.pcap"] {
        let flows = flows(name);
        assert!(flows.len() > 10, "{name}");
        for (flow, expected) in flows.values() {
            let wanted = CarvePackets { flows: vec![flow.clone()], ..CarvePackets::default() };
            let (count, output) = carved(name, &wanted);
            assert_eq!(count, *expected, "{name}: {flow:?}");
            assert_eq!(packets(output.clone()).len() as u64, count);
            let comment = output.windows(flow.comment.len()).filter(|at| *at == flow.comment.as_bytes()).count();
            assert_eq!(comment as u64, count, "each packet has its comment");
        }
    }
}

#[test]
fn a_frame_with_several_packets_is_there_for_each_of_their_flows() {
    let name = "wlan-aggregated.pcap.gz";
    let flows = flows(name);
    let wanted = |flows: Vec<CarvedFlow>| CarvePackets { flows, ..CarvePackets::default() };
    for (flow, packets) in flows.values() {
        let (frames, output) = carved(name, &wanted(vec![flow.clone()]));
        assert!((1..=*packets).contains(&frames), "{flow:?}");
        let comments = output.windows(flow.comment.len()).filter(|at| *at == flow.comment.as_bytes()).count();
        assert_eq!(comments as u64, frames);
    }
    // A fragment of an echo, and all of its datagram, are in one frame.
    let echoes = flows.values().find(|(flow, packets)| flow.protocol == 1 && *packets == 18);
    let (frames, _) = carved(name, &wanted(vec![echoes.unwrap().0.clone()]));
    assert_eq!(frames, 10, "3 echoes in a packet each, 2 in three");
    let (frames, _) = carved(name, &wanted(flows.values().map(|(flow, _)| flow.clone()).collect()));
    assert_eq!(frames, 52, "all but the one that has ARP alone");
}

#[test]
fn all_packets_of_a_time_are_those_of_the_capture() {
    let name = "ethernet-ns.pcap";
    let mut whole = Vec::new();
    recording(name).read_to_end(&mut whole).unwrap();
    let whole = packets(whole);
    let (count, output) = carved(name, &CarvePackets { all: true, ..CarvePackets::default() });
    assert_eq!((count, packets(output)), (whole.len() as u64, whole.clone()));
    assert!(whole.iter().any(|packet| packet.0.1 % 10 > 0), "nanoseconds are kept");
    let middle = whole[whole.len() / 2].0.0;
    let before = CarvePackets { all: true, until: middle, ..CarvePackets::default() };
    let after = CarvePackets { all: true, from: middle, ..CarvePackets::default() };
    let parts = [before, after].map(|wanted| packets(carved(name, &wanted).1));
    assert!(!parts[0].is_empty() && !parts[1].is_empty());
    assert!(parts[0].iter().all(|packet| packet.0.0 < middle));
    assert_eq!(parts[0].len() + parts[1].len(), whole.len());
}

/// The comments of the packets of a file.
fn comments(file: Vec<u8>) -> Vec<String> {
    let mut file = CaptureFile::open(io::Cursor::new(file), Limits::default(), &Progress::default()).unwrap();
    let mut all = Vec::new();
    while let Some(packet) = file.next_packet().unwrap() {
        all.push(String::from_utf8(packet.comment.to_vec()).unwrap());
    }
    all
}

#[test]
fn all_packets_of_a_time_have_the_comments_of_their_flows() {
    for (name, without) in [("ethernet-ns.pcap", 2), ("any-sll.pcap", 4), ("wlan-aggregated.pcap.gz", 1)] {
        let flows = flows(name);
        let every: Vec<CarvedFlow> = flows.values().map(|(flow, _)| flow.clone()).collect();
        let bare = CarvePackets { all: true, comment: "of all".to_owned(), ..CarvePackets::default() };
        let (count, whole) = carved(name, &bare);
        assert!(whole.windows(6).any(|at| at == b"of all") && comments(whole.clone()).iter().all(String::is_empty));
        let (with, commented) = carved(name, &CarvePackets { flows: every, ..bare });
        assert_eq!((with, packets(commented.clone())), (count, packets(whole)), "{name}");
        let comments = comments(commented);
        assert_eq!(comments.iter().filter(|comment| comment.is_empty()).count(), without, "{name}: ARP alone");
        let lines = || comments.iter().flat_map(|comment| comment.lines());
        for (flow, packets) in flows.values() {
            let times = lines().filter(|line| **line == flow.comment).count() as u64;
            // Packets of one flow in one frame share a comment.
            assert!(
                if name.starts_with("wlan") { (1..=*packets).contains(&times) } else { times == *packets },
                "{flow:?}"
            );
        }
    }
}

#[test]
fn of_flows_with_the_same_ends_each_packet_has_the_one_of_its_time() {
    let name = "ethernet-ns.pcap";
    let (flow, packets) = flows(name).into_values().find(|(flow, _)| flow.protocol == 1).unwrap();
    let (start, middle) = (flow.start_time, flow.start_time.midpoint(flow.end_time));
    let part = |start_time, end_time, comment: &str| CarvedFlow {
        start_time,
        end_time,
        comment: comment.to_owned(),
        ..flow.clone()
    };
    let wanted = CarvePackets {
        flows: vec![part(middle + 1, flow.end_time, "later"), part(start, middle, "sooner"), part(0, 1, "before")],
        ..CarvePackets::default()
    };
    let comments = comments(carved(name, &wanted).1);
    let later = comments.iter().position(|comment| comment == "later").unwrap();
    assert!(later > 0 && comments.len() as u64 == packets);
    assert!(comments[..later].iter().all(|comment| comment == "sooner"));
    assert!(comments[later..].iter().all(|comment| comment == "later"));
}

#[test]
fn text_of_strangers_cannot_break_the_file() {
    let name = "ethernet-ns.pcap";
    let (flow, expected) = flows(name).into_values().next().unwrap();
    let wanted = CarvePackets {
        flows: vec![CarvedFlow { comment: "\u{1f41f}\0\n\"".repeat(30_000), ..flow }],
        ..CarvePackets::default()
    };
    assert_eq!(packets(carved(name, &wanted).1).len() as u64, expected);
}

#[test]
fn secrets_and_names_are_kept_and_so_are_remarks() {
    use crate::capture_file::Aside;
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, "").unwrap();
    let secrets = Aside::Secrets(0x544c_534b, b"CLIENT_RANDOM 01".to_vec());
    let name = Aside::Name(std::net::Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped().octets(), "web.lan".to_owned());
    let packet = writer::Found {
        time_us: 1_700_000_000_123_456,
        nanoseconds: 789,
        link_type: weir_flow::packet::LinkType(1),
        interface: 0,
        interface_name: "eth0".to_owned(),
        data: vec![1, 2, 3],
        original_length: 60,
        comment: String::new(),
        remark: "strange".to_owned(),
    };
    writer.aside(&secrets).unwrap();
    writer.packet(&packet).unwrap();
    writer.aside(&name).unwrap();
    writer.finish().unwrap();
    let mut again = Vec::new();
    let wanted = CarvePackets { all: true, ..CarvePackets::default() };
    assert_eq!(carve(io::Cursor::new(file), Limits::default(), &wanted, &mut again).unwrap(), 1);
    let mut file = CaptureFile::open(io::Cursor::new(again), Limits::default(), &Progress::default()).unwrap();
    let packet = file.next_packet().unwrap().unwrap();
    assert_eq!((packet.time_us, packet.nanoseconds), (1_700_000_000_123_456, 789));
    assert_eq!((packet.interface_name, packet.comment, packet.original_length), ("eth0", &b"strange"[..], 60));
    assert_eq!(file.take_asides(), [secrets]);
    assert!(file.next_packet().unwrap().is_none());
    assert_eq!(file.take_asides(), [name]);
}
