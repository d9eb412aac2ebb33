//! `ClickHouse` out of its library, in a process of its own.
//!
//! Confines itself to its directory, loads `libchdb.so` and runs the program in it, which listens. `SIGTERM` and `SIGINT` end
//! it at once: what was acknowledged is in the kernel's hands already, and leaving the library by its own exit can abort.

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus,
};
use nix::sys::signal::{SigSet, Signal};

/// What the server reads besides its own files: libraries, time zones, and what tells it about the machine.
const READABLE: [&str; 15] = [
    "/usr",
    "/lib",
    "/lib64",
    "/sys",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/ld.so.cache",
    "/dev/urandom",
    "/proc/self",
    "/proc/sys",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/loadavg",
];

/// The signature of `chdb_query_cmdline` in chdb.h: like `main`, but it returns a pointer to a result.
type QueryCommandLine = unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut c_void;

/// Runs the server that is in libchdb.so; started by `weir up`
#[derive(Parser)]
#[command(version)]
struct Options {
    /// The path of libchdb.so.
    #[arg(long)]
    library: PathBuf,
    /// The server's configuration file; its directory becomes readable.
    #[arg(long)]
    config: PathBuf,
    /// The directory of the data, the only one that becomes writable.
    #[arg(long)]
    data: PathBuf,
    /// The port of the HTTP interface on 127.0.0.1.
    #[arg(long)]
    http_port: u16,
    /// The statements to run; they start the listener and never end.
    #[arg(long)]
    query: String,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-clickhouse: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    end_on_signals()?;
    match confine(options).context("cannot confine the process")? {
        RulesetStatus::FullyEnforced => {}
        status => {
            eprintln!("weir-clickhouse: this kernel confines the server not at all or in part (Landlock: {status:?})");
        }
    }
    serve(options)
}

/// Takes the signals away from the library, which would end its query and then abort.
fn end_on_signals() -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    // All threads that are started from here on inherit this.
    signals.thread_block().context("cannot block signals")?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let _ = signals.wait();
            // SAFETY: _exit(2) ends the process without running anything of the library.
            unsafe { libc::_exit(0) }
        })
        .context("cannot start a thread")?;
    Ok(())
}

/// Landlock: files only where the server needs them, no outgoing connections, its one port and no other.
fn confine(options: &Options) -> Result<RulesetStatus> {
    let abi = ABI::V5;
    let config = options.config.parent().context("the configuration has no directory")?;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
        .create()?;
    for path in READABLE.iter().map(Path::new).chain([options.library.as_path(), config]) {
        rules = allow(rules, path, AccessFs::from_read(abi))?;
    }
    rules = allow(rules, Path::new("/dev/null"), AccessFs::from_read(abi) | AccessFs::WriteFile)?;
    rules = allow(rules, &options.data, AccessFs::from_all(abi))?;
    rules = rules.add_rule(NetPort::new(options.http_port, AccessNet::BindTcp))?;
    Ok(rules.restrict_self()?.ruleset)
}

/// One more path, if this machine has it.
fn allow(rules: RulesetCreated, path: &Path, access: landlock::BitFlags<AccessFs>) -> Result<RulesetCreated> {
    let Ok(file) = PathFd::new(path) else { return Ok(rules) };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(ABI::V5) };
    Ok(rules.add_rule(PathBeneath::new(file, access))?)
}

/// Loads the library and runs the program in it; returns only when that ended, which it should not.
fn serve(options: &Options) -> Result<()> {
    // SAFETY: the library's constructors run; it is the pinned, checked libchdb.so, and no other thread of this process uses
    // what they touch.
    let library = unsafe { libloading::Library::new(&options.library) }
        .with_context(|| format!("cannot load {}", options.library.display()))?;
    // SAFETY: chdb.h declares the function with this signature.
    let query: libloading::Symbol<'_, QueryCommandLine> = unsafe { library.get(b"chdb_query_cmdline\0") }?;
    let mut arguments = arguments(options)?;
    let mut pointers: Vec<*mut c_char> = arguments.iter_mut().map(|argument| argument.as_ptr().cast_mut()).collect();
    let count = c_int::try_from(pointers.len())?;
    pointers.push(std::ptr::null_mut());
    // SAFETY: as for `main`: `count` strings that live longer than the call, then a null pointer.
    let result = unsafe { query(count, pointers.as_mut_ptr()) };
    eprintln!(
        "weir-clickhouse: the server ended by itself ({})",
        if result.is_null() { "no result" } else { "with a result" }
    );
    // SAFETY: _exit(2) ends the process without running the library's destructors, which can abort.
    unsafe { libc::_exit(1) }
}

fn arguments(options: &Options) -> Result<Vec<CString>> {
    let with_path = |name: &str, path: &Path| [name.as_bytes(), path.as_os_str().as_bytes()].concat();
    [
        b"clickhouse".to_vec(),
        with_path("--config-file=", &options.config),
        with_path("--path=", &options.data),
        format!("--http_port={}", options.http_port).into_bytes(),
        b"--listen_host=127.0.0.1".to_vec(),
        format!("--query={}", options.query).into_bytes(),
    ]
    .into_iter()
    .map(|argument| CString::new(argument).context("an argument holds a zero byte"))
    .collect()
}
