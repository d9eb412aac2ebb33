//! Which interfaces of a container to attach to, and which addresses are apart from which: a pure choice.

use std::collections::BTreeSet;

use super::look::Below;

/// Where addresses mean the same. Flows with the same addresses and ports in two of these are two flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// The namespace that is captured in: its interfaces show the same packets.
    Home,
    /// All devices that share this one, which is not captured on.
    Below(u32),
    /// A namespace, by its cookie.
    Namespace(u64),
}

/// The scope of an interface of the namespace with this cookie; `None` = it is left alone, because an interface of the namespace that is
/// captured in shows all its packets, and may be captured on there. `captured` are the indexes of those that are.
pub(super) fn scope(below: Below, cookie: u64, captured: &BTreeSet<u32>) -> Option<Scope> {
    match below {
        Below::Nothing => Some(Scope::Namespace(cookie)),
        Below::Pair => None,
        Below::Parent(index) if captured.contains(&index) => Some(Scope::Home),
        Below::Parent(index) => Some(Scope::Below(index)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_interface_here_shows_is_apart() {
        let captured = BTreeSet::from([2]);
        assert_eq!(scope(Below::Nothing, 7, &captured), Some(Scope::Namespace(7)));
        assert_eq!(scope(Below::Pair, 7, &captured), None);
        assert_eq!(scope(Below::Parent(2), 7, &captured), Some(Scope::Home));
        // Two containers on one device that is not captured on: what they say to each other is one flow.
        assert_eq!(scope(Below::Parent(3), 7, &captured), scope(Below::Parent(3), 8, &captured));
    }
}
