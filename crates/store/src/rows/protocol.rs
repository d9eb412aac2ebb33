//! `dns`, `tls`, `http`.

use std::net::Ipv6Addr;

use clickhouse::Row;
use serde::Serialize;
use uuid::Uuid;
use weir_proto::{Dns, Http, Ip, Tls};

use super::{Containers, Context, End, Seen, block_table};

/// One row of `dns`.
#[derive(Clone, Debug, PartialEq, Row, Serialize)]
#[expect(missing_docs, reason = "the .sql files say what each column is")]
pub struct DnsRow {
    pub time: i64,
    pub recorded_at: u32,
    pub stream_sequence: u64,
    pub source: i8,
    pub host: String,
    #[serde(with = "clickhouse::serde::uuid")]
    pub capture_id: Uuid,
    pub flow_id: u64,
    pub src_ip: Ipv6Addr,
    pub dst_ip: Ipv6Addr,
    pub src_port: u16,
    pub dst_port: u16,
    pub protocol: u8,
    pub query_id: u16,
    pub qname: String,
    pub qtype: u16,
    pub has_query: bool,
    pub rcode: Option<u16>,
    pub answers: Vec<String>,
    pub latency_us: Option<u32>,
    pub container: String,
    pub repeats: u32,
}

block_table!(DnsRow, "dns");

impl DnsRow {
    pub(super) fn new(dns: Dns, context: &mut Context, containers: &impl Containers) -> Self {
        let src_ip = Ip::new(dns.src_ip_high, dns.src_ip_low);
        let dst_ip = Ip::new(dns.dst_ip_high, dns.dst_ip_low);
        Self {
            time: context.time(dns.time),
            recorded_at: context.recorded_at,
            stream_sequence: context.stream_sequence,
            source: context.source,
            host: context.host.clone(),
            capture_id: context.capture_id,
            flow_id: dns.flow_id,
            src_ip: src_ip.into(),
            dst_ip: dst_ip.into(),
            src_port: context.u16(dns.src_port),
            dst_port: context.u16(dns.dst_port),
            protocol: context.u8(dns.protocol),
            query_id: context.u16(dns.query_id),
            qname: dns.qname,
            qtype: context.u16(dns.qtype),
            has_query: dns.has_query,
            rcode: dns.rcode.map(|rcode| context.u16(rcode)),
            answers: dns.answers,
            latency_us: dns.latency_us,
            container: container(context, containers, src_ip, dst_ip, dns.time),
            repeats: dns.repeats,
        }
    }
}

/// One row of `tls`.
#[derive(Clone, Debug, PartialEq, Row, Serialize)]
#[expect(missing_docs, reason = "the .sql files say what each column is")]
pub struct TlsRow {
    pub time: i64,
    pub recorded_at: u32,
    pub stream_sequence: u64,
    pub source: i8,
    pub host: String,
    #[serde(with = "clickhouse::serde::uuid")]
    pub capture_id: Uuid,
    pub flow_id: u64,
    pub src_ip: Ipv6Addr,
    pub dst_ip: Ipv6Addr,
    pub src_port: u16,
    pub dst_port: u16,
    pub sni: String,
    pub alpn: Vec<String>,
    pub version: String,
    pub ja4: String,
    pub container: String,
    pub protocol: u8,
    pub chosen_version: String,
    pub cipher: u16,
    pub chosen_alpn: String,
    pub subject: String,
    pub issuer: String,
    pub not_before: Option<i64>,
    pub not_after: Option<i64>,
    pub alert: u16,
}

block_table!(TlsRow, "tls");

