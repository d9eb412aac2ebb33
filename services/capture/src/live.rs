//! Records for whoever listens now: each listener has a place in a bounded ring, and one that is too slow misses what left it, which is counted.

use std::sync::Arc;

use metrics::{counter, gauge};
use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    broadcast::{self, error::RecvError},
};
use weir_proto::Flow;

/// Batches that a listener may be behind.
const BEHIND: usize = 64;
/// Listeners at one time.
const MAX_LISTENERS: usize = 32;

/// Where records are handed to listeners. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Live {
    sender: broadcast::Sender<Arc<[Flow]>>,
    places: Arc<Semaphore>,
}

/// Somebody who listens.
pub(crate) struct Listener {
    receiver: broadcast::Receiver<Arc<[Flow]>>,
    _place: OwnedSemaphorePermit,
}

/// What a listener gets.
pub(crate) enum Heard {
    Flows(Arc<[Flow]>),
    /// So many batches came and went before they were read.
    Skipped(u64),
}

impl Default for Live {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BEHIND), places: Arc::new(Semaphore::new(MAX_LISTENERS)) }
    }
}

impl Live {
    /// Hands records to all listeners. It never waits.
    pub fn tell(&self, flows: &[Flow]) {
        if self.sender.receiver_count() > 0 {
            // It fails if the last listener has just gone.
            let _nobody = self.sender.send(flows.into());
        }
    }

    /// A place to listen; `None` = all are taken.
    pub(crate) fn listen(&self) -> Option<Listener> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let receiver = self.sender.subscribe();
        gauge!("weir_capture_live_listeners").set(receiver_count(&self.places));
        Some(Listener { receiver, _place: place })
    }
}

impl Listener {
    /// The next records; `None` = there will be no more.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        match self.receiver.recv().await {
            Ok(flows) => Some(Heard::Flows(flows)),
            Err(RecvError::Lagged(batches)) => {
                counter!("weir_capture_live_skipped_batches_total").increment(batches);
                Some(Heard::Skipped(batches))
            }
            Err(RecvError::Closed) => None,
        }
    }
}

fn receiver_count(places: &Semaphore) -> f64 {
    (MAX_LISTENERS - places.available_permits()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows(id: u64) -> Vec<Flow> {
        vec![Flow { flow_id: id, ..Flow::default() }]
    }

    #[tokio::test]
    async fn a_slow_listener_misses_the_oldest_and_is_told_how_much() {
        let live = Live::default();
        let mut listener = live.listen().unwrap();
        for id in 0..BEHIND as u64 + 3 {
            live.tell(&flows(id));
        }
        assert!(matches!(listener.next().await, Some(Heard::Skipped(3))));
        assert!(matches!(listener.next().await, Some(Heard::Flows(flows)) if flows[0].flow_id == 3));
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let live = Live::default();
        let mut listeners: Vec<_> = (0..MAX_LISTENERS).map(|_| live.listen().unwrap()).collect();
        assert!(live.listen().is_none());
        listeners.pop();
        assert!(live.listen().is_some());
    }
}
