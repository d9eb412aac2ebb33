//! DNS messages, and their framing over TCP.

use weir_flow::dns::{Framer, Message};

use crate::script::steps;

pub(crate) fn run(data: &[u8]) {
    message(data);
    framed(data);
}

fn message(data: &[u8]) {
    let certain = Message::is_certain(data);
    let Some(whole) = Message::parse(data) else {
        assert!(!certain && data.len() < 12);
        return;
    };
    assert_eq!(Message::parse(data).as_ref(), Some(&whole));
    assert!(!certain || !whole.malformed, "what is certain is whole");
    assert!(whole.addresses.len() <= whole.answers.len());
    let text = whole.qname.len() + whole.answers.iter().map(String::len).sum::<usize>();
    assert!(text <= 1 << 20, "{text} bytes of text from {}", data.len());
    for cut in [data.len() / 4, data.len() / 2, data.len().saturating_sub(1)] {
        let Some(part) = Message::parse(&data[..cut]) else { continue };
        assert!(part.answers.len() <= whole.answers.len(), "less of a message has more answers");
    }
}

/// However a stream is cut, its messages are the same.
fn framed(data: &[u8]) {
    let messages = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut framer = Framer::default();
        let mut messages: Vec<Vec<u8>> = Vec::new();
        for piece in pieces {
            framer.push(piece, &mut |message: &[u8]| messages.push(message.to_vec()));
            assert!(framer.held_bytes() <= 2 + usize::from(u16::MAX));
        }
        (messages, framer.is_broken())
    };
    let stream: Vec<u8> = steps(data).flat_map(|step| step.bytes).copied().collect();
    let in_steps = messages(&mut steps(data).map(|step| step.bytes));
    assert_eq!(in_steps, messages(&mut stream.chunks(1)));
    assert!(in_steps.0.iter().map(Vec::len).sum::<usize>() <= stream.len());
}
