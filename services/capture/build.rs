//! Builds the kernel program (`../capture-ebpf`), which has its own target and toolchain, and leaves it where the service embeds it.
//!
//! The toolchain is the first of these that has the sources of `core`:
//! 1. `WEIR_EBPF_CARGO`, the path of a cargo beside its rustc
//! 2. rustup's nightly with the component rust-src
//! 3. Debian's /usr/bin/cargo with rust-web-src
//!
//! The linker is `bpf-linker`: `WEIR_BPF_LINKER`, one on the PATH, or the one in Weir's cache, where `./dev setup` puts it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const OBJECT: &str = "weir-capture-ebpf";
const HELP: &str = "run `./dev setup`, or see the head of services/capture/build.rs for what to install";

fn main() -> ExitCode {
    for path in [
        "build.rs",
        "../capture-ebpf/src",
        "../capture-ebpf/Cargo.toml",
        "../capture-ebpf/Cargo.lock",
        "../capture-ebpf/.cargo",
        "../../crates/capture-common/src",
        "../../crates/capture-common/Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in ["WEIR_EBPF_CARGO", "WEIR_BPF_LINKER"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let toolchain = toolchain().ok_or_else(|| format!("no Rust toolchain can build the eBPF program: {HELP}"))?;
    let linker = linker().ok_or_else(|| format!("bpf-linker is not installed: {HELP}"))?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let target = out.join("ebpf");
    let mut cargo = Command::new(&toolchain.cargo);
    cargo
        .args(["build", "--release", "--locked", "--quiet"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../capture-ebpf"));
    forget_outer_cargo(&mut cargo);
    let status = cargo
        .env("RUSTC", &toolchain.rustc)
        // A stable compiler too may build `core` for another target, and write kernel instructions.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", &target)
        .env("PATH", path_with(&[&linker, &toolchain.cargo]))
        .status()
        .map_err(|error| format!("cannot start {}: {error}", toolchain.cargo.display()))?;
    if !status.success() {
        return Err(format!(
            "{} could not build services/capture-ebpf (its messages stand above)",
            toolchain.cargo.display()
        ));
    }
    let object = target.join("bpfel-unknown-none/release").join(OBJECT);
    // A new file each time: the old one may be a link that other builds share.
    let new = out.join(format!("{OBJECT}.new"));
    fs::copy(&object, &new)
        .and_then(|_| fs::rename(&new, out.join(OBJECT)))
        .map_err(|error| format!("cannot copy {}: {error}", object.display()))
}

/// What the outer cargo says of its own build must not reach the inner one; where the registry is, and how to get there, must.
fn forget_outer_cargo(command: &mut Command) {
    let keep = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let of_cargo = name.starts_with("CARGO") && !keep.iter().any(|kept| name.starts_with(kept));
        let of_rust = name.starts_with("RUST") && name != "RUSTUP_HOME";
        if of_cargo || of_rust || ["TARGET", "HOST", "OPT_LEVEL", "PROFILE", "CLIPPY_ARGS"].contains(&name) {
            command.env_remove(name);
        }
    }
}

struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
}

fn toolchain() -> Option<Toolchain> {
    if let Some(cargo) = env::var_os("WEIR_EBPF_CARGO").filter(|value| !value.is_empty()) {
        // Whoever names one knows why: its own message says what it lacks.
        return Some(beside(PathBuf::from(cargo)));
    }
    let nightly = output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))
        .map(|sysroot| Path::new(&sysroot).join("bin/cargo"));
    nightly.into_iter().chain([PathBuf::from("/usr/bin/cargo")]).map(beside).find(Toolchain::has_sources)
}

fn beside(cargo: PathBuf) -> Toolchain {
    let rustc = cargo.with_file_name("rustc");
    Toolchain { cargo, rustc }
}

impl Toolchain {
    fn has_sources(&self) -> bool {
        self.cargo.exists()
            && output(Command::new(&self.rustc).args(["--print", "sysroot"]))
                .is_some_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").exists())
    }
}

fn output(command: &mut Command) -> Option<String> {
    forget_outer_cargo(command);
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn linker() -> Option<PathBuf> {
    if let Some(path) = env::var_os("WEIR_BPF_LINKER").filter(|value| !value.is_empty()) {
        return Some(PathBuf::from(path));
    }
    let on_path = env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    on_path.chain(cached()).map(|directory| directory.join("bpf-linker")).find(|path| path.is_file())
}

/// Directories with a bpf-linker in Weir's cache, the newest version first.
fn cached() -> Vec<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_default();
    let Ok(entries) = fs::read_dir(cache.join("weir")) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("bpf-linker-")))
        .map(|path| path.join("bin"))
        .collect();
    found.sort();
    found.reverse();
    found
}

/// PATH with the directories of these programs first.
fn path_with(programs: &[&Path]) -> std::ffi::OsString {
    let first = programs.iter().filter_map(|program| program.parent()).map(Path::to_path_buf);
    let rest = env::var_os("PATH").unwrap_or_default();
    env::join_paths(first.chain(env::split_paths(&rest))).unwrap_or(rest)
}
