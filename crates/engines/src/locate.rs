//! Where the programs of the engines are on this machine.
//!
//! In this order: the variable `WEIR_NATS_SERVER` or `WEIR_CLICKHOUSE` (a path), the `PATH`, the cache that `./dev setup` fills
//! (`$XDG_CACHE_HOME/weir`, by default `~/.cache/weir`).

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::Error;

/// The version of NATS that `./dev setup` fetches.
pub const NATS_VERSION: &str = "2.15.1";

/// The version of the `ClickHouse` library that `./dev setup` fetches.
pub const CHDB_VERSION: &str = "26.7.3-stable.1";

/// A form of `ClickHouse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClickHouseProgram {
    /// The `clickhouse` or `clickhouse-server` program.
    Server(PathBuf),
    /// `libchdb.so` and the program that loads it.
    Library {
        /// `weir-clickhouse` of this crate.
        loader: PathBuf,
        /// `libchdb.so`.
        library: PathBuf,
    },
}

/// The `nats-server` program.
pub fn nats_server() -> Result<PathBuf, Error> {
    from_variable("WEIR_NATS_SERVER")
        .or_else(|| on_path("nats-server"))
        .or_else(|| existing(cache_dir()?.join(format!("nats-{NATS_VERSION}/nats-server"))))
        .ok_or_else(|| Error::NotFound {
            engine: "NATS",
            looked: looked("WEIR_NATS_SERVER", "nats-server", &format!("nats-{NATS_VERSION}/nats-server")),
            variable: "WEIR_NATS_URL",
        })
}

/// The `ClickHouse` program, or the library and its loader. `loader` is where `weir-clickhouse` is.
pub fn clickhouse(loader: &Path) -> Result<ClickHouseProgram, Error> {
    if let Some(path) = from_variable("WEIR_CLICKHOUSE") {
        return Ok(as_program(path, loader));
    }
    if let Some(path) = on_path("clickhouse").or_else(|| on_path("clickhouse-server")) {
        return Ok(ClickHouseProgram::Server(path));
    }
    let cached = format!("chdb-{CHDB_VERSION}/libchdb.so");
    cache_dir().and_then(|cache| existing(cache.join(&cached))).map(|path| as_program(path, loader)).ok_or_else(|| {
        Error::NotFound {
            engine: "ClickHouse",
            looked: looked("WEIR_CLICKHOUSE", "clickhouse", &cached),
            variable: "WEIR_CLICKHOUSE_URL",
        }
    })
}

/// `weir-clickhouse`: beside the running program, or one directory above it (a test runs in `deps/`).
#[must_use]
pub fn clickhouse_loader() -> Option<PathBuf> {
    let program = env::current_exe().ok()?;
    program.ancestors().skip(1).take(2).find_map(|dir| existing(dir.join("weir-clickhouse")))
}

/// The directory of what was downloaded: `$XDG_CACHE_HOME/weir`, by default `~/.cache/weir`.
#[must_use]
pub fn cache_dir() -> Option<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    base.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache"))).map(|dir| dir.join("weir"))
}

fn as_program(path: PathBuf, loader: &Path) -> ClickHouseProgram {
    if path.extension() == Some(OsStr::new("so")) {
        ClickHouseProgram::Library { loader: loader.to_owned(), library: path }
    } else {
        ClickHouseProgram::Server(path)
    }
}

fn from_variable(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).find_map(|dir| existing(dir.join(program)))
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.is_file().then_some(path)
}

fn looked(variable: &str, program: &str, cached: &str) -> String {
    let cache = cache_dir()
        .map_or_else(|| "no cache directory: HOME is not set".to_owned(), |dir| dir.join(cached).display().to_string());
    format!("{variable} is not set, no {program} on the PATH, not {cache}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_object_needs_the_loader_and_anything_else_is_a_server() {
        let loader = Path::new("/opt/weir/weir-clickhouse");
        assert_eq!(
            as_program("/usr/bin/clickhouse".into(), loader),
            ClickHouseProgram::Server("/usr/bin/clickhouse".into())
        );
        assert_eq!(
            as_program("/x/libchdb.so".into(), loader),
            ClickHouseProgram::Library { loader: loader.into(), library: "/x/libchdb.so".into() }
        );
    }
}
