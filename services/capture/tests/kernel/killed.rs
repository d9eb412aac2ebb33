//! `kill -9` of the service: what was not reported is counted by the next life.

use crate::{
    exact::{pair, up, v4},
    support::{
        service::{Service, wait_for_metric},
        skipped, traffic,
    },
};

#[test]
fn what_passes_while_no_capture_runs_is_counted_by_the_next_one() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    up(&a, &b);
    let directory = tempfile::tempdir().unwrap();
    let (first, address) = Service::start(&a, directory.path());
    traffic::ping(&a, v4(2), 10, 56);
    wait_for_metric(&a, &address, "weir_capture_packets_accounted_total ", |packets| packets >= 20);
    first.kill();
    traffic::ping(&a, v4(2), 25, 56);

    let (second, address) = Service::start(&a, directory.path());
    // At least the echoes of the time between; at most those of all the time, and the stack's own few.
    let unseen = wait_for_metric(&a, &address, "weir_capture_packets_unseen_total ", |packets| packets >= 50);
    assert!(unseen < 120, "{unseen}");
    second.kill();
}
