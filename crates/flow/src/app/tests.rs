use proptest::prelude::*;

use super::*;

/// First bytes of one direction, as the programs send them.
const STREAMS: [(&str, &[u8]); 44] = [
    ("ssh", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
    ("smtp", b"220 mail.weir.example ESMTP Postfix\r\n"),
    ("smtp", b"EHLO client.weir.example\r\n"),
    ("ftp", b"220 (vsFTPd 3.0.3)\r\n"),
    ("ftp", b"220 ProFTPD Server ready.\r\n"),
    ("pop3", b"+OK Dovecot ready.\r\n"),
    ("pop3", b"+OK Hello there.\r\n"),
    ("imap", b"* OK [CAPABILITY IMAP4rev1 STARTTLS] Dovecot ready.\r\n"),
    ("imap", b"* OK weir.example ready\r\n"),
    ("sip", b"REGISTER sip:weir.example SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.1\r\n"),
    ("sip", b"OPTIONS sip:weir.example SIP/2.0\r\n"),
    ("rtsp", b"OPTIONS rtsp://weir.example/stream RTSP/1.0\r\nCSeq: 1\r\n"),
    ("nats", b"INFO {\"server_id\":\"NA\",\"version\":\"2.10.1\"}\r\n"),
    ("redis", b"*1\r\n$7\r\nCOMMAND\r\n"),
    ("redis", b"*2\r\n$4\r\nLLEN\r\n$6\r\nmylist\r\n"),
    ("memcached", b"get weir\r\n"),
    ("memcached", b"set weir 0 60 5\r\nvalue\r\n"),
    ("memcached", b"\x80\x01\0\x04\x08\0\0\0\0\0\0\x11\0\0\0\0\0\0\0\0\0\0\0\0"),
    ("amqp", b"AMQP\0\0\x09\x01"),
    ("mqtt", b"\x10\x15\0\x04MQTT\x04\x02\0\x3c\0\x09mosq-weir"),
    ("postgres", b"\0\0\0\x08\x04\xd2\x16\x2f"),
    ("postgres", b"\0\0\0\x21\0\x03\0\0user\0weir\0database\0weir\0\0"),
    ("mysql", b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0abcdefgh\0\xff\xff"),
    ("mysql", b"\x59\0\0\0\x0a5.5.5-10.11.6-MariaDB\0\x08\0\0\0"),
    ("mongodb", b"\x3a\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0"),
    ("mongodb", b"\x24\0\0\0\x09\0\0\0\x07\0\0\0\x01\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0"),
    ("kafka", b"\0\0\0\x1b\0\x12\0\x03\0\0\0\x01\0\x07rdkafka\0\x0alibrdkafka\x062.3.0\0"),
    ("smb", b"\0\0\0\xd4\xffSMB\x72\0\0\0\0"),
    ("smb", b"\0\0\0\xe8\xfeSMB\x40\0\x01\0"),
    ("rdp", b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0"),
    ("ldap", b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0"),
    ("bgp", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\x1d\x01\x04\xfd\xe8\0\xb4"),
    ("bittorrent", b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x05"),
    ("socks", b"\x05\x02\0\x02"),
    ("xmpp", b"<?xml version='1.0'?><stream:stream to='weir.example'>"),
    ("irc", b"NICK weir\r\nUSER weir 0 * :weir\r\n"),
    ("irc", b"CAP REQ :weir.example/tags\r\n"),
    ("modbus", b"\0\0\0\0\0\x06\x0a\x08\0\x04\0\0"),
    ("pptp", b"\0\x9c\0\x01\x1a\x2b\x3c\x4d\0\x01\0\0"),
    ("zmtp", b"\xff\0\0\0\0\0\0\0\x01\x7f"),
    ("modbus", b"\0\x01\0\0\0\x06\x01\x03\0\0\0\x0a"),
    ("clickhouse", b"\0\x11ClickHouse client\x17\x08"),
    ("cassandra", b"\x04\0\0\0\x05\0\0\0\0"),
    ("cassandra", b"\x04\0\0\0\x01\0\0\0\x16\0\x01\0\x0bCQL_VERSION\0\x053.0.0"),
];

/// Bytes and zeros behind them.
fn filled(start: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = start.to_vec();
    bytes.resize(length.max(start.len()), 0);
    bytes
}

fn datagrams() -> Vec<(&'static str, Vec<u8>)> {
    let mut dhcp = filled(&[1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78], 236);
    dhcp.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    let mut ike = filled(&[1, 2, 3, 4, 5, 6, 7, 8], 28);
    ike[16..24].copy_from_slice(&[33, 0x20, 34, 8, 0, 0, 0, 0]);
    ike[27] = 28;
    let mut netbios = filled(&[0x12, 0x34, 1, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 32], 50);
    netbios[13..45].fill(b'C');
    let mut openvpn = filled(&[0x38, 1, 2, 3, 4, 5, 6, 7, 8], 42);
    openvpn[29..33].copy_from_slice(&[0, 0, 0, 1]);
    vec![
        ("stun", b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl".to_vec()),
        ("dhcp", dhcp),
        ("dhcpv6", b"\x01\x12\x34\x56\0\x01\0\x0a\0\x03\0\x01\x02\x00\x00\x00\x00\x01\0\x06\0\x04\0\x17\0\x18".to_vec()),
        ("ntp", filled(&[0x23, 0, 6, 0xec], 48)),
        ("snmp", b"\x30\x26\x02\x01\x01\x04\x06public\xa0\x19\x02\x01\x01\x02\x01\0\x02\x01\0\x30\x0e\x30\x0c\x06\x08\x2b\x06\x01\x02\x01\x01\x01\0\x05\0".to_vec()),
        ("sip", b"INVITE sip:weir@weir.example SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1\r\n".to_vec()),
        ("http", b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n".to_vec()),
        ("wireguard", filled(&[1, 0, 0, 0, 9, 9, 9, 9], 148)),
        ("wireguard", filled(&[4, 0, 0, 0, 9, 9, 9, 9, 1, 2, 3], 32)),
        ("openvpn", filled(&[0x38, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0], 14)),
        ("openvpn", openvpn),
        ("bittorrent", b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe".to_vec()),
        ("ike", ike),
        ("syslog", b"<34>1 2026-01-01T00:00:00Z weir su - ID47 - failed".to_vec()),
        ("tftp", b"\0\x01boot.img\0octet\0".to_vec()),
        ("radius", filled(&[1, 7, 0, 20], 20)),
        ("radius", [&filled(&[1, 7, 0, 26], 20)[..], &[1, 6, b'w', b'e', b'i', b'r']].concat()),
        ("ntp", filled(&[0x1b, 0, 0, 0], 48)),
        ("memcached", b"\0\x01\0\0\0\x01\0\0get weir\r\n".to_vec()),
        ("netbios", netbios),
    ]
}

#[test]
fn streams_say_what_they_are() {
    for (name, start) in STREAMS {
        assert_eq!(of_stream(start), Verdict::Known(name), "{}", String::from_utf8_lossy(start));
    }
}

#[test]
fn datagrams_say_what_they_are() {
    for (name, payload) in datagrams() {
        assert_eq!(of_datagram(&payload), Some(name));
    }
}

#[test]
fn a_beginning_is_never_taken_for_another_protocol() {
    for (name, start) in STREAMS {
        for length in 0..start.len() {
            let verdict = of_stream(&start[..length]);
            assert!(
                matches!(verdict, Verdict::Undecided | Verdict::Unknown) || verdict == Verdict::Known(name),
                "{name} {length}: {verdict:?}"
            );
        }
    }
    for (name, payload) in datagrams() {
        for length in 0..payload.len() {
            assert!(of_datagram(&payload[..length]).is_none_or(|found| found == name), "{name} {length}");
        }
    }
}

#[test]
fn what_says_nothing_is_unknown() {
    assert_eq!(of_stream(&[0; 40]), Verdict::Unknown);
    assert_eq!(of_stream(&[b'x'; 200]), Verdict::Unknown);
    assert_eq!(of_stream(b"hello"), Verdict::Undecided);
    assert_eq!(of_datagram(&[0; 100]), None);
    assert_eq!(of_single_datagram(1000, 2000, &[7; 30]), None);
}

#[test]
fn what_is_alike_has_no_name_of_another() {
    let streams: [&[u8]; 4] = [
        // SPDY, whose frames begin as a request of memcached does.
        b"\x80\x02\0\x02\0\0\0\x53\0\0\0\x0d\0\0\x62\x60\xc7\x30\x88\xc5\xd0\xcc\xc8\x8c\x81\x07",
        // A PLC is asked for by TPKT and X.224, as RDP is.
        &[3, 0, 0, 22, 17, 0xe0, 0, 0, 0, 7, 0, 0xc1, 2, 1, 0, 0xc2, 2, 1, 2, 0xc0, 1, 10],
        // PPTP as far as MongoDB has a header, and Skinny.
        &[0, 0x9c, 0, 1, 0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3],
        &[0x7c, 0, 0, 0, 20, 0, 0, 0, 0x4a, 1, 0, 0, 1, 0, 0, 0, 0x4b, 0x36, 0x2e, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    for (start, name) in streams.into_iter().zip([None, None, Some("pptp"), None]) {
        let named = if let Verdict::Known(name) = of_stream(start) { Some(name) } else { None };
        assert_eq!(named, name, "{start:?}");
    }
    let datagrams = [
        // SLP of version 1 and collectd have a length where RADIUS has it.
        b"\x01\x06\0\x2c\0\0en\0\x03\x1e\xf7\0\0\0\x18service:x-hpnp-discover:\0\0\0\0".to_vec(),
        b"\x02\0\0\x19host.weir\0\0\x08\0\x0c\x1b\xfe\x37\xf7\0\0".to_vec(),
        // KCP, and DTLS with a small number for its version.
        filled(&[10, 0, 0, 0, 0x52, 0, 0x80, 0, 0x28], 48),
        filled(&[0x14, 1, 0, 0, 0, 0], 93),
        // Data of WireGuard are in blocks.
        filled(&[4, 0, 0, 0, 9, 9, 9, 9, 1, 2, 3], 47),
    ];
    for payload in datagrams {
        assert_eq!(of_datagram(&payload), None, "{payload:?}");
    }
}

#[test]
fn a_header_of_a_balancer_is_known_when_it_is_whole() {
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\x9c\x40\x01\xbb";
    for header in [&b"PROXY TCP4 10.0.0.1 10.0.0.2 40000 443\r\n"[..], b"PROXY UNKNOWN\r\n", binary] {
        for length in 1..header.len() {
            assert!(behind_proxy_header(&header[..length]).is_none() && may_be_proxy_header(&header[..length]));
        }
        assert_eq!(behind_proxy_header(&[header, b"rest"].concat()), Some(&b"rest"[..]));
    }
    for other in [&b"PROXY / HTTP/1.1\r\n"[..], b"POST / HTTP/1.1\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c"] {
        assert_eq!(behind_proxy_header(other), None);
    }
    assert!(!may_be_proxy_header(b"POST") && !may_be_proxy_header(b"\r\nGET"));
}

#[test]
fn a_priority_of_syslog_has_three_digits_at_most() {
    assert_eq!(of_datagram(b"<191>1 - host"), Some("syslog"));
    assert_eq!(of_datagram(b"<1000>1 - host"), None);
    // More than any number holds.
    assert_eq!(of_datagram(format!("<{}5>1 - host", u64::MAX).as_bytes()), None);
}

proptest! {
    #[test]
    fn any_bytes_are_looked_at_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..44, keep in 0usize..20) {
        let _ = (of_stream(&bytes), of_datagram(&bytes), of_single_datagram(1, 2, &bytes));
        let known = STREAMS[at].1;
        let mixed = [&known[..keep.min(known.len())], &bytes].concat();
        let _ = (of_stream(&mixed), of_datagram(&mixed));
    }

    #[test]
    fn noise_is_hardly_ever_a_protocol(seed in proptest::collection::vec(any::<[u8; 32]>(), 1..20)) {
        let named = seed.iter().filter(|noise| matches!(of_stream(&noise[..]), Verdict::Known(_)) || of_datagram(&noise[..]).is_some());
        prop_assert!(named.count() <= 1);
    }
}
