use super::*;

const SECOND: u64 = 1_000_000;

fn event(action: &str, kind: Kind, time: u64) -> Event {
    let record = ContainerEvent {
        time,
        runtime: "docker".into(),
        container_id: "c1".into(),
        name: "web".into(),
        image: "nginx".into(),
        action: action.into(),
        ..ContainerEvent::default()
    };
    Event { time_ns: time as i64 * 1000, kind, record }
}

fn die(time: u64, exit_code: i32) -> Event {
    let mut event = event("die", Kind::Die, time);
    event.record.exit_code = Some(exit_code);
    event
}

fn create(time: u64) -> Event {
    event("create", Kind::Create, time)
}

fn start(time: u64) -> Event {
    event("start", Kind::Start, time)
}

fn destroy(time: u64) -> Event {
    event("destroy", Kind::Destroy, time)
}

fn container(started_at: u64) -> Container {
    Container {
        runtime: "docker".into(),
        container_id: "c1".into(),
        name: "web".into(),
        image: "nginx".into(),
        image_id: "sha256:1".into(),
        state: "running".into(),
        created_at: 1,
        started_at,
        ..Container::default()
    }
}

fn running(started_at: u64, address: u64) -> Inspected {
    let network = weir_proto::ContainerNetwork { ip_low: address, ..weir_proto::ContainerNetwork::default() };
    let container = Container { pid: 42, networks: vec![network], cgroup_id: 77, ..container(started_at) };
    Inspected { container, running: true, previous_finished_at: 0 }
}

fn exited(started_at: u64, finished_at: u64, exit_code: i32) -> Inspected {
    let container =
        Container { finished_at, exit_code: Some(exit_code), state: "exited".into(), ..container(started_at) };
    Inspected { container, running: false, previous_finished_at: 0 }
}

/// What the tests look at: statements and the names of everything else.
fn words(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Event(event) if event.attributes.contains_key(RECONSTRUCTED) => format!("~{}", event.action),
            Effect::Event(event) => event.action.clone(),
            Effect::Current(life) => format!("current {}-{} {}", life.started_at, life.finished_at, life.state),
            Effect::Past(life) => format!("past {}-{} {}", life.started_at, life.finished_at, life.state),
            Effect::Gone(life) => format!("gone {}-{} {}", life.started_at, life.finished_at, life.state),
            Effect::Inspect(_) => "inspect".to_owned(),
            Effect::InspectBeginning(_) => "inspect beginning".to_owned(),
            Effect::LeftOut(reason) => format!("left out: {reason}"),
        })
        .collect()
}

fn statement(effects: &[Effect]) -> &Container {
    let statements: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Current(life) | Effect::Past(life) | Effect::Gone(life) => Some(life),
            Effect::Event(_) | Effect::Inspect(_) | Effect::InspectBeginning(_) | Effect::LeftOut(_) => None,
        })
        .collect();
    assert_eq!(statements.len(), 1, "{effects:?}");
    statements[0]
}

/// A container whose life is known from the engine.
fn known() -> Lives {
    let mut lives = Lives::new("h");
    lives.earlier(Vec::new(), 0);
    lives.event(create(5), 5);
    lives.event(start(20), 20);
    lives.inspected(running(19, 7), Origin::Event, 21);
    lives
}

#[test]
fn a_life_is_stated_with_the_engines_own_start_and_end() {
    let mut lives = Lives::new("h");
    lives.earlier(Vec::new(), 0);
    assert_eq!(words(&lives.event(create(5), 5)), ["create"]);
    assert_eq!(words(&lives.event(start(20), 20)), ["start", "inspect"]);
    assert!(lives.running("c1").is_some(), "it can be sampled at once");
    let effects = lives.inspected(running(19, 7), Origin::Event, 21);
    assert_eq!(words(&effects), ["current 19-0 running"]);
    let life = statement(&effects);
    assert_eq!((life.host.as_str(), life.pid, life.cgroup_id, life.networks.len()), ("h", 42, 77, 1));

    let effects = lives.event(die(50, 3), 50);
    assert_eq!(words(&effects), ["die", "inspect", "current 19-50 exited"]);
    assert!(lives.running("c1").is_none());
    let effects = lives.inspected(exited(19, 49, 3), Origin::Event, 51);
    assert_eq!(words(&effects), ["current 19-49 exited"]);
    let life = statement(&effects);
    assert_eq!((life.exit_code, life.networks.len(), life.cgroup_id), (Some(3), 1, 77), "addresses outlive the end");

    assert_eq!(words(&lives.event(destroy(90), 90)), ["destroy", "gone 19-49 removed"]);
}

