//! The two files that `ClickHouse` reads: pure text.

use std::path::Path;

use super::{READER, WRITER};

/// Bytes in a gibibyte.
const GIB: u64 = 1 << 30;

/// The user of the session in which the library starts its listener.
const LOCAL_USER: &str = "        <default>
            <no_password/>
            <networks><ip>127.0.0.1</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
            <grants>
                <query>GRANT SYSTEM LISTEN ON *.*</query>
                <query>GRANT SELECT ON system.numbers</query>
            </grants>
        </default>
";

/// What the server, and the queries of the reader, may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory of the whole server.
    pub server_memory: u64,
    /// Bytes of memory of one query of the reader.
    pub query_memory: u64,
    /// Seconds a query of the reader may run.
    pub query_seconds: u64,
    /// Rows a query of the reader may read.
    pub query_rows: u64,
    /// Bytes a query of the reader may read.
    pub query_bytes: u64,
    /// Rows a query of the reader may return.
    pub result_rows: u64,
    /// Bytes a query of the reader may return.
    pub result_bytes: u64,
    /// Queries of the reader that may run at the same time.
    pub concurrent_queries: u64,
}

impl Limits {
    /// Limits for a machine with so much memory: the server shares it with what is observed, so it gets a half at most and
    /// never more than 8 GiB; below 1 GiB it could not merge.
    #[must_use]
    pub fn for_memory(total: u64) -> Self {
        let server_memory = (total / 2).clamp(GIB, 8 * GIB);
        Self {
            server_memory,
            query_memory: server_memory / 4,
            query_seconds: 60,
            query_rows: 10_000_000_000,
            query_bytes: 200 * GIB,
            result_rows: 10_000_000,
            result_bytes: GIB,
            concurrent_queries: 20,
        }
    }

    /// Limits for this machine.
    #[must_use]
    pub fn for_this_machine() -> Self {
        // SAFETY: sysconf(3) takes a number and has no preconditions; -1 means not known.
        let (pages, page) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
        let total = u64::try_from(pages).unwrap_or(0) * u64::try_from(page).unwrap_or(0);
        Self::for_memory(total)
    }
}

/// The server's configuration.
///
/// The library starts its listener in a session of its own as the user `default`, from 127.0.0.1 and without a password, so
/// that user has to exist. Only requests that name one of Weir's two users in a header reach a handler; the server refuses
/// a request that names a second user elsewhere. The native protocol has no such filter and stays off.
///
/// The library schedules its background work on two threads unless told, and then pauses the merges of one table for another's.
///
/// No log tables: Weir's own metrics and traces say what they would, and nothing grows unseen.
pub(super) fn server(data: &Path, users: &Path, http_port: u16, limits: &Limits) -> String {
    format!(
        r"<!-- Written by weir at every start; changes are lost. -->
<clickhouse>
    <logger>
        <level>warning</level>
        <console>1</console>
        <console_log_level>warning</console_log_level>
    </logger>
    <listen_host>127.0.0.1</listen_host>
    <http_port>{http}</http_port>
    <path>{data}/</path>
    <tmp_path>{data}/tmp/</tmp_path>
    <user_files_path>{data}/user_files/</user_files_path>
    <format_schema_path>{data}/format_schemas/</format_schema_path>
    <users_config>{users}</users_config>
    <user_directories>
        <users_xml>
            <path>{users}</path>
        </users_xml>
    </user_directories>
    <http_handlers>
        <rule>
            <headers><X-ClickHouse-User>regex:{WRITER}|{READER}</X-ClickHouse-User></headers>
            <handler><type>dynamic_query_handler</type><query_param_name>query</query_param_name></handler>
        </rule>
        <rule>
            <url>/ping</url>
            <handler><type>static</type><response_content>Ok.</response_content></handler>
        </rule>
    </http_handlers>
    <default_profile>default</default_profile>
    <default_database>default</default_database>
    <timezone>UTC</timezone>
    <mlock_executable>false</mlock_executable>
    <max_server_memory_usage>{memory}</max_server_memory_usage>
    <mark_cache_size>{cache}</mark_cache_size>
    <index_mark_cache_size>{cache}</index_mark_cache_size>
    <primary_index_cache_size>{cache}</primary_index_cache_size>
    <uncompressed_cache_size>0</uncompressed_cache_size>
    <background_schedule_pool_size>16</background_schedule_pool_size>
    <max_concurrent_queries>100</max_concurrent_queries>
    <max_connections>512</max_connections>
    <keep_alive_timeout>30</keep_alive_timeout>
    <send_crash_reports>
        <enabled>false</enabled>
    </send_crash_reports>
    <access_control_improvements>
        <select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>
        <select_from_information_schema_requires_grant>true</select_from_information_schema_requires_grant>
        <settings_constraints_replace_previous>true</settings_constraints_replace_previous>
        <on_cluster_queries_require_cluster_grant>true</on_cluster_queries_require_cluster_grant>
    </access_control_improvements>
</clickhouse>
",
        http = http_port,
        data = escaped(data),
        users = escaped(users),
        memory = limits.server_memory,
        cache = limits.server_memory / 16,
    )
}

