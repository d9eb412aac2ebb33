//! Where `ClickHouse` is.

use std::fmt;

use clickhouse::Client;

/// The database that holds every table of Weir.
pub const DATABASE: &str = "weir";

/// Where `ClickHouse` is, and who asks.
#[derive(Clone, clap::Args)]
#[expect(clippy::doc_markdown, reason = "clap prints these comments as help, where backticks are noise")]
#[command(next_help_heading = "ClickHouse")]
#[group(id = "clickhouse-options")]
pub struct Options {
    /// HTTP address of ClickHouse
    #[arg(long, env = "WEIR_CLICKHOUSE_URL", value_name = "URL", default_value = "http://127.0.0.1:8123")]
    pub clickhouse_url: String,
    /// User
    #[arg(long, env = "WEIR_CLICKHOUSE_USER", value_name = "NAME", default_value = "default")]
    pub clickhouse_user: String,
    /// Password of the user
    #[arg(
        long,
        env = "WEIR_CLICKHOUSE_PASSWORD",
        value_name = "PASSWORD",
        default_value = "",
        hide_env_values = true,
        hide_default_value = true
    )]
    pub clickhouse_password: String,
}

impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Options")
            .field("clickhouse_url", &self.clickhouse_url)
            .field("clickhouse_user", &self.clickhouse_user)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// A client without a database: for what must work before the database exists.
    pub(crate) fn client(&self) -> Client {
        Client::default()
            .with_url(&self.clickhouse_url)
            .with_user(&self.clickhouse_user)
            .with_password(&self.clickhouse_password)
            .with_product_info("weir", env!("CARGO_PKG_VERSION"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_not_shown() {
        let options = Options {
            clickhouse_url: "http://127.0.0.1:8123".into(),
            clickhouse_user: "weir_writer".into(),
            clickhouse_password: "secret".into(),
        };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
