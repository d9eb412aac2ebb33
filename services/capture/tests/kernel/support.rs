//! Hosts, wires and traffic for the tests: network namespaces without names, which vanish with the process however it ends.

pub(crate) mod capturing;
pub(crate) mod host;
pub(crate) mod service;
pub(crate) mod traffic;

/// Prints why, if this machine cannot run the test.
pub(crate) fn skipped() -> bool {
    let Err(error) = weir_capture::check() else { return false };
    eprintln!("skipped: {:#}", anyhow::Error::from(error));
    true
}