#[test]
fn an_instants_life_has_the_addresses_that_the_engine_told_before_its_end() {
    let joins = || event("network_connect", Kind::Network, 10);
    let addresses = |life: &Container| (life.started_at, life.networks.len(), life.cgroup_id);
    // The answer comes before the start is told, after it, and after the end.
    for place in 0..3 {
        let mut lives = Lives::new("h");
        lives.earlier(Vec::new(), 0);
        lives.event(create(5), 5);
        assert_eq!(words(&lives.event(joins(), 10)), ["network_connect", "inspect beginning"]);
        let answer = |lives: &mut Lives, now| {
            if now == place { lives.inspected(running(19, 7), Origin::Beginning, 21) } else { Vec::new() }
        };
        assert_eq!(answer(&mut lives, 0), [], "nothing to state before the start");
        lives.event(start(20), 20);
        answer(&mut lives, 1);
        lives.event(die(25, 0), 25);
        answer(&mut lives, 2);
        lives.inspected(exited(19, 24, 0), Origin::Event, 26);
        assert_eq!(words(&lives.event(event("network_disconnect", Kind::Network, 27), 27)), ["network_disconnect"]);
        let effects = lives.event(destroy(30), 30);
        assert_eq!(words(&effects), ["destroy", "gone 19-24 removed"]);
        assert_eq!(addresses(statement(&effects)), (19, 1, 77), "{place}");
    }
    // What was said of one life is not said of the next.
    let mut lives = known();
    lives.event(die(50, 0), 50);
    lives.inspected(exited(19, 50, 0), Origin::Event, 51);
    lives.inspected(running(60, 8), Origin::Beginning, 61);
    lives.event(start(62), 62);
    lives.event(die(63, 0), 63);
    let effects = lives.event(destroy(70), 70);
    let last = statement(&effects);
    assert_eq!((last.started_at, last.networks[0].ip_low), (60, 8));
    // One that does not run, and one that is not there.
    let mut lives = Lives::new("h");
    lives.event(create(5), 5);
    assert_eq!(lives.not_found("c1", Origin::Beginning, 6), []);
    lives.event(start(20), 20);
    assert!(lives.running("c1").is_some());
}

#[test]
fn a_life_too_short_to_be_inspected_is_stated_from_its_events() {
    let mut lives = Lives::new("h");
    lives.event(create(5), 5);
    lives.event(start(20), 20);
    lives.event(die(50, 3), 50);
    assert_eq!(words(&lives.not_found("c1", Origin::Event, 51)), ["current 20-50 exited"]);
    let effects = lives.event(destroy(60), 60);
    assert_eq!(words(&effects), ["destroy", "gone 20-50 removed"]);
    let life = statement(&effects);
    assert_eq!(
        (life.name.as_str(), life.image.as_str(), life.exit_code, life.created_at),
        ("web", "nginx", Some(3), 5)
    );
    // The answers that come late change nothing.
    assert_eq!(lives.not_found("c1", Origin::Event, 61), []);
    assert_eq!(lives.inspected(running(19, 7), Origin::Event, 61), []);
    assert_eq!(lives.inspected(running(19, 7), Origin::Reconciliation, 61), []);
}

#[test]
fn a_life_is_stated_even_when_no_answer_ever_came() {
    let mut lives = Lives::new("h");
    lives.event(start(20), 20);
    lives.event(die(50, 3), 50);
    assert_eq!(words(&lives.event(destroy(60), 60)), ["destroy", "gone 20-50 removed"]);
}

#[test]
fn each_start_is_a_life_of_its_own() {
    let mut lives = known();
    lives.event(die(50, 1), 50);
    let effects = lives.event(start(60), 60);
    assert_eq!(words(&effects), ["start", "inspect"]);
    // The question that the death asked is answered about the next life.
    let effects = lives.inspected(running(59, 8), Origin::Event, 61);
    assert_eq!(words(&effects), ["current 59-0 running"]);
    assert_eq!(statement(&effects).networks[0].ip_low, 8);
    assert_eq!(statement(&effects).exit_code, None);
}

