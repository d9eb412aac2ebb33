//! Docker's events.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{EventMessage, EventMessageTypeEnum};
use weir_proto::ContainerEvent;

use crate::{
    lives::{Event, Kind},
    metrics, text,
};

/// The attributes that the engine adds to an event. All others are the labels of the container (moby, `daemon/events.go`,
/// `LogContainerEventWithAttributes`).
const OWN_ATTRIBUTES: [&str; 14] = [
    "comment",
    "container",
    "detachKeys",
    "execDuration",
    "execID",
    "exitCode",
    "height",
    "imageID",
    "imageRef",
    "oldName",
    "signal",
    "stdin",
    "type",
    "width",
];

/// Reads an event. `None` = it is about no container.
#[must_use]
pub fn event(message: EventMessage) -> Option<Event> {
    let time_ns = message.time_nano.or_else(|| message.time?.checked_mul(1_000_000_000))?;
    let actor = message.actor?;
    let action = message.action?;
    let attributes = actor.attributes.unwrap_or_default();
    match message.typ? {
        EventMessageTypeEnum::CONTAINER => container_event(time_ns, actor.id?, &action, attributes),
        EventMessageTypeEnum::NETWORK => network_event(time_ns, actor.id?, &action, &attributes),
        EventMessageTypeEnum::IMAGE => image_event(time_ns, &actor.id?, &action, &attributes),
        EventMessageTypeEnum::VOLUME => volume_event(time_ns, &actor.id?, &action, &attributes),
        _ => None,
    }
}

fn container_event(time_ns: i64, id: String, action: &str, mut attributes: HashMap<String, String>) -> Option<Event> {
    // "health_status: healthy", "exec_create: sh -c true": the detail has a place of its own.
    let (action, detail) = action.split_once(": ").unwrap_or((action, ""));
    // Podman's word for it.
    let action = if action == "remove" { "destroy" } else { action };
    let name = attributes.remove("name").unwrap_or_default();
    let image = attributes.remove("image").unwrap_or_default();
    let (mut own, labels): (BTreeMap<_, _>, HashMap<_, _>) = (
        attributes
            .iter()
            .filter(|(key, _)| OWN_ATTRIBUTES.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), text::value(value)))
            .collect(),
        attributes.into_iter().filter(|(key, _)| !OWN_ATTRIBUTES.contains(&key.as_str())).collect(),
    );
    if let Some(before) = own.get_mut("oldName") {
        *before = before.trim_start_matches('/').to_owned();
    }
    if !detail.is_empty() {
        let key = if action == "health_status" { "health" } else { "command" };
        own.insert(key.to_owned(), text::value(detail));
    }
    let (labels, cut) = text::labels(labels);
    metrics::values_cut(cut);
    let record = ContainerEvent {
        time: microseconds(time_ns)?,
        container_id: id,
        name: text::value(name.trim_start_matches('/')),
        image: text::value(&image),
        action: text::value(action),
        // Of other events it is a label that somebody gave the name of the engine's attribute.
        exit_code: own.get("exitCode").filter(|_| action.ends_with("die")).and_then(|code| code.parse().ok()),
        labels,
        attributes: own,
        ..ContainerEvent::default()
    };
    let kind = kind(&record, detail);
    Some(Event { time_ns, kind, record })
}

fn kind(record: &ContainerEvent, detail: &str) -> Kind {
    match record.action.as_str() {
        "create" => Kind::Create,
        "start" => Kind::Start,
        "die" => Kind::Die,
        "oom" => Kind::Oom,
        "destroy" => Kind::Destroy,
        "rename" => Kind::Rename,
        "health_status" => Kind::Health(text::value(detail)),
        "pause" => Kind::Pause,
        "unpause" => Kind::Unpause,
        _ => Kind::Other,
    }
}