/// The users' file, from the SHA-256 of the passwords in hexadecimal.
///
/// The reader's `readonly` refuses every change of data and of settings, but for a few settings that choose the form of an
/// answer or tighten a limit. `final` merges the rows of one life or one capture when they are read.
/// With `local_session` there is the user `default` of [`server`], who can start a listener and nothing else.
pub(super) fn users(writer: &str, reader: &str, local_session: bool, limits: &Limits) -> String {
    let local_user = if local_session { LOCAL_USER } else { "" };
    format!(
        r"<!-- Written by weir at every start; changes are lost. -->
<clickhouse>
    <profiles>
        <default/>
        <writer>
            <async_insert>0</async_insert>
            <insert_deduplicate>1</insert_deduplicate>
            <deduplicate_blocks_in_dependent_materialized_views>1</deduplicate_blocks_in_dependent_materialized_views>
        </writer>
        <reader>
            <readonly>1</readonly>
            <final>1</final>
            <output_format_json_validate_utf8>1</output_format_json_validate_utf8>
            <max_execution_time>{seconds}</max_execution_time>
            <timeout_overflow_mode>throw</timeout_overflow_mode>
            <max_rows_to_read>{rows}</max_rows_to_read>
            <max_bytes_to_read>{bytes}</max_bytes_to_read>
            <read_overflow_mode>throw</read_overflow_mode>
            <max_result_rows>{result_rows}</max_result_rows>
            <max_result_bytes>{result_bytes}</max_result_bytes>
            <result_overflow_mode>throw</result_overflow_mode>
            <max_memory_usage>{memory}</max_memory_usage>
            <max_memory_usage_for_user>{user_memory}</max_memory_usage_for_user>
            <max_concurrent_queries_for_user>{concurrent}</max_concurrent_queries_for_user>
            <max_threads>{threads}</max_threads>
            <max_temporary_columns>10000</max_temporary_columns>
            <max_ast_depth>1000</max_ast_depth>
            <max_ast_elements>50000</max_ast_elements>
            <max_expanded_ast_elements>500000</max_expanded_ast_elements>
            <max_query_size>1048576</max_query_size>
            <cancel_http_readonly_queries_on_client_close>1</cancel_http_readonly_queries_on_client_close>
            <allow_ddl>0</allow_ddl>
            <allow_introspection_functions>0</allow_introspection_functions>
            <constraints>
                <max_execution_time><min>1</min><max>{seconds}</max><changeable_in_readonly/></max_execution_time>
                <max_result_rows><min>1</min><max>{result_rows}</max><changeable_in_readonly/></max_result_rows>
                <max_result_bytes><min>1</min><max>{result_bytes}</max><changeable_in_readonly/></max_result_bytes>
                <max_block_size><min>1</min><max>1048576</max><changeable_in_readonly/></max_block_size>
                <date_time_output_format><changeable_in_readonly/></date_time_output_format>
                <http_response_buffer_size><max>16777216</max><changeable_in_readonly/></http_response_buffer_size>
                <http_write_exception_in_output_format><changeable_in_readonly/></http_write_exception_in_output_format>
                <enable_http_compression><changeable_in_readonly/></enable_http_compression>
                <send_progress_in_http_headers><changeable_in_readonly/></send_progress_in_http_headers>
                <output_format_json_quote_64bit_integers><changeable_in_readonly/></output_format_json_quote_64bit_integers>
                <output_format_json_quote_denormals><changeable_in_readonly/></output_format_json_quote_denormals>
                <output_format_json_named_tuples_as_objects><changeable_in_readonly/></output_format_json_named_tuples_as_objects>
                <output_format_json_array_of_rows><changeable_in_readonly/></output_format_json_array_of_rows>
                <output_format_arrow_string_as_string><changeable_in_readonly/></output_format_arrow_string_as_string>
                <output_format_parquet_string_as_string><changeable_in_readonly/></output_format_parquet_string_as_string>
                <output_format_binary_write_json_as_string><changeable_in_readonly/></output_format_binary_write_json_as_string>
            </constraints>
        </reader>
    </profiles>
    <quotas>
        <default/>
        <reader>
            <interval>
                <duration>60</duration>
                <queries>6000</queries>
                <errors>3000</errors>
            </interval>
        </reader>
    </quotas>
    <users>
{local_user}        <{WRITER}>
            <password_sha256_hex>{writer}</password_sha256_hex>
            <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
            <profile>writer</profile>
            <quota>default</quota>
            <grants>
                <query>GRANT ALL ON weir.*</query>
                <query>GRANT TABLE ENGINE ON *</query>
                <query>GRANT SELECT ON system.*</query>
            </grants>
        </{WRITER}>
        <{READER}>
            <password_sha256_hex>{reader}</password_sha256_hex>
            <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
            <profile>reader</profile>
            <quota>reader</quota>
            <grants>
                <query>GRANT SELECT ON weir.*</query>
            </grants>
        </{READER}>
    </users>
</clickhouse>
",
        seconds = limits.query_seconds,
        rows = limits.query_rows,
        bytes = limits.query_bytes,
        result_rows = limits.result_rows,
        result_bytes = limits.result_bytes,
        memory = limits.query_memory,
        user_memory = limits.server_memory / 2,
        concurrent = limits.concurrent_queries,
        threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
    )
}

