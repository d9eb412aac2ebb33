//! Bounds for what strangers wrote: names, labels, attributes.

use std::collections::BTreeMap;

/// Longest name, image or value of a label, in bytes.
pub const MAX_VALUE: usize = 4096;
/// Longest key of a label, in bytes.
pub const MAX_KEY: usize = 512;
/// Most networks of one container.
pub const MAX_NETWORKS: usize = 64;
/// Longest name, id or address of a network, in bytes.
pub const MAX_NETWORK_VALUE: usize = 256;
/// Most labels of one container.
pub const MAX_LABELS: usize = 256;
/// Labels that Weir itself reads: they are kept whatever others there are.
const READ: [&str; 8] = [
    crate::filter::LABEL,
    "com.docker.compose.project",
    "com.docker.compose.service",
    "io.podman.compose.project",
    "io.podman.compose.service",
    "io.kubernetes.container.name",
    "io.kubernetes.pod.name",
    "io.kubernetes.pod.namespace",
];
/// Most bytes of all labels of one container: each sample carries them.
pub const MAX_LABELS_BYTES: usize = 64 << 10;

/// The longest start of `text` that has at most `max` bytes and ends between two characters.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// A value within [`MAX_VALUE`].
#[must_use]
pub fn value(text: &str) -> String {
    cut(text, MAX_VALUE).to_owned()
}

/// Labels within the bounds, those that Weir reads and then the first ones by name, and how many were cut or left out.
#[must_use]
pub fn labels(all: impl IntoIterator<Item = (String, String)>) -> (BTreeMap<String, String>, usize) {
    let mut sorted: Vec<_> = all.into_iter().collect();
    sorted.sort_unstable_by(|(a, _), (b, _)| {
        let is_other = |key: &String| !READ.contains(&key.as_str());
        is_other(a).cmp(&is_other(b)).then_with(|| a.cmp(b))
    });
    let total = sorted.len();
    let (mut kept, mut bytes, mut shortened) = (BTreeMap::new(), 0, 0);
    for (key, text) in sorted.into_iter().take(MAX_LABELS) {
        let (short_key, short_text) = (cut(&key, MAX_KEY), cut(&text, MAX_VALUE));
        if bytes + short_key.len() + short_text.len() > MAX_LABELS_BYTES {
            continue;
        }
        bytes += short_key.len() + short_text.len();
        shortened += usize::from(short_key.len() < key.len() || short_text.len() < text.len());
        kept.insert(short_key.to_owned(), short_text.to_owned());
    }
    let left_out = total - kept.len();
    (kept, left_out + shortened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("grün", 3), "gr");
        assert_eq!(cut("grün", 4), "grü");
        assert_eq!(cut("grün", 100), "grün");
        assert_eq!(value(&"x".repeat(64 << 10)).len(), MAX_VALUE);
    }

    #[test]
    fn ten_thousand_labels_are_bounded_and_the_rest_is_counted() {
        let (kept, cut) = labels((0..10_000).rev().map(|i| (format!("label-{i:05}"), "v".to_owned())));
        assert_eq!((kept.len(), cut), (MAX_LABELS, 10_000 - MAX_LABELS));
        assert!(kept.contains_key("label-00000"), "the first by name are kept");
    }

    #[test]
    fn the_labels_that_weir_reads_are_kept_among_however_many() {
        let many = (0..10_000).map(|i| (format!("a-{i:05}"), "v".repeat(MAX_VALUE)));
        let read =
            [("weir.enable", "false"), ("io.kubernetes.pod.name", "p")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let (kept, _) = labels(many.chain(read));
        assert_eq!((kept["weir.enable"].as_str(), kept["io.kubernetes.pod.name"].as_str()), ("false", "p"));
        assert!(kept.contains_key("a-00000") && kept.len() <= MAX_LABELS);
    }

    #[test]
    fn long_labels_are_shortened_and_all_together_stay_small() {
        let (kept, cut) = labels([("big".to_owned(), "v".repeat(64 << 10))]);
        assert_eq!((kept["big"].len(), cut), (MAX_VALUE, 1));
        let (kept, cut) = labels((0..200).map(|i| (format!("{i:03}"), "v".repeat(MAX_VALUE))));
        assert_eq!(kept.len() + cut, 200);
        assert!(kept.iter().map(|(key, text)| key.len() + text.len()).sum::<usize>() <= MAX_LABELS_BYTES);
    }
}
