//! One DNS message (RFC 1035 section 4) with the extension of RFC 6891.

use std::net::Ipv4Addr;

use super::{name, rdata};
use crate::bytes::{u8_at, u16_at, u32_at};

/// Answers that are kept of one message.
const MAX_ANSWERS: usize = 128;
/// Bytes of presentation form that are kept of one message's answers.
const MAX_ANSWER_BYTES: usize = 16 << 10;

/// What Weir keeps of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Identifier.
    pub id: u16,
    /// Whether this is an answer.
    pub is_answer: bool,
    /// With the upper bits of EDNS where there are any.
    pub rcode: u16,
    /// Presentation form of the first question's name; where there is no question, of the first answer's owner. Empty = could not be read.
    pub qname: String,
    /// IANA number of the first question's type, or of the first answer.
    pub qtype: u16,
    /// Presentation form of the data of the answer section.
    pub answers: Vec<String>,
    /// Addresses in the answer section, IPv4 mapped, and the seconds for which each holds.
    pub addresses: Vec<([u8; 16], u32)>,
    /// Whether the message ends too early or contradicts itself; what was read up to there is kept.
    pub malformed: bool,
}

impl Message {
    /// Reads a message. None where there is not even a header of 12 bytes.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let flags = u16_at(message, 2)?;
        let counts = [u16_at(message, 4)?, u16_at(message, 6)?, u16_at(message, 8)?, u16_at(message, 10)?];
        let mut parsed =
            Self { id: u16_at(message, 0)?, is_answer: flags & 0x8000 != 0, rcode: flags & 0x000f, ..Self::default() };
        parsed.malformed = parsed.read_sections(message, counts).is_err();
        Some(parsed)
    }

    /// Whether a payload on any port is beyond doubt a whole message: one question of class IN in a query or answer, counts that fit it,
    /// and not a byte left over. There is no magic number to go by, so each field has to be one that a resolver sends.
    #[must_use]
    pub fn is_certain(message: &[u8]) -> bool {
        const QUERY_FLAGS_NOT_SET: u16 = 0x7840;
        const IN: u16 = 1;
        let field = |at| u16_at(message, at).unwrap_or(u16::MAX);
        if field(2) & QUERY_FLAGS_NOT_SET != 0 || field(4) != 1 || (field(2) & 0x8000 == 0 && field(6) != 0) {
            return false;
        }
        let records = usize::from(field(6)) + usize::from(field(8)) + usize::from(field(10));
        if records * 11 > message.len() {
            return false;
        }
        let Ok((_, question)) = name::read(message, 12) else { return false };
        if field(question) == 0 || field(question + 2) != IN {
            return false;
        }
        let end = (0..records).try_fold(question + 4, |offset, _| record(message, offset).ok().map(|record| record.3));
        end == Some(message.len())
    }

    fn read_sections(&mut self, message: &[u8], counts: [u16; 4]) -> Result<(), name::Malformed> {
        let mut offset = 12;
        for question in 0..counts[0] {
            if question == 0 {
                let (qname, next) = name::read(message, offset)?;
                self.qname = qname;
                self.qtype = u16_at(message, next).ok_or(name::Malformed)?;
                offset = next + 4;
            } else {
                offset = name::skip(message, offset)? + 4;
            }
        }
        for answer in 0..counts[1] {
            offset = self.read_answer(message, offset, counts[0] == 0 && answer == 0)?;
        }
        for _ in 0..u32::from(counts[2]) + u32::from(counts[3]) {
            offset = self.read_additional(message, offset)?;
        }
        Ok(())
    }

    fn read_answer(
        &mut self,
        message: &[u8],
        offset: usize,
        names_the_message: bool,
    ) -> Result<usize, name::Malformed> {
        let (fields, kind, start, end) = record(message, offset)?;
        if names_the_message {
            self.qname = name::read(message, offset)?.0;
            self.qtype = kind;
        }
        let room =
            self.answers.len() < MAX_ANSWERS && self.answers.iter().map(String::len).sum::<usize>() < MAX_ANSWER_BYTES;
        if room {
            self.answers.push(rdata::present(message, kind, start, end));
            if let Some(address) = address(kind, &message[start..end]) {
                self.addresses.push((address, u32_at(message, fields + 4).unwrap_or(0)));
            }
        }
        debug_assert!(fields < start);
        Ok(end)
    }

    fn read_additional(&mut self, message: &[u8], offset: usize) -> Result<usize, name::Malformed> {
        const OPT: u16 = 41;
        let (fields, kind, _, end) = record(message, offset)?;
        if kind == OPT {
            self.rcode |= u16::from(u8_at(message, fields + 4).unwrap_or(0)) << 4;
        }
        Ok(end)
    }
}

