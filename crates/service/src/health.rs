//! The conditions that decide whether a service is ready.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

/// Named conditions, each met or not with a reason. A service is ready when all that it named are met; one that named none is not.
#[derive(Clone, Debug, Default)]
pub struct Health {
    conditions: Arc<RwLock<BTreeMap<&'static str, Option<String>>>>,
    notes: Arc<RwLock<BTreeMap<&'static str, String>>>,
}

impl Health {
    /// The condition is met.
    pub fn met(&self, condition: &'static str) {
        self.set(condition, None);
    }

    /// The condition is not met; `reason` is for people and says what to do.
    pub fn unmet(&self, condition: &'static str, reason: impl Into<String>) {
        self.set(condition, Some(reason.into()));
    }

    /// Something that an operator should know and that does not keep the service from its work.
    pub fn note(&self, about: &'static str, text: impl Into<String>) {
        self.notes.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(about, text.into());
    }

    /// The notes by what they are about.
    #[must_use]
    pub fn notes(&self) -> BTreeMap<&'static str, String> {
        self.notes.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The conditions by name: `None` = met, otherwise the reason.
    #[must_use]
    pub fn conditions(&self) -> BTreeMap<&'static str, Option<String>> {
        self.conditions.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Whether all conditions are met.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let conditions = self.conditions();
        !conditions.is_empty() && conditions.values().all(Option::is_none)
    }

    fn set(&self, condition: &'static str, reason: Option<String>) {
        self.conditions.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(condition, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_ready_when_every_condition_is_met() {
        let health = Health::default();
        assert!(!health.is_ready());
        health.unmet("nats", "connection refused");
        health.met("clickhouse");
        assert!(!health.is_ready());
        health.met("nats");
        assert!(health.is_ready());
    }
}
