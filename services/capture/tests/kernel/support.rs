//! Hosts, wires and traffic for the tests: network namespaces without names, which vanish with the process however it ends.

pub(crate) mod capturing;
pub(crate) mod host;
pub(crate) mod service;
pub(crate) mod traffic;

/// Prints why, if this machine cannot run the test.
pub(crate) fn skipped() -> bool {
    let Err(error) = weir_capture::check() else { return false };
    let error = format!("{:#}", anyhow::Error::from(error));
    // Where programs may be loaded, one that the verifier refuses is a fault of ours.
    assert!(!error.contains("Verifier output"), "{error}");
    eprintln!("skipped: {error}");
    true
}
