//! HTTP/1 in picked packets: which response belongs to which request, and how long it took.
//!
//! The kernel picks the packets that messages begin with, and not those between them, so there is no stream to follow. What ties the two
//! together is TCP's own count of bytes: a client that asks acknowledges all that came before the answer, so the answer begins at the byte that
//! the request acknowledges. What does not fit is no pair: its request is a row without a status.

use std::collections::{HashMap, VecDeque};

use weir_flow::{
    http::{Request, Response, Start, start},
    packet::{self, LinkType, Tcp, Transport},
};
use weir_proto::{Http, Ip};

use super::dissector::Tuple;

/// Requests that may wait for their response.
const MAX_WAITING: usize = 8192;
/// How long they do, in microseconds.
const TIMEOUT: u64 = 30_000_000;
/// A packet in a packet in a packet.
const MAX_DEPTH: usize = 4;
/// What ends a head.
const END: &[u8] = b"\r\n\r\n";

/// Requests that wait for their response, and rows that are finished.
#[derive(Default)]
pub(super) struct Exchanges {
    waiting: HashMap<Tuple, VecDeque<Waiting>>,
    /// When whose request is given up, in the order in which they came.
    order: VecDeque<(u64, Tuple)>,
    rows: Vec<Http>,
}

struct Waiting {
    row: Http,
    until: u64,
    /// First byte of the request, and of what answers it.
    sequence: u32,
    acknowledgement: u32,
    /// All of the request was in one packet, so it is known when it ended.
    whole: bool,
}

/// A TCP segment with the addresses of the packet that carries it.
pub(super) struct Segment<'a> {
    pub(super) src: Ip,
    pub(super) dst: Ip,
    pub(super) tcp: Tcp<'a>,
}

impl Exchanges {
    /// Takes the beginning of a message, which came at `time` (microseconds since the epoch).
    pub(super) fn message(&mut self, tuple: Tuple, flow_id: u64, time: u64, segment: &Segment<'_>) {
        match start(segment.tcp.payload) {
            Start::Request => self.request(tuple, flow_id, time, segment),
            Start::Response => self.response(tuple, time, &segment.tcp),
            _ => {}
        }
    }

    /// Gives up what has waited too long.
    pub(super) fn advance(&mut self, now: u64) {
        while let Some((until, tuple)) = self.order.front().copied()
            && until <= now
        {
            self.order.pop_front();
            self.give_up(tuple, until);
        }
    }

    /// Gives up all that waits.
    pub(super) fn finish(&mut self) {
        self.advance(u64::MAX);
    }

    /// The rows that are finished.
    pub(super) fn take(&mut self) -> Vec<Http> {
        std::mem::take(&mut self.rows)
    }

    fn request(&mut self, tuple: Tuple, flow_id: u64, time: u64, Segment { src, dst, tcp }: &Segment<'_>) {
        let Some(request) = Request::parse(tcp.payload) else { return };
        let head = tcp.payload.windows(END.len()).position(|window| window == END).map(|at| at + END.len());
        let length = head.zip(request.body_length()).map(|(head, body)| body.saturating_add(head as u64));
        let whole = length.is_some_and(|length| length <= u64::from(tcp.payload_length));
        let exchange = request.into_exchange(time);
        let row = Http {
            time,
            flow_id,
            src_ip_high: src.high,
            src_ip_low: src.low,
            dst_ip_high: dst.high,
            dst_ip_low: dst.low,
            src_port: tcp.src_port.into(),
            dst_port: tcp.dst_port.into(),
            method: exchange.method,
            authority: exchange.authority,
            path: exchange.path,
            user_agent: exchange.user_agent,
            version: exchange.version.to_owned(),
            ..Http::default()
        };
        let waiting = self.waiting.entry(tuple).or_default();
        if waiting.iter().any(|waiting| waiting.sequence == tcp.sequence) {
            // It was sent again.
            return;
        }
        let until = time.saturating_add(TIMEOUT);
        let (sequence, acknowledgement) = (tcp.sequence, tcp.acknowledgement);
        waiting.push_back(Waiting { row, until, sequence, acknowledgement, whole });
        self.order.push_back((until, tuple));
        if self.order.len() > MAX_WAITING
            && let Some((until, tuple)) = self.order.pop_front()
        {
            self.give_up(tuple, until);
        }
    }

