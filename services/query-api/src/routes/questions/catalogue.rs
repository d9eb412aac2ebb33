//! What can be asked. The views are in `crates/store/sql/003_questions.sql`.

/// A question.
pub(super) struct Question {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) view: &'static str,
    pub(super) default_from: &'static str,
    /// `$from` and `$to` are moments, `$conditions` what was asked for. Its order is total, so that parts fit together.
    pub(super) sql: &'static str,
    pub(super) conditions: &'static [Condition],
}

/// A parameter, and what it means.
pub(super) struct Condition {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) default: Option<&'static str>,
    pub(super) sql: &'static str,
}

const HOST: Condition =
    Condition { name: "host", description: "Only on this host", default: None, sql: "host = {host:String}" };
const CONTAINER: Condition = Condition {
    name: "container",
    description: "Only of containers with this name",
    default: None,
    sql: "container = {container:String}",
};

/// All questions.
pub(super) const CATALOGUE: [Question; 6] = [
    Question {
        name: "flows-before-death",
        description: "What containers did in the minute before the kernel killed for memory (oom), or they ended (die)",
        view: "flows_before_death",
        default_from: "-24h",
        // A record covers at most a minute.
        sql: "SELECT event_time, action, exit_code, host, container_id, container, image, seconds_before, start_time, end_time, \
              toString(flow_id) AS flow_id, src_ip, src_port, src_container, src_name, dst_ip, dst_port, dst_container, dst_name, \
              protocol, app, tx_bytes, tx_packets, rx_bytes, rx_packets, tx_retransmits, rx_retransmits, end_reason \
              FROM flows_before_death WHERE event_time >= $from AND event_time < $to \
              AND start_time >= $from - INTERVAL 3 MINUTE AND start_time < $to AND $conditions \
              ORDER BY event_time DESC, container_id, action, seconds_before, start_time, flow_id, end_time, interface",
        conditions: &[
            HOST,
            CONTAINER,
            Condition {
                name: "action",
                description: "Only before events of this action: oom or die",
                default: None,
                sql: "action = {action:String}",
            },
        ],
    },
    Question {
        name: "new-destinations",
        description: "Destinations outside that a container first asked after its image had changed",
        view: "new_destinations",
        default_from: "-7d",
        sql: "SELECT * FROM new_destinations WHERE changed_at >= $from AND changed_at < $to AND $conditions \
              ORDER BY changed_at DESC, host, container, first_time, destination",
        conditions: &[HOST, CONTAINER],
    },
    Question {
        name: "retransmits",
        description: "Pairs of containers that sent more than a share of their TCP packets again",
        view: "container_pairs",
        default_from: "-1h",
        sql: "SELECT host, src_container, dst_container, src_container_id, dst_container_id, sum(p.packets) AS packets, \
              sum(p.bytes) AS bytes, sum(p.tx_retransmits) AS tx_retransmits, sum(p.rx_retransmits) AS rx_retransmits, \
              round(100 * (tx_retransmits + rx_retransmits) / packets, 4) AS retransmit_percent \
              FROM container_pairs AS p WHERE time >= toStartOfFiveMinutes($from) AND time < $to \
              GROUP BY host, src_container, dst_container, src_container_id, dst_container_id HAVING $conditions \
              ORDER BY retransmit_percent DESC, src_container_id, dst_container_id",
        conditions: &[
            HOST,
            Condition {
                name: "container",
                description: "Only where one of the two has this name",
                default: None,
                sql: "(src_container = {container:String} OR dst_container = {container:String})",
            },
            Condition {
                name: "above",
                description: "More than this share of the packets were sent again: 0.01 = one of a hundred",
                default: Some("0.01"),
                sql: "tx_retransmits + rx_retransmits > packets * {above:Float64}",
            },
        ],
    },
    Question {
        name: "project-traffic",
        description: "Bytes of each compose project by the hour: to others, from others, and within it",
        view: "project_traffic",
        default_from: "-24h",
        sql: "SELECT * FROM project_traffic WHERE hour >= toStartOfHour($from) AND hour < $to AND $conditions \
              ORDER BY hour DESC, tx_bytes + rx_bytes + internal_bytes DESC, project",
        conditions: &[Condition {
            name: "project",
            description: "Only this project",
            default: None,
            sql: "project = {project:String}",
        }],
    },
    Question {
        name: "gone-containers",
        description: "Who talked to containers that no longer exist: while they did, and to their address after their end",
        view: "gone_container_peers",
        default_from: "-24h",
        sql: "SELECT host, container_id, container, image, finished_at, after_end, peer_ip, peer_container, peer_name, port, protocol, \
              min(g.first_time) AS first_time, max(g.last_time) AS last_time, sum(g.bytes) AS bytes \
              FROM gone_container_peers AS g WHERE time >= toStartOfFiveMinutes($from) AND time < $to AND $conditions \
              GROUP BY host, container_id, container, image, finished_at, after_end, peer_ip, peer_container, peer_name, port, protocol \
              ORDER BY last_time DESC, container_id, peer_ip, port, protocol, after_end, peer_container, peer_name",
        conditions: &[HOST, CONTAINER],
    },
    Question {
        name: "cpu-and-traffic",
        description: "What a container used beside what it said, in intervals of five minutes",
        view: "cpu_and_traffic",
        default_from: "-1h",
        sql: "SELECT * FROM cpu_and_traffic WHERE time >= toStartOfFiveMinutes($from) AND time < $to AND $conditions \
              ORDER BY time DESC, host, container_id",
        conditions: &[HOST, CONTAINER],
    },
];
