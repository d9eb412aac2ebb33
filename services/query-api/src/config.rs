//! The options of the service.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Answers questions over HTTP: SQL, flows, captures, containers.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "weir-query-api", version, about)]
pub struct Config {
    /// Where the API is answered; an address that other hosts can reach needs `WEIR_API_TOKEN`
    #[arg(long, env = "WEIR_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Bearer token that every request below `/api` must carry
    #[arg(long, env = "WEIR_API_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub api_token: Option<String>,
    /// Further names by which browsers may reach the API, such as `weir.example.org`; without a token others than localhost and the
    /// listening address are refused
    #[arg(long, env = "WEIR_ALLOWED_HOSTS", value_name = "NAME", value_delimiter = ',')]
    pub allowed_host: Vec<String>,
    /// Largest capture that can be uploaded
    #[arg(long, env = "WEIR_MAX_UPLOAD_BYTES", value_name = "BYTES", default_value_t = 2 << 30)]
    pub max_upload_bytes: u64,
    /// Uploads that may run at one time
    #[arg(long, env = "WEIR_MAX_UPLOADS", value_name = "COUNT", default_value_t = 8)]
    pub max_uploads: usize,
    /// Seconds an upload may stand still before it is given up
    #[arg(long, env = "WEIR_UPLOAD_IDLE_SECONDS", value_name = "SECONDS", default_value_t = 60)]
    pub upload_idle_seconds: u64,
    /// Captures that one client (its address) may have at one time; 0 = as many as there is room for
    #[arg(long, env = "WEIR_CAPTURES_PER_CLIENT", value_name = "COUNT", default_value_t = 0)]
    pub captures_per_client: u64,
    /// Bytes of the captures that one client may have at one time; 0 = as many as there is room for
    #[arg(long, env = "WEIR_CAPTURE_BYTES_PER_CLIENT", value_name = "BYTES", default_value_t = 0)]
    pub capture_bytes_per_client: u64,
    /// Captures that one client may upload in an hour; 0 = any number
    #[arg(long, env = "WEIR_UPLOADS_PER_HOUR", value_name = "COUNT", default_value_t = 0)]
    pub uploads_per_hour: u32,
    /// Seconds after which a capture expires: its file, report and rows are removed; 0 = never. It stays listed as expired for as long again,
    /// and at least for a day
    #[arg(long, env = "WEIR_REPORT_TTL", value_name = "SECONDS", default_value_t = 0)]
    pub report_ttl: u64,
    /// Whether packets of hosts may be recorded on demand (`POST /api/v1/captures/live`); the host has to allow it too, with
    /// `WEIR_CAPTURE_ON_DEMAND`
    #[arg(long, env = "WEIR_LIVE_CAPTURES", value_name = "BOOL", default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub live_captures: bool,
    /// The longest recording
    #[arg(long, env = "WEIR_LIVE_CAPTURE_SECONDS", value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub live_capture_seconds: u32,
    /// The largest file of a recording
    #[arg(long, env = "WEIR_LIVE_CAPTURE_BYTES", value_name = "BYTES", default_value_t = 256 << 20)]
    pub live_capture_bytes: u64,
    /// Queries that may run at one time; more are answered with 503 and when to try again
    #[arg(long, env = "WEIR_MAX_QUERIES", value_name = "COUNT", default_value_t = 16)]
    pub max_queries: usize,
    /// Seconds after which a query is stopped; at most what the profile of the `ClickHouse` user allows (60 for the embedded one)
    #[arg(long, env = "WEIR_QUERY_SECONDS", value_name = "SECONDS", default_value_t = 60)]
    pub query_seconds: u64,
    /// File with the webhooks (JSON); none without it
    #[arg(long, env = "WEIR_WEBHOOKS_FILE", value_name = "FILE")]
    pub webhooks_file: Option<PathBuf>,
    /// Clients that may follow events and statistics at one time
    #[arg(long, env = "WEIR_MAX_FOLLOWERS", value_name = "COUNT", default_value_t = 64)]
    pub max_followers: usize,
    /// Requests that may be in hand at one time
    #[arg(long, env = "WEIR_MAX_REQUESTS", value_name = "COUNT", default_value_t = 512)]
    pub max_requests: usize,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub nats: weir_bus::Options,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub clickhouse: weir_store::Options,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub service: weir_service::Options,
}

impl Config {
    /// The token that requests must carry, if there is one.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.api_token.as_deref().filter(|token| !token.is_empty())
    }

    /// How long a query may take.
    #[must_use]
    pub fn query_time(&self) -> Duration {
        Duration::from_secs(self.query_seconds.max(1))
    }

    /// How long an upload may stand still.
    #[must_use]
    pub fn upload_idle(&self) -> Duration {
        Duration::from_secs(self.upload_idle_seconds.max(1))
    }
}
