//! What people and programs write.

use super::{Seeds, add as put};
use crate::script;

const FILTERS: [&str; 14] = [
    "dst_port = 443 and src_container = \"web\" and not dst_ip in 10.0.0.0/8",
    "ip = 192.0.2.1 or ip in 2001:db8::/32",
    "port in (53, 80, 443) and protocol = tcp",
    "src_name ~ \"^(www|api)\\\\.example\\\\.(com|org)$\"",
    "app = 'dns' and (tx_packets > 10 or rx_bytes >= 1000)",
    "not (interface = eth0) and host like \"%node%\"",
    "tcp_flags_tx != 2 and end_reason = \"rst\"",
    "flow_id = 18446744073709551615",
    "capture_id = 01890a5d-ac96-774b-bcce-b302099a8057",
    "protocol = udp and port != 53",
    "src_ip = ::ffff:10.0.0.1 and dst_port <= 1023",
    "retransmits > 0 and rtt_us > 100000",
    "((((dst_port = 1))))",
    "vlan = 5 or tunnel = \"vxlan:42\"",
];

const TREE: &str = "SelectWithUnionQuery (children 1)\n ExpressionList (children 1)\n  SelectQuery (children 2)\n   ExpressionList (children 1)\n    Function count (alias n) (children 1)\n     ExpressionList\n   TablesInSelectQuery (children 1)\n    TablesInSelectQueryElement (children 1)\n     TableExpression (children 1)\n      TableIdentifier flows";

const STATEMENTS: [&str; 8] = [
    "SELECT count() AS n FROM flows",
    "-- why\n/* and */ WITH 1 AS x SELECT x",
    "(SELECT 1) UNION ALL (SELECT 2)",
    "SHOW TABLES",
    "DESCRIBE TABLE flows",
    "EXPLAIN SELECT 1",
    "SELECT file('/etc/passwd')",
    "optimize = 1 SELECT 1",
];

/// Each line: who says it (`>` the client), and what.
const CONVERSATIONS: [&[(u8, &str)]; 6] = [
    &[
        (0, "GET /a?b=c HTTP/1.1\r\nHost: weir.example:8080\r\nUser-Agent: curl/8\r\n\r\n"),
        (1, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nTrailer: a\r\n\r\n"),
        (0, "HEAD / HTTP/1.1\r\nHost: weir.example\r\n\r\n"),
        (1, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
    ],
    &[
        (0, "POST http://user:secret@weir.example/x HTTP/1.0\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n"),
        (1, "HTTP/1.0 500 Oops\r\n\r\nuntil the end"),
    ],
    &[(0, "CONNECT weir.example:443 HTTP/1.1\r\nHost: x\r\n\r\n"), (1, "HTTP/1.1 200 OK\r\n\r\n"), (0, "\x16\x03\x01")],
    &[
        (
            0,
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        ),
        (1, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
        (0, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    ],
    &[
        (0, "GET /chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
        (1, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
    ],
    &[(0, "OPTIONS * HTTP/1.1\r\nHost: [2001:db8::1]:80\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc")],
];

pub(super) fn add(seeds: &mut Seeds) {
    for filter in FILTERS {
        put(seeds, "filter", filter.into());
    }
    for statement in STATEMENTS {
        put(seeds, "sql", format!("{statement}\0{TREE}").into());
    }
    for conversation in CONVERSATIONS {
        let mut steps = Vec::new();
        for (side, text) in conversation {
            script::write(&mut steps, *side, text.as_bytes());
        }
        put(seeds, "http", steps);
    }
    put(seeds, "http", version_two());
    put(
        seeds,
        "stream",
        vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0, 100, 0, 0, 200, 0, 100, 0, 0, 100, 0, 100, 0, 1, 50, 0, 9, 0],
    );
}

/// Preface, settings, a request whose head is in two frames, with data; the response with padding and a priority (RFC 9113), and a
/// request with names out of the dynamic table and in Huffman's code (RFC 7541, appendix C.4).
fn version_two() -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u8, body: &[u8]| {
        [&[0, (body.len() >> 8) as u8, body.len() as u8, kind, flags, 0, 0, 0, stream][..], body].concat()
    };
    let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
    let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
    let client = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[0, 1, 0, 0, 16, 0]),
        frame(1, 0, 1, &first[..5]),
        frame(9, 4, 1, &first[5..]),
        frame(0, 1, 1, b"data"),
        frame(1, 5, 3, second),
        frame(3, 0, 3, &[0, 0, 0, 8]),
    ];
    let server = [
        frame(4, 1, 0, &[]),
        frame(1, 0x2c, 1, &[2, 0, 0, 0, 0, 9, 0x88, 0, 0]),
        frame(0, 9, 1, &[1, b'x', 0]),
        frame(7, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]),
    ];
    let mut steps = Vec::new();
    script::write(&mut steps, 0, &client.concat());
    script::write(&mut steps, 1, &server.concat());
    steps
}
