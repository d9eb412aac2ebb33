//! A tree as a test of packets that the kernel can make: at most 64 questions about a packet, and at most 32 combinations of answers that
//! are accepted.
//!
//! A packet says who sent it, not who began. So only what holds for both directions of a flow alike can be asked, or a flow would be
//! counted in part: `ip`, `port`, `protocol`, `interface`.

use std::net::Ipv6Addr;

use crate::{
    evaluate::{Datum, Evaluator, Subject},
    parser::{Expression, Operator, Value},
};

/// Questions that a filter may ask.
pub const MAX_ATOMS: usize = 64;
/// Combinations of answers that a filter may accept.
pub const MAX_TERMS: usize = 32;
/// Combinations on the way to those.
const MAX_EXPANDED: usize = 512;

/// The kernel cannot make this test.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// A field that a packet does not tell.
    #[error("{0} is not known when a packet comes: ip, port, protocol and interface are")]
    Field(&'static str),
    /// Who began a flow is not known.
    #[error("{0} depends on who began the flow, which a packet does not tell: {1} holds for either end")]
    Directed(&'static str, &'static str),
    /// Too many comparisons.
    #[error("it has more than {MAX_ATOMS} comparisons")]
    Comparisons,
    /// Too many combinations.
    #[error("it has more than {MAX_TERMS} alternatives when its parentheses are resolved")]
    Alternatives,
    /// The language refuses it.
    #[error(transparent)]
    Filter(#[from] crate::Error),
}

/// Addresses with the same first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The first of them, IPv4 mapped.
    pub address: Ipv6Addr,
    /// How many bits they share, 0 to 128.
    pub length: u8,
}

/// A question about a packet; it is answered with yes if it holds for either end.
#[derive(Debug, Clone)]
pub enum Atom {
    /// One of the addresses lies in one of these.
    Addresses(Vec<Prefix>),
    /// One of the ports lies in one of these ranges, both ends included.
    Ports(Vec<(u16, u16)>),
    /// The protocol is one of these.
    Protocols(Vec<u8>),
    /// The name of the interface satisfies this.
    Interface(Evaluator),
}

/// A combination of answers: bit n is atom n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Term {
    /// The atoms that matter.
    pub care: u64,
    /// What their answers must be; a subset of `care`.
    pub want: u64,
}

/// A filter of packets: a packet is accepted if one of the terms fits its answers.
#[derive(Debug, Clone)]
pub struct PacketFilter {
    /// The questions.
    pub atoms: Vec<Atom>,
    /// The accepted answers; one that is empty accepts everything.
    pub terms: Vec<Term>,
}

/// What a packet tells.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Of both ends, IPv4 mapped.
    pub addresses: [Ipv6Addr; 2],
    /// Of both ends.
    pub ports: [u16; 2],
    /// IANA number.
    pub protocol: u8,
    /// Where it passes.
    pub interface: &'a str,
}

struct Name<'a>(&'a str);

impl Subject for Name<'_> {
    fn datum(&self, _column: &str) -> Option<Datum<'_>> {
        Some(Datum::Text(self.0.into()))
    }
}

impl PacketFilter {
    /// Accepts every packet.
    #[must_use]
    pub fn everything() -> Self {
        Self { atoms: Vec::new(), terms: vec![Term::default()] }
    }

    /// Reads a filter; nothing but spaces accepts everything.
    pub fn read(text: &str) -> Result<Self, Unsupported> {
        crate::parse(text)?.map_or_else(|| Ok(Self::everything()), |expression| Self::new(&expression))
    }

    /// Compiles a filter, or says what of it the kernel cannot test.
    pub fn new(expression: &Expression) -> Result<Self, Unsupported> {
        let mut filter = Self { atoms: Vec::new(), terms: Vec::new() };
        let expanded = filter.terms_of(expression, false)?;
        filter.terms = without_implied(expanded);
        if filter.terms.len() > MAX_TERMS {
            return Err(Unsupported::Alternatives);
        }
        Ok(filter)
    }

    /// Whether every packet is accepted.
    #[must_use]
    pub fn accepts_everything(&self) -> bool {
        self.terms.contains(&Term::default())
    }

    /// Whether a packet is accepted: what the kernel does, in user space.
    #[must_use]
    pub fn holds(&self, packet: &Packet<'_>) -> bool {
        let answers = (self.atoms.iter().enumerate())
            .fold(0, |answers, (index, atom)| answers | u64::from(atom.holds(packet)) << index);
        self.terms.iter().any(|term| answers & term.care == term.want)
    }

