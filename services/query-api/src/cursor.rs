//! Where a list goes on: opaque to clients, a place in a stable order.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};

use crate::Error;

/// The text of a cursor.
pub(crate) fn encode(place: &impl Serialize) -> Result<String, Error> {
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(place).map_err(Error::internal)?))
}

/// The place that a cursor names.
pub(crate) fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    let wrong = || Error::parameter("cursor", "this is no cursor of this list: use next_cursor as it came");
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
    serde_json::from_slice(&bytes).map_err(|_| wrong())
}

/// How many items are asked for.
pub(crate) fn limit(asked: Option<u32>, default: u32, max: u32) -> Result<u32, Error> {
    match asked {
        None => Ok(default),
        Some(asked) if (1..=max).contains(&asked) => Ok(asked),
        Some(_) => Err(Error::parameter("limit", format!("limit is from 1 to {max}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_the_way_and_anything_else_is_refused() {
        let text = encode(&(1_u64, "a")).unwrap();
        assert_eq!(decode::<(u64, String)>(&text).unwrap(), (1, "a".to_owned()));
        for text in ["", "{}", "bm90IGpzb24", "WzEsMl0"] {
            assert!(decode::<(u64, String)>(text).is_err(), "{text}");
        }
    }
}
