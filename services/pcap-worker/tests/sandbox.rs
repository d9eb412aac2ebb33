//! The worker gives up what it does not need before it reads the first byte of a stranger. (That it still does its work, the tests of
//! its jobs show: they run the same program.)

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result};

fn worker() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-pcap-worker"));
    command.stdin(Stdio::null());
    command
}

fn lines(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A layer that this kernel lacks makes a test of it impossible, and is said.
fn complete(said: &str) -> bool {
    let missing = said.lines().find(|line| line.contains("this kernel"));
    if let Some(missing) = missing {
        eprintln!("skipped: {missing}");
    }
    missing.is_none()
}

#[test]
fn what_the_worker_does_not_need_is_refused() -> Result<()> {
    let output = worker().arg("--check-sandbox").output()?;
    let said = lines(&output);
    if complete(&said) {
        assert!(output.status.success(), "{said}");
        assert_eq!(said.matches(": holds").count(), 5, "{said}");
        assert_eq!(said.matches(": refused").count(), 10, "{said}");
    }
    Ok(())
}

#[test]
fn a_file_is_read_with_nothing_but_itself_in_reach_and_its_report_keeps_the_schema() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/ethernet-ns.pcap");
    let output = worker().arg("--read").arg(path).output()?;
    assert!(output.status.success(), "{}", lines(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).context("a report")?;
    assert!(report["totals"]["packets"].as_u64() > Some(0));
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/report.schema.json");
    let schema = serde_json::from_str(&std::fs::read_to_string(schema)?)?;
    jsonschema::validate(&schema, &report).map_err(|error| anyhow::anyhow!("{error} at {}", error.instance_path()))?;
    Ok(())
}

#[test]
fn a_worker_that_wants_more_memory_than_it_may_have_ends() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/ethernet-ns.pcap");
    let output = worker().arg("--read").arg(path).args(["--memory-limit-bytes", "400000"]).output()?;
    assert!(!output.status.success(), "{}", lines(&output));
    Ok(())
}
