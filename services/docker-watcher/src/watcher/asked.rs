//! Questions to the engine about containers: a few at a time, each asked once while it waits.

use std::collections::{HashSet, VecDeque};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};

use crate::{
    Error,
    lives::{Inspected, Origin},
    runtime::Engine,
};

/// Questions about containers that are about to start, which the engine answers when they have: each takes as long as a start.
const MAX_BEGINNINGS: usize = 64;

type Answer = (String, Origin, Result<Inspected, Error>);

/// Inspections that wait or are on their way. At most two wait per container.
pub(super) struct Asked {
    engine: Engine,
    concurrency: usize,
    waiting: VecDeque<(String, Origin)>,
    /// The same, to find one: a question that still waits will have an answer that is new enough for whoever asks again.
    known: HashSet<(String, bool)>,
    flying: FuturesUnordered<BoxFuture<'static, Answer>>,
    reconciliations: usize,
    beginnings: usize,
}

impl Asked {
    pub(super) fn new(engine: Engine, concurrency: usize) -> Self {
        Self {
            engine,
            concurrency,
            waiting: VecDeque::new(),
            known: HashSet::new(),
            flying: FuturesUnordered::new(),
            reconciliations: 0,
            beginnings: 0,
        }
    }

    /// Asks at once, beside the others; of too many at one time some are left out.
    pub(super) fn ask_beginning(&mut self, id: String) {
        if self.beginnings < MAX_BEGINNINGS {
            self.beginnings += 1;
            self.send(id, Origin::Beginning);
        }
    }

    pub(super) fn ask(&mut self, id: String, origin: Origin) {
        if !self.known.insert((id.clone(), origin == Origin::Reconciliation)) {
            return;
        }
        if origin == Origin::Reconciliation {
            self.reconciliations += 1;
            self.waiting.push_back((id, origin));
        } else {
            // An event cannot wait until a thousand containers are compared.
            self.waiting.push_front((id, origin));
        }
    }

    /// How many answers a comparison still waits for.
    pub(super) fn reconciliations(&self) -> usize {
        self.reconciliations
    }

    /// The next answer; waits for ever when nothing was asked. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Answer {
        while self.flying.len() - self.beginnings < self.concurrency
            && let Some((id, origin)) = self.waiting.pop_front()
        {
            self.known.remove(&(id.clone(), origin == Origin::Reconciliation));
            self.send(id, origin);
        }
        match self.flying.next().await {
            Some(answer) => {
                match answer.1 {
                    Origin::Reconciliation => self.reconciliations -= 1,
                    Origin::Beginning => self.beginnings -= 1,
                    Origin::Event => {}
                }
                answer
            }
            None => std::future::pending().await,
        }
    }

    fn send(&mut self, id: String, origin: Origin) {
        let engine = self.engine.clone();
        self.flying.push(
            async move {
                let answer = engine.inspect(&id).await;
                (id, origin, answer)
            }
            .boxed(),
        );
    }
}
