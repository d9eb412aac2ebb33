//! `dns`, `tls`, `http`.

use std::net::Ipv6Addr;

use serde::Serialize;
use uuid::Uuid;
use weir_proto::{Dns, Http, Ip, Tls};

use super::{Containers, Context, End, Seen, block_table};

/// IANA number of TCP.
const TCP: u8 = 6;

/// One row of `dns`.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    #[serde(with = "super::address")]
    pub src_ip: Ipv6Addr,
    #[serde(with = "super::address")]
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
    #[serde(with = "super::address")]
    pub src_nat_ip: Ipv6Addr,
    #[serde(with = "super::address")]
    pub dst_nat_ip: Ipv6Addr,
}

block_table!(DnsRow, "dns");

impl DnsRow {
    pub(super) fn new(dns: Dns, context: &mut Context, containers: &impl Containers) -> Self {
        let ends = [
            (dns.src_ip_high, dns.src_ip_low, dns.src_nat_ip_high, dns.src_nat_ip_low, dns.src_port),
            (dns.dst_ip_high, dns.dst_ip_low, dns.dst_nat_ip_high, dns.dst_nat_ip_low, dns.dst_port),
        ];
        let protocol = context.u8(dns.protocol);
        let [src, dst] = ends.map(|end| self::end(end, context));
        Self {
            time: context.time(dns.time),
            recorded_at: context.recorded_at,
            stream_sequence: context.stream_sequence,
            source: context.source,
            host: context.host.clone(),
            capture_id: context.capture_id,
            flow_id: dns.flow_id,
            src_ip: src.address.into(),
            dst_ip: dst.address.into(),
            src_port: src.port,
            dst_port: dst.port,
            protocol,
            query_id: context.u16(dns.query_id),
            qname: dns.qname,
            qtype: context.u16(dns.qtype),
            has_query: dns.has_query,
            rcode: dns.rcode.map(|rcode| context.u16(rcode)),
            answers: dns.answers,
            latency_us: dns.latency_us,
            container: container(context, containers, [src, dst], protocol, dns.time),
            repeats: dns.repeats,
            src_nat_ip: src.nat.into(),
            dst_nat_ip: dst.nat.into(),
        }
    }
}

/// One row of `tls`.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    #[serde(with = "super::address")]
    pub src_ip: Ipv6Addr,
    #[serde(with = "super::address")]
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
    #[serde(with = "super::address")]
    pub src_nat_ip: Ipv6Addr,
    #[serde(with = "super::address")]
    pub dst_nat_ip: Ipv6Addr,
}

block_table!(TlsRow, "tls");

impl TlsRow {
    pub(super) fn new(tls: Tls, context: &mut Context, containers: &impl Containers) -> Self {
        let ends = [
            (tls.src_ip_high, tls.src_ip_low, tls.src_nat_ip_high, tls.src_nat_ip_low, tls.src_port),
            (tls.dst_ip_high, tls.dst_ip_low, tls.dst_nat_ip_high, tls.dst_nat_ip_low, tls.dst_port),
        ];
        let protocol = context.u8(tls.protocol);
        let [src, dst] = ends.map(|end| self::end(end, context));
        Self {
            time: context.time(tls.time),
            recorded_at: context.recorded_at,
            stream_sequence: context.stream_sequence,
            source: context.source,
            host: context.host.clone(),
            capture_id: context.capture_id,
            flow_id: tls.flow_id,
            src_ip: src.address.into(),
            dst_ip: dst.address.into(),
            src_port: src.port,
            dst_port: dst.port,
            sni: tls.sni,
            alpn: tls.alpn,
            version: tls_version(tls.version),
            ja4: tls.ja4,
            container: container(context, containers, [src, dst], protocol, tls.time),
            protocol,
            chosen_version: tls_version(tls.chosen_version),
            cipher: context.u16(tls.cipher),
            chosen_alpn: tls.chosen_alpn,
            subject: tls.subject,
            issuer: tls.issuer,
            not_before: context.time_or_null(tls.not_before),
            not_after: context.time_or_null(tls.not_after),
            alert: context.u16(tls.alert),
            src_nat_ip: src.nat.into(),
            dst_nat_ip: dst.nat.into(),
        }
    }
}

/// One row of `http`.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    #[serde(with = "super::address")]
    pub src_ip: Ipv6Addr,
    #[serde(with = "super::address")]
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
    #[serde(with = "super::address")]
    pub src_nat_ip: Ipv6Addr,
    #[serde(with = "super::address")]
    pub dst_nat_ip: Ipv6Addr,
    pub container: String,
}

block_table!(HttpRow, "http");

impl HttpRow {
    pub(super) fn new(http: Http, context: &mut Context, containers: &impl Containers) -> Self {
        let ends = [
            (http.src_ip_high, http.src_ip_low, http.src_nat_ip_high, http.src_nat_ip_low, http.src_port),
            (http.dst_ip_high, http.dst_ip_low, http.dst_nat_ip_high, http.dst_nat_ip_low, http.dst_port),
        ];
        let [src, dst] = ends.map(|end| self::end(end, context));
        Self {
            time: context.time(http.time),
            recorded_at: context.recorded_at,
            stream_sequence: context.stream_sequence,
            source: context.source,
            host: context.host.clone(),
            capture_id: context.capture_id,
            flow_id: http.flow_id,
            src_ip: src.address.into(),
            dst_ip: dst.address.into(),
            method: http.method,
            authority: http.authority,
            path: http.path,
            status: http.status.map(|status| context.u16(status)),
            latency_us: http.latency_us,
            user_agent: http.user_agent,
            src_port: src.port,
            dst_port: dst.port,
            version: http.version,
            src_nat_ip: src.nat.into(),
            dst_nat_ip: dst.nat.into(),
            container: container(context, containers, [src, dst], TCP, http.time),
        }
    }
}

/// Address, address behind it, port.
fn end((high, low, nat_high, nat_low, port): (u64, u64, u64, u64, u32), context: &mut Context) -> End {
    End { address: Ip::new(high, low), nat: Ip::new(nat_high, nat_low), port: context.u16(port), cgroup: 0 }
}

/// The name of the container at either end, the initiator's first.
fn container(context: &Context, containers: &impl Containers, [src, dst]: [End; 2], protocol: u8, time: u64) -> String {
    let seen =
        Seen { host: None, interface: "", interfaces: &[], protocol, from: time, to: time, apart: false, src, dst };
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
