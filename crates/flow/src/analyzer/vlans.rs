//! Conversations whose two directions come under different VLAN tags, as mirror ports, taps in a line and private VLANs deliver them: both
//! directions are one flow, that of the tag that came first.

use hashbrown::HashMap;

use crate::key::{Belonging, Key};
use crate::tracker::{Reply, State, Tracker};

/// Tags among which the other direction is looked for: the first ones of the capture.
const MAX_TAGS: usize = 16;
/// Conversations that are remembered though their flows have ended; beside them as many again as there are flows.
const SPARE: usize = 1024;

/// The tags of a capture, and who uses two of them.
#[derive(Debug, Default)]
pub(super) struct Vlans {
    seen: Vec<u32>,
    /// The tag of the flow for packets whose own tag is that of the key.
    crossed: HashMap<Key, u32>,
}

impl Vlans {
    /// Notes a tag; whether there are several.
    #[inline]
    pub(super) fn see(&mut self, vlan: u32) -> bool {
        if let [only] = self.seen[..]
            && only == vlan
        {
            return false;
        }
        self.note(vlan);
        self.seen.len() > 1
    }

    #[cold]
    fn note(&mut self, vlan: u32) {
        if self.seen.len() < MAX_TAGS && !self.seen.contains(&vlan) {
            self.seen.push(vlan);
        }
    }

    /// The key of the flow that a packet belongs to.
    #[cold]
    pub(super) fn key<S: State>(&mut self, &(key, ..): &Belonging, reply: Reply, tracker: &Tracker<S>) -> Key {
        if tracker.contains(&key) {
            return key;
        }
        let under = |vlan: u32| Key { vlan, ..key };
        if let Some(vlan) = self.crossed.get(&key).copied() {
            if tracker.contains(&under(vlan)) {
                return under(vlan);
            }
            self.crossed.remove(&key);
        }
        let others = self.seen.iter().filter(|vlan| **vlan != key.vlan);
        let Some(other) = others.map(|vlan| under(*vlan)).find(|other| tracker.awaits(other, reply)) else {
            return key;
        };
        if self.crossed.len() >= 2 * tracker.len() + SPARE {
            self.crossed.retain(|key, vlan| tracker.contains(&Key { vlan: *vlan, ..*key }));
        }
        self.crossed.insert(key, other.vlan);
        other
    }
}
