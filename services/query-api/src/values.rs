//! Values as answers hold them.

use std::net::{IpAddr, Ipv6Addr};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// An address; IPv4 as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(value_type = String, example = "192.0.2.7")]
pub(crate) struct Address(IpAddr);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Ipv6Addr::deserialize(deserializer)?.to_canonical()))
    }
}

/// A number that does not fit into the 53 bits that JSON's readers keep: a string of digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(value_type = String, example = "12345678901234567890")]
pub(crate) struct Id(pub(crate) u64);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A moment: RFC 3339, UTC, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-01-31T12:00:00.000000Z")]
pub(crate) struct Moment(pub(crate) i64);

impl Moment {
    /// Of the wire: 0 = not known.
    pub(crate) fn known(microseconds: u64) -> Option<Self> {
        i64::try_from(microseconds).ok().filter(|value| *value != 0).map(Self)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match Timestamp::from_microsecond(self.0) {
            Ok(timestamp) => serializer.collect_str(&format_args!("{timestamp:.6}")),
            Err(error) => Err(serde::ser::Error::custom(error)),
        }
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Timestamp::deserialize(deserializer)?.as_microsecond()))
    }
}

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Give it as `cursor` for the next part; null = this was the last
    pub(crate) next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// All there is.
    pub(crate) fn whole(items: Vec<T>) -> Self {
        Self { items, next_cursor: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_people_and_programs_need_them() {
        let json = |value: &dyn erased::Json| value.json();
        assert_eq!(json(&serde_json::from_str::<Address>("\"::ffff:10.0.0.1\"").unwrap()), "\"10.0.0.1\"");
        assert_eq!(json(&serde_json::from_str::<Address>("\"2001:db8::1\"").unwrap()), "\"2001:db8::1\"");
        assert_eq!(json(&Id(u64::MAX)), "\"18446744073709551615\"");
        assert_eq!(json(&Moment(1_500_000)), "\"1970-01-01T00:00:01.500000Z\"");
        assert_eq!(Moment::known(0), None);
    }

    mod erased {
        pub(super) trait Json {
            fn json(&self) -> String;
        }

        impl<T: serde::Serialize> Json for T {
            fn json(&self) -> String {
                serde_json::to_string(self).unwrap()
            }
        }
    }
}
