//! `weir up`, `status` and `down` as processes: with the real engines, and with stand-ins for the services, which do what a
//! test wants of them.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

const SERVICES: [&str; 5] = ["capture", "docker-watcher", "pcap-worker", "ingester", "query-api"];
const DEADLINE: Duration = Duration::from_mins(1);

/// A directory with `weir` and stand-ins beside it, and one for the data.
struct Bench {
    dir: TempDir,
    engines: bool,
}

impl Bench {
    /// With the engines of somebody else, of whom nobody asks anything.
    fn without_engines() -> Self {
        let bench =
            Self { dir: tempfile::Builder::new().prefix("weir-up-").tempdir().expect("tempdir"), engines: false };
        fs::create_dir(bench.programs()).expect("programs");
        fs::copy(env!("CARGO_BIN_EXE_weir"), bench.programs().join("weir")).expect("copy weir");
        let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-in/service");
        for service in SERVICES {
            let program = bench.programs().join(format!("weir-{service}"));
            fs::copy(&stand_in, &program).expect("copy stand-in");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
            fs::create_dir_all(bench.data().join(service)).expect("data");
        }
        bench
    }

    /// With real engines; `None` where there are none.
    fn with_engines() -> Option<Self> {
        let loader = Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name("weir-clickhouse");
        let found = weir_engines::locate::nats_server().and(weir_engines::locate::clickhouse(&loader));
        if let Err(error) = found {
            eprintln!("skipped: {error}");
            return None;
        }
        if !loader.is_file() {
            eprintln!("skipped: {} is not built", loader.display());
            return None;
        }
        let mut bench = Self::without_engines();
        bench.engines = true;
        fs::copy(loader, bench.programs().join("weir-clickhouse")).expect("copy loader");
        Some(bench)
    }

    fn programs(&self) -> PathBuf {
        self.dir.path().join("bin")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn tell(&self, service: &str, file: &str, text: &str) {
        fs::write(self.data().join(service).join(file), text).expect("tell");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs().join("weir"));
        command.args(arguments).env("WEIR_DATA_DIR", self.data()).stdin(Stdio::null());
        for variable in ["WEIR_LISTEN", "WEIR_API_TOKEN", "WEIR_NATS_URL", "WEIR_CLICKHOUSE_URL"] {
            command.env_remove(variable);
        }
        if !self.engines {
            command.env("WEIR_NATS_URL", "nats://127.0.0.1:1").env("WEIR_CLICKHOUSE_URL", "http://127.0.0.1:1");
            command.env("WEIR_CLICKHOUSE_READER_USER", "reader");
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run weir")
    }

    fn up(&self) -> Output {
        self.run(&["up", "--detach", "--listen", "127.0.0.1:0"])
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.run(&["status", "--json"]).stdout).expect("status is JSON")
    }

    fn part(&self, name: &str) -> Value {
        let status = self.status();
        let parts = status["parts"].as_array().expect("parts");
        parts.iter().find(|part| part["name"] == name).cloned().unwrap_or_else(|| panic!("no {name} in {status}"))
    }

    fn pids(&self) -> Vec<i32> {
        let status = self.status();
        let parts = status["parts"].as_array().expect("parts");
        parts.iter().filter_map(|part| part["pid"].as_i64()).map(|pid| i32::try_from(pid).expect("pid")).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Also after a failed test; an instance that is down already says so.
        let _ = self.command(&["down"]).stdout(Stdio::null()).output();
    }
}