#[test]
fn a_life_that_was_over_before_its_answer_came_is_stated_from_its_events() {
    let mut lives = Lives::new("h");
    lives.event(create(5), 5);
    lives.event(start(20), 20);
    lives.event(die(30, 1), 30);
    assert_eq!(words(&lives.event(start(40), 40)), ["start", "past 20-30 exited", "inspect"]);
    assert_eq!(words(&lives.inspected(running(39, 7), Origin::Event, 41)), ["current 39-0 running"]);
}

#[test]
fn an_answer_older_than_the_events_changes_no_phase() {
    let mut lives = known();
    lives.event(die(50, 1), 50);
    assert_eq!(words(&lives.inspected(running(19, 7), Origin::Event, 51)), [""; 0]);
    assert!(lives.running("c1").is_none());
    let mut lives = known();
    assert_eq!(words(&lives.inspected(exited(19, 49, 1), Origin::Event, 50)), [""; 0], "the death is on its way");
    assert!(lives.running("c1").is_some());
}

#[test]
fn changes_of_a_running_container_are_stated() {
    let mut lives = known();
    let mut rename = event("rename", Kind::Rename, 30);
    rename.record.name = "shop".into();
    assert_eq!(words(&lives.event(rename, 30)), ["rename", "inspect", "current 19-0 running"]);
    assert_eq!(lives.running("c1").unwrap().name, "shop");
    let effects = lives.event(event("health_status", Kind::Health("unhealthy".into()), 31), 31);
    assert_eq!(statement(&effects).health, "unhealthy");
    let effects = lives.event(event("pause", Kind::Pause, 32), 32);
    assert_eq!(statement(&effects).state, "paused");
    let effects = lives.event(event("network_connect", Kind::Network, 33), 33);
    assert_eq!(words(&effects), ["network_connect", "inspect"]);
    let effects = lives.event(event("oom", Kind::Oom, 34), 34);
    assert!(statement(&effects).oom_killed);
}

#[test]
fn statements_about_one_life_are_in_order_even_within_a_microsecond() {
    let mut lives = known();
    let first = statement(&lives.event(event("pause", Kind::Pause, 32), 50)).observed_at;
    let second = statement(&lives.event(event("unpause", Kind::Unpause, 33), 50)).observed_at;
    let third = statement(&lives.event(destroy(34), 10)).observed_at;
    assert!(first < second && second < third, "{first} {second} {third}");
}

#[test]
fn a_network_before_the_start_asks_about_the_beginning_and_what_happens_after_the_end_asks_nothing() {
    let mut lives = Lives::new("h");
    lives.event(create(5), 5);
    let connect = || event("network_connect", Kind::Network, 6);
    assert_eq!(words(&lives.event(connect(), 6)), ["network_connect", "inspect beginning"]);
    assert_eq!(words(&lives.event(event("network_disconnect", Kind::Network, 7), 7)), ["network_disconnect"]);
    let mut lives = known();
    lives.event(die(50, 0), 50);
    assert_eq!(words(&lives.event(event("network_disconnect", Kind::Network, 51), 51)), ["network_disconnect"]);
}

#[test]
fn a_container_that_never_started_is_stated_when_it_is_gone() {
    let mut lives = Lives::new("h");
    lives.event(create(5), 5);
    assert_eq!(words(&lives.event(destroy(9), 9)), ["destroy", "gone 0-0 removed"]);
}

#[test]
fn the_engines_list_gives_the_lives_of_what_was_there_before() {
    let mut lives = Lives::new("h");
    assert_eq!(words(&lives.inspected(running(19, 7), Origin::Reconciliation, 30)), ["current 19-0 running"]);
    // The event of its start may come yet.
    assert_eq!(words(&lives.event(start(20), 30)), ["start"]);
    // And the list again says nothing new.
    assert_eq!(words(&lives.inspected(running(19, 7), Origin::Reconciliation, 40)), [""; 0]);
}

#[test]
fn an_end_that_was_missed_is_closed_from_the_engine_and_told_once() {
    let mut lives = known();
    let mut ended = exited(19, 45, 137);
    ended.container.oom_killed = true;
    let effects = lives.inspected(ended.clone(), Origin::Reconciliation, 60);
    assert_eq!(words(&effects), ["~die", "current 19-45 exited"]);
    let life = statement(&effects);
    assert_eq!((life.exit_code, life.oom_killed, life.networks.len()), (Some(137), true, 1));
    assert_eq!(words(&lives.event(die(46, 137), 61)), ["left out: reconstructed"]);
    assert_eq!(words(&lives.inspected(ended, Origin::Reconciliation, 62)), [""; 0]);
}

