//! Where in the engine's events this process is, so that a connection that comes back misses none and repeats none.
//!
//! The engine keeps its last 256 events and sends them again from a given time on. Times are not unique and hardly ordered, so a follower asks
//! from a little before the latest it has, and leaves out what it knows.

use std::{
    collections::{HashSet, VecDeque},
    fs, io,
    path::Path,
};

use crate::lives::Event;

/// How many events are known by name: twice what the engine repeats.
const KNOWN: usize = 512;
/// How far events may be out of order.
const SLACK_NS: i64 = 1_000_000_000;

/// The name of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    time_ns: i64,
    /// Container and action on one line.
    what: String,
}

impl Mark {
    /// The name of this one.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let what: String = format!("{} {}", event.record.container_id, event.record.action)
            .chars()
            .map(|character| if character.is_control() { ' ' } else { character })
            .collect();
        // What it is about is part of the name: a container can join two networks at a time, and images and volumes are of no container.
        let about = ["network_id", "image_id", "volume"].iter().find_map(|key| event.record.attributes.get(*key));
        let about: String = about.into_iter().flat_map(|about| about.chars()).filter(|c| !c.is_control()).collect();
        Self { time_ns: event.time_ns, what: format!("{what} {about}").trim_end().to_owned() }
    }
}

/// The events that were seen.
#[derive(Clone, Debug, Default)]
pub struct Position {
    order: VecDeque<Mark>,
    known: HashSet<Mark>,
    latest_ns: i64,
    /// Nothing before this is asked for.
    floor_ns: i64,
}

impl Position {
    /// Reads what an earlier process wrote; a file that is not there is the beginning, and so is what cannot be understood.
    pub fn load(path: &Path) -> io::Result<Self> {
        let mut position = Self::default();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        for line in text.lines() {
            if let Some((time, what)) = line.split_once(' ')
                && let Ok(time_ns) = time.parse()
            {
                position.see(Mark { time_ns, what: what.to_owned() });
            }
        }
        Ok(position)
    }

    /// Writes it, whole or not at all.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        use std::fmt::Write as _;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut text = String::new();
        for Mark { time_ns, what } in &self.order {
            // Writing to a String cannot fail.
            let _written = writeln!(text, "{time_ns} {what}");
        }
        let part = path.with_extension("part");
        fs::write(&part, text)?;
        fs::rename(&part, path)
    }

    /// Takes note of an event. Returns whether it is new.
    pub fn see(&mut self, mark: Mark) -> bool {
        if !self.known.insert(mark.clone()) {
            return false;
        }
        self.latest_ns = self.latest_ns.max(mark.time_ns);
        self.order.push_back(mark);
        if self.order.len() > KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    /// From when on to ask for events; `None` = at the beginning.
    #[must_use]
    pub fn since_ns(&self) -> Option<i64> {
        let since = (self.latest_ns - SLACK_NS).max(self.floor_ns);
        (since > 0).then_some(since)
    }

    /// The latest event that was seen, nanoseconds since 1970; 0 = none.
    #[must_use]
    pub fn latest_ns(&self) -> i64 {
        self.latest_ns
    }

    /// Gives up what is before `time_ns`: there is an event that cannot be read, and asking again would give it again.
    pub fn skip_to(&mut self, time_ns: i64) {
        self.floor_ns = time_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(time_ns: i64, what: &str) -> Mark {
        Mark { time_ns, what: what.to_owned() }
    }

    #[test]
    fn what_was_seen_is_known_also_to_the_next_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep").join("events");
        let mut position = Position::load(&path).unwrap();
        assert_eq!(position.since_ns(), None);
        assert!(position.see(mark(5_000_000_000, "af1c start")));
        assert!(position.see(mark(4_999_999_999, "af1c network_connect 45bf")));
        position.save(&path).unwrap();

        let mut position = Position::load(&path).unwrap();
        assert_eq!(position.since_ns(), Some(4_000_000_000));
        assert!(!position.see(mark(4_999_999_999, "af1c network_connect 45bf")));
        assert!(!position.see(mark(5_000_000_000, "af1c start")));
        assert!(position.see(mark(5_000_000_000, "af1c die")));
    }

    #[test]
    fn memory_is_bounded() {
        let mut position = Position::default();
        for time in 0..10_000 {
            position.see(mark(time, "x"));
        }
        assert_eq!((position.order.len(), position.known.len()), (KNOWN, KNOWN));
        assert!(!position.see(mark(9_999, "x")));
    }

    #[test]
    fn an_event_that_cannot_be_read_is_not_asked_for_for_ever() {
        let mut position = Position::default();
        position.see(mark(5_000_000_000, "x"));
        position.skip_to(7_000_000_000);
        assert_eq!(position.since_ns(), Some(7_000_000_000));
    }

    #[test]
    fn a_damaged_file_is_the_beginning() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "no time\n\n12").unwrap();
        assert_eq!(Position::load(file.path()).unwrap().since_ns(), None);
    }
}
