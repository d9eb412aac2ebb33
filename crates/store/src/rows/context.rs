//! What all rows of a batch share, and how values are brought into the range of a column.

use uuid::Uuid;
use weir_proto::{Batch, Source};

use super::{ContainerNames, Containers, Seen};

/// The last microsecond of 2299, where `DateTime64(6)` ends.
const LAST_TIME: u64 = 10_413_791_999_999_999;

/// Where a batch stands in the stream.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// Sequence in the stream.
    pub stream_sequence: u64,
    /// When the stream stored it, microseconds since 1970.
    pub stored_at: u64,
}

impl Position {
    /// When the stream stored it, seconds since 1970; the same in each life of the ingester.
    #[must_use]
    pub(super) fn recorded_at(&self) -> u32 {
        u32::try_from(self.stored_at / 1_000_000).unwrap_or(u32::MAX)
    }
}

/// The batch around a record.
pub(super) struct Context {
    pub(super) host: String,
    /// As the `Enum8` of the tables.
    pub(super) source: i8,
    pub(super) capture_id: Uuid,
    pub(super) recorded_at: u32,
    pub(super) stream_sequence: u64,
    /// Values that were brought into range.
    pub(super) altered: u64,
}

impl Context {
    pub(super) fn new(batch: &Batch, position: &Position) -> Self {
        let mut context = Self {
            host: batch.host.clone(),
            source: 0,
            capture_id: Uuid::nil(),
            recorded_at: position.recorded_at(),
            stream_sequence: position.stream_sequence,
            altered: 0,
        };
        context.source = context.choice::<Source>(batch.source);
        if !batch.capture_id.is_empty() {
            context.capture_id = Uuid::from_slice(&batch.capture_id).unwrap_or_else(|_| context.alter(Uuid::nil()));
        }
        context
    }

    /// The names of the containers at the two ends of what the batch shows.
    pub(super) fn containers<'a>(
        &'a self,
        containers: &'a impl Containers,
        seen: Seen<'a>,
    ) -> [Option<&'a ContainerNames>; 2] {
        let host = if self.source == Source::Ebpf as i8 {
            Some(self.host.as_str())
        } else if self.source == Source::Pcap as i8 {
            // The batch names the host that read the capture.
            None
        } else {
            return [None, None];
        };
        containers.find(&Seen { host, ..seen })
    }

    /// A time of the protocol as a `DateTime64(6)`.
    pub(super) fn time(&mut self, microseconds: u64) -> i64 {
        let time = if microseconds > LAST_TIME { self.alter(LAST_TIME) } else { microseconds };
        time as i64
    }

    /// A time that is not known when it is 0.
    pub(super) fn time_or_null(&mut self, microseconds: u64) -> Option<i64> {
        (microseconds != 0).then(|| self.time(microseconds))
    }

    /// A number whose column is 16 bits wide.
    pub(super) fn u16(&mut self, value: u32) -> u16 {
        u16::try_from(value).unwrap_or_else(|_| self.alter(u16::MAX))
    }

    /// A number whose column is 8 bits wide.
    pub(super) fn u8(&mut self, value: u32) -> u8 {
        u8::try_from(value).unwrap_or_else(|_| self.alter(u8::MAX))
    }

    /// An enum whose numbers are those of the column's `Enum8`; what a newer sender may say becomes 0, `unknown`.
    pub(super) fn choice<T: TryFrom<i32> + Into<i32>>(&mut self, value: i32) -> i8 {
        match T::try_from(value).map(Into::into).map(i8::try_from) {
            Ok(Ok(value)) => value,
            _ => self.alter(0),
        }
    }

    pub(super) fn alter<T>(&mut self, value: T) -> T {
        self.altered += 1;
        value
    }
}

#[cfg(test)]
mod tests {
    use weir_proto::EndReason;

    use super::*;

    fn context() -> Context {
        Context::new(&Batch::default(), &Position { stream_sequence: 1, stored_at: 2_000_000 })
    }

    #[test]
    fn values_out_of_range_are_brought_into_it_and_counted() {
        let mut context = context();
        assert_eq!(context.time(u64::MAX), LAST_TIME as i64);
        assert_eq!(context.time(LAST_TIME), LAST_TIME as i64);
        assert_eq!(context.u16(65_536), 65_535);
        assert_eq!(context.u8(256), 255);
        assert_eq!(context.choice::<EndReason>(99), 0);
        assert_eq!(context.choice::<EndReason>(6), 6);
        assert_eq!(context.choice::<EndReason>(-1), 0);
        assert_eq!(context.altered, 5);
    }

    #[test]
    fn a_capture_id_that_is_no_uuid_is_counted() {
        let batch = Batch { capture_id: vec![1, 2, 3], ..Batch::default() };
        let context = Context::new(&batch, &Position { stream_sequence: 1, stored_at: u64::MAX });
        assert_eq!((context.capture_id, context.altered, context.recorded_at), (Uuid::nil(), 1, u32::MAX));
    }
}