impl TlsRow {
    pub(super) fn new(tls: Tls, context: &mut Context, containers: &impl Containers) -> Self {
        let src_ip = Ip::new(tls.src_ip_high, tls.src_ip_low);
        let dst_ip = Ip::new(tls.dst_ip_high, tls.dst_ip_low);
        Self {
            time: context.time(tls.time),
            recorded_at: context.recorded_at,
            stream_sequence: context.stream_sequence,
            source: context.source,
            host: context.host.clone(),
            capture_id: context.capture_id,
            flow_id: tls.flow_id,
            src_ip: src_ip.into(),
            dst_ip: dst_ip.into(),
            src_port: context.u16(tls.src_port),
            dst_port: context.u16(tls.dst_port),
            sni: tls.sni,
            alpn: tls.alpn,
            version: tls_version(tls.version),
            ja4: tls.ja4,
            container: container(context, containers, src_ip, dst_ip, tls.time),
            protocol: context.u8(tls.protocol),
            chosen_version: tls_version(tls.chosen_version),
            cipher: context.u16(tls.cipher),
            chosen_alpn: tls.chosen_alpn,
            subject: tls.subject,
            issuer: tls.issuer,
            not_before: context.time_or_null(tls.not_before),
            not_after: context.time_or_null(tls.not_after),
            alert: context.u16(tls.alert),
        }
    }
}

/// One row of `http`.
#[derive(Clone, Debug, PartialEq, Row, Serialize)]
#[expect(missing_docs, reason = "the .sql files say what each column is")]
pub struct HttpRow {
    pub time: i64,
    pub recorded_at: u32,
    pub stream_sequence: u64,
    pub source: i8,
    pub host: String,
    #[serde(with = "clickhouse::serde::uuid")]
    pub capture_id: Uuid,
    pub flow_id: u64,
    pub src_ip: Ipv6Addr,
    pub dst_ip: Ipv6Addr,
    pub method: String,
    pub authority: String,
    pub path: String,
    pub status: Option<u16>,
    pub latency_us: Option<u32>,
    pub user_agent: String,
    pub src_port: u16,
    pub dst_port: u16,
    pub version: String,
}

block_table!(HttpRow, "http");

impl HttpRow {
    pub(super) fn new(http: Http, context: &mut Context) -> Self {
        Self {
            time: context.time(http.time),
            recorded_at: context.recorded_at,
            stream_sequence: context.stream_sequence,
            source: context.source,
            host: context.host.clone(),
            capture_id: context.capture_id,
            flow_id: http.flow_id,
            src_ip: Ip::new(http.src_ip_high, http.src_ip_low).into(),
            dst_ip: Ip::new(http.dst_ip_high, http.dst_ip_low).into(),
            method: http.method,
            authority: http.authority,
            path: http.path,
            status: http.status.map(|status| context.u16(status)),
            latency_us: http.latency_us,
            user_agent: http.user_agent,
            src_port: context.u16(http.src_port),
            dst_port: context.u16(http.dst_port),
            version: http.version,
        }
    }
}

/// The name of the container at either end, the initiator's first.
fn container(context: &Context, containers: &impl Containers, src: Ip, dst: Ip, time: u64) -> String {
    let end = |address| End { address, ..End::default() };
    let (src, dst) = (end(src), end(dst));
    let seen = Seen { host: None, interface: "", interfaces: &[], protocol: 0, from: time, to: time, src, dst };
    let found = context.containers(containers, seen);
    found.into_iter().flatten().next().map(|names| names.name.clone()).unwrap_or_default()
}

/// The name of a version on the wire (RFC 8446 section 4.2.1, RFC 9147); hexadecimal where it has none.
fn tls_version(version: u32) -> String {
    match version {
        0 => String::new(),
        0x0300 => "SSL 3.0".to_owned(),
        0x0301 => "TLS 1.0".to_owned(),
        0x0302 => "TLS 1.1".to_owned(),
        0x0303 => "TLS 1.2".to_owned(),
        0x0304 => "TLS 1.3".to_owned(),
        0xfeff => "DTLS 1.0".to_owned(),
        0xfefd => "DTLS 1.2".to_owned(),
        0xfefc => "DTLS 1.3".to_owned(),
        other => format!("{other:#06x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_the_name_that_people_use() {
        assert_eq!(tls_version(0x0304), "TLS 1.3");
        assert_eq!(tls_version(0xfefc), "DTLS 1.3");
        assert_eq!(tls_version(0x7f1c), "0x7f1c");
        assert_eq!(tls_version(0), "");
    }
}
