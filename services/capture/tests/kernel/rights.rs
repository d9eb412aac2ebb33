//! Without the rights, and with no more of them than needed.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Output},
};

use caps::{CapSet, Capability};

use crate::{
    exact::pair,
    support::{
        service::{Service, wait_for_metric},
        skipped,
    },
};

fn capture_without(right: Option<Capability>) -> Output {
    checking(right).output().unwrap()
}

/// The check of the program, without a right.
fn checking(right: Option<Capability>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-capture"));
    command.arg("--check").env_clear();
    if let Some(right) = right {
        // SAFETY: only system calls between fork and exec. Root gets back at exec what is in the bounding set.
        unsafe {
            command.pre_exec(move || {
                let mut dropped = vec![right];
                if right != Capability::CAP_NET_ADMIN {
                    // It would stand in for the others.
                    dropped.push(Capability::CAP_SYS_ADMIN);
                }
                for capability in dropped {
                    caps::drop(None, CapSet::Bounding, capability).map_err(std::io::Error::other)?;
                }
                Ok(())
            });
        }
    }
    command
}

#[test]
fn a_check_says_that_capturing_works() {
    if skipped() {
        return;
    }
    let output = capture_without(None);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_missing_right_is_named_with_the_way_to_get_it() {
    if skipped() {
        return;
    }
    for (right, name) in [
        (Capability::CAP_BPF, "CAP_BPF"),
        (Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        (Capability::CAP_PERFMON, "CAP_PERFMON"),
    ] {
        let output = capture_without(Some(right));
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(69), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.contains(name) && message.contains("setcap"), "{message}");
    }
}

#[test]
fn recording_on_demand_needs_one_right_more_and_says_so() {
    if skipped() {
        return;
    }
    let mut command = checking(Some(Capability::CAP_NET_RAW));
    let output = command.args(["--on-demand", "--nats-url", "nats://127.0.0.1:1"]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{message}");
    assert!(message.contains("CAP_NET_RAW") && message.contains("setcap"), "{message}");
}

#[test]
fn three_rights_are_enough() {
    if skipped() {
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-capture"));
    command.arg("--check").env_clear();
    // SAFETY: as above.
    unsafe {
        command.pre_exec(|| {
            let keep =
                [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON, Capability::CAP_SETPCAP];
            for capability in caps::all() {
                if !keep.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
                    caps::drop(None, CapSet::Bounding, capability).map_err(std::io::Error::other)?;
                }
            }
            caps::drop(None, CapSet::Bounding, Capability::CAP_SETPCAP).map_err(std::io::Error::other)
        });
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_running_service_keeps_only_what_it_needs() {
    if skipped() {
        return;
    }
    let (a, _b) = pair();
    let directory = tempfile::tempdir().unwrap();
    let (service, _address) = Service::start(&a, directory.path());
    assert_eq!(rights(&service), [CAPTURING.iter().map(Capability::bitmask).sum::<u64>()]);
    service.kill();
}

#[test]
fn with_packets_on_demand_one_thread_more_has_one_right() {
    if skipped() {
        return;
    }
    let (a, _b) = pair();
    let directory = tempfile::tempdir().unwrap();
    let (service, _address) = Service::start_with(&a, directory.path(), &["--on-demand"]);
    let capturing = CAPTURING.iter().map(Capability::bitmask).sum::<u64>();
    let mut expected = [capturing, Capability::CAP_NET_RAW.bitmask()];
    expected.sort_unstable();
    assert_eq!(rights(&service), expected);
    service.kill();
}

#[test]
fn entering_containers_needs_two_rights_more_and_says_so() {
    if skipped() {
        return;
    }
    for (right, name) in [(Capability::CAP_SYS_ADMIN, "CAP_SYS_ADMIN"), (Capability::CAP_SYS_PTRACE, "CAP_SYS_PTRACE")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-capture"));
        command.args(["--check", "--container-namespaces"]).env_clear();
        // SAFETY: as above.
        unsafe {
            command.pre_exec(move || caps::drop(None, CapSet::Bounding, right).map_err(std::io::Error::other));
        }
        let output = command.output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(69), "{message}");
        assert!(message.contains(name) && message.contains("setcap"), "{message}");
    }
}

#[test]
fn with_containers_namespaces_one_thread_more_has_what_it_takes_to_enter_them() {
    if skipped() {
        return;
    }
    let (a, _b) = pair();
    let directory = tempfile::tempdir().unwrap();
    let (service, address) = Service::start_with(&a, directory.path(), &["--container-namespaces"]);
    // It has given up the rest before it does anything.
    wait_for_metric(
        &a,
        &address,
        "weir_capture_feature{feature=\"container_namespaces\",state=\"available\"} ",
        |on| on == 1,
    );
    let capturing = CAPTURING.iter().map(Capability::bitmask).sum::<u64>();
    let entering = [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE].iter().map(Capability::bitmask).sum::<u64>();
    assert_eq!(rights(&service), [capturing, capturing | entering]);
    service.kill();
}

const CAPTURING: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];

/// What the threads have that have anything; what holds for all of them is checked.
fn rights(service: &Service) -> Vec<u64> {
    let mut rights = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{}/task", service.pid())).unwrap() {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let mask = |name: &str| u64::from_str_radix(&field(name), 16).unwrap();
        assert_eq!((mask("CapInh:"), mask("CapAmb:"), mask("CapBnd:")), (0, 0, 0), "{status}");
        assert_eq!(mask("CapEff:"), mask("CapPrm:"), "{status}");
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2", "a filter of system calls is on");
        rights.push(mask("CapEff:"));
    }
    rights.retain(|mask| *mask != 0);
    rights.sort_unstable();
    rights
}
