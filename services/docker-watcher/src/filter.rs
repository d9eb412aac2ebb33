//! Which containers are watched.

use std::{collections::HashMap, str::FromStr};

use weir_proto::{Container, ContainerEvent};

use crate::lives::Effect;

/// The label by which a container says itself whether it is watched: `true` or `false`.
pub const LABEL: &str = "weir.enable";

/// Which containers are watched.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which containers")]
#[group(id = "container-filter")]
pub struct Options {
    /// Watch only containers that fit: `label=KEY`, `label=KEY=VALUE`, `name=`, `image=`, `network=`, `state=`, `project=` (of compose), with
    /// `*` for anything. Of several of one kind one must fit, of each kind one
    #[arg(long, env = "WEIR_CONTAINERS_INCLUDE", value_name = "TERM", value_delimiter = ',')]
    pub include: Vec<Term>,
    /// Do not watch containers that fit any of these
    #[arg(long, env = "WEIR_CONTAINERS_EXCLUDE", value_name = "TERM", value_delimiter = ',')]
    pub exclude: Vec<Term>,
    /// Watch only containers with the label weir.enable=true; without this option all but those with weir.enable=false
    #[arg(long, env = "WEIR_CONTAINERS_OPT_IN")]
    pub opt_in: bool,
}

/// Something that a container can be chosen by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    kind: Kind,
    pattern: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Label,
    Name,
    Image,
    Network,
    State,
    Project,
}

/// A term that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("not label=, name=, image=, network=, state= or project= and a value")]
pub struct NoTerm;

impl FromStr for Term {
    type Err = NoTerm;

    fn from_str(text: &str) -> Result<Self, NoTerm> {
        let (kind, pattern) = text.trim().split_once('=').ok_or(NoTerm)?;
        let kind = match kind {
            "label" => Kind::Label,
            "name" => Kind::Name,
            "image" => Kind::Image,
            "network" => Kind::Network,
            "state" => Kind::State,
            "project" => Kind::Project,
            _ => return Err(NoTerm),
        };
        if pattern.is_empty() { Err(NoTerm) } else { Ok(Self { kind, pattern: pattern.to_owned() }) }
    }
}

impl Term {
    /// Whether a container fits. `None` = an event does not tell.
    fn fits(&self, container: &Container, is_event: bool) -> Option<bool> {
        let labels = &container.labels;
        Some(match self.kind {
            Kind::Name => matches(&self.pattern, &container.name),
            Kind::Image => matches(&self.pattern, &container.image),
            Kind::Network | Kind::State if is_event => return None,
            Kind::State => matches(&self.pattern, &container.state),
            Kind::Network => {
                (container.host_network && matches(&self.pattern, "host"))
                    || container.networks.iter().any(|network| {
                        matches(&self.pattern, &network.name) || matches(&self.pattern, &network.network_id)
                    })
            }
            Kind::Label => labels.iter().any(|(key, value)| match self.pattern.split_once('=') {
                Some((wanted, pattern)) => matches(wanted, key) && matches(pattern, value),
                None => matches(&self.pattern, key),
            }),
            Kind::Project => ["com.docker.compose.project", "io.podman.compose.project"]
                .iter()
                .filter_map(|key| labels.get(*key))
                .any(|project| matches(&self.pattern, project)),
        })
    }
}

impl Options {
    /// Whether a container is watched.
    #[must_use]
    pub fn accepts(&self, container: &Container) -> bool {
        self.decide(container, false)
    }

    /// The same of what an event tells; what it does not tell decides nothing.
    fn accepts_event(&self, event: &ContainerEvent) -> bool {
        let container = Container {
            name: event.name.clone(),
            image: event.image.clone(),
            labels: event.labels.clone(),
            ..Container::default()
        };
        self.decide(&container, true)
    }

    fn decide(&self, container: &Container, is_event: bool) -> bool {
        let own = container.labels.get(LABEL).map(|value| value.trim().to_ascii_lowercase());
        match own.as_deref() {
            Some("false") => return false,
            Some("true") => {}
            _ if self.opt_in => return false,
            _ => {}
        }
        if self.exclude.iter().any(|term| term.fits(container, is_event) == Some(true)) {
            return false;
        }
        self.include.iter().all(|term| {
            let mut alike = self.include.iter().filter(|other| other.kind == term.kind);
            alike.any(|other| other.fits(container, is_event) != Some(false))
        })
    }
}

/// Whether a text fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(before) = last.replace(part) {
            let Some(at) = rest.find(before) else { return false };
            rest = &rest[at + before.len()..];
        }
    }
    match last {
        Some(end) => rest.ends_with(end),
        None => rest.is_empty(),
    }
}

/// What is to become of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It is done.
    Take,
    /// It is of a container that is not watched.
    Leave,
    /// The same, and the identity of its container is to go.
    Forget,
}

/// Remembers which containers are watched, for events, which tell little.
#[derive(Debug, Default)]
pub struct Chooser {
    options: Options,
    decided: HashMap<String, bool>,
}

