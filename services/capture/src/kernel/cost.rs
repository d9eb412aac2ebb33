//! What the classifier costs, as `bpftool prog run` measures it, beside the least that any program that counts flows has to do.

use std::time::Duration;

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use weir_capture_common::names;

use super::{Error, Kernel, classifier};

/// Per packet.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// The classifier, with all that is on.
    pub classifier: Duration,
    /// One lookup and two atomic additions.
    pub minimal: Duration,
}

impl Kernel {
    /// Runs both programs in turn on this frame, `repeat` times a round, and returns the best round of each: what is worse was somebody else.
    pub fn cost(&mut self, frame: &[u8], repeat: u32, rounds: u32) -> Result<Cost, Error> {
        let minimal = classifier(&mut self.object, names::MINIMAL)?;
        if minimal.fd().is_err() {
            minimal.load().map_err(|source| Error::Program { program: names::MINIMAL, source })?;
        }
        let mut best = Cost { classifier: Duration::MAX, minimal: Duration::MAX };
        for _ in 0..rounds {
            for (program, best) in
                [(names::MINIMAL, &mut best.minimal), (names::ETHERNET_INGRESS, &mut best.classifier)]
            {
                let took = run(classifier(&mut self.object, program)?, frame, repeat)
                    .map_err(|source| Error::Program { program, source })?;
                *best = took.min(*best);
            }
        }
        Ok(best)
    }
}

fn run(program: &SchedClassifier, frame: &[u8], repeat: u32) -> Result<Duration, aya::programs::ProgramError> {
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
    // The kernel gives the mean of all repetitions.
    Ok(program.test_run(options)?.duration)
}
