//! Questions to the engine about containers: a few at a time, each asked once while it waits.

use std::collections::{HashSet, VecDeque};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};

use crate::{
    Error,
    lives::{Inspected, Origin},
    runtime::Engine,
};

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
        while self.flying.len() < self.concurrency
            && let Some((id, origin)) = self.waiting.pop_front()
        {
            self.known.remove(&(id.clone(), origin == Origin::Reconciliation));
            let engine = self.engine.clone();
            self.flying.push(
                async move {
                    let answer = engine.inspect(&id).await;
                    (id, origin, answer)
                }
                .boxed(),
            );
        }
        match self.flying.next().await {
            Some(answer) => {
                if answer.1 == Origin::Reconciliation {
                    self.reconciliations -= 1;
                }
                answer
            }
            None => std::future::pending().await,
        }
    }
}
