//! Every event in every state, a row each.

use super::*;

fn state_name(service: &Service) -> &'static str {
    match service.state {
        State::Down { start_at: None } => "down",
        State::Down { start_at: Some(_) } => "waiting",
        State::Preparing => "preparing",
        State::Starting => "starting",
        State::Running { .. } => "running",
        State::Ended { .. } => "ended",
        State::Finishing { .. } => "finishing",
        State::Finish { .. } => "finish",
        State::Done => "done",
    }
}

/// A service brought into a state by the events that lead there.
pub(super) fn service_in(state: &str) -> Service {
    let mut service = Service::new(Role::Main, Want::Down);
    let up = [command('u'), Event::Control { handled: false }, Event::Started { pid: 7 }];
    let end = Event::Ended(Exit::Code(3));
    let events: Vec<Event> = match state {
        "down" => vec![],
        "waiting" => [&up[..], &[end, Event::NoFinish]].concat(),
        "preparing" => up[..1].to_vec(),
        "starting" => up[..2].to_vec(),
        "running" => up.to_vec(),
        "ended" => [&up[..], &[command('h'), end]].concat(),
        "finishing" => [&up[..], &[end]].concat(),
        "finish" => [&up[..], &[end, Event::Started { pid: 8 }]].concat(),
        "done" => vec![command('x')],
        other => panic!("{other}"),
    };
    for event in events {
        service.step(LATER, event);
    }
    assert_eq!(state_name(&service), state);
    service
}

/// State, events with the same answer, state after, actions.
const TABLE: &[(&str, &str, &str, &str)] = &[
    ("down", "u", "preparing", "save control/u"),
    ("down", "o", "preparing", "save control/u"),
    ("down", "d", "down", "save put-off"),
    ("down", "again", "preparing", "control/u"),
    ("down", "x", "done", "save done"),
    ("down", "p c", "down", "save"),
    (
        "down",
        "t k h a i q 1 2 started exec-failed fork-failed no-finish ended handled refused settings ready input-ended tick",
        "down",
        "",
    ),
    // The second of a service that ended by itself: obeyed at once, and never deaf.
    ("waiting", "u o", "preparing", "save control/u"),
    ("waiting", "d", "down", "save put-off"),
    ("waiting", "x", "done", "save done"),
    ("waiting", "p c", "waiting", "save"),
    (
        "waiting",
        "t k h a i q 1 2 started exec-failed fork-failed no-finish ended handled refused settings again ready input-ended tick",
        "waiting",
        "",
    ),
    // control/u runs: what comes is queued.
    (
        "preparing",
        "u o d x p c t k h a i q 1 2 started exec-failed fork-failed no-finish ended settings again ready input-ended tick",
        "preparing",
        "",
    ),
    ("preparing", "handled refused", "starting", "run"),
    (
        "starting",
        "u o d x p c t k h a i q 1 2 no-finish ended handled refused settings again ready input-ended tick",
        "starting",
        "",
    ),
    ("starting", "started", "running", "stamp save"),
    ("starting", "exec-failed", "finishing", "stamp finish(111,0)"),
    ("starting", "fork-failed", "waiting", ""),
    ("running", "u o", "running", "save"),
    ("running", "d", "running", "save put-off control/t"),
    ("running", "x", "running", "save control/t"),
    ("running", "t", "running", "control/t"),
    ("running", "k", "running", "control/k"),
    ("running", "p", "running", "control/p"),
    ("running", "c", "running", "control/c"),
    ("running", "h", "running", "control/h"),
    ("running", "a", "running", "control/a"),
    ("running", "i", "running", "control/i"),
    ("running", "q", "running", "control/q"),
    ("running", "1", "running", "control/1"),
    ("running", "2", "running", "control/2"),
    (
        "running",
        "started exec-failed fork-failed no-finish handled refused settings again input-ended tick",
        "running",
        "",
    ),
    ("running", "ready", "running", "save"),
    ("running", "ended", "finishing", "finish(3,0)"),
    // ./run has ended while control/h runs: ./finish waits for that.
    (
        "ended",
        "u o d x p c t k h a i q 1 2 started exec-failed fork-failed no-finish ended settings again ready input-ended tick",
        "ended",
        "",
    ),
    ("ended", "handled refused", "finishing", "finish(3,0)"),
    (
        "finishing",
        "u o d x p c t k h a i q 1 2 ended handled refused settings again ready input-ended tick",
        "finishing",
        "",
    ),
    ("finishing", "started", "finish", "save"),
    ("finishing", "exec-failed no-finish", "waiting", "stamp save"),
    ("finishing", "fork-failed", "ended", ""),
    // ./finish gets no signal.
    ("finish", "u o x p c", "finish", "save"),
    ("finish", "d", "finish", "save put-off"),
    (
        "finish",
        "t k h a i q 1 2 started exec-failed fork-failed no-finish handled refused settings again ready input-ended tick",
        "finish",
        "",
    ),
    ("finish", "ended", "waiting", "stamp save"),
    (
        "done",
        "u o d x p c t k h a i q 1 2 started exec-failed fork-failed no-finish ended handled refused settings again ready input-ended tick",
        "done",
        "",
    ),
];

fn event_named(name: &str) -> Event {
    match name {
        "started" => Event::Started { pid: 9 },
        "exec-failed" => Event::ExecFailed,
        "fork-failed" => Event::ForkFailed,
        "no-finish" => Event::NoFinish,
        "ended" => Event::Ended(Exit::Code(3)),
        "handled" => Event::Control { handled: true },
        "refused" => Event::Control { handled: false },
        "settings" => Event::Settings(Settings::default()),
        "again" => Event::Again(Some(LATER)),
        "ready" => Event::Ready,
        "input-ended" => Event::InputEnded { held: false },
        "tick" => Event::Tick,
        letter => command(letter.chars().next().unwrap()),
    }
}

const EVENTS: [&str; 26] = [
    "u",
    "o",
    "d",
    "x",
    "p",
    "c",
    "t",
    "k",
    "h",
    "a",
    "i",
    "q",
    "1",
    "2",
    "started",
    "exec-failed",
    "fork-failed",
    "no-finish",
    "ended",
    "handled",
    "refused",
    "settings",
    "again",
    "ready",
    "input-ended",
    "tick",
];

#[test]
fn every_state_answers_every_event() {
    for state in ["down", "waiting", "preparing", "starting", "running", "ended", "finishing", "finish", "done"] {
        for event in EVENTS {
            let rows: Vec<_> =
                TABLE.iter().filter(|row| row.0 == state && row.1.split(' ').any(|e| e == event)).collect();
            let [(_, _, after, actions)] = rows.as_slice() else { panic!("{} rows for {state}, {event}", rows.len()) };
            let mut service = service_in(state);
            let done = service.step(LATER, event_named(event));
            assert_eq!((state_name(&service), words(&done).as_str()), (*after, *actions), "{state}, {event}");
        }
    }
}
