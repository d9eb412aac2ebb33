use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Weir, problem, until};

/// No statement, however hostile, may hold the service longer: the reader's own limit is 5 s.
const BOUND: Duration = Duration::from_secs(20);

#[tokio::test]
async fn every_form_of_an_answer_streams() {
    let Some(weir) = Weir::start().await else { return };
    let ask = async |format: &str| {
        let question = json!({
            "sql": "SELECT number AS n, {text:String} AS t, {none:Nullable(UInt8)} AS x FROM numbers({rows:UInt64})",
            "params": { "text": "a'b\\c\t\n\"é", "rows": 3, "none": null },
            "format": format,
        });
        let response = weir.post("/api/v1/query").json(&question).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{format}");
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        (kind, response.bytes().await.unwrap().to_vec())
    };
    let (kind, body) = ask("json").await;
    assert_eq!(kind, "application/json");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["data"][2], json!({ "n": 2, "t": "a'b\\c\t\n\"é", "x": null }));
    assert_eq!((&body["rows"], &body["meta"][0]["type"]), (&json!(3), &json!("UInt64")));
    let (kind, body) = ask("ndjson").await;
    assert_eq!(kind, "application/x-ndjson");
    assert_eq!(body.split(|byte| *byte == b'\n').count(), 4);
    let (kind, body) = ask("csv").await;
    assert_eq!(kind, "text/csv; charset=utf-8");
    assert!(body.starts_with(b"\"n\",\"t\",\"x\"\n"));
    let (_, body) = ask("parquet").await;
    assert!(body.starts_with(b"PAR1") && body.ends_with(b"PAR1"));
    let (_, body) = ask("arrow").await;
    assert!(body.starts_with(&[0xff; 4]));
    let times =
        weir.query("SELECT toDateTime64('2026-01-31 12:00:00.5', 6, 'UTC') AS t").await.json::<Value>().await.unwrap();
    assert_eq!(times["data"][0]["t"], "2026-01-31T12:00:00.500000Z");
}

#[tokio::test]
async fn what_reads_the_tables_is_answered() {
    let Some(weir) = Weir::start().await else { return };
    for sql in [
        "SELECT 1",
        "select 1;",
        "-- why\nSELECT 1 -- and why",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "SELECT 1 INTERSECT SELECT 1 EXCEPT SELECT 2",
        "WITH x AS (SELECT 1 AS a) SELECT a FROM x",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT sum(n) FROM t",
        "SELECT dst_port, sum(tx_bytes + rx_bytes) AS b, uniq(src_ip), quantileIf(0.9)(rtt_us, protocol = 6) FROM flows GROUP BY dst_port WITH TOTALS HAVING b > 1 ORDER BY b DESC LIMIT 10 BY dst_port LIMIT 5 OFFSET 1",
        "SELECT toStartOfMinute(start_time) AS m, count() FROM flows WHERE start_time > now() - INTERVAL 1 HOUR GROUP BY m ORDER BY m WITH FILL STEP toIntervalMinute(1)",
        "SELECT * EXCEPT (host), COLUMNS('ip$') FROM flows LIMIT 1",
        "SELECT f.*, t.sni FROM flows AS f LEFT JOIN tls AS t ON t.flow_id = f.flow_id ARRAY JOIN [1, 2] AS x WHERE f.src_ip IN (SELECT src_ip FROM dns) LIMIT 1",
        "SELECT row_number() OVER (PARTITION BY host ORDER BY start_time), sum(tx_bytes) OVER w FROM flows WINDOW w AS (ORDER BY start_time ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
        "SELECT arrayMap(x -> upper(x), answers), arraySort(answers), arrayFilter((x, y) -> x = y, answers, answers), has(answers, 'a') FROM dns",
        "SELECT labels['a'], mapKeys(labels), networks.name, CASE WHEN oom_killed THEN 1 ELSE 2 END FROM containers FINAL",
        "SELECT version, count(DISTINCT sni) FILTER (WHERE dst_port = 443) FROM tls GROUP BY version",
        "SELECT IPv6NumToString(src_ip), cast(dst_port AS String), dst_port::UInt32, if(1, 2, 3), x.1, [1][1] FROM (SELECT *, (1, 2) AS x FROM flows)",
        "SELECT detail.a, detail.b.:Int64 FROM findings",
        "SELECT EXISTS (SELECT 1), 1 = ANY (SELECT 1), NOT (1 IN (1, 2)), 'a' LIKE 'b%', 1 BETWEEN 0 AND 2",
        "SELECT number FROM numbers(3)",
        "SELECT count() FROM generate_series(1, 3)",
        "SELECT * FROM (VALUES (1, 'a'))",
        "SELECT 'file', \"x\" FROM (SELECT 1 AS \"x\", 'url(' AS y)",
        "EXPLAIN SELECT count() FROM flows",
        "EXPLAIN indexes = 1 SELECT count() FROM flows",
        "EXPLAIN SYNTAX SELECT 1",
        "EXPLAIN PIPELINE SELECT count() FROM flows",
        "DESCRIBE TABLE flows",
        "DESC flows",
        "SHOW TABLES",
        "SHOW CREATE TABLE flows",
        "SHOW CREATE TABLE weir.flows",
        "SELECT count() FROM weir.flows",
        "EXISTS TABLE flows",
        "SELECT dst_port, grouping(dst_port) FROM flows GROUP BY ROLLUP (dst_port) ORDER BY ALL LIMIT 1 WITH TIES",
    ] {
        let response = weir.query(sql).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{sql}: {text}");
    }
}