#[test]
fn an_end_that_was_repeated_before_the_list_came_is_told_once() {
    let mut lives = known();
    assert_eq!(words(&lives.event(die(46, 137), 60)), ["die", "inspect", "current 19-46 exited"]);
    assert_eq!(words(&lives.inspected(exited(19, 45, 137), Origin::Reconciliation, 61)), ["current 19-45 exited"]);
}

#[test]
fn a_restart_that_was_missed_closes_one_life_and_begins_another() {
    let mut lives = known();
    let restarted = Inspected { previous_finished_at: 44, ..running(50, 9) };
    let effects = lives.inspected(restarted, Origin::Reconciliation, 60);
    assert_eq!(words(&effects), ["~die", "past 19-44 exited", "~start", "current 50-0 running"]);
    assert_eq!(words(&lives.event(die(45, 0), 61)), ["left out: reconstructed"]);
    assert_eq!(words(&lives.event(start(51), 62)), ["left out: reconstructed"]);
    assert_eq!(lives.running("c1").unwrap().networks[0].ip_low, 9);
    assert_eq!(words(&lives.event(die(70, 0), 70)), ["die", "inspect", "current 50-70 exited"], "the next end is real");
}

#[test]
fn a_container_that_the_engine_forgot_is_gone() {
    let mut lives = known();
    let effects = lives.not_found("c1", Origin::Reconciliation, 60);
    assert_eq!(words(&effects), ["~destroy", "gone 19-60 removed"]);
    assert_eq!(words(&lives.event(destroy(59), 61)), ["left out: reconstructed"]);
}

#[test]
fn what_an_earlier_process_knew_is_not_lost_with_it() {
    let stated = Container {
        networks: running(19, 7).container.networks,
        cgroup_id: 77,
        pid: 42,
        host: "h".into(),
        ..exited(19, 45, 1).container
    };
    let mut lives = Lives::new("h");
    let found = lives.inspected(exited(19, 45, 1), Origin::Reconciliation, 90);
    assert_eq!(words(&found), [""; 0], "the engine forgot its addresses: wait for who knows them");
    assert_eq!(words(&lives.earlier(vec![stated], 91)), [""; 0], "all of it was said before");
}

#[test]
fn lives_that_ended_while_nobody_watched_are_closed() {
    let earlier = |id: &str| Container { container_id: id.into(), ..running(19, 7).container };
    let mut lives = Lives::new("h");
    lives.inspected(exited(19, 45, 1), Origin::Reconciliation, 90);
    let effects = lives.earlier(vec![earlier("c1"), earlier("c2")], 91);
    assert_eq!(words(&effects), ["gone 19-91 removed", "current 19-45 exited"]);
    let mut lives = Lives::new("h");
    lives.inspected(Inspected { previous_finished_at: 44, ..running(50, 9) }, Origin::Reconciliation, 90);
    assert_eq!(words(&lives.earlier(vec![earlier("c1")], 91)), ["past 19-44 exited"]);
}

#[test]
fn an_end_that_this_process_saw_closes_the_life_that_an_earlier_one_saw() {
    let mut lives = Lives::new("h");
    assert_eq!(words(&lives.event(die(45, 9), 90)), ["die", "inspect"]);
    assert_eq!(words(&lives.event(destroy(46), 90)), ["destroy"]);
    let effects = lives.earlier(vec![running(19, 7).container], 91);
    assert_eq!(words(&effects), ["gone 19-45 removed"]);
    assert_eq!((statement(&effects).exit_code, statement(&effects).networks.len()), (Some(9), 1));
    assert_eq!(words(&lives.event(die(95, 9), 96)), ["die"]);
}

#[test]
fn an_end_whose_beginning_nobody_saw_is_told_once() {
    for origin in [Origin::Event, Origin::Reconciliation] {
        let mut lives = Lives::new("h");
        lives.earlier(Vec::new(), 0);
        assert_eq!(words(&lives.event(die(45, 9), 90)), ["die", "inspect"]);
        assert_eq!(words(&lives.inspected(exited(19, 44, 9), origin, 91)), ["current 19-44 exited"]);
    }
}

#[test]
fn events_of_containers_that_are_not_known_yet_are_told_as_they_are() {
    let mut lives = Lives::new("h");
    assert_eq!(words(&lives.event(event("exec_start", Kind::Other, 9), 9)), ["exec_start"]);
    assert_eq!(words(&lives.event(destroy(10), 10)), ["destroy"]);
    assert!(lives.ids().is_empty());
}

