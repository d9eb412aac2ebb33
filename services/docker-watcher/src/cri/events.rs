//! What happens to containers as the interface itself tells it (`GetContainerEvents`), or, where a runtime does not offer that, as its list
//! shows it.

use std::collections::BTreeMap;

use weir_proto::ContainerEvent;

use super::messages::{self, Status};
use crate::{
    containerd, grpc,
    lives::{Event, Kind, RECONSTRUCTED},
    text,
};

/// Reads an event. Empty = it is about a pod, or of a kind that is not known; two of a container that was killed for memory.
pub(super) fn told(told: messages::ContainerEvent) -> Vec<Event> {
    let pod = told.pod.as_ref();
    if told.container_id.is_empty() || pod.is_some_and(|pod| pod.id == told.container_id) {
        return Vec::new();
    }
    let (kind, action) = match told.kind {
        0 => (Kind::Create, "create"),
        1 => (Kind::Start, "start"),
        2 => (Kind::Die, "die"),
        3 => (Kind::Destroy, "destroy"),
        _ => return Vec::new(),
    };
    let status = told.containers.into_iter().find(|status| status.id == told.container_id);
    let mut event = event(&told.container_id, kind, action, told.created_at);
    if let Some(Status { metadata, labels, .. }) = &status {
        let name = metadata.as_ref().map(|metadata| metadata.name.as_str()).unwrap_or_default();
        let of_pod = pod.and_then(|pod| pod.metadata.clone()).unwrap_or_default();
        let mut all = containerd::pod_labels(&of_pod.namespace, &of_pod.name, name);
        all.extend(grpc::labels(labels));
        (event.record.labels, _) = text::labels(all);
    }
    let killed = status.as_ref().is_some_and(|status| event.kind == Kind::Die && status.reason == "OOMKilled");
    if let Some(status) = &status {
        know(&mut event, status);
    }
    if killed {
        let mut oom = event.clone();
        (oom.kind, oom.record.exit_code) = (Kind::Oom, None);
        "oom".clone_into(&mut oom.record.action);
        return vec![oom, event];
    }
    vec![event]
}

/// What the container's status tells better than an event: the times that name and end the life, and how it ended.
pub(super) fn know(event: &mut Event, status: &Status) {
    let labels = grpc::labels(&status.labels);
    let of_kubelet = labels.get("io.kubernetes.container.name").map(String::as_str);
    let name = of_kubelet.or(status.metadata.as_ref().map(|metadata| metadata.name.as_str())).unwrap_or_default();
    event.record.name = text::value(name);
    event.record.image = text::value(status.image.as_ref().map_or("", |image| &image.image));
    let time_ns = match event.kind {
        Kind::Create => status.created_at,
        Kind::Start => status.started_at,
        Kind::Die => {
            event.record.exit_code = Some(status.exit_code);
            status.finished_at
        }
        _ => 0,
    };
    if time_ns > 0 {
        (event.time_ns, event.record.time) = (time_ns, time_ns as u64 / 1000);
    }
}

/// The containers of a list, and the state of each.
pub(super) type Listed = BTreeMap<String, i32>;

/// What must have happened from one list to the next; the times are those of the list.
pub(super) fn changes(before: &Listed, now: &Listed, time_ns: i64) -> Vec<Event> {
    const RUNNING: i32 = 1;
    let mut events = Vec::new();
    let mut add = |id: &str, kind, action| {
        let mut event = event(id, kind, action, time_ns);
        event.record.attributes = [(RECONSTRUCTED.to_owned(), "true".to_owned())].into();
        events.push(event);
    };
    for (id, state) in before {
        let was_running = *state == RUNNING;
        match now.get(id) {
            Some(state) if was_running && *state != RUNNING => add(id, Kind::Die, "die"),
            Some(_) => {}
            None => {
                if was_running {
                    add(id, Kind::Die, "die");
                }
                add(id, Kind::Destroy, "destroy");
            }
        }
    }
    for (id, state) in now {
        let earlier = before.get(id);
        if earlier.is_none() {
            add(id, Kind::Create, "create");
        }
        // 0 = it was created and not started.
        if *state != 0 && earlier.is_none_or(|earlier| *earlier == 0) {
            add(id, Kind::Start, "start");
            if *state != RUNNING {
                add(id, Kind::Die, "die");
            }
        }
    }
    events
}

fn event(id: &str, kind: Kind, action: &str, time_ns: i64) -> Event {
    let record = ContainerEvent {
        time: u64::try_from(time_ns / 1000).unwrap_or_default(),
        container_id: id.to_owned(),
        action: action.to_owned(),
        ..ContainerEvent::default()
    };
    Event { time_ns, kind, record }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::messages::{Metadata, Pod};

    fn actions(events: &[Event]) -> Vec<(&str, i64)> {
        events.iter().map(|event| (event.record.action.as_str(), event.time_ns)).collect()
    }

    #[test]
    fn a_status_gives_an_event_its_time_and_its_end() {
        let status = Status {
            id: "c".into(),
            metadata: Some(Metadata { name: "till".into(), attempt: 0 }),
            finished_at: 7_000,
            exit_code: 137,
            reason: "OOMKilled".into(),
            ..Status::default()
        };
        let pod = Pod { id: "p".into(), ..Pod::default() };
        let died = |id: &str| messages::ContainerEvent {
            container_id: id.into(),
            kind: 2,
            created_at: 9_000,
            pod: Some(pod.clone()),
            containers: vec![status.clone()],
        };
        let events = told(died("c"));
        assert_eq!(actions(&events), [("oom", 7_000), ("die", 7_000)]);
        assert_eq!((events[0].record.exit_code, events[1].record.exit_code), (None, Some(137)));
        assert_eq!((events[1].record.name.as_str(), events[1].record.labels.len()), ("till", 1));
        assert_eq!(told(died("p")), [], "a pod is no container");
        assert_eq!(actions(&told(messages::ContainerEvent { kind: 3, ..died("other") })), [("destroy", 9_000)]);
        assert_eq!(told(messages::ContainerEvent { kind: 9, ..died("c") }), []);
    }

    #[test]
    fn a_list_shows_what_must_have_happened() {
        let listed =
            |states: &[(&str, i32)]| states.iter().map(|(id, state)| ((*id).to_owned(), *state)).collect::<Listed>();
        let before = listed(&[("made", 0), ("runs", 1), ("stops", 1), ("goes", 1), ("ended", 2)]);
        let now = listed(&[("made", 1), ("runs", 1), ("stops", 2), ("new", 1), ("short", 2), ("unborn", 0)]);
        let events = changes(&before, &now, 5);
        let told: Vec<_> =
            events.iter().map(|event| (event.record.container_id.as_str(), event.record.action.as_str())).collect();
        assert_eq!(
            told,
            [
                ("ended", "destroy"),
                ("goes", "die"),
                ("goes", "destroy"),
                ("stops", "die"),
                ("made", "start"),
                ("new", "create"),
                ("new", "start"),
                ("short", "create"),
                ("short", "start"),
                ("short", "die"),
                ("unborn", "create"),
            ]
        );
        assert_eq!(changes(&now, &now, 6), []);
    }
}