/// Statements, the problems that they may give, in groups of one reason.
fn hostile() -> Vec<(&'static [&'static str], Vec<String>)> {
    let text = |statements: &[&str]| statements.iter().map(|sql| (*sql).to_owned()).collect::<Vec<_>>();
    vec![
        (
            &["sql-function-refused"],
            text(&[
                // The hole: a scalar function that reads any file.
                "SELECT file('/etc/passwd')",
                "SELECT FILE('/etc/passwd')",
                "SELECT \"file\"('/etc/passwd')",
                "SELECT `file`('/etc/passwd')",
                "SELECT `fi\\x6ce`('/etc/passwd')",
                "SELECT/**/file/**/('/etc/passwd')",
                "SELECT file -- x\n ('/etc/passwd')",
                "select 1 where file('/etc/passwd') like 'root%'",
                "SELECT arrayMap(x -> file(x), ['/etc/passwd'])",
                "SELECT arrayMap(file, ['/etc/passwd'])",
                "SELECT arrayMap(`file`, ['/etc/passwd'])",
                "SELECT arrayFilter(file, ['/etc/passwd'])",
                "SELECT arrayFold((a, x) -> concat(a, file(x)), ['/etc/passwd'], '')",
                "SELECT mapApply((k, v) -> (k, file(v)), map('a', '/etc/passwd'))",
                "SELECT * REPLACE (file('/etc/passwd') AS dummy) FROM (SELECT 1 AS dummy)",
                "WITH file('/etc/passwd') AS x SELECT x",
                "WITH x -> file(x) AS f SELECT f('/etc/passwd')",
                "WITH file AS f SELECT f('/etc/passwd')",
                "WITH x AS (SELECT file('/etc/passwd')) SELECT * FROM x",
                "SELECT * FROM (SELECT file('/etc/passwd'))",
                "SELECT (SELECT file('/etc/passwd'))",
                "SELECT * FROM view(SELECT file('/etc/passwd'))",
                "SELECT * FROM numbers(length(file('/etc/passwd')))",
                "SELECT 1 IN (SELECT length(file('/etc/passwd')))",
                "SELECT 1 LIMIT length(file('/etc/passwd'))",
                "SELECT 1 ORDER BY file('/etc/passwd')",
                "SELECT 1 AS n ORDER BY n WITH FILL FROM 1 TO length(file('/etc/passwd'))",
                "SELECT sum(1) OVER (PARTITION BY file('/etc/passwd'))",
                "SELECT quantile(length(file('/etc/passwd')))(1)",
                "SELECT count() FROM flows GROUP BY file('/etc/passwd')",
                "SELECT count() FROM flows HAVING file('/etc/passwd') != ''",
                "SELECT 1 FROM flows PREWHERE file('/etc/passwd') != ''",
                "SELECT 1 FROM flows AS a JOIN flows AS b ON file('/etc/passwd') = a.host",
                "SELECT 1 FROM flows ARRAY JOIN [file('/etc/passwd')] AS x",
                "SELECT 1 UNION ALL SELECT length(file('/etc/passwd'))",
                "SELECT CASE WHEN 1 THEN file('/etc/passwd') END",
                "SELECT file('/etc/passwd')::String",
                "SELECT if(0, file('/etc/passwd'), '')",
                "EXPLAIN SELECT file('/etc/passwd')",
                "EXPLAIN SYNTAX SELECT file('/etc/passwd')",
                "EXPLAIN QUERY TREE SELECT file('/etc/passwd')",
                "(SELECT file('/etc/passwd'))",
                // Table functions: files, the network, other servers, programs, generators of structures.
                "SELECT * FROM file('/etc/passwd', 'LineAsString')",
                "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
                "SELECT * FROM URL('http://127.0.0.1:1/', 'LineAsString')",
                "SELECT * FROM s3('http://127.0.0.1:1/b/k', 'CSV')",
                "SELECT * FROM remote('127.0.0.1:1', system.one)",
                "SELECT * FROM remoteSecure('127.0.0.1:1', system.one)",
                "SELECT * FROM cluster('default', system.one)",
                "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
                "SELECT * FROM postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')",
                "SELECT * FROM mongodb('127.0.0.1:1', 'd', 'c', 'u', 'p', 'x UInt8')",
                "SELECT * FROM sqlite('/etc/passwd', 't')",
                "SELECT * FROM jdbc('x', 'y')",
                "SELECT * FROM odbc('x', 'y')",
                "SELECT * FROM redis('127.0.0.1:1', 'k', 'k String')",
                "SELECT * FROM hdfs('hdfs://127.0.0.1:1/x', 'CSV')",
                "SELECT * FROM iceberg('http://127.0.0.1:1/')",
                "SELECT * FROM deltaLake('http://127.0.0.1:1/')",
                "SELECT * FROM executable('id', 'TSV', 'x String')",
                "SELECT * FROM dictionary('d')",
                "SELECT * FROM merge('system', '.*')",
                "SELECT * FROM loop(flows)",
                "SELECT * FROM input('x UInt8')",
                "SELECT * FROM format(CSV, 'x String DEFAULT file(''/etc/passwd'')', '1')",
                "SELECT * FROM values('x UInt8, y String DEFAULT file(''/etc/passwd'')', (1, 'a'))",
                "SELECT * FROM null('x String')",
                "SELECT * FROM eval('SELECT file(''/etc/passwd'')')",
                "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT 1))",
                "SELECT * FROM viewIfPermitted(SELECT 1 ELSE null('x UInt8'))",
                "SELECT * FROM generateRandom('x UInt64')",
                "SELECT * FROM fuzzJSON('x')",
                "SELECT * FROM mergeTreeIndex('weir', 'flows')",
                "SELECT * FROM filesystem('/etc')",
                "SELECT * FROM azureBlobStorage('x', 'y', 'z')",
                "SELECT 1 FROM flows WHERE host IN (SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString'))",
                "SELECT 1 FROM flows JOIN file('/etc/passwd', 'LineAsString') AS f ON 1",
                "DESCRIBE url('http://127.0.0.1:1/')",
                "DESCRIBE TABLE file('/etc/passwd')",
                "EXPLAIN SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
                "SELECT * FROM a_view(x = file('/etc/passwd'))",
                // Waiting, telling, reaching.
                "SELECT sleep(3)",
                "SELECT sleepEachRow(1) FROM numbers(100)",
                "SELECT SLEEP(3)",
                "SELECT hostName(), serverUUID(), getServerSetting('max_connections')",
                "SELECT getSetting('max_memory_usage')",
                "SELECT filesystemAvailable()",
                "SELECT hasColumnInTable('127.0.0.1:1', 'system', 'one', 'dummy')",
                "SELECT dictGet('d', 'a', 1)",
                "SELECT joinGet('j', 'a', 1)",
                "SELECT catboostEvaluate('/etc/passwd', 1)",
                "SELECT regionToName(1)",
                "SELECT showCertificate()",
                "SELECT getMacro('x')",
                "SELECT logTrace('x')",
                "SELECT addressToLine(1)",
                "SELECT formatRow('CSV', 1)",
                "SELECT a_function_of_the_operator(1)",
                "SELECT arrayMap(a_function_of_the_operator, [1])",
                "SELECT __getScalar('x')",
            ]),
        ),
        (
            &["sql-clause-refused"],
            text(&[
                "SELECT * APPLY (file) FROM (SELECT '/etc/passwd' AS x)",
                "SELECT * APPLY file FROM (SELECT '/etc/passwd' AS x)",
                "SELECT COLUMNS('x') APPLY (y -> file(y)) FROM (SELECT '/etc/passwd' AS x)",
                "SELECT x.* APPLY(toString) APPLY(file) FROM (SELECT '/etc/passwd' AS p) AS x",
                "SELECT 1 FORMAT CSV",
                "SELECT 1 FORMAT Null",
                "DESCRIBE TABLE flows FORMAT CSV",
                "DESCRIBE TABLE flows INTO OUTFILE '/tmp/weir-must-not-exist'",
                "SHOW CREATE TABLE flows FORMAT CSV",
                "EXPLAIN SELECT 1 FORMAT CSV",
                "SELECT 1 INTO OUTFILE '/tmp/weir-must-not-exist'",
                "SELECT 1 INTO OUTFILE '/tmp/weir-must-not-exist' TRUNCATE FORMAT CSV",
                "SELECT 1 SETTINGS date_time_output_format = 'simple'",
                "SELECT * FROM (SELECT 1 SETTINGS date_time_output_format = 'simple')",
            ]),
        ),
        (
            &["sql-statement-refused"],
            text(&[
                "INSERT INTO flows SELECT * FROM flows",
                "INSERT INTO FUNCTION file('/tmp/weir-must-not-exist', 'CSV') SELECT 1",
                "CREATE TABLE x (a UInt8) ENGINE = Memory",
                "CREATE FUNCTION f AS x -> x",
                "CREATE TEMPORARY TABLE x (a UInt8)",
                "DROP TABLE flows",
                "TRUNCATE TABLE flows",
                "ALTER TABLE flows DELETE WHERE 1",
                "DELETE FROM flows WHERE 1",
                "UPDATE flows SET host = '' WHERE 1",
                "RENAME TABLE flows TO f",
                "OPTIMIZE TABLE flows FINAL",
                "SYSTEM SHUTDOWN",
                "SYSTEM STOP MERGES",
                "SET max_execution_time = 0",
                "SET ROLE ALL",
                "USE system",
                "KILL QUERY WHERE 1",
                "GRANT ALL ON *.* TO weir_reader",
                "BACKUP DATABASE weir TO Disk('d', 'x')",
                "RESTORE DATABASE weir FROM Disk('d', 'x')",
                "ATTACH TABLE x FROM '/x'",
                "DETACH TABLE flows",
                "BEGIN TRANSACTION",
                "EXECUTE AS default SELECT 1",
                "CALL x()",
                "SHOW DATABASES",
                "SHOW TABLES WHERE name = file('/etc/passwd')",
                "SHOW TABLES FROM system",
                "SHOW COLUMNS FROM flows WHERE field = file('/etc/passwd')",
                "SHOW PROCESSLIST",
                "SHOW GRANTS",
                "SHOW USERS",
                "SHOW SETTINGS LIKE '%'",
                "EXPLAIN INSERT INTO flows SELECT * FROM flows",
                "EXPLAIN AST DROP TABLE flows",
                "WITH 1 AS x INSERT INTO flows SELECT x",
                "SELECT 1 PARALLEL WITH SELECT 2",
                "optimize = 1 SELECT file('/etc/passwd')",
                "graph = 1 SELECT file('/etc/passwd')",
                "\u{0}SELECT 1",
                "SELECTfile('/etc/passwd')",
            ]),
        ),
        (
            &["sql-unchecked", "sql-function-refused"],
            text(&[
                // Lines that the description of the statement does not have.
                "SELECT `a\n Literal 'x'`, file('/etc/passwd') FROM (SELECT 1 AS `a\n Literal 'x'`)",
                "SELECT length('') AS `x) (children 1)\n     ExpressionList (children 0`, file('/etc/passwd')",
                "SELECT arrayMap(a_function_of_the_operator, [1]) AS `x)\n    Literal 1`",
            ]),
        ),
        (
            &["sql-syntax"],
            text(&[
                "",
                "  ;",
                "-- nothing",
                "SELECT",
                "SELECT 1; SELECT 2",
                "SELECT 1; DROP TABLE flows",
                "SELECT 1 /* ; */ ; -- x\n DROP TABLE flows",
                "SELECT 'a",
                "SELECT (1",
                "SELECT 1 FROM flows WHERE",
                "SELECT $$x",
            ]),
        ),
        (
            &["sql-access-denied"],
            text(&[
                "SELECT * FROM system.users",
                "SELECT * FROM system.processes",
                "SELECT * FROM system.settings",
                "SELECT * FROM system.query_log",
                "SELECT * FROM system.functions",
                "SELECT * FROM `system`.`one`",
                "SELECT 1 IN system.one",
                "SELECT (SELECT count() FROM system.numbers)",
                "SHOW CREATE TABLE system.users",
                "EXISTS TABLE system.users",
                "SELECT * FROM information_schema.tables",
                "SELECT * FROM default.x",
                "SELECT 1 SETTINGS max_execution_time = 0, max_threads = 100",
                "SELECT 1 SETTINGS readonly = 0",
                "DESCRIBE system.users",
            ]),
        ),
        (
            &["sql-failed"],
            text(&[
                "SELECT * FROM no_such_table",
                "SELECT no_such_column FROM flows",
                "SELECT 1 + 'a'",
                "SELECT {missing:UInt8}",
                "SELECT throwIf(1)",
            ]),
        ),
        (
            &["query-limit"],
            [
                text(&[
                    "SELECT count() FROM numbers(1000000000000000000) WHERE cityHash64(number) = 1",
                    "SELECT sum(a.number * b.number) FROM numbers(10000000) AS a, numbers(10000000) AS b",
                    "SELECT number FROM numbers(1000000000) ORDER BY cityHash64(number)",
                    "SELECT groupArray(number) FROM numbers(100000000000)",
                    "SELECT range(1000000000000)",
                    "SELECT repeat('a', 100000000000)",
                    "SELECT arrayMap(x -> range(100000), range(10000000))",
                    "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT sum(n) FROM t",
                    "WITH a AS (SELECT * FROM numbers(100) AS x, numbers(100) AS y), b AS (SELECT * FROM a, a AS c), d AS (SELECT * FROM b, b AS e) SELECT count() FROM d WHERE cityHash64(*) = 1",
                    "SELECT uniqExact(cityHash64(number)) FROM numbers(100000000000)",
                ]),
                vec![
                    format!("SELECT {}1{}", "(".repeat(3000), ")".repeat(3000)),
                    format!("SELECT {}1", "-".to_owned() + &" -".repeat(3000)),
                    format!("SELECT {} 1", "1 + ".repeat(60_000)),
                    format!("SELECT {}", vec!["1"; 200_000].join(",")),
                    format!("SELECT {}", "[".repeat(100_000)),
                ],
            ]
            .concat(),
        ),
    ]
}

