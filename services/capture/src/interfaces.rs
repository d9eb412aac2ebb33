//! Which interfaces to capture on: a pure choice, made again whenever the kernel says that something has changed.

mod watch;

use std::collections::BTreeSet;

use weir_capture_common::dissect::Link;

pub use watch::watch;

/// An interface of the network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index: a new interface under an old name has another one.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What its frames start with; `None` = a kind of device that Weir cannot read.
    pub link: Option<Link>,
}

/// What there is at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// All interfaces.
    pub interfaces: Vec<Interface>,
    /// Indexes of those that carry a default route.
    pub default_routes: BTreeSet<u32>,
}

/// What to capture on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Interfaces that exist.
    pub present: Vec<Interface>,
    /// Names and patterns that match nothing yet.
    pub missing: Vec<String>,
}

/// Chooses by names and patterns; without any, the interfaces that carry the default routes.
#[must_use]
pub fn select(patterns: &[String], network: &Network) -> Selection {
    if patterns.is_empty() {
        let present: Vec<_> = (network.interfaces.iter())
            .filter(|interface| network.default_routes.contains(&interface.index))
            .cloned()
            .collect();
        let missing = if present.is_empty() { vec!["a default route".to_owned()] } else { Vec::new() };
        return Selection { present, missing };
    }
    let chosen = |interface: &&Interface| patterns.iter().any(|pattern| matches(pattern, &interface.name));
    let present: Vec<_> = network.interfaces.iter().filter(chosen).cloned().collect();
    let missing = (patterns.iter())
        .filter(|pattern| !present.iter().any(|interface| matches(pattern, &interface.name)))
        .cloned()
        .collect();
    Selection { present, missing }
}

/// What frames of a device start with, by its ARPHRD number (`linux/if_arp.h`).
#[must_use]
pub fn link_of(hardware: u16) -> Option<Link> {
    const ETHER: u16 = 1;
    const PPP: u16 = 512;
    const RAWIP: u16 = 519;
    const TUNNEL: u16 = 768;
    const TUNNEL6: u16 = 769;
    const LOOPBACK: u16 = 772;
    const SIT: u16 = 776;
    const IPGRE: u16 = 778;
    const IP6GRE: u16 = 823;
    const NONE: u16 = 0xfffe;
    match hardware {
        ETHER | LOOPBACK => Some(Link::Ethernet),
        PPP | RAWIP | TUNNEL | TUNNEL6 | SIT | IPGRE | IP6GRE | NONE => Some(Link::Ip),
        _ => None,
    }
}

/// `*` stands for any characters, `?` for one.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut in_name) = (0, 0);
    // Where to go on when the last `*` has to stand for one character more.
    let mut retry: Option<(usize, usize)> = None;
    while in_name < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at, in_name));
                at += 1;
                continue;
            }
            Some(&wanted) if wanted == b'?' || wanted == name[in_name] => {
                at += 1;
                in_name += 1;
                continue;
            }
            _ => {}
        }
        let Some((star, taken)) = retry else { return false };
        retry = Some((star, taken + 1));
        at = star + 1;
        in_name = taken + 1;
    }
    pattern[at..].iter().all(|&rest| rest == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network() -> Network {
        let interface = |index, name: &str| Interface { index, name: name.to_owned(), link: Some(Link::Ethernet) };
        Network {
            interfaces: vec![interface(1, "lo"), interface(2, "eth0"), interface(3, "veth1"), interface(4, "veth22")],
            default_routes: BTreeSet::from([2]),
        }
    }

    fn names(patterns: &[&str]) -> (Vec<String>, Vec<String>) {
        let patterns: Vec<_> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let selection = select(&patterns, &network());
        (selection.present.into_iter().map(|interface| interface.name).collect(), selection.missing)
    }

    #[test]
    fn without_names_the_default_routes_decide() {
        assert_eq!(names(&[]), (vec!["eth0".to_owned()], vec![]));
        let nowhere = select(&[], &Network::default());
        assert_eq!(nowhere.missing, ["a default route"]);
    }

    #[test]
    fn names_and_patterns_choose_each_interface_once() {
        assert_eq!(names(&["veth*", "veth1", "eth?"]).0, ["eth0", "veth1", "veth22"]);
    }

    #[test]
    fn what_matches_nothing_is_missing() {
        assert_eq!(names(&["lo", "wlan*", "tun0"]).1, ["wlan*", "tun0"]);
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth", "eth0", false),
            ("*", "", true),
            ("*a*b", "xaab", true),
            ("*a*b", "xaba", false),
            ("?", "", false),
            ("e?h*", "eth0", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn a_star_in_place_of_any_part_still_matches(name in "[a-z0-9]{0,12}", from in 0usize..13, to in 0usize..13) {
            let (from, to) = (from.min(name.len()), to.min(name.len()));
            let (from, to) = (from.min(to), from.max(to));
            let pattern = format!("{}*{}", &name[..from], &name[to..]);
            prop_assert!(matches(&pattern, &name));
        }
    }
}
