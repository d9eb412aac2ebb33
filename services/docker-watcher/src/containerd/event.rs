//! containerd's events.

use std::collections::BTreeMap;

use prost::Message;
use weir_proto::ContainerEvent;

use super::messages::{About, Created, Envelope, Executed, Exited, Timestamp};
use crate::{
    lives::{Event, Kind},
    text,
};

/// Reads an event. `None` = it is about no container. The container's id is the one that its namespace knows.
#[must_use]
pub fn event(envelope: &Envelope) -> Option<Event> {
    let payload = envelope.event.as_ref()?.value.as_slice();
    let about = || Some(About::decode(payload).ok()?.container_id);
    let mut record = ContainerEvent::default();
    let mut time_ns = envelope.timestamp?.nanoseconds()?;
    let (kind, action, id) = match envelope.topic.as_str() {
        "/containers/create" => {
            let created = Created::decode(payload).ok()?;
            record.image = text::value(&created.image);
            (Kind::Create, "create", created.id)
        }
        "/containers/update" => (Kind::Rename, "update", about()?),
        "/containers/delete" => (Kind::Destroy, "destroy", about()?),
        "/tasks/start" => (Kind::Start, "start", about()?),
        "/tasks/oom" => (Kind::Oom, "oom", about()?),
        "/tasks/paused" => (Kind::Pause, "pause", about()?),
        "/tasks/resumed" => (Kind::Unpause, "unpause", about()?),
        "/tasks/exec-added" | "/tasks/exec-started" => {
            let executed = Executed::decode(payload).ok()?;
            record.attributes = exec_id(&executed.exec_id);
            let action = if envelope.topic.ends_with("added") { "exec_create" } else { "exec_start" };
            (Kind::Other, action, executed.container_id)
        }
        "/tasks/exit" => {
            let exited = Exited::decode(payload).ok()?;
            record.exit_code = i32::try_from(exited.exit_status).ok();
            time_ns = exited.exited_at.and_then(Timestamp::nanoseconds).unwrap_or(time_ns);
            if exited.id == exited.container_id {
                (Kind::Die, "die", exited.container_id)
            } else {
                record.attributes = exec_id(&exited.id);
                (Kind::Other, "exec_die", exited.container_id)
            }
        }
        _ => return None,
    };
    if id.is_empty() {
        return None;
    }
    record.time = (time_ns / 1000) as u64;
    record.container_id = id;
    action.clone_into(&mut record.action);
    Some(Event { time_ns, kind, record })
}

fn exec_id(id: &str) -> BTreeMap<String, String> {
    [("execID".to_owned(), text::value(id))].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::messages::Any;

    fn envelope(topic: &str, payload: &impl Message) -> Envelope {
        Envelope {
            timestamp: Some(Timestamp { seconds: 9, nanos: 8 }),
            namespace: "default".into(),
            topic: topic.into(),
            event: Some(Any { type_url: String::new(), value: payload.encode_to_vec() }),
        }
    }

    #[test]
    fn the_end_of_a_container_is_told_from_the_end_of_what_was_executed_in_it() {
        let exit = |id: &str| Exited {
            container_id: "web".into(),
            id: id.into(),
            exit_status: 137,
            exited_at: Some(Timestamp { seconds: 7, nanos: 1000 }),
        };
        let die = event(&envelope("/tasks/exit", &exit("web"))).unwrap();
        assert_eq!((die.kind, die.time_ns, die.record.exit_code), (Kind::Die, 7_000_001_000, Some(137)));
        let exec = event(&envelope("/tasks/exit", &exit("sh-1"))).unwrap();
        assert_eq!((exec.kind, exec.record.action.as_str()), (Kind::Other, "exec_die"));
        assert_eq!(exec.record.attributes["execID"], "sh-1");
    }

    #[test]
    fn other_topics_and_broken_payloads_are_about_no_container() {
        let about = About { container_id: "web".into() };
        assert!(event(&envelope("/images/create", &about)).is_none());
        assert!(event(&envelope("/tasks/start", &About::default())).is_none());
        let mut broken = envelope("/tasks/start", &about);
        broken.event.as_mut().unwrap().value = vec![0xff; 9];
        assert!(event(&broken).is_none());
        assert!(event(&Envelope { timestamp: None, ..envelope("/tasks/start", &about) }).is_none());
    }
}