/// A container joins or leaves a network: the engine tells it as an event of the network.
fn network_event(time_ns: i64, id: String, action: &str, attributes: &HashMap<String, String>) -> Option<Event> {
    let action = match action {
        "connect" => "network_connect",
        "disconnect" => "network_disconnect",
        _ => return None,
    };
    let container_id = attributes.get("container").filter(|id| !id.is_empty())?.clone();
    let network = attributes.get("name").map(|name| text::value(name)).unwrap_or_default();
    let record = ContainerEvent {
        time: microseconds(time_ns)?,
        container_id,
        action: action.to_owned(),
        attributes: BTreeMap::from([("network".to_owned(), network), ("network_id".to_owned(), id)]),
        ..ContainerEvent::default()
    };
    Some(Event { time_ns, kind: Kind::Network, record })
}

/// An image came or went. It is of no container.
fn image_event(time_ns: i64, id: &str, action: &str, attributes: &HashMap<String, String>) -> Option<Event> {
    let action = match action {
        "pull" => "image_pull",
        "delete" | "remove" => "image_delete",
        _ => return None,
    };
    let name = attributes.get("name").map_or(id, String::as_str);
    let attributes = BTreeMap::from([("image_id".to_owned(), text::value(id))]);
    of_no_container(time_ns, action, text::value(name), attributes)
}

/// A volume came or went. It is of no container.
fn volume_event(time_ns: i64, id: &str, action: &str, attributes: &HashMap<String, String>) -> Option<Event> {
    let action = match action {
        "create" => "volume_create",
        "destroy" | "remove" => "volume_destroy",
        _ => return None,
    };
    let mut kept = BTreeMap::from([("volume".to_owned(), text::value(id))]);
    kept.extend(attributes.get("driver").map(|driver| ("driver".to_owned(), text::value(driver))));
    of_no_container(time_ns, action, String::new(), kept)
}

fn of_no_container(time_ns: i64, action: &str, image: String, attributes: BTreeMap<String, String>) -> Option<Event> {
    let time = microseconds(time_ns)?;
    let record = ContainerEvent { time, action: action.to_owned(), image, attributes, ..ContainerEvent::default() };
    Some(Event { time_ns, kind: Kind::Other, record })
}