/// The address in the data of an A (RFC 1035 section 3.4.1) or AAAA record (RFC 3596).
fn address(kind: u16, data: &[u8]) -> Option<[u8; 16]> {
    match kind {
        1 => {
            let v4: [u8; 4] = data.try_into().ok()?;
            Some(Ipv4Addr::from(v4).to_ipv6_mapped().octets())
        }
        28 => data.try_into().ok(),
        _ => None,
    }
}

/// Where a record's fixed fields start, its type, and where its data starts and ends.
fn record(message: &[u8], offset: usize) -> Result<(usize, u16, usize, usize), name::Malformed> {
    let fields = name::skip(message, offset)?;
    let kind = u16_at(message, fields).ok_or(name::Malformed)?;
    let start = fields + 10;
    let end = start + usize::from(u16_at(message, fields + 8).ok_or(name::Malformed)?);
    if end > message.len() {
        return Err(name::Malformed);
    }
    Ok((fields, kind, start, end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer for `www.example.com` with a CNAME, an address and EDNS with extended rcode 1.
    fn answer() -> Vec<u8> {
        let mut message = b"\x12\x34\x81\x83\0\x01\0\x02\0\0\0\x01\x03WWW\x07example\x03com\0\0\x01\0\x01".to_vec();
        message.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01a\xc0\x10");
        message.extend(b"\xc0\x2d\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07");
        message.extend(b"\0\0\x29\x04\xd0\x01\0\0\0\0\0");
        message
    }

    #[test]
    fn an_answer_gives_its_question_data_and_extended_rcode() {
        let message = Message::parse(&answer()).unwrap();
        assert_eq!((message.id, message.is_answer, message.malformed), (0x1234, true, false));
        assert_eq!((message.qname.as_str(), message.qtype), ("www.example.com", 1));
        assert_eq!(message.answers, ["a.example.com", "192.0.2.7"]);
        assert_eq!(message.addresses, [([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7], 60)]);
        assert_eq!(message.rcode, 0x13);
    }

    #[test]
    fn only_a_whole_message_is_certain() {
        let whole = answer();
        assert!(Message::is_certain(&whole));
        assert!((0..whole.len()).all(|length| !Message::is_certain(&whole[..length])));
        assert!(!Message::is_certain(&[&whole[..], &[0]].concat()));
        assert!(!Message::is_certain(&[0; 40]));
    }

    #[test]
    fn a_message_cut_anywhere_keeps_what_came_before() {
        let whole = answer();
        for length in 12..whole.len() {
            let message = Message::parse(&whole[..length]).unwrap();
            assert!(message.malformed, "{length}");
            assert!(message.qname.is_empty() || message.qname == "www.example.com");
        }
        assert_eq!(Message::parse(&whole[..11]), None);
    }

    #[test]
    fn absurd_counts_end_with_the_message() {
        let mut message = answer();
        message[6..12].copy_from_slice(&[0xff; 6]);
        assert!(Message::parse(&message).unwrap().malformed);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = (Message::parse(&bytes), Message::is_certain(&bytes));
        }

        #[test]
        fn any_change_of_a_message_is_read_without_a_panic(at in 0usize..100, value: u8, cut in 0usize..100) {
            let mut message = answer();
            let length = message.len();
            message[at % length] = value;
            message.truncate(cut.max(12));
            let parsed = Message::parse(&message).unwrap();
            prop_assert!(parsed.answers.len() <= MAX_ANSWERS);
        }
    }
}
