//! The worker gives up what it does not need before it reads the first byte of a stranger. (That it still does its work, the tests of
//! its jobs show: they run the same program.)

use std::io::Write as _;
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

/// A capture of so many flows, a datagram each, within a moment.
fn many_flows(flows: u32) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        file.extend(word.to_le_bytes());
    }
    for flow in 0..flows {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend((0x0a00_0000 | flow).to_be_bytes());
        packet.extend([192, 0, 2, 1, 0x9c, 0x40, 0x9c, 0x41, 0, 8, 0, 0]);
        for word in [1_700_000_000, flow, 28, 28] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

#[test]
fn a_worker_that_wants_more_memory_than_it_may_have_ends() -> Result<()> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(&many_flows(150_000))?;
    let read = |limit: &str| worker().arg("--read").arg(file.path()).args(["--memory-limit-bytes", limit]).output();
    let enough = read("1000000000")?;
    assert!(enough.status.success(), "{}", lines(&enough));
    let short = read("70000000")?;
    assert!(!short.status.success(), "{}", lines(&short));
    assert!(lines(&short).contains("memory allocation of"), "{}", lines(&short));
    Ok(())
}
