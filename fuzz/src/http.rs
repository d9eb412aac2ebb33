//! HTTP/1 and HTTP/2 in the clear.

use weir_flow::http::{self, Connection, Exchange, Left, Start};

use crate::script::{Step, steps};

/// Bytes that one connection may hold.
const MOST_HELD: usize = 4 << 20;

/// Steps of a connection; with bit 7 of the choice that many bytes are missing instead.
pub(crate) fn run(data: &[u8]) {
    let _ = http::single(1, data);
    let all: Vec<Step<'_>> = steps(data).collect();
    let Some(first) = all.first() else { return };
    let start = http::start(first.bytes);
    if matches!(start, Start::Other | Start::Undecided) {
        return;
    }
    let whole = exchanges(start, &all, usize::MAX);
    assert_eq!(exchanges(start, &all, usize::MAX), whole);
    // Where a stream was lost, it is found again at the beginning of a piece: other pieces may say something else.
    let cut = exchanges(start, &all, 7);
    for exchange in whole.iter().chain(&cut) {
        assert!(exchange.path.len() <= http::MAX_PATH && exchange.authority.len() <= 1024);
        assert!(!exchange.method.is_empty() || exchange.status.is_some(), "an exchange is one of something");
        assert_eq!(exchange.latency_us.is_some(), exchange.status.is_some() && !exchange.method.is_empty());
    }
}

fn exchanges(start: Start, steps: &[Step<'_>], cut: usize) -> Vec<Exchange> {
    let mut connection = Connection::new(&start);
    let mut out = Vec::new();
    'steps: for (step, time) in steps.iter().zip(1..) {
        let from_client = step.choice & 1 == 0;
        if step.choice & 0x80 != 0 {
            connection.gap(from_client, time, step.bytes.len() as u64, &mut out);
            continue;
        }
        for piece in step.bytes.chunks(cut) {
            if connection.push(from_client, time, piece, &mut out) != Left::Nothing {
                break 'steps;
            }
            assert!(connection.held_bytes() <= MOST_HELD);
        }
    }
    connection.finish(&mut out);
    out
}