    fn terms_of(&mut self, expression: &Expression, negated: bool) -> Result<Vec<Term>, Unsupported> {
        match (expression, negated) {
            (Expression::Not(inside), _) => self.terms_of(inside, !negated),
            (Expression::And(parts), false) | (Expression::Or(parts), true) => {
                let mut product = vec![Term::default()];
                for part in parts {
                    let terms = self.terms_of(part, negated)?;
                    product = multiply(&product, &terms)?;
                }
                Ok(product)
            }
            (Expression::Or(parts), false) | (Expression::And(parts), true) => {
                let mut sum = Vec::new();
                for part in parts {
                    sum.extend(self.terms_of(part, negated)?);
                }
                bounded(without_implied(sum))
            }
            (Expression::Compare { .. }, _) => {
                let bit = 1 << self.atom(expression)?;
                Ok(vec![Term { care: bit, want: if negated { 0 } else { bit } }])
            }
        }
    }

    /// The number of a comparison's atom.
    fn atom(&mut self, expression: &Expression) -> Result<usize, Unsupported> {
        let atom = atom(expression)?;
        if self.atoms.len() == MAX_ATOMS {
            return Err(Unsupported::Comparisons);
        }
        self.atoms.push(atom);
        Ok(self.atoms.len() - 1)
    }
}

impl Atom {
    fn holds(&self, packet: &Packet<'_>) -> bool {
        match self {
            Self::Addresses(prefixes) => {
                prefixes.iter().any(|prefix| packet.addresses.iter().any(|address| prefix.contains(*address)))
            }
            Self::Ports(ranges) => {
                ranges.iter().any(|(first, last)| packet.ports.iter().any(|port| (first..=last).contains(&port)))
            }
            Self::Protocols(protocols) => protocols.contains(&packet.protocol),
            Self::Interface(evaluator) => Self::names(evaluator, packet.interface),
        }
    }

    /// Whether an interface's name satisfies the test of [`Atom::Interface`].
    #[must_use]
    pub fn names(evaluator: &Evaluator, interface: &str) -> bool {
        evaluator.holds(&Name(interface))
    }
}

impl Prefix {
    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        let host = u128::MAX.checked_shr(self.length.into()).unwrap_or(0);
        u128::from(address) & !host == u128::from(self.address) & !host
    }
}

fn multiply(left: &[Term], right: &[Term]) -> Result<Vec<Term>, Unsupported> {
    let mut product = Vec::new();
    for a in left {
        for b in right {
            let contradicts = (a.want ^ b.want) & a.care & b.care != 0;
            if !contradicts {
                product.push(Term { care: a.care | b.care, want: a.want | b.want });
            }
        }
        if product.len() > MAX_EXPANDED {
            return Err(Unsupported::Alternatives);
        }
    }
    bounded(without_implied(product))
}

fn bounded(terms: Vec<Term>) -> Result<Vec<Term>, Unsupported> {
    if terms.len() > MAX_EXPANDED { Err(Unsupported::Alternatives) } else { Ok(terms) }
}

/// Leaves out each term that another one includes.
fn without_implied(terms: Vec<Term>) -> Vec<Term> {
    let mut kept: Vec<Term> = Vec::new();
    let includes = |wide: &Term, narrow: &Term| wide.care & !narrow.care == 0 && narrow.want & wide.care == wide.want;
    for term in terms {
        if !kept.iter().any(|wide| includes(wide, &term)) {
            kept.retain(|narrow| !includes(&term, narrow));
            kept.push(term);
        }
    }
    kept
}

fn atom(expression: &Expression) -> Result<Atom, Unsupported> {
    let Expression::Compare { field, operator, values } = expression else {
        return Err(Unsupported::Alternatives);
    };
    let numbers =
        || values.iter().filter_map(|value| if let Value::Number(number) = value { Some(*number) } else { None });
    match field.name {
        "ip" => Ok(Atom::Addresses(values.iter().filter_map(prefix).collect())),
        "port" => Ok(Atom::Ports(numbers().filter_map(|number| range(*operator, number as u16)).collect())),
        "protocol" => Ok(Atom::Protocols(numbers().map(|number| number as u8).collect())),
        "interface" => Ok(Atom::Interface(Evaluator::new(expression)?)),
        "src_ip" | "dst_ip" => Err(Unsupported::Directed(field.name, "ip")),
        "src_port" | "dst_port" => Err(Unsupported::Directed(field.name, "port")),
        name => Err(Unsupported::Field(name)),
    }
}

fn prefix(value: &Value) -> Option<Prefix> {
    let Value::Addresses(first, last) = value else { return None };
    // Both are the ends of a prefix: they differ in the last bits only.
    let length = (u128::from(*first) ^ u128::from(*last)).leading_zeros();
    Some(Prefix { address: *first, length: length as u8 })
}

