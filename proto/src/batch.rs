//! A batch field by field, for who writes or counts its records without making one.

/// Numbers of the lists of records in [`crate::Batch`].
#[expect(missing_docs, reason = "each is the list of its name")]
pub mod field {
    pub const FLOWS: usize = 10;
    pub const DNS: usize = 11;
    pub const TLS: usize = 12;
    pub const HTTP: usize = 13;
    pub const FINDINGS: usize = 18;
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::field;
    use crate::{Batch, Dns, Finding, Flow, Http, Tls};

    #[test]
    fn numbers_are_those_of_the_message() {
        let batches = [
            (field::FLOWS, Batch { flows: vec![Flow::default()], ..Batch::default() }),
            (field::DNS, Batch { dns: vec![Dns::default()], ..Batch::default() }),
            (field::TLS, Batch { tls: vec![Tls::default()], ..Batch::default() }),
            (field::HTTP, Batch { http: vec![Http::default()], ..Batch::default() }),
            (field::FINDINGS, Batch { findings: vec![Finding::default()], ..Batch::default() }),
        ];
        for (number, batch) in batches {
            let key = prost::decode_length_delimiter(batch.encode_to_vec().as_slice()).expect("a key");
            assert_eq!(key, number << 3 | 2);
        }
    }
}
