use proptest::prelude::*;

use super::*;

fn sql(text: &str) -> String {
    let Condition { mut sql, parameters } = condition(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    for (name, value) in parameters.iter().rev() {
        let value = match value {
            Parameter::Number(number) => number.to_string(),
            Parameter::Text(text) => format!("{text:?}"),
        };
        assert!(sql.contains(&format!("{{{name}:")), "{name} is used");
        while let Some(start) = sql.find(&format!("{{{name}:")) {
            let end = start + sql[start..].find('}').expect("it ends");
            sql.replace_range(start..=end, &value);
        }
    }
    sql
}

#[test]
fn a_filter_becomes_a_condition_with_parameters() {
    for (text, expected) in [
        ("", "true"),
        ("  ", "true"),
        ("dst_port = 443", "(dst_port = 443)"),
        ("port != 53", "(NOT (src_port = 53 OR dst_port = 53))"),
        ("protocol = tcp AND app = dns", "((protocol = 6) AND (app = \"dns\"))"),
        ("bytes >= 1_000_000", "(tx_bytes + rx_bytes >= 1000000)"),
        ("src_ip = 10.0.0.1", "(src_ip = \"::ffff:10.0.0.1\")"),
        ("src_ip in 10.1.2.3/8", "(src_ip BETWEEN \"::ffff:10.0.0.0\" AND \"::ffff:10.255.255.255\")"),
        (
            "dst_ip in (::1, 2001:db8::/32)",
            "(dst_ip = \"::1\" OR dst_ip BETWEEN \"2001:db8::\" AND \"2001:db8:ffff:ffff:ffff:ffff:ffff:ffff\")",
        ),
        ("dst_ip = ::/0", "(dst_ip BETWEEN \"::\" AND \"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\")"),
        ("dst_name like '%.example.org'", "(dst_name ILIKE \"%.example.org\")"),
        ("dst_name !~ \"^a\\\"b\"", "(NOT (match(dst_name, \"^a\\\"b\")))"),
        ("source = ebpf", "(toString(source) = \"ebpf\")"),
        ("a_b = 1 or x", ""),
        (
            "dst_port = 443 and src_container = \"web\" and not dst_ip in 10.0.0.0/8",
            "((dst_port = 443) AND (src_container = \"web\") AND (NOT (dst_ip BETWEEN \"::ffff:10.0.0.0\" AND \"::ffff:10.255.255.255\")))",
        ),
        ("src_port = 1 or src_port = 2 and src_port = 3", "((src_port = 1) OR ((src_port = 2) AND (src_port = 3)))"),
        ("not (vlan = 1 or vlan not in (2,3))", "(NOT ((vlan = 1) OR (NOT (vlan = 2 OR vlan = 3))))"),
    ] {
        if expected.is_empty() {
            assert!(condition(text).is_err(), "{text}");
        } else {
            assert_eq!(sql(text), expected, "{text}");
        }
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, position, reason) in [
        ("dst_prt = 443", 0, "there is no field \"dst_prt\"; similar ones are dst_port, dst_ip, dst_name"),
        ("dst_port 443", 9, "here should be =, !=, <, <=, >, >=, ~, !~, in or like"),
        ("dst_port = ", 11, "here should be a value"),
        ("dst_port = 70000", 11, "\"70000\" is no whole number from 0 to 65535"),
        ("dst_ip = 10.0.0.0/33", 9, "\"10.0.0.0/33\" is no address or prefix"),
        ("dst_ip > 10.0.0.0", 7, "dst_ip is no number: <, <=, > and >= do not fit"),
        ("(dst_port = 1", 13, "here a parenthesis should close"),
        ("dst_port = 1 dst_port = 2", 13, "here the filter should end, or go on with and, or"),
        ("app = 'dns", 6, "the text that begins here has no closing '"),
        ("é = 1 ; drop", 6, "';' has no meaning here"),
        ("protocol = foo", 11, "\"foo\" is no protocol: tcp, udp, icmp, icmpv6, ... or a number from 0 to 255"),
    ] {
        assert_eq!(condition(text), Err(Error::at(position.min(text.chars().count()), reason)), "{text}");
    }
}

#[test]
fn a_filter_is_bounded() {
    let deep = format!("{}app = dns{}", "(".repeat(500), ")".repeat(500));
    assert!(condition(&deep).is_err());
    assert!(condition(&"not ".repeat(1000)).is_err());
    let long = format!("port in ({}1)", "1,".repeat(2000));
    assert!(condition(&long).is_err());
    assert!(condition(&"a".repeat(MAX_BYTES + 1)).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_or_reach_the_sql(text in "\\PC{0,80}") {
        if let Ok(condition) = condition(&text) {
            prop_assert!(!condition.sql.contains(['\'', '"', ';', '`', '\\']));
        }
    }

    #[test]
    fn a_quoted_text_arrives_as_it_is(text in "\\PC{0,40}") {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        let condition = condition(&format!("app = \"{quoted}\"")).unwrap();
        prop_assert_eq!(condition.parameters, vec![("f0".to_owned(), Parameter::Text(text))]);
    }
}