impl Chooser {
    /// Chooses by these options.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options, decided: HashMap::new() }
    }

    /// Whether a container is watched.
    #[must_use]
    pub fn accepts(&self, container: &Container) -> bool {
        self.options.accepts(container)
    }

    /// Decides about an effect.
    pub fn choose(&mut self, effect: &Effect) -> Choice {
        let take = |accepted| if accepted { Choice::Take } else { Choice::Leave };
        match effect {
            Effect::Inspect(_) | Effect::InspectBeginning(_) | Effect::LeftOut(_) => Choice::Take,
            // An image or a volume.
            Effect::Event(event) if event.container_id.is_empty() => Choice::Take,
            Effect::Event(event) => {
                let decided = self.decided.get(&event.container_id).copied();
                take(decided.unwrap_or_else(|| self.options.accepts_event(event)))
            }
            Effect::Current(container) => {
                let accepted = self.options.accepts(container);
                match (accepted, self.decided.insert(container.container_id.clone(), accepted)) {
                    (true, _) => Choice::Take,
                    (false, Some(false)) => Choice::Leave,
                    (false, _) => Choice::Forget,
                }
            }
            Effect::Past(container) => take(self.options.accepts(container)),
            Effect::Gone(container) => {
                let decided = self.decided.remove(&container.container_id);
                // One that was watched has its end told, whatever its state is now.
                let accepted = decided.unwrap_or_else(|| self.options.accepts(container));
                if accepted { Choice::Take } else { Choice::Forget }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_proto::ContainerNetwork;

    use super::*;

    fn container(name: &str, labels: &[(&str, &str)]) -> Container {
        Container {
            container_id: name.into(),
            name: name.into(),
            image: "registry.example/shop:1".into(),
            state: "running".into(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            networks: vec![ContainerNetwork { name: "front".into(), ..ContainerNetwork::default() }],
            ..Container::default()
        }
    }

    fn options(include: &[&str], exclude: &[&str]) -> Options {
        let terms = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Options { include: terms(include), exclude: terms(exclude), opt_in: false }
    }

    #[test]
    fn a_pattern_fits_as_a_whole() {
        for (pattern, text, fits) in [
            ("web", "web", true),
            ("web", "web-1", false),
            ("web*", "web-1", true),
            ("*-1", "web-1", true),
            ("w*b*1", "web-b-1", true),
            ("w*b*1", "we-1", false),
            ("*", "", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn of_each_kind_one_term_must_fit() {
        let web = container("web", &[("team", "a"), ("com.docker.compose.project", "shop")]);
        for (include, exclude, accepted) in [
            (&[][..], &[][..], true),
            (&["name=web", "name=db"], &[], true),
            (&["name=web", "label=team=b"], &[], false),
            (&["label=team", "network=front", "state=running", "project=shop", "image=*/shop:*"], &[], true),
            (&["project=other"], &[], false),
            (&[], &["name=w*"], false),
            (&["name=web"], &["label=team=a"], false),
        ] {
            assert_eq!(options(include, exclude).accepts(&web), accepted, "{include:?} {exclude:?}");
        }
        for bad in ["web", "colour=red", "name="] {
            assert!(bad.parse::<Term>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_container_says_itself_whether_it_is_watched() {
        let all = Options::default();
        let opt_in = Options { opt_in: true, ..Options::default() };
        for (value, by_default, opted_in) in [("true", true, true), ("False", false, false), ("maybe", true, false)] {
            let container = container("web", &[(LABEL, value)]);
            assert_eq!((all.accepts(&container), opt_in.accepts(&container)), (by_default, opted_in), "{value}");
        }
        assert!(!opt_in.accepts(&container("web", &[])));
    }

    #[test]
    fn events_follow_what_was_decided_and_identities_go_with_it() {
        let mut chooser = Chooser::new(options(&["network=front"], &["name=secret"]));
        let event = |id: &str| ContainerEvent { container_id: id.into(), name: id.into(), ..ContainerEvent::default() };
        assert_eq!(chooser.choose(&Effect::Event(event("web"))), Choice::Take, "its network is not known yet");
        assert_eq!(chooser.choose(&Effect::Event(event("secret"))), Choice::Leave);
        let lonely = Container { networks: Vec::new(), ..container("web", &[]) };
        assert_eq!(chooser.choose(&Effect::Current(lonely.clone())), Choice::Forget);
        assert_eq!(chooser.choose(&Effect::Current(lonely.clone())), Choice::Leave);
        assert_eq!(chooser.choose(&Effect::Event(event("web"))), Choice::Leave);
        assert_eq!(chooser.choose(&Effect::Current(container("web", &[]))), Choice::Take);
        assert_eq!(chooser.choose(&Effect::Event(event("web"))), Choice::Take);
        assert_eq!(chooser.choose(&Effect::Gone(lonely)), Choice::Take);
        assert!(chooser.decided.is_empty());
        assert_eq!(chooser.choose(&Effect::Event(event(""))), Choice::Take, "an image");
    }
}
