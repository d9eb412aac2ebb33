//! The tables, as numbered `.sql` files, and how a database gets them.
//!
//! A released file never changes: a change is another file with the next number. The database notes in `schema_migrations` which it has,
//! with their checksums.

use std::time::Duration;

use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::info;

use crate::{DATABASE, Error, Options, text::hexadecimal};

/// A numbered change of the database.
#[derive(Clone, Copy, Debug)]
struct Migration {
    version: u32,
    name: &'static str,
    sql: &'static str,
}

/// All, in order: version n stands at index n - 1.
const MIGRATIONS: [Migration; 4] = [
    Migration { version: 1, name: "initial", sql: include_str!("../sql/001_initial.sql") },
    Migration { version: 2, name: "detail", sql: include_str!("../sql/002_detail.sql") },
    Migration { version: 3, name: "questions", sql: include_str!("../sql/003_questions.sql") },
    Migration { version: 4, name: "parts", sql: include_str!("../sql/004_parts.sql") },
];

/// Which migrations a database has. Two programs that start at the same time may write the same row: the version names it.
const VERSIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations
(
    version    UInt32,
    name       String,
    checksum   String COMMENT 'SHA-256 of the .sql file, hexadecimal',
    applied_at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree
ORDER BY version";

/// How long one statement may take: creating a table is a matter of milliseconds, unless the machine is very busy.
const STATEMENT: Duration = Duration::from_mins(1);

#[derive(Debug, Row, Serialize, Deserialize)]
struct Applied {
    version: u32,
    name: String,
    checksum: String,
}

/// The version that this program knows.
#[must_use]
pub fn version() -> u32 {
    MIGRATIONS.len() as u32
}

/// Brings the database to [`version`], creating it if it is missing; returns how many migrations that took.
///
/// Safe to repeat after a crash at any point, and for two programs at the same time. Refuses a database that is newer than this program,
/// or whose migrations differ from this program's.
pub async fn migrate(options: &Options) -> Result<usize, Error> {
    execute(&options.client(), &format!("CREATE DATABASE IF NOT EXISTS {DATABASE}")).await?;
    let client = options.client().with_database(DATABASE);
    execute(&client, VERSIONS_TABLE).await?;
    let missing = missing(&applied(&client).await?)?;
    for migration in missing {
        for statement in statements(migration.sql) {
            execute(&client, statement).await?;
        }
        note(&client, migration).await?;
        info!(version = migration.version, name = migration.name, "the database has a new schema version");
    }
    Ok(missing.len())
}

/// Whether the database has exactly the version that this program knows. For those who only read.
pub async fn check(options: &Options) -> Result<bool, Error> {
    Ok(missing(&applied(&options.client().with_database(DATABASE)).await?)?.is_empty())
}

async fn applied(client: &Client) -> Result<Vec<Applied>, Error> {
    let query = client.query_raw("SELECT version, name, checksum FROM schema_migrations FINAL ORDER BY version");
    within(query.fetch_all::<Applied>()).await
}

/// The migrations that a database does not have yet.
fn missing(applied: &[Applied]) -> Result<&'static [Migration], Error> {
    for row in applied {
        let known = (row.version as usize).checked_sub(1).and_then(|index| MIGRATIONS.get(index));
        let migration = known.ok_or(Error::Newer { found: row.version, known: version() })?;
        if checksum(migration.sql) != row.checksum {
            return Err(Error::Changed { version: row.version });
        }
    }
    let newest = applied.iter().map(|row| row.version).max().unwrap_or(0);
    Ok(&MIGRATIONS[newest as usize..])
}

async fn note(client: &Client, migration: &Migration) -> Result<(), Error> {
    let row =
        Applied { version: migration.version, name: migration.name.to_owned(), checksum: checksum(migration.sql) };
    within(async {
        let mut insert = client.insert::<Applied>("schema_migrations").await?;
        insert.write(&row).await?;
        insert.end().await
    })
    .await
}

async fn execute(client: &Client, sql: &str) -> Result<(), Error> {
    within(client.query_raw(sql).execute()).await
}

async fn within<T>(operation: impl Future<Output = clickhouse::error::Result<T>>) -> Result<T, Error> {
    let result = tokio::time::timeout(STATEMENT, operation).await;
    Ok(result.map_err(|_| Error::TimedOut { seconds: STATEMENT.as_secs() })??)
}

/// The statements of a file: separated by a line that holds only a semicolon.
fn statements(sql: &str) -> impl Iterator<Item = &str> {
    sql.split("\n;\n").map(str::trim).filter(|statement| !statement.is_empty())
}

fn checksum(sql: &str) -> String {
    hexadecimal(&Sha256::digest(sql))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checksums of the files that were released. A file that is in here must not change: write the next one instead.
    const RELEASED: [&str; 0] = [];

    #[test]
    fn released_files_do_not_change() {
        for (migration, released) in MIGRATIONS.iter().zip(RELEASED) {
            assert_eq!(
                checksum(migration.sql),
                released,
                "{:03}_{}.sql was released",
                migration.version,
                migration.name
            );
        }
    }

    #[test]
    fn migrations_are_numbered_without_a_gap() {
        let versions: Vec<_> = MIGRATIONS.iter().map(|migration| migration.version).collect();
        assert_eq!(versions, (1..=version()).collect::<Vec<_>>());
    }

    #[test]
    fn every_statement_can_be_run_again() {
        for migration in MIGRATIONS {
            for statement in statements(migration.sql) {
                let code: Vec<_> = statement.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
                let code = code.join("\n");
                assert!(["EXISTS", "MODIFY SETTING"].iter().any(|words| code.contains(words)), "{statement}");
            }
        }
    }

    #[test]
    fn a_database_that_is_newer_or_other_is_refused() {
        let row = |version, checksum: String| Applied { version, name: String::new(), checksum };
        assert_eq!(missing(&[]).unwrap().len(), MIGRATIONS.len());
        assert!(missing(&[row(1, checksum(MIGRATIONS[0].sql))]).unwrap().len() < MIGRATIONS.len());
        assert!(matches!(missing(&[row(1, "0".into())]), Err(Error::Changed { version: 1 })));
        let next = version() + 1;
        assert!(matches!(missing(&[row(next, "0".into())]), Err(Error::Newer { found, .. }) if found == next));
        assert!(matches!(missing(&[row(0, "0".into())]), Err(Error::Newer { found: 0, .. })));
    }
}
