//! Landlock: which files, ports and processes are within reach.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::{Policy, Weakness, failed};

/// The newest form that is asked for; the kernel takes as much of it as it has.
const ABI: ABI = landlock::ABI::V6;
/// What any program reads: the time zone, what the standard library asks about the machine and this process.
const ALWAYS: [&str; 6] =
    ["/dev/null", "/dev/urandom", "/etc/localtime", "/proc/self", "/sys/fs/cgroup", "/usr/share/zoneinfo"];
/// What name resolution and TLS read.
const FOR_NETWORK: [&str; 9] = [
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/run/systemd/resolve",
    "/usr/share/ca-certificates",
];
/// DNS over TCP: a long answer.
const DNS_PORT: u16 = 53;

pub(super) fn restrict(policy: &Policy) -> Result<(), Weakness> {
    match try_restrict(policy).map_err(failed)? {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced => Err(Weakness::Partial),
        RulesetStatus::NotEnforced => Err(Weakness::Absent),
    }
}

fn try_restrict(policy: &Policy) -> Result<RulesetStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI))?
        .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    for path in ALWAYS {
        rules = allow(rules, Path::new(path), read)?;
    }
    for path in FOR_NETWORK.iter().filter(|_| policy.uses_network()) {
        rules = allow(rules, Path::new(path), read)?;
    }
    for path in &policy.readable {
        rules = allow(rules, path, read)?;
    }
    for path in &policy.writable {
        rules = allow(rules, path, AccessFs::from_all(ABI) & !AccessFs::Execute)?;
    }
    let dns = (!policy.connect.is_empty()).then_some(DNS_PORT);
    for &port in policy.connect.iter().chain(&dns) {
        rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    for &port in &policy.listen {
        rules = rules.add_rule(NetPort::new(port, AccessNet::BindTcp))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// One more path, if this machine has it.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(file) = PathFd::new(path) else { return Ok(rules) };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(ABI) };
    rules.add_rule(PathBeneath::new(file, access))
}