#[tokio::test]
async fn no_hostile_statement_reads_more_than_the_tables_or_holds_the_service() {
    let Some(weir) = Weir::start().await else { return };
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (kinds, statements) in hostile() {
        for sql in statements {
            let started = Instant::now();
            let response = weir.query(&sql).await;
            let status = response.status();
            let shown: String = sql.chars().take(120).collect();
            if status.is_success() {
                let text = response
                    .text()
                    .await
                    .map_or_else(|error| error.to_string(), |text| text.chars().take(300).collect());
                wrong.push(format!("{shown}: answered with {text}"));
                continue;
            }
            let (_, kind) = problem(response).await;
            if !kinds.contains(&kind.as_str()) {
                wrong.push(format!("{shown}: {kind}, not {kinds:?}"));
            }
            if started.elapsed() > BOUND {
                wrong.push(format!("{shown}: took {:?}", started.elapsed()));
            }
            seen += 1;
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), seen, wrong.join("\n"));
    assert!(!std::path::Path::new("/tmp/weir-must-not-exist").exists());
    assert_eq!(weir.query("SELECT 1").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_function_cannot_come_in_by_a_parameter() {
    let Some(weir) = Weir::start().await else { return };
    let ask =
        |sql: &str, params: Value| weir.post("/api/v1/query").json(&json!({ "sql": sql, "params": params })).send();
    let response = ask("SELECT arrayMap({f:Identifier}, ['/etc/passwd'])", json!({ "f": "file" })).await.unwrap();
    assert_eq!(problem(response).await.1, "sql-function-refused");
    let response = ask("SELECT count() FROM {t:Identifier}", json!({ "t": "flows" })).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let response = ask("SELECT * FROM {d:Identifier}.users", json!({ "d": "system" })).await.unwrap();
    assert_eq!(problem(response).await.1, "sql-access-denied");
    let injected = ask("SELECT {x:String} AS x", json!({ "x": "'), file('/etc/passwd" })).await.unwrap();
    assert_eq!(injected.json::<Value>().await.unwrap()["data"][0]["x"], "'), file('/etc/passwd");
    for params in
        [json!({ "a b": 1 }), json!({ "": 1 }), json!({ "1": 1 }), json!({ "x": { "y": 1 } }), json!({ "x": [[1]] })]
    {
        let response = ask("SELECT 1", params).await.unwrap();
        assert_eq!(problem(response).await, (422, "invalid-body".into()));
    }
}

#[tokio::test]
async fn an_answer_that_fails_in_its_middle_does_not_look_whole() {
    let Some(weir) = Weir::start().await else { return };
    for format in ["json", "ndjson", "csv", "arrow"] {
        let question = json!({
            "sql": "SELECT number, toString(cityHash64(number)) AS h, throwIf(number = 1500000) AS t FROM numbers(1600000)",
            "format": format,
        });
        let response = weir.post("/api/v1/query").json(&question).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{format}");
        assert!(response.bytes().await.is_err(), "{format}: the body ended as if it were whole");
    }
}

#[tokio::test]
async fn a_result_that_is_too_large_is_a_problem_or_breaks_off() {
    let Some(weir) = Weir::start().await else { return };
    let response = weir.query("SELECT number FROM numbers(100000000)").await;
    if response.status().is_success() {
        assert!(response.bytes().await.is_err(), "the body ended as if it were whole");
    } else {
        assert_eq!(problem(response).await, (422, "query-limit".into()));
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_query() {
    let Some(weir) = Weir::start_with(&["--max-queries=1"]).await else { return };
    let endless = "SELECT number, cityHash64(number) AS h FROM numbers(9000000000)";
    let mut response = weir.query(endless).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.chunk().await.unwrap().is_some());
    let busy = weir.query("SELECT 1").await;
    assert!(busy.headers().contains_key("retry-after"));
    assert_eq!(problem(busy).await, (503, "overloaded".into()));
    drop(response);
    until("the place is free", || async { weir.query("SELECT 1").await.status() == StatusCode::OK }).await;
    until("ClickHouse has stopped", || async {
        let running =
            "SELECT count() FROM system.processes WHERE query LIKE '%9000000000)' AND query NOT LIKE '%processes%'";
        weir.clickhouse.write(running).await.unwrap() == "0\n"
    })
    .await;
}

#[tokio::test]
async fn every_function_of_the_engine_is_on_one_of_the_lists() {
    let Some(weir) = Weir::start().await else { return };
    let known = include_str!("../../src/sql/functions.txt");
    let known: std::collections::HashSet<_> =
        known.lines().filter(|line| !line.starts_with(['#', '['])).flat_map(str::split_whitespace).collect();
    let names = weir
        .clickhouse
        .write("SELECT DISTINCT lower(name) FROM system.functions WHERE origin = 'System'")
        .await
        .unwrap();
    let missing: Vec<_> = names.lines().filter(|name| !known.contains(name)).collect();
    assert!(names.lines().count() > 1000 && missing.is_empty(), "decide whether these may be called: {missing:?}");
}
