use proptest::prelude::*;

use super::*;

/// What is sent: whether by the client, when, and what.
type Sent<'a> = (bool, u64, &'a [u8]);

fn exchanges(sent: &[Sent<'_>]) -> Vec<Exchange> {
    let mut out = Vec::new();
    let mut connection = Connection::new(&start(sent[0].2));
    for &(from_client, time, bytes) in sent {
        connection.push(from_client, time, bytes, &mut out);
    }
    connection.finish(&mut out);
    out
}

/// Method, path, status, latency.
fn brief(exchanges: &[Exchange]) -> Vec<(&str, &str, Option<u16>, Option<u32>)> {
    exchanges.iter().map(|row| (row.method.as_str(), row.path.as_str(), row.status, row.latency_us)).collect()
}

#[test]
fn a_request_meets_its_response() {
    let request = b"GET /a?b=c HTTP/1.1\r\nHost: weir.example:81\r\nUser-Agent: curl/8\r\nCookie: x=y\r\n\r\n";
    let rows = exchanges(&[(true, 5, request), (false, 25, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]);
    let expected = Exchange {
        time: 5,
        method: "GET".to_owned(),
        authority: "weir.example:81".to_owned(),
        path: "/a?b=c".to_owned(),
        user_agent: "curl/8".to_owned(),
        version: "1.1",
        status: Some(200),
        latency_us: Some(20),
        refused: false,
    };
    assert_eq!(rows, [expected]);
}

#[test]
fn only_credentials_that_do_not_do_are_refused() {
    let with = |credentials: &str| format!("GET / HTTP/1.1\r\n{credentials}\r\n");
    let asks = |challenge: &str| {
        format!("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n")
    };
    let token = "Authorization: NTLM TlRMTVNTUAADAAAA\r\n";
    for (request, response, refused) in [
        // Whoever has said nothing yet is only asked.
        (with(""), asks("Basic realm=\"weir\""), false),
        (with("Authorization: Basic YTpi\r\n"), asks("Basic realm=\"weir\""), true),
        (with("authorization: Bearer abc\r\n"), asks("Bearer error=\"invalid_token\""), true),
        (with(token), asks("ntlm TlRMTVNTUAACAAAA"), false),
        (with(token), asks("Negotiate oRswGaADCgEB"), false),
        (with(token), asks("NTLM"), true),
        (with("Authorization: Digest username=\"a\"\r\n"), asks("Digest nonce=\"b\", stale=TRUE"), false),
        (with("Authorization: Digest username=\"a\"\r\n"), asks("Digest nonce=\"b\""), true),
        (with(token), "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_owned(), false),
    ] {
        let rows = exchanges(&[(true, 5, request.as_bytes()), (false, 25, response.as_bytes())]);
        assert_eq!(rows.iter().map(|row| row.refused).collect::<Vec<_>>(), [refused], "{request}{response}");
    }
}

#[test]
fn pipelined_requests_with_bodies_meet_their_responses_in_order() {
    let requests = b"POST /1 HTTP/1.1\r\nContent-Length: 20\r\n\r\nGET /no HTTP/1.1\r\n\r\nPUT /2 HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5;x=y\r\nGET /\r\n0\r\nA: b\r\n\r\nHEAD /3 HTTP/1.0\r\n\r\nGET /4 HTTP/1.1\r\n\r\n";
    let responses = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 15\r\n\r\nHTTP/1.1 500 NoHTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\nHTTP/1.0 304 Not Modified\r\nContent-Length: 9\r\n\r\nHTTP/1.1 200 OK\r\n\r\nHTTP/1.1 400 is in a body that ends with the connection\r\n\r\n";
    let expected = [
        ("POST", "/1", Some(201), Some(10)),
        ("PUT", "/2", Some(204), Some(10)),
        ("HEAD", "/3", Some(304), Some(10)),
        ("GET", "/4", Some(200), Some(10)),
    ];
    assert_eq!(brief(&exchanges(&[(true, 10, requests), (false, 20, responses)])), expected);
    for cut in [1, 2, 3, 7, 50] {
        let sent: Vec<Sent<'_>> = (requests.chunks(cut).map(|bytes| (true, 10, bytes)))
            .chain(responses.chunks(cut).map(|bytes| (false, 20, bytes)))
            .collect();
        assert_eq!(brief(&exchanges(&sent)), expected, "{cut}");
    }
}

#[test]
fn the_time_of_a_body_is_not_the_server_s() {
    let rows = exchanges(&[
        (true, 10, b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nab"),
        (true, 70, b"cd"),
        (false, 100, b"HTTP/1.1 200 OK\r\n\r\n"),
    ]);
    assert_eq!((rows[0].time, rows[0].latency_us), (10, Some(30)));
}

#[test]
fn requests_and_responses_alone_are_rows() {
    assert_eq!(brief(&exchanges(&[(true, 1, b"GET /lost HTTP/1.1\r\nHo")])), [("GET", "/lost", None, None)]);
    let alone = exchanges(&[(false, 1, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n")]);
    assert_eq!(brief(&alone), [("", "", Some(200), None), ("", "", Some(404), None)]);
}

#[test]
fn names_and_passwords_in_a_target_are_left_out() {
    let rows = exchanges(&[(true, 1, b"GET http://me:secret@weir.example/x?y HTTP/1.1\r\nHost: other\r\n\r\n")]);
    assert_eq!((rows[0].authority.as_str(), rows[0].path.as_str()), ("weir.example", "/x?y"));
}

#[test]
fn a_tunnel_hands_its_bytes_on() {
    let mut out = Vec::new();
    let mut connection = Connection::new(&Start::Request);
    connection.push(true, 1, b"CONNECT weir.example:443 HTTP/1.1\r\n\r\n", &mut out);
    let left = connection.push(false, 2, b"HTTP/1.1 200 OK\r\n\r\n\x16\x03", &mut out);
    assert_eq!(left, Left::Tunnel(&b"\x16\x03"[..]));
    assert!(connection.is_over());
    assert_eq!((out[0].authority.as_str(), out[0].path.as_str(), out[0].status), ("weir.example:443", "", Some(200)));
}

#[test]
fn bytes_that_are_missing_within_a_body_do_no_harm_and_elsewhere_end_the_message() {
    let mut out = Vec::new();
    let mut connection = Connection::new(&Start::Request);
    let get = b"GET / HTTP/1.1\r\n\r\n";
    connection.push(true, 1, get, &mut out);
    connection.push(false, 2, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab", &mut out);
    connection.gap(false, 3, 98, &mut out);
    connection.push(true, 4, get, &mut out);
    connection.push(false, 5, b"HTTP/1.1 404 Not Fou", &mut out);
    connection.gap(false, 6, 50, &mut out);
    connection.push(false, 7, b"what follows", &mut out);
    connection.push(true, 8, get, &mut out);
    connection.gap(false, 9, 1000, &mut out);
    connection.push(true, 10, get, &mut out);
    connection.push(false, 11, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", &mut out);
    let status: Vec<_> = out.iter().map(|row| (row.time, row.status)).collect();
    assert_eq!(status, [(1, Some(200)), (4, Some(404)), (8, None), (10, Some(500))]);
}

#[test]
fn what_shares_methods_with_http_is_not_http() {
    assert_eq!(start(b"OPTIONS rtsp://x/ RTSP/1.0\r\n"), Start::Other);
    assert_eq!(start(b"OPTIONS sip:a@b SIP/2.0\r\n"), Start::Other);
    assert_eq!(start(b"GET key\r\n"), Start::Other);
    assert_eq!(start(b"GE"), Start::Undecided);
    assert_eq!(start(b"GET /a"), Start::Request);
    assert_eq!(start(b"M-SEARCH * HTTP/1.1\r\n"), Start::Request);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A client that asks for `/` on stream 1 and sends 3 bytes to `/index.html` on stream 3, and a server that answers 3 first.
fn two() -> (Vec<u8>, Vec<u8>) {
    let first = b"\x82\x86\x84\x41\x0fwww.example.com";
    let padded = [&[2, 0, 0, 0, 0, 9][..], b"\x83\x86\x85\xbe", &[0, 0]].concat();
    let client = [
        head::PREFACE.to_vec(),
        frame(4, 0, 0, &[]),
        frame(1, 5, 1, first),
        frame(1, 8 | 32, 3, &padded),
        frame(9, 4, 3, b"\x0f\x2b\x03me!"),
        frame(0, 1, 3, b"abc"),
    ]
    .concat();
    let server = [
        frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]),
        frame(4, 1, 0, &[]),
        frame(1, 4, 3, b"\x48\x03103"),
        frame(1, 4, 3, b"\x8d"),
        frame(0, 0, 3, &[0; 1000]),
        frame(1, 5, 3, b"\x40\x01a\x01b"),
        frame(1, 5, 1, b"\x88"),
    ]
    .concat();
    (client, server)
}

#[test]
fn streams_of_http_2_meet_their_responses() {
    let (client, server) = two();
    for cut in [1, 5, 9, 1000] {
        let sent: Vec<Sent<'_>> = (client.chunks(cut).map(|bytes| (true, 10, bytes)))
            .chain(server.chunks(cut).map(|bytes| (false, 25, bytes)))
            .collect();
        let mut connection = Connection::new(&Start::Two);
        let mut rows = Vec::new();
        for (from_client, time, bytes) in sent {
            connection.push(from_client, time, bytes, &mut rows);
        }
        assert_eq!(
            brief(&rows),
            [("POST", "/index.html", Some(404), Some(15)), ("GET", "/", Some(200), Some(15))],
            "{cut}"
        );
        assert!(rows.iter().all(|row| row.authority == "www.example.com" && row.version == "2"));
        assert_eq!(rows[0].user_agent, "me!");
    }
}

#[test]
fn a_response_that_crosses_the_reset_of_its_request_is_no_exchange_of_its_own() {
    let (client, server) = two();
    let reset = frame(3, 0, 1, &[0, 0, 0, 8]);
    let rows = exchanges(&[(true, 10, &client), (true, 12, &reset), (false, 25, &server)]);
    assert_eq!(brief(&rows), [("GET", "/", None, None), ("POST", "/index.html", Some(404), Some(15))]);
}

#[test]
fn an_upgrade_to_http_2_is_answered_on_stream_1() {
    let (client, _) = two();
    let rows = exchanges(&[
        (true, 1, b"GET /old HTTP/1.1\r\nUpgrade: h2c\r\n\r\n"),
        (false, 2, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"),
        (true, 3, &client[..33]),
        (false, 4, &frame(1, 5, 1, b"\x89")),
    ]);
    assert_eq!(brief(&rows), [("GET", "/old", Some(204), Some(3))]);
}

#[test]
fn a_connection_cut_at_any_byte_ends_well() {
    let (client, server) = two();
    let plain = b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec();
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec();
    for (client, server) in [(client, server), (plain, answer)] {
        for length in 0..client.len() + server.len() {
            let mut connection = Connection::new(&start(&client));
            let mut out = Vec::new();
            connection.push(true, 1, &client[..length.min(client.len())], &mut out);
            connection.push(false, 2, &server[..length.saturating_sub(client.len())], &mut out);
            connection.finish(&mut out);
            assert!(out.len() <= 2);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_within_the_bounds(
        two: bool,
        pieces in proptest::collection::vec((any::<bool>(), piece(), 0u64..3), 0..200),
    ) {
        let mut connection = Connection::new(if two { &Start::Two } else { &Start::Request });
        let mut out = Vec::new();
        for (time, (from_client, bytes, gap)) in pieces.iter().enumerate() {
            if *gap == 1 {
                connection.gap(*from_client, time as u64, 10, &mut out);
            }
            connection.push(*from_client, time as u64, bytes, &mut out);
            prop_assert!(connection.held_bytes() < 1 << 20);
        }
        connection.finish(&mut out);
        let _ = single(1, &pieces.iter().flat_map(|piece| piece.1.clone()).collect::<Vec<_>>());
    }
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop_oneof![
        Just(b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        Just(b"POST /".to_vec()),
        Just(b" HTTP/1.1\r\nContent-Length: 99\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
        Just(b"ffffffffffffffff\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(head::PREFACE.to_vec()),
        (0u8..12, any::<u8>(), 0u32..5, proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload)),
        Just(frame(1, 4, 1, b"\x82\x84")),
    ];
    prop_oneof![known, proptest::collection::vec(any::<u8>(), 0..60)]
}