/// Waits for a state, asking often.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    let (_never, pause) = channel::<()>();
    while !holds() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", DEADLINE.as_secs());
        assert_eq!(pause.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn runs(pid: i32) -> bool {
    // A zombie of a test's own child has ended too.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn assert_ok(output: &Output) {
    assert!(output.status.success(), "{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
}

#[test]
fn a_detached_system_is_ready_when_up_returns_and_gone_after_down() {
    let Some(bench) = Bench::with_engines() else { return };
    let up = bench.up();
    assert_ok(&up);
    assert!(text(&up.stdout).contains("clickhouse      ready after"), "{}", text(&up.stdout));
    assert_ok(&bench.run(&["status"]));
    let pids = bench.pids();
    assert_eq!(pids.len(), 7);
    assert!(pids.iter().all(|pid| runs(*pid)));
    let mode = |path: &str| fs::metadata(bench.data().join(path)).expect(path).permissions().mode() & 0o777;
    assert_eq!(
        (mode("run/state.json"), mode("clickhouse/writer.password"), mode("nats/nats.conf")),
        (0o600, 0o600, 0o600)
    );

    assert_ok(&bench.run(&["down"]));
    assert!(pids.iter().all(|pid| !runs(*pid)), "{pids:?}");
    let status = bench.run(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(text(&status.stdout).contains("nothing runs on"), "{}", text(&status.stdout));
    assert_ok(&bench.run(&["down"]));
}

#[test]
fn parts_stop_from_those_that_make_records_to_those_that_keep_them() {
    let bench = Bench::without_engines();
    assert_ok(&bench.up());
    assert_ok(&bench.run(&["down"]));
    let stops = fs::read_to_string(bench.data().join("stops")).expect("stops");
    let mut stops: Vec<_> = stops.lines().collect();
    stops[..2].sort_unstable();
    assert_eq!(stops, SERVICES);
}

#[test]
fn a_second_up_on_the_same_directory_is_refused() {
    let bench = Bench::without_engines();
    assert_ok(&bench.up());
    let pids = bench.pids();
    for arguments in [&["up", "--listen", "127.0.0.1:0"][..], &["up", "--detach", "--listen", "127.0.0.1:0"]] {
        let second = bench.run(arguments);
        assert_eq!(second.status.code(), Some(1));
        let said = text(&second.stderr) + &text(&second.stdout);
        assert!(said.contains("another `weir up` (process "), "{said}");
    }
    assert_eq!(bench.pids(), pids, "the first one goes on as it was");
}

#[test]
fn a_killed_part_is_started_again_and_reported() {
    let Some(bench) = Bench::with_engines() else { return };
    assert_ok(&bench.up());
    for name in ["ingester", "nats", "clickhouse"] {
        let before = bench.part(name);
        let pid = i32::try_from(before["pid"].as_i64().expect("pid")).expect("pid");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
        eventually(&format!("{name} is back"), || {
            let part = bench.part(name);
            part["restarts"] == 1 && part["state"] == "ready" && part["pid"] != before["pid"]
        });
        let last = bench.part(name)["last_exit"].as_str().expect("last_exit").to_owned();
        assert!(last.starts_with("killed by SIGKILL"), "{last}");
        assert_eq!(bench.part(name)["health"], before["health"], "at the same address");
    }
    assert_ok(&bench.run(&["status", "--wait", "--timeout", "30"]));
    let log = fs::read_to_string(bench.data().join("logs/weir.log")).expect("log");
    assert!(log.contains("ingester ended by itself (killed by SIGKILL"), "{log}");
}

#[test]
fn a_killed_supervisor_leaves_nothing_behind_and_the_next_one_starts() {
    let Some(bench) = Bench::with_engines() else { return };
    assert_ok(&bench.up());
    let pids = bench.pids();
    let supervisor = bench.status()["supervisor_pid"].as_i64().expect("pid");
    kill(Pid::from_raw(i32::try_from(supervisor).expect("pid")), Signal::SIGKILL).expect("kill");
    eventually("all parts have ended", || pids.iter().all(|pid| !runs(*pid)));
    let status = bench.run(&["status"]);
    assert!(text(&status.stdout).contains("nothing runs on"), "{}", text(&status.stdout));
    assert_ok(&bench.up());
    assert_ok(&bench.run(&["status"]));
}

#[test]
fn what_outlives_a_killed_supervisor_is_ended_by_the_next_up_or_down() {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("skipped: the stand-in makes a system call of x86-64");
        return;
    }
    let bench = Bench::without_engines();
    bench.tell("capture", "outlives", "");
    for next in ["up", "down"] {
        assert_ok(&bench.up());
        let pid = i32::try_from(bench.part("capture")["pid"].as_i64().expect("pid")).expect("pid");
        let supervisor = i32::try_from(bench.status()["supervisor_pid"].as_i64().expect("pid")).expect("pid");
        kill(Pid::from_raw(supervisor), Signal::SIGKILL).expect("kill");
        eventually("nobody runs the instance", || bench.status()["running"] == false);
        assert!(runs(pid));
        let output = if next == "up" { bench.up() } else { bench.run(&["down"]) };
        assert_ok(&output);
        let said = text(&output.stdout);
        assert!(said.contains("what an earlier run left behind: ") && said.contains("capture"), "{said}");
        eventually("it has ended", || !runs(pid));
        assert_ok(&bench.run(&["down"]));
    }
}

#[test]
fn a_part_that_the_rest_can_do_without_is_off_with_its_reason() {
    let bench = Bench::without_engines();
    bench.tell("docker-watcher", "unready", "no Docker engine answers: start it");
    fs::remove_file(bench.programs().join("weir-capture")).expect("remove");
    assert_ok(&bench.up());
    let docker = bench.part("docker-watcher");
    assert_eq!(docker["state"], "off");
    assert_eq!(docker["reason"], "docker-watcher: no Docker engine answers: start it");
    let capture = bench.part("capture");
    assert_eq!(capture["state"], "off");
    assert!(capture["reason"].as_str().expect("reason").contains("weir-capture is missing"), "{capture}");
    assert_ok(&bench.run(&["status"]));

    fs::remove_file(bench.data().join("docker-watcher/unready")).expect("remove");
    eventually("docker-watcher is ready", || bench.part("docker-watcher")["state"] == "ready");
}

#[test]
fn a_part_that_is_not_ready_any_more_makes_the_status_fail() {
    let bench = Bench::without_engines();
    assert_ok(&bench.up());
    bench.tell("ingester", "unready", "clickhouse is away");
    let status = bench.run(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(text(&status.stdout).contains("ingester: clickhouse is away"), "{}", text(&status.stdout));
    assert_eq!(bench.run(&["status", "--wait", "--timeout", "1"]).status.code(), Some(1));
}

#[test]
fn a_part_that_keeps_ending_makes_a_detached_start_fail_and_says_why() {
    let bench = Bench::without_engines();
    bench.tell("ingester", "crash", "the schema is newer than this version\n");
    let up = bench.up();
    assert_eq!(up.status.code(), Some(1));
    let said = text(&up.stderr);
    assert!(said.contains("ingester keeps ending (exit code 3: the schema is newer than this version)"), "{said}");
    assert_eq!(bench.status()["running"], false);
}

#[test]
fn a_port_that_is_taken_is_an_error_before_anything_starts() {
    let bench = Bench::without_engines();
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    let up = bench.run(&["up", "--listen", &address]);
    assert_eq!(up.status.code(), Some(1));
    assert!(text(&up.stderr).contains(&format!("cannot listen on {address}")), "{}", text(&up.stderr));
    assert!(!bench.data().join("logs/ingester.log").exists());
}

#[test]
fn a_part_that_all_need_and_that_is_missing_is_an_error_before_anything_starts() {
    let bench = Bench::without_engines();
    fs::remove_file(bench.programs().join("weir-ingester")).expect("remove");
    let up = bench.up();
    assert_eq!(up.status.code(), Some(1));
    assert!(text(&up.stdout).contains("weir-ingester is missing"), "{}", text(&up.stdout));
    assert!(!bench.data().join("logs/query-api.log").exists());
}

#[test]
fn ctrl_c_in_the_foreground_stops_in_order() {
    let bench = Bench::without_engines();
    let mut child = bench.command(&["up", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().expect("up");
    let (lines, said) = channel();
    read_lines(&mut child, lines);
    while !said.recv_timeout(DEADLINE).expect("ready").starts_with("ready in ") {}
    let pids = bench.pids();
    kill(Pid::from_raw(i32::try_from(child.id()).expect("pid")), Signal::SIGINT).expect("kill");
    let status = child.wait().expect("wait");
    assert_eq!((status.code(), status.signal()), (Some(0), None));
    assert!(pids.iter().all(|pid| !runs(*pid)));
    let stops = fs::read_to_string(bench.data().join("stops")).expect("stops");
    assert_eq!(stops.lines().count(), SERVICES.len());
}

fn read_lines(child: &mut Child, lines: Sender<String>) {
    let out = child.stdout.take().expect("piped");
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(out)).map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
}
