//! The engines as tests of other crates use them: real servers.

use weir_engines::Error;
use weir_engines::testing::{ClickHouse, Nats};

#[tokio::test]
async fn nats_keeps_its_port_and_user_over_a_kill() {
    let Some(mut nats) = Nats::start_or_skip().await else { return };
    let url = nats.url();
    nats.kill().await;
    nats.restart().await.expect("restart");
    assert_eq!(nats.url(), url);
    let jetstream = reqwest::get(format!("{}/jsz", nats.monitor_url())).await.expect("jsz").text().await.expect("text");
    assert!(jetstream.contains("\"store_dir\""), "{jetstream}");
}

#[tokio::test]
async fn clickhouse_keeps_its_rows_over_a_kill() {
    let Some(mut clickhouse) = ClickHouse::start_or_skip().await else { return };
    clickhouse.write("CREATE TABLE weir.t (x UInt64) ENGINE = MergeTree ORDER BY x").await.expect("create");
    clickhouse.write("INSERT INTO weir.t SELECT number FROM numbers(1000)").await.expect("insert");
    clickhouse.kill().await;
    clickhouse.restart().await.expect("restart");
    assert_eq!(clickhouse.read("SELECT count(), sum(x) FROM weir.t").await.expect("read"), "1000\t499500\n");
}

#[tokio::test]
async fn the_reader_can_only_read_and_only_weir() {
    let Some(clickhouse) = ClickHouse::start_or_skip().await else { return };
    clickhouse
        .write("CREATE TABLE weir.t (x UInt64, v UInt64) ENGINE = ReplacingMergeTree(v) ORDER BY x")
        .await
        .expect("create");
    clickhouse.write("INSERT INTO weir.t VALUES (1, 1)").await.expect("insert");
    clickhouse.write("INSERT INTO weir.t VALUES (1, 2)").await.expect("insert");
    assert_eq!(clickhouse.read("SELECT v FROM weir.t").await.expect("merged"), "2\n");
    for refused in [
        "INSERT INTO weir.t VALUES (2, 1)",
        "DROP TABLE weir.t",
        "CREATE TABLE weir.u (x UInt8) ENGINE = Memory",
        "SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
        "SELECT * FROM file('/etc/passwd', LineAsString)",
        "SELECT * FROM remote('127.0.0.1:1', system.one)",
        "SELECT * FROM executable('id', LineAsString, 'x String')",
        "SELECT * FROM system.processes",
        "SELECT * FROM system.settings SETTINGS readonly = 0",
        "SET readonly = 0",
        "SELECT 1 SETTINGS max_memory_usage = 0",
        "SELECT 1 SETTINGS max_execution_time = 100000",
        "SYSTEM SHUTDOWN",
        "KILL QUERY WHERE 1",
    ] {
        let error = clickhouse.read(refused).await.expect_err(refused);
        assert!(matches!(error, Error::Unwell { .. }), "{refused}: {error}");
    }
    assert_eq!(clickhouse.read("SELECT 1 SETTINGS max_execution_time = 5").await.expect("a tighter limit"), "1\n");
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let Some(clickhouse) = ClickHouse::start_or_skip().await else { return };
    let answer = reqwest::Client::new()
        .post(clickhouse.url())
        .header("X-ClickHouse-User", clickhouse.reader_user())
        .header("X-ClickHouse-Key", "wrong")
        .body("SELECT 1")
        .send()
        .await
        .expect("answer");
    assert_eq!(answer.headers().get("x-clickhouse-exception-code").expect("code"), "516");
}

#[tokio::test]
async fn nobody_gets_in_without_a_password() {
    let Some(clickhouse) = ClickHouse::start_or_skip().await else { return };
    for sql in [
        "SELECT 1",
        "SELECT file('data.txt')",
        "SYSTEM STOP LISTEN HTTP",
        "KILL QUERY WHERE user = 'default'",
        "SELECT query FROM system.processes",
        "SHOW DATABASES",
    ] {
        for user in ["default", ""] {
            let request = reqwest::Client::new().post(clickhouse.url()).header("X-ClickHouse-User", user).body(sql);
            let answer = request.send().await.expect("answer");
            let status = answer.status();
            let body = answer.text().await.expect("body");
            assert!(!status.is_success(), "{user} {sql}: {body}");
        }
        let url = format!("{}/?user=default&password=", clickhouse.url());
        let request = reqwest::Client::new().post(url).header("X-ClickHouse-User", clickhouse.reader_user()).body(sql);
        let answer = request.send().await.expect("answer");
        assert!(!answer.status().is_success(), "two users {sql}: {answer:?}");
    }
    assert_eq!(clickhouse.read("SELECT 1").await.expect("alive"), "1\n");
}

/// The scalar function `file` is not covered by grants; the process itself cannot read.
#[tokio::test]
async fn the_server_cannot_read_files_outside_its_own() {
    let Some(clickhouse) = ClickHouse::start_or_skip().await else { return };
    if clickhouse.log().contains("this kernel confines the server") {
        eprintln!("skipped: this kernel has no Landlock, or not enough of it");
        return;
    }
    let secret = tempfile::NamedTempFile::new().expect("tempfile");
    std::fs::write(secret.path(), "secret").expect("write");
    for file in ["/etc/passwd", "/proc/1/environ", "/root/.profile", secret.path().to_str().expect("utf-8")] {
        let error = clickhouse.read(&format!("SELECT file('{file}')")).await.expect_err(file);
        let Error::Unwell { body, .. } = &error else { panic!("{error}") };
        assert!(
            body.contains("Permission denied") || body.contains("Access") || body.contains("ACCESS"),
            "{file}: {body}"
        );
        assert!(!body.contains("root:"), "{body}");
    }
    assert_eq!(clickhouse.read("SELECT 1").await.expect("alive"), "1\n");
}

#[tokio::test]
async fn a_query_that_returns_too_much_or_runs_too_long_is_ended() {
    let limits = weir_engines::clickhouse::Limits {
        query_seconds: 2,
        result_rows: 1_000,
        ..weir_engines::clickhouse::Limits::for_this_machine()
    };
    let Ok(clickhouse) = ClickHouse::start_with(&limits).await else {
        eprintln!("skipped: no ClickHouse");
        return;
    };
    let many = clickhouse.read("SELECT number FROM numbers(100000)").await.expect_err("too many rows");
    assert!(many.to_string().contains("TOO_MANY_ROWS"), "{many}");
    let long = clickhouse.read("SELECT count() FROM numbers(100000000000000)").await.expect_err("too long");
    assert!(long.to_string().contains("TIMEOUT_EXCEEDED") || long.to_string().contains("TOO_MANY_ROWS"), "{long}");
}
