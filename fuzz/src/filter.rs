//! The filter language, in its three uses.

use weir_filter::{
    Evaluator, Expression, FlowSubject, MAX_ATOMS, MAX_BYTES, MAX_TERMS, Packet, PacketFilter, condition, parse,
};
use weir_proto::Flow;

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = parse(text);
    let condition = condition(text);
    assert_eq!(parsed.is_ok(), condition.is_ok());
    if let Err(error) = &parsed {
        assert!(error.position <= text.chars().count(), "{error}");
    }
    let Ok(condition) = condition else { return };
    assert!(text.len() <= MAX_BYTES);
    let sql = &condition.sql;
    assert!(sql.chars().all(|c| c.is_ascii_alphanumeric() || " ()_{}:<>=+,.'[]$|".contains(c)), "{sql}");
    for word in text.split(['"', '\'']).skip(1).step_by(2).filter(|word| word.len() > 12 && word.contains(' ')) {
        assert!(!sql.contains(word), "text of a stranger is in {sql}");
    }
    assert!(condition.parameters.iter().enumerate().all(|(index, (name, _))| *name == format!("f{index}")));
    if let Some(expression) = parsed.ok().flatten() {
        asked(&expression);
    }
}

fn asked(expression: &Expression) {
    if let Ok(evaluator) = Evaluator::new(expression) {
        for port in [0, 443] {
            let flow = Flow { dst_port: port, protocol: 6, src_name: "weir.example".into(), ..Flow::default() };
            let subject = FlowSubject { flow: &flow, host: "host", source: "pcap" };
            assert_eq!(evaluator.holds(&subject), evaluator.holds(&subject));
        }
    }
    if let Ok(filter) = PacketFilter::new(expression) {
        assert!(filter.atoms.len() <= MAX_ATOMS && filter.terms.len() <= MAX_TERMS);
        let address = |text: &str| text.parse().expect("an address");
        let packet = Packet {
            addresses: [address("::ffff:10.0.0.1"), address("2001:db8::1")],
            ports: [40_000, 443],
            protocol: 6,
            interface: "eth0",
        };
        assert!(filter.holds(&packet) || !filter.accepts_everything());
    }
}