#[test]
fn memory_of_what_is_gone_is_bounded() {
    let mut lives = Lives::new("h");
    for i in 0..5000 {
        let mut create = create(i);
        create.record.container_id = format!("c{i}");
        let mut destroy = destroy(i + SECOND);
        destroy.record.container_id = format!("c{i}");
        lives.event(create, i);
        lives.event(destroy, i);
    }
    assert_eq!((lives.gone.len(), lives.tracked.len()), (REMEMBERED, 0));
}

#[test]
fn a_container_that_was_made_in_a_gap_has_its_events_once() {
    let mut lives = Lives::new("h");
    lives.gap_from(5 * SECOND);
    let made = Inspected {
        container: Container { created_at: 6 * SECOND, ..container(7 * SECOND) },
        running: true,
        previous_finished_at: 0,
    };
    let effects = lives.inspected(made, Origin::Reconciliation, 10 * SECOND);
    let told: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Event(event) => {
                Some((event.action.as_str(), event.time, event.attributes.contains_key(RECONSTRUCTED)))
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [("create", 6 * SECOND, true), ("start", 7 * SECOND, true)]);
    lives.gap_is_closed();
    for late in [create(6 * SECOND), start(7 * SECOND)] {
        assert_eq!(lives.event(late, 11 * SECOND), [Effect::LeftOut("reconstructed")]);
    }
    // One that was there before is no news, and without a session before nothing is.
    for (gap, created_at) in [(5 * SECOND, 4 * SECOND), (0, 6 * SECOND)] {
        let mut lives = Lives::new("h");
        lives.gap_from(gap);
        let found = Inspected {
            container: Container { created_at, ..container(created_at + 1) },
            running: true,
            previous_finished_at: 0,
        };
        let effects = lives.inspected(found, Origin::Reconciliation, 10 * SECOND);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Event(_))), "{effects:?}");
    }
}

#[test]
fn what_changed_within_a_life_in_a_gap_is_told_once() {
    let mut lives = Lives::new("h");
    lives.event(create(SECOND), SECOND);
    lives.event(start(2 * SECOND), 2 * SECOND);
    lives.inspected(running(2 * SECOND, 5), Origin::Event, 3 * SECOND);
    let paused = || {
        let mut inspected = running(2 * SECOND, 5);
        inspected.container.state = "paused".into();
        inspected.container.name = "front".into();
        inspected
    };
    let actions = |effects: &[Effect]| -> Vec<String> {
        let action = |effect: &Effect| match effect {
            Effect::Event(event) => Some(event.action.clone()),
            _ => None,
        };
        effects.iter().filter_map(action).collect()
    };
    lives.gap_from(3 * SECOND);
    let effects = lives.inspected(paused(), Origin::Reconciliation, 10 * SECOND);
    assert_eq!(actions(&effects), ["rename", "pause"]);
    assert!(actions(&lives.inspected(paused(), Origin::Reconciliation, 11 * SECOND)).is_empty());
    lives.gap_is_closed();
    assert_eq!(lives.event(event("pause", Kind::Pause, 9 * SECOND), 12 * SECOND), [Effect::LeftOut("reconstructed")]);
    assert_eq!(actions(&lives.event(event("unpause", Kind::Unpause, 12 * SECOND), 12 * SECOND)), ["unpause"]);
    assert_eq!(actions(&lives.event(event("pause", Kind::Pause, 13 * SECOND), 13 * SECOND)), ["pause"]);
}

#[test]
fn a_clock_that_is_set_back_loses_no_end_and_no_beginning() {
    let mut lives = known();
    // The container began at 20; then the clock was set back to 7.
    assert_eq!(words(&lives.event(die(10, 1), 10)), ["die", "inspect", "current 19-19 exited"]);
    assert!(lives.running("c1").is_none());
    lives.inspected(exited(19, 19, 1), Origin::Event, 11);
    assert_eq!(words(&lives.event(start(12), 12)), ["start", "inspect"]);
    assert!(lives.running("c1").is_some());
    assert_eq!(words(&lives.inspected(running(12, 9), Origin::Event, 13)), ["current 12-0 running"]);
    // And set forward.
    let effects = lives.event(die(90 * SECOND, 2), 90 * SECOND);
    assert_eq!(words(&effects)[2..], [format!("current 12-{} exited", 90 * SECOND)]);
}