/// A path as XML text.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine_gives_a_half_and_a_large_one_eight_gibibytes() {
        assert_eq!(Limits::for_memory(4 * GIB).server_memory, 2 * GIB);
        assert_eq!(Limits::for_memory(512 << 20).server_memory, GIB);
        assert_eq!(Limits::for_memory(256 * GIB).server_memory, 8 * GIB);
    }

    #[test]
    fn a_path_cannot_break_out_of_its_element() {
        assert_eq!(escaped(Path::new("/a<b>&c")), "/a&lt;b&gt;&amp;c");
    }

    /// The lines between `<name>` and `</name>`, without those that depend on the machine or on what the image brings.
    fn section<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
        let (_, rest) = xml.split_once(&format!("<{name}>")).expect("the start");
        let (inner, _) = rest.split_once(&format!("</{name}>")).expect("the end");
        let lines = inner.lines().map(str::trim);
        lines.filter(|line| !line.is_empty() && *line != "<default/>" && !line.starts_with("<max_threads>")).collect()
    }

    fn grants(xml: &str) -> Vec<&str> {
        xml.lines().map(str::trim).filter(|line| line.starts_with("<query>GRANT")).collect()
    }

    #[test]
    fn the_users_of_compose_have_the_rights_and_limits_of_the_embedded_ones() {
        let compose = include_str!("../../../../deploy/clickhouse/users.xml");
        let embedded = users("", "", false, &Limits::for_memory(16 * GIB));
        for name in ["profiles", "quotas"] {
            assert_eq!(section(compose, name), section(&embedded, name), "{name}");
        }
        assert_eq!(grants(compose), grants(&embedded));
    }
}