fn microseconds(time_ns: i64) -> Option<u64> {
    u64::try_from(time_ns / 1000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Option<Event> {
        event(serde_json::from_value(json).unwrap())
    }

    fn container(action: &str, attributes: &serde_json::Value) -> Option<Event> {
        read(serde_json::json!({
            "status": action, "id": "c2fd", "from": "weir-test", "Type": "container", "Action": action,
            "Actor": {"ID": "c2fd", "Attributes": attributes},
            "scope": "local", "time": 1_795_301_486, "timeNano": 1_795_301_486_482_554_044_i64
        }))
    }

    #[test]
    fn a_death_has_its_exit_code_and_labels_apart_from_the_engines_own_attributes() {
        let event = container(
            "die",
            &serde_json::json!({"exitCode": "137", "image": "weir-test", "name": "short", "com.example.tier": "web"}),
        )
        .unwrap();
        assert_eq!(event.kind, Kind::Die);
        assert_eq!(event.time_ns, 1_795_301_486_482_554_044);
        let record = event.record;
        assert_eq!((record.name.as_str(), record.image.as_str(), record.exit_code), ("short", "weir-test", Some(137)));
        assert_eq!(record.time, 1_795_301_486_482_554);
        assert_eq!(record.labels, BTreeMap::from([("com.example.tier".to_owned(), "web".to_owned())]));
        assert_eq!(record.attributes, BTreeMap::from([("exitCode".to_owned(), "137".to_owned())]));
    }

    #[test]
    fn only_an_end_has_an_exit_code() {
        let attributes = serde_json::json!({"exitCode": "7", "name": "web"});
        let code = |action: &str| container(action, &attributes).unwrap().record.exit_code;
        assert_eq!(["die", "exec_die", "start"].map(code), [Some(7), Some(7), None]);
    }

    #[test]
    fn the_detail_of_an_action_is_an_attribute() {
        let event = container("health_status: healthy", &serde_json::json!({"name": "web"})).unwrap();
        assert_eq!(event.kind, Kind::Health("healthy".to_owned()));
        assert_eq!(
            (event.record.action.as_str(), event.record.attributes["health"].as_str()),
            ("health_status", "healthy")
        );
        let event = container("exec_create: sh -c true", &serde_json::json!({"execID": "e1"})).unwrap();
        assert_eq!(
            (event.record.action.as_str(), event.record.attributes["command"].as_str()),
            ("exec_create", "sh -c true")
        );
    }

    #[test]
    fn joining_a_network_is_told_of_the_container() {
        let event = read(serde_json::json!({
            "Type": "network", "Action": "connect", "scope": "local", "time": 1, "timeNano": 1_000_000_000,
            "Actor": {"ID": "45bf", "Attributes": {"container": "af1c", "name": "n1", "type": "bridge"}}
        }))
        .unwrap();
        assert_eq!(event.kind, Kind::Network);
        assert_eq!((event.record.container_id.as_str(), event.record.action.as_str()), ("af1c", "network_connect"));
        assert_eq!(event.record.attributes["network"], "n1");
    }

    #[test]
    fn images_and_volumes_have_events_of_no_container() {
        let read = |kind: &str, action: &str, id: &str, attributes: serde_json::Value| {
            read(serde_json::json!({
                "Type": kind, "Action": action, "time": 1, "timeNano": 1_000_000_000,
                "Actor": {"ID": id, "Attributes": attributes}
            }))
        };
        let pull = read("image", "pull", "shop:1", serde_json::json!({"name": "shop"})).unwrap();
        assert_eq!(
            (pull.kind, pull.record.action.as_str(), pull.record.image.as_str()),
            (Kind::Other, "image_pull", "shop")
        );
        assert_eq!(pull.record.attributes["image_id"], "shop:1");
        let delete = read("image", "delete", "sha256:12", serde_json::json!({"name": "sha256:12"})).unwrap();
        assert_eq!((delete.record.action.as_str(), delete.record.container_id.as_str()), ("image_delete", ""));
        let create = read("volume", "create", "data", serde_json::json!({"driver": "local"})).unwrap();
        assert_eq!(
            (create.record.action.as_str(), create.record.attributes["volume"].as_str()),
            ("volume_create", "data")
        );
        assert_eq!(read("volume", "destroy", "data", serde_json::json!({})).unwrap().record.action, "volume_destroy");
        assert_eq!(read("image", "tag", "x", serde_json::json!({})), None);
        assert_eq!(read("volume", "mount", "data", serde_json::json!({"container": "c"})), None);
    }

    #[test]
    fn what_is_about_no_container_is_left_out() {
        let network = |action: &str, attributes: serde_json::Value| {
            read(serde_json::json!({
                "Type": "network", "Action": action, "time": 1, "Actor": {"ID": "45bf", "Attributes": attributes}
            }))
        };
        assert_eq!(network("create", serde_json::json!({"name": "n1"})), None);
        assert_eq!(network("connect", serde_json::json!({"name": "n1"})), None);
        assert_eq!(read(serde_json::json!({})), None);
        assert_eq!(read(serde_json::json!({"Type": "container", "Action": "die"})), None);
    }

    #[test]
    fn hostile_sizes_are_bounded() {
        let attributes: serde_json::Map<_, _> =
            (0..10_000).map(|i| (format!("l{i}"), serde_json::Value::from("x".repeat(100)))).collect();
        let event = container("create", &attributes.into()).unwrap();
        assert!(event.record.labels.len() <= text::MAX_LABELS);
        let event = container("create", &serde_json::json!({"name": "n".repeat(64 << 10)})).unwrap();
        assert_eq!(event.record.name.len(), text::MAX_VALUE);
    }
}
