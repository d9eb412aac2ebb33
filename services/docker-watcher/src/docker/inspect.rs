//! What the engine knows of one container.

use std::collections::HashMap;

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum as Status, EndpointSettings, HealthStatusEnum,
};
use weir_proto::{Container, ContainerNetwork, Ip};

use super::{identity, microseconds};
use crate::{lives::Inspected, metrics, text};

/// Reads an inspection. `None` = an answer that names no container.
#[must_use]
pub fn inspected(response: ContainerInspectResponse) -> Option<Inspected> {
    let state = response.state.unwrap_or_default();
    let config = response.config.unwrap_or_default();
    let (labels, cut) = text::labels(config.labels.unwrap_or_default());
    metrics::values_cut(cut);
    let running = matches!(state.status, Some(Status::RUNNING | Status::STOPPING | Status::PAUSED));
    let started_at = microseconds(state.started_at.as_deref());
    let finished_at = microseconds(state.finished_at.as_deref());
    // Docker keeps the end of the life before while a container runs, and 0 as the exit code of one that never started.
    let ended = !running && started_at > 0;
    let host = response.host_config.unwrap_or_default();
    let limits = identity::limits(&host);
    let network = response.network_settings.unwrap_or_default();
    let container = Container {
        container_id: response.id.filter(|id| !id.is_empty())?,
        name: text::value(response.name.as_deref().unwrap_or_default().trim_start_matches('/')),
        image: text::value(config.image.as_deref().unwrap_or_default()),
        image_id: text::value(response.image.as_deref().unwrap_or_default()),
        labels,
        networks: networks(network.networks.unwrap_or_default()),
        started_at,
        // The two come from two clocks of the engine, and can be a millisecond the wrong way round.
        finished_at: if ended { finished_at.max(started_at) } else { 0 },
        exit_code: if ended { state.exit_code.and_then(|code| i32::try_from(code).ok()) } else { None },
        oom_killed: state.oom_killed.unwrap_or_default(),
        health: health(&state),
        state: state_word(state.status).to_owned(),
        pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default(),
        created_at: microseconds(response.created.as_deref()),
        host_network: host.network_mode.as_deref() == Some("host"),
        ports: identity::ports(network.ports.unwrap_or_default()),
        cpu_limit: limits.cpu,
        memory_limit_bytes: limits.memory_bytes,
        pids_limit: limits.pids,
        restarts: response.restart_count.and_then(|count| u64::try_from(count).ok()),
        ..Container::default()
    };
    Some(Inspected { running, previous_finished_at: if ended { 0 } else { finished_at }, container })
}

fn state_word(status: Option<Status>) -> &'static str {
    match status {
        Some(Status::RUNNING | Status::STOPPING) => "running",
        Some(Status::PAUSED) => "paused",
        // Between two lives of a container with a restart policy, and on the way out: this life is over.
        Some(Status::EXITED | Status::RESTARTING | Status::REMOVING) => "exited",
        Some(Status::DEAD) => "dead",
        Some(Status::CREATED | Status::EMPTY) | None => "created",
    }
}

fn health(state: &ContainerState) -> String {
    match state.health.as_ref().and_then(|health| health.status) {
        Some(status @ (HealthStatusEnum::STARTING | HealthStatusEnum::HEALTHY | HealthStatusEnum::UNHEALTHY)) => {
            status.to_string()
        }
        Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE) | None => String::new(),
    }
}

/// One entry per address, in the order of the networks' names.
fn networks(all: HashMap<String, EndpointSettings>) -> Vec<ContainerNetwork> {
    let mut networks: Vec<_> = all.into_iter().collect();
    networks.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    networks.iter().take(text::MAX_NETWORKS).flat_map(|(name, endpoint)| addresses(name, endpoint)).collect()
}

fn addresses(name: &str, endpoint: &EndpointSettings) -> Vec<ContainerNetwork> {
    let short = |value: Option<&str>| text::cut(value.unwrap_or_default(), text::MAX_NETWORK_VALUE).to_owned();
    [&endpoint.ip_address, &endpoint.global_ipv6_address]
        .into_iter()
        .flatten()
        .filter_map(|address| address.parse::<std::net::IpAddr>().ok())
        .map(|address| {
            let Ip { high, low } = address.into();
            ContainerNetwork {
                name: short(Some(name)),
                network_id: short(endpoint.network_id.as_deref()),
                ip_high: high,
                ip_low: low,
                mac_address: short(endpoint.mac_address.as_deref()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(change: impl FnOnce(&mut serde_json::Value)) -> Inspected {
        let mut json: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/watcher/recorded/inspect.json")).unwrap();
        change(&mut json);
        inspected(serde_json::from_value(json).unwrap()).unwrap()
    }

    #[test]
    fn a_running_container_has_its_addresses_and_no_end() {
        let Inspected { container, running, previous_finished_at } = read(|json| {
            json["NetworkSettings"]["Networks"]["n1"]["GlobalIPv6Address"] = "fd00::5".into();
        });
        assert!(running);
        assert_eq!(
            (container.name.as_str(), container.image.as_str(), container.state.as_str()),
            ("bb2", "weir-test", "running")
        );
        assert_eq!((container.finished_at, container.exit_code), (0, None));
        assert!(0 < previous_finished_at && previous_finished_at < container.started_at);
        assert!(container.created_at < container.started_at);
        let addresses: Vec<_> =
            container.networks.iter().map(|n| Ip::new(n.ip_high, n.ip_low).canonical().to_string()).collect();
        assert_eq!(addresses, ["10.231.77.2", "fd00::5"]);
        assert_eq!(container.networks[0].mac_address, "02:42:0a:e7:4d:02");
        assert!(container.pid > 0 && container.image_id.starts_with("sha256:"));
    }

    #[test]
    fn an_ended_container_has_its_end() {
        let Inspected { container, running, .. } = read(|json| {
            json["State"]["Status"] = "exited".into();
            json["State"]["FinishedAt"] = "2026-11-21T22:51:31.5Z".into();
            json["State"]["ExitCode"] = 137.into();
            json["State"]["OOMKilled"] = true.into();
            json["NetworkSettings"]["Networks"]["n1"]["IPAddress"] = "".into();
        });
        assert!(!running && container.oom_killed && container.networks.is_empty());
        assert_eq!((container.exit_code, container.state.as_str()), (Some(137), "exited"));
        assert!(container.finished_at > container.started_at);
    }

    #[test]
    fn one_that_never_started_has_no_exit_code() {
        let Inspected { container, .. } = read(|json| {
            json["State"]["Status"] = "created".into();
            json["State"]["StartedAt"] = "0001-01-01T00:00:00Z".into();
            json["State"]["FinishedAt"] = "0001-01-01T00:00:00Z".into();
        });
        assert_eq!((container.started_at, container.finished_at, container.exit_code), (0, 0, None));
        assert_eq!(container.state, "created");
    }

    #[test]
    fn health_and_host_network_are_read() {
        let container = read(|json| {
            json["State"]["Health"] = serde_json::json!({"Status": "unhealthy", "FailingStreak": 3});
            json["HostConfig"]["NetworkMode"] = "host".into();
        })
        .container;
        assert!(container.host_network);
        assert_eq!(container.health, "unhealthy");
        assert_eq!(read(|_| ()).container.health, "");
    }

    #[test]
    fn an_answer_that_names_no_container_is_none() {
        assert_eq!(inspected(ContainerInspectResponse::default()), None);
    }
}
