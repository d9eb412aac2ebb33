//! What `--help` prints is checked in: it is the reference, and a change of it is a change for users.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

const COMMANDS: [&[&str]; 19] = [
    &["up"],
    &["down"],
    &["status"],
    &["upload"],
    &["capture"],
    &["report"],
    &["captures"],
    &["captures", "list"],
    &["captures", "show"],
    &["captures", "report"],
    &["captures", "compare"],
    &["captures", "packets"],
    &["captures", "analyse"],
    &["captures", "cancel"],
    &["captures", "delete"],
    &["query"],
    &["flows"],
    &["top"],
    &["containers"],
];

#[test]
fn the_help_is_the_one_that_is_checked_in() {
    let mut text = help(&[]);
    for command in COMMANDS {
        let _ = write!(text, "\n---- weir {} ----\n\n{}", command.join(" "), help(command));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/help.txt");
    if std::env::var_os("WEIR_REGENERATE").is_some() {
        std::fs::write(&file, &text).expect("write");
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, golden, "WEIR_REGENERATE=1 writes {}", file.display());
}

#[test]
fn bad_usage_exits_with_64_and_names_the_field() {
    for (arguments, field) in [
        (&["flows", "--limit", "x"][..], "--limit"),
        (&["status", "--timeout", "0"], "--timeout"),
        (&["up", "--listen", "here"], "--listen"),
        (&["query", "SELECT 1", "--format", "xml"], "--format"),
        (&["query", "SELECT 1", "--api", "nowhere"], "--api"),
        (&["captures", "analyse", "x", "--threshold", "port_scan_ports"], "--threshold"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_weir")).args(arguments).env_clear().output().expect("weir");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(field), "{arguments:?}: {said}");
    }
}

#[test]
fn an_api_that_is_not_there_is_a_failure_that_says_what_to_do() {
    let arguments = ["query", "SELECT 1", "--api", "http://127.0.0.1:1"];
    let output = Command::new(env!("CARGO_BIN_EXE_weir")).args(arguments).env_clear().output().expect("weir");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no API answers on http://127.0.0.1:1") && said.contains("weir up"), "{said}");
}

fn help(command: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(command)
        .arg("--help")
        .env_clear()
        .env("COLUMNS", "100")
        .output()
        .expect("weir");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("utf-8")
}
