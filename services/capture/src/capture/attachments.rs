//! Which interfaces the programs are attached to, and what the others are waiting for.

use std::collections::{BTreeMap, BTreeSet};

use nix::net::if_::if_nametoindex;
use tracing::{info, warn};
use weir_capture_common::contained::is_contained;
use weir_service::Health;

use crate::{
    interfaces::{Interface, Selection},
    kernel::{Attachment, Kernel, KernelTable},
    metrics,
    namespaces::{Inside, Known},
};

/// Condition of readiness: something is captured on.
const CONDITION: &str = "interfaces";
/// Names that are remembered: flows of an interface that is gone are reported with its name.
const MAX_NAMES: usize = 4096;

pub(super) struct Attachments {
    health: Health,
    attached: BTreeMap<u32, (Interface, Attachment)>,
    /// Wanted and not attached, with the reason.
    waiting: BTreeMap<u32, (Interface, String)>,
    missing: BTreeSet<String>,
    names: BTreeMap<u32, String>,
    /// In containers: another thread attaches to them.
    contained: BTreeSet<u32>,
    inside: Known,
}

impl Attachments {
    pub(super) fn new(health: Health, inside: Known) -> Self {
        let mut this = Self {
            health,
            attached: BTreeMap::new(),
            waiting: BTreeMap::new(),
            missing: BTreeSet::new(),
            names: BTreeMap::new(),
            contained: BTreeSet::new(),
            inside,
        };
        this.tell();
        this
    }

    /// Attaches to what is selected and detaches from the rest.
    pub(super) fn follow(&mut self, kernel: &mut Kernel, table: &mut KernelTable, selection: Selection) {
        let gone = self.forget_others(&selection);
        if !gone.is_empty() {
            table.disown(&gone);
        }
        for interface in selection.present {
            let renamed = self.attached.get(&interface.index).is_some_and(|(known, _)| known.name != interface.name);
            if renamed && let Some((known, _)) = self.attached.get_mut(&interface.index) {
                metrics::interface(&known.name, false);
                metrics::interface(&interface.name, true);
                self.names.insert(interface.index, interface.name.clone());
                known.name.clone_from(&interface.name);
            }
            if !self.attached.contains_key(&interface.index) {
                self.attach(kernel, interface);
            }
        }
        kernel.forget_others(self.attached.keys().copied());
        self.note_missing(selection.missing);
        self.tell();
    }

    /// Tries again what was refused; whether something was.
    pub(super) fn retry(&mut self, kernel: &mut Kernel) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let waiting: Vec<_> = self.waiting.values().map(|(interface, _)| interface.clone()).collect();
        for interface in waiting {
            self.attach(kernel, interface);
        }
        self.tell();
        true
    }

    /// Interfaces in containers, number and name, are about to be attached to, or are; what is not among them any more is detached.
    pub(super) fn contain(&mut self, kernel: &mut Kernel, table: &mut KernelTable, interfaces: &[(u32, String)]) {
        let now: BTreeSet<u32> = interfaces.iter().map(|(number, _)| *number).collect();
        let gone: Vec<u32> = self.contained.difference(&now).copied().collect();
        if !gone.is_empty() {
            table.disown(&gone);
        }
        for (number, name) in interfaces.iter().filter(|(number, _)| !self.contained.contains(number)) {
            if let Err(error) = kernel.learn(*number, name) {
                // Then no filter that asks for its name accepts it.
                warn!(error = &error as &dyn std::error::Error, interface = name, "cannot answer for this interface");
            }
        }
        kernel.forget(&gone);
        self.contained = now;
    }

    /// Detaches from everything.
    pub(super) fn clear(&mut self) {
        for (_, (interface, _)) in std::mem::take(&mut self.attached) {
            metrics::interface(&interface.name, false);
        }
    }

    /// What is attached to, name and index.
    pub(super) fn current(&self) -> Vec<(String, u32)> {
        self.attached.iter().map(|(index, (interface, _))| (interface.name.clone(), *index)).collect()
    }

    /// What keeps the flows of an interface in a container apart; `None` = not known.
    pub(super) fn inside(&self, number: u32) -> Option<Inside> {
        self.inside.inside(number)
    }

    /// The interface's name, or its last one; empty = never known.
    pub(super) fn name(&self, index: u32) -> String {
        if is_contained(index) {
            return self.inside.name(index);
        }
        self.names.get(&index).cloned().unwrap_or_default()
    }

    /// Detaches from what is not selected, and returns the indexes.
    fn forget_others(&mut self, selection: &Selection) -> Vec<u32> {
        let selected: BTreeSet<u32> = selection.present.iter().map(|interface| interface.index).collect();
        let gone: Vec<u32> = self.attached.keys().filter(|index| !selected.contains(index)).copied().collect();
        for index in &gone {
            if let Some((interface, _attachment)) = self.attached.remove(index) {
                metrics::interface(&interface.name, false);
                info!(interface = interface.name, index, "detached");
            }
        }
        self.waiting.retain(|index, _| selected.contains(index));
        gone
    }

    fn attach(&mut self, kernel: &mut Kernel, interface: Interface) {
        match try_attach(kernel, &interface) {
            Ok(attachment) => {
                info!(interface = interface.name, index = interface.index, "attached");
                metrics::interface(&interface.name, true);
                self.waiting.remove(&interface.index);
                self.remember(&interface);
                self.attached.insert(interface.index, (interface, attachment));
            }
            Err(reason) => {
                let news = self.waiting.get(&interface.index).is_none_or(|(_, before)| *before != reason);
                if news {
                    warn!(
                        interface = interface.name,
                        index = interface.index,
                        reason,
                        "cannot capture on this interface"
                    );
                }
                metrics::interface(&interface.name, false);
                self.waiting.insert(interface.index, (interface, reason));
            }
        }
    }

    fn remember(&mut self, interface: &Interface) {
        if self.names.len() >= MAX_NAMES {
            self.names.retain(|index, _| self.attached.contains_key(index));
        }
        self.names.insert(interface.index, interface.name.clone());
    }

    fn note_missing(&mut self, missing: Vec<String>) {
        let missing: BTreeSet<_> = missing.into_iter().collect();
        for name in missing.difference(&self.missing) {
            warn!(interface = name, "does not exist (yet): it is waited for");
            metrics::interface(name, false);
        }
        self.missing = missing;
    }

    fn tell(&mut self) {
        if !self.attached.is_empty() {
            return self.health.met(CONDITION);
        }
        let refused = self.waiting.values().map(|(interface, reason)| format!("{}: {reason}", interface.name));
        let missing = self.missing.iter().map(|name| format!("waiting for {name}"));
        let reasons: Vec<_> = refused.chain(missing).collect();
        let reason = if reasons.is_empty() { "not attached yet".to_owned() } else { reasons.join("; ") };
        self.health.unmet(CONDITION, reason);
    }
}

fn try_attach(kernel: &mut Kernel, interface: &Interface) -> Result<Attachment, String> {
    let link = interface.link.ok_or("its frames are of a kind that Weir cannot read")?;
    match if_nametoindex(interface.name.as_str()) {
        Ok(index) if index == interface.index => {}
        // The next notification brings the new state.
        _ => return Err("it is gone".to_owned()),
    }
    kernel.attach(&interface.name, interface.index, link).map_err(|error| format!("{:#}", anyhow::Error::from(error)))
}