    fn response(&mut self, tuple: Tuple, time: u64, tcp: &Tcp<'_>) {
        let Some(response) = Response::parse(tcp.payload) else { return };
        let Some(waiting) = self.waiting.get_mut(&tuple) else { return };
        let Some(at) = waiting.iter().position(|waiting| waiting.acknowledgement == tcp.sequence) else { return };
        if (100..200).contains(&response.status) && response.status != 101 {
            // The response follows.
            waiting[at].acknowledgement = tcp.sequence.wrapping_add(tcp.payload_length);
            return;
        }
        // Those before it were answered, and nobody saw how.
        let answered: Vec<_> = waiting.drain(..=at).collect();
        if waiting.is_empty() {
            self.waiting.remove(&tuple);
        }
        let last = answered.len() - 1;
        for (n, mut request) in answered.into_iter().enumerate() {
            if n == last {
                request.row.status = Some(response.status.into());
                let took = u32::try_from(time.saturating_sub(request.row.time)).unwrap_or(u32::MAX);
                request.row.latency_us = request.whole.then_some(took);
            }
            self.rows.push(request.row);
        }
    }

    /// Gives up those of a conversation that wait until then.
    fn give_up(&mut self, tuple: Tuple, until: u64) {
        let Some(waiting) = self.waiting.get_mut(&tuple) else { return };
        while waiting.front().is_some_and(|request| request.until <= until)
            && let Some(request) = waiting.pop_front()
        {
            self.rows.push(request.row);
        }
        if waiting.is_empty() {
            self.waiting.remove(&tuple);
        }
    }
}