/// The ports that a comparison accepts; `None` = there is none.
fn range(operator: Operator, to: u16) -> Option<(u16, u16)> {
    match operator {
        Operator::Less => Some((0, to.checked_sub(1)?)),
        Operator::LessOrEqual => Some((0, to)),
        Operator::Greater => Some((to.checked_add(1)?, u16::MAX)),
        Operator::GreaterOrEqual => Some((to, u16::MAX)),
        _ => Some((to, to)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_proto::{Flow, Ip};

    use super::*;
    use crate::FlowSubject;

    #[test]
    fn what_the_kernel_cannot_test_is_refused_with_what_it_can() {
        for (filter, message) in [
            (
                "dst_port = 443",
                "dst_port depends on who began the flow, which a packet does not tell: port holds for either end",
            ),
            (
                "not src_ip = 10.0.0.1",
                "src_ip depends on who began the flow, which a packet does not tell: ip holds for either end",
            ),
            (
                "port = 1 and container = web",
                "container is not known when a packet comes: ip, port, protocol and interface are",
            ),
            ("prot = 1", "there is no field \"prot\"; similar ones are port, app, drops, after 0 characters"),
        ] {
            let refused = PacketFilter::read(filter).unwrap_err().to_string();
            assert!(refused.starts_with(&message[..30]), "{refused}");
        }
        let many = (0..=MAX_ATOMS).map(|port| format!("port = {port}")).collect::<Vec<_>>().join(" or ");
        assert_eq!(PacketFilter::read(&many).unwrap_err(), Unsupported::Comparisons);
        let product = (0..10).map(|n| format!("(port = {n} or ip = 10.0.0.{n})")).collect::<Vec<_>>().join(" and ");
        assert_eq!(PacketFilter::read(&product).unwrap_err(), Unsupported::Alternatives);
    }

    #[test]
    fn many_values_of_one_comparison_are_one_question() {
        let filter = PacketFilter::read("port in (1, 2, 3, 4, 5) and ip in (10.0.0.0/8, fd00::/8)").unwrap();
        assert_eq!((filter.atoms.len(), filter.terms.len()), (2, 1));
        assert!(PacketFilter::read(" ").unwrap().accepts_everything());
    }

    fn comparison() -> impl Strategy<Value = String> {
        prop_oneof![
            (0..4u8, 29..=32u8).prop_map(|(n, length)| format!("ip in 10.0.0.{n}/{length}")),
            (0..6u16).prop_map(|port| format!("port = {port}")),
            (0..6u16, prop_oneof!["<", "<=", ">", ">="]).prop_map(|(port, operator)| format!("port {operator} {port}")),
            prop_oneof!["protocol = tcp", "protocol in (udp, icmp)", "interface = a", "interface like \"B%\""],
        ]
    }

    fn filter() -> impl Strategy<Value = String> {
        comparison().prop_recursive(4, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|inside| format!("not ({inside})")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) and ({b})")),
                (inner.clone(), inner).prop_map(|(a, b)| format!("({a}) or ({b})")),
            ]
        })
    }

    proptest! {
        #[test]
        fn packets_and_records_are_chosen_alike(
            text in filter(), ends in (0..8u8, 0..8u8), ports in (0..7u16, 0..7u16),
            protocol in prop_oneof![Just(6u8), Just(17), Just(1), Just(47)], interface in prop_oneof!["a", "b0", "c"],
        ) {
            let Ok(filter) = PacketFilter::read(&text) else { return Ok(()) };
            let address = |n: u8| std::net::Ipv4Addr::new(10, 0, 0, n).to_ipv6_mapped();
            let (src, dst) = (Ip::from(address(ends.0).octets()), Ip::from(address(ends.1).octets()));
            let flow = Flow {
                src_ip_high: src.high, src_ip_low: src.low, dst_ip_high: dst.high, dst_ip_low: dst.low,
                src_port: ports.0.into(), dst_port: ports.1.into(), protocol: protocol.into(),
                interface: interface.clone(), ..Flow::default()
            };
            let expected = Evaluator::read(&text).unwrap().holds(&FlowSubject { flow: &flow, host: "", source: "" });
            let there = Packet { addresses: [address(ends.0), address(ends.1)], ports: ports.into(), protocol, interface: &interface };
            let back = Packet { addresses: [address(ends.1), address(ends.0)], ports: [ports.1, ports.0], ..there };
            prop_assert_eq!(filter.holds(&there), expected, "{}", text);
            prop_assert_eq!(filter.holds(&back), expected, "{}", text);
        }
    }
}