/// The TCP segment in a frame, also in tunnels; `original` = bytes of the frame on the wire.
pub(super) fn segment(link_type: LinkType, frame: &[u8], original: u32, tunnelled: bool) -> Option<Segment<'_>> {
    let mut network = packet::link::network(link_type, frame).ok()?;
    let not_captured = original.saturating_sub(frame.len() as u32);
    for _ in 0..MAX_DEPTH {
        let ip = packet::ip::parse(network.packet, (network.packet.len() as u32).saturating_add(not_captured)).ok()?;
        let inner = match packet::transport::parse(ip.protocol, ip.payload, ip.payload_length) {
            Transport::Tcp(tcp) => return Some(Segment { src: ip.src.into(), dst: ip.dst.into(), tcp }),
            Transport::Udp { src_port, dst_port, payload } => packet::tunnel::in_udp(src_port, dst_port, payload),
            _ => packet::tunnel::in_ip(ip.protocol, ip.payload),
        };
        network = inner.filter(|_| tunnelled)?.1.ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TUPLE: Tuple = ((0, 1, 40_000), (0, 2, 80), 6);

    fn tcp(sequence: u32, acknowledgement: u32, payload: &[u8]) -> Segment<'_> {
        let tcp = Tcp {
            src_port: 40_000,
            dst_port: 80,
            sequence,
            acknowledgement,
            flags: 24,
            window: 100,
            options: &[],
            payload,
            payload_length: payload.len() as u32,
        };
        Segment { src: Ip::new(0, 1), dst: Ip::new(0, 2), tcp }
    }

    fn told(exchanges: &mut Exchanges) -> Vec<(String, Option<u32>, Option<u32>)> {
        exchanges.take().into_iter().map(|row| (row.path, row.status, row.latency_us)).collect()
    }

    #[test]
    fn a_response_belongs_to_the_request_that_waited_for_its_first_byte() {
        let mut exchanges = Exchanges::default();
        exchanges.message(TUPLE, 7, 1000, &tcp(10, 500, b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"));
        exchanges.message(TUPLE, 7, 1100, &tcp(10, 500, b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"));
        exchanges.message(TUPLE, 7, 3000, &tcp(500, 40, b"HTTP/1.1 404 Not Found\r\n\r\n"));
        assert_eq!(told(&mut exchanges), [("/a".to_owned(), Some(404), Some(2000))]);
        // The first answer was not picked.
        exchanges.message(TUPLE, 7, 4000, &tcp(40, 600, b"GET /b HTTP/1.1\r\n\r\n"));
        exchanges.message(TUPLE, 7, 5000, &tcp(60, 700, b"GET /c HTTP/1.1\r\n\r\n"));
        exchanges.message(TUPLE, 7, 5500, &tcp(700, 80, b"HTTP/1.1 200 OK\r\n\r\n"));
        assert_eq!(told(&mut exchanges), [("/b".to_owned(), None, None), ("/c".to_owned(), Some(200), Some(500))]);
        assert!(exchanges.waiting.is_empty());
    }

    #[test]
    fn of_a_request_that_is_not_whole_nobody_knows_when_it_ended() {
        let mut exchanges = Exchanges::default();
        exchanges.message(TUPLE, 7, 1000, &tcp(10, 500, b"POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\nab"));
        exchanges.message(TUPLE, 7, 2000, &tcp(500, 40, b"HTTP/1.1 100 Continue\r\n\r\n"));
        exchanges.message(TUPLE, 7, 3000, &tcp(525, 80, b"HTTP/1.1 201 Created\r\n\r\n"));
        assert_eq!(told(&mut exchanges), [("/a".to_owned(), Some(201), None)]);
    }

    #[test]
    fn a_request_that_nobody_answers_is_a_row_in_the_end() {
        let mut exchanges = Exchanges::default();
        exchanges.message(TUPLE, 7, 1000, &tcp(10, 500, b"GET /a HTTP/1.1\r\n\r\n"));
        exchanges.advance(1000 + TIMEOUT - 1);
        assert!(told(&mut exchanges).is_empty());
        exchanges.advance(1000 + TIMEOUT);
        assert_eq!(told(&mut exchanges), [("/a".to_owned(), None, None)]);
    }

    #[test]
    fn no_more_wait_than_may() {
        let mut exchanges = Exchanges::default();
        for n in 0..=MAX_WAITING {
            let tuple = ((0, n as u64, 1), (0, 2, 80), 6);
            exchanges.message(tuple, 7, n as u64, &tcp(10, 500, b"GET / HTTP/1.1\r\n\r\n"));
        }
        assert_eq!(
            (exchanges.rows.len(), exchanges.order.len(), exchanges.waiting.len()),
            (1, MAX_WAITING, MAX_WAITING)
        );
    }

    proptest! {
        /// Requests one after the other; of some the answer is not picked, and some come before the last one is answered.
        #[test]
        fn each_request_is_one_row_and_has_no_status_but_its_own(
            steps in proptest::collection::vec((any::<bool>(), any::<bool>(), 20..2000u32), 1..30), first: u32, second: u32,
        ) {
            let mut exchanges = Exchanges::default();
            let (mut sequence, mut acknowledgement, mut expected) = (first, second, Vec::new());
            let mut late = None;
            for (n, (picked, pipelined, length)) in steps.iter().copied().enumerate() {
                let request = format!("GET /{n} HTTP/1.1\r\n\r\n");
                exchanges.message(TUPLE, 7, n as u64 * 10, &tcp(sequence, acknowledgement, request.as_bytes()));
                sequence = sequence.wrapping_add(request.len() as u32);
                let answer = |exchanges: &mut Exchanges, status: usize, at: u32| {
                    let text = format!("HTTP/1.1 {status} X\r\n\r\n");
                    exchanges.message(TUPLE, 7, n as u64 * 10 + 5, &tcp(at, 0, text.as_bytes()));
                };
                if let Some((status, picked, length)) = late.take() {
                    // The answer to the request before comes only now, and this one's behind it.
                    if picked {
                        answer(&mut exchanges, status, acknowledgement);
                    }
                    acknowledgement = acknowledgement.wrapping_add(length);
                    answer(&mut exchanges, 200 + n, acknowledgement);
                    expected.push(None);
                } else if pipelined {
                    late = Some((200 + n, picked, length));
                    expected.push(picked.then_some(200 + n as u32).filter(|_| n + 1 < steps.len()));
                    continue;
                } else {
                    if picked {
                        answer(&mut exchanges, 200 + n, acknowledgement);
                    }
                    expected.push(picked.then_some(200 + n as u32));
                }
                acknowledgement = acknowledgement.wrapping_add(length);
            }
            exchanges.finish();
            let mut rows = told(&mut exchanges);
            rows.sort_by_key(|(path, ..)| path[1..].parse::<usize>().unwrap());
            let statuses: Vec<_> = rows.iter().map(|(_, status, _)| *status).collect();
            prop_assert_eq!(statuses, expected);
            prop_assert!(exchanges.waiting.is_empty() && exchanges.order.is_empty());
        }

        #[test]
        fn no_frame_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..120), original: u32, tunnelled: bool) {
            for link_type in [LinkType::ETHERNET, LinkType::RAW] {
                if let Some(segment) = segment(link_type, &bytes, original, tunnelled) {
                    let mut exchanges = Exchanges::default();
                    exchanges.message(TUPLE, 7, 0, &segment);
                }
            }
        }
    }
}
