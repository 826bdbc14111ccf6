//! Tables and simulated time for the machine.

use super::*;
use Action::{DampingBegins, DampingEnds, Demote, Exit, LastScript, Restore, ServicesDown, ServicesUp, Withdraw};
use Verdict::{Down, Up};

const LINK_UP: Event = Event::Link(Up);
const LINK_DOWN: Event = Event::Link(Down);

/// The seed's delays: -u8 -d8, with a program.
fn script() -> Config {
    Config {
        up_delay: Duration::from_secs(8),
        down_delay: Duration::from_secs(8),
        longest_hold: Duration::ZERO,
        script: true,
        services: false,
        at_start: true,
        initial_down: false,
        at_stop: true,
        ignore_failure: false,
    }
}

fn services() -> Config {
    Config { script: false, services: true, ..script() }
}

fn tell(current: Verdict, previous: Option<Verdict>) -> Action {
    Action::Script { current, previous }
}

/// One line per action: the time in seconds at which it came, by deadline or by event.
fn play(config: Config, story: &[(f64, Event)]) -> Vec<(f64, Action)> {
    let mut machine = Debounce::new(config);
    let mut out = Vec::new();
    let mut note = |at: Duration, actions: Vec<Action>| out.extend(actions.into_iter().map(|a| (at.as_secs_f64(), a)));
    for (at, event) in story {
        let at = Duration::from_secs_f64(*at);
        while let Some(deadline) = machine.deadline().filter(|d| *d < at) {
            note(deadline, machine.step(deadline, Event::Tick));
        }
        note(at, machine.step(at, *event));
    }
    while let Some(deadline) = machine.deadline() {
        note(deadline, machine.step(deadline, Event::Tick));
    }
    out
}

struct Row {
    what: &'static str,
    config: Config,
    story: Vec<(f64, Event)>,
    want: Vec<(f64, Action)>,
}

fn check(rows: Vec<Row>) {
    for row in rows {
        assert_eq!(play(row.config, &row.story), row.want, "{}", row.what);
    }
}

const STOP: Event = Event::Stop;
const DONE: Event = Event::ScriptDone { ok: true };

#[test]
fn a_program_is_told_what_lasted() {
    check(vec![
        Row {
            what: "up at the start: at once, whatever -u says",
            config: script(),
            story: vec![(0.0, LINK_UP)],
            want: vec![(0.0, tell(Up, None))],
        },
        Row { what: "down at the start: not told", config: script(), story: vec![(0.0, LINK_DOWN)], want: vec![] },
        Row {
            what: "down at the start with -l: told",
            config: Config { initial_down: true, ..script() },
            story: vec![(0.0, LINK_DOWN)],
            want: vec![(0.0, tell(Down, None))],
        },
        Row {
            what: "-p: nothing at the start",
            config: Config { at_start: false, ..script() },
            story: vec![(0.0, LINK_UP), (1.0, LINK_DOWN)],
            want: vec![(9.0, tell(Down, Some(Up)))],
        },
        Row {
            what: "-p -l: told of a link that is up",
            config: Config { at_start: false, initial_down: true, ..script() },
            story: vec![(0.0, LINK_UP)],
            want: vec![(0.0, tell(Up, None))],
        },
        Row {
            what: "-p -l: and of one that is down",
            config: Config { at_start: false, initial_down: true, ..script() },
            story: vec![(0.0, LINK_DOWN)],
            want: vec![(0.0, tell(Down, None))],
        },
        Row {
            what: "down at the start, then plugged in",
            config: script(),
            story: vec![(0.0, LINK_DOWN), (1.0, LINK_UP)],
            want: vec![(9.0, tell(Up, Some(Down)))],
        },
        Row {
            what: "pulled for good",
            config: script(),
            story: vec![(0.0, LINK_UP), (0.1, DONE), (2.0, LINK_DOWN)],
            want: vec![(0.0, tell(Up, None)), (10.0, tell(Down, Some(Up)))],
        },
        Row {
            what: "a flap back cancels",
            config: script(),
            story: vec![(0.0, LINK_UP), (0.1, DONE), (2.0, LINK_DOWN), (9.9, LINK_UP)],
            want: vec![(0.0, tell(Up, None))],
        },
        Row {
            what: "a short visit is not told",
            config: script(),
            story: vec![(0.0, LINK_DOWN), (1.0, LINK_UP), (8.9, LINK_DOWN)],
            want: vec![],
        },
        Row {
            what: "a flapping link starts its delay anew each time",
            config: script(),
            story: vec![(0.0, LINK_DOWN), (1.0, LINK_UP), (2.0, LINK_DOWN), (3.0, LINK_UP)],
            want: vec![(11.0, tell(Up, Some(Down)))],
        },
        Row {
            what: "no delays: in the same step",
            config: Config { up_delay: Duration::ZERO, down_delay: Duration::ZERO, ..script() },
            story: vec![(0.0, LINK_UP), (0.1, DONE), (2.0, LINK_DOWN), (2.1, DONE), (3.0, LINK_UP)],
            want: vec![(0.0, tell(Up, None)), (2.0, tell(Down, Some(Up))), (3.0, tell(Up, Some(Down)))],
        },
    ]);
}

#[test]
fn one_program_at_a_time_and_the_outcome_after_it() {
    let quick = Config { up_delay: Duration::ZERO, down_delay: Duration::ZERO, ..script() };
    check(vec![
        Row {
            what: "what changed meanwhile is told when it has ended",
            config: quick,
            story: vec![(0.0, LINK_UP), (1.0, LINK_DOWN), (5.0, DONE)],
            want: vec![(0.0, tell(Up, None)), (5.0, tell(Down, Some(Up)))],
        },
        Row {
            what: "what changed back is not",
            config: quick,
            story: vec![(0.0, LINK_UP), (1.0, LINK_DOWN), (2.0, LINK_UP), (5.0, DONE)],
            want: vec![(0.0, tell(Up, None))],
        },
        Row {
            what: "its failure ends the daemon with 1",
            config: quick,
            story: vec![(0.0, LINK_UP), (1.0, Event::ScriptDone { ok: false })],
            want: vec![(0.0, tell(Up, None)), (1.0, Exit(1))],
        },
        Row {
            what: "unless -I",
            config: Config { ignore_failure: true, ..quick },
            story: vec![(0.0, LINK_UP), (1.0, Event::ScriptDone { ok: false }), (2.0, LINK_DOWN)],
            want: vec![(0.0, tell(Up, None)), (2.0, tell(Down, Some(Up)))],
        },
    ]);
}

#[test]
fn services_are_demoted_at_once_and_acted_on_later() {
    check(vec![
        Row {
            what: "up at the start",
            config: services(),
            story: vec![(0.0, LINK_UP)],
            want: vec![(0.0, Restore), (0.0, ServicesUp)],
        },
        Row {
            what: "down at the start: the record at once, the services after the delay",
            config: services(),
            story: vec![(0.0, LINK_DOWN)],
            want: vec![(0.0, Demote), (8.0, ServicesDown)],
        },
        Row {
            what: "down at the start, up before the services were told",
            config: services(),
            story: vec![(0.0, LINK_DOWN), (2.0, LINK_UP)],
            want: vec![(0.0, Demote), (10.0, Restore), (10.0, ServicesUp)],
        },
        Row {
            what: "pulled",
            config: services(),
            story: vec![(0.0, LINK_UP), (1.0, LINK_DOWN)],
            want: vec![(0.0, Restore), (0.0, ServicesUp), (1.0, Demote), (9.0, ServicesDown)],
        },
        Row {
            what: "pulled and plugged: hold-down, and no `d`",
            config: services(),
            story: vec![(0.0, LINK_UP), (1.0, LINK_DOWN), (2.0, LINK_UP)],
            want: vec![(0.0, Restore), (0.0, ServicesUp), (1.0, Demote), (10.0, Restore), (10.0, ServicesUp)],
        },
        Row {
            what: "a link that flaps faster than the hold-down stays demoted, once",
            config: services(),
            story: (0..20).map(|n| (f64::from(n), if n % 2 == 0 { LINK_UP } else { LINK_DOWN })).collect(),
            want: vec![(0.0, Restore), (0.0, ServicesUp), (1.0, Demote), (27.0, ServicesDown)],
        },
        Row {
            what: "back after the services were told",
            config: services(),
            story: vec![(0.0, LINK_DOWN), (20.0, LINK_UP)],
            want: vec![(0.0, Demote), (8.0, ServicesDown), (28.0, Restore), (28.0, ServicesUp)],
        },
        Row {
            what: "with a program beside",
            config: Config { script: true, ..services() },
            story: vec![(0.0, LINK_DOWN), (20.0, LINK_UP), (28.5, DONE), (30.0, LINK_DOWN)],
            want: vec![
                (0.0, Demote),
                (8.0, ServicesDown),
                (28.0, Restore),
                (28.0, ServicesUp),
                (28.0, tell(Up, Some(Down))),
                (30.0, Demote),
                (38.0, ServicesDown),
                (38.0, tell(Down, Some(Up))),
            ],
        },
    ]);
}

#[test]
fn stopping() {
    let up = [(0.0, LINK_UP), (0.5, DONE)];
    let with = |more: &[(f64, Event)]| [up.as_slice(), more].concat();
    let told_up = (0.0, tell(Up, None));
    check(vec![
        Row {
            what: "TERM while up: down, then 0",
            config: script(),
            story: with(&[(1.0, STOP), (2.0, DONE)]),
            want: vec![told_up, (1.0, LastScript), (2.0, Exit(0))],
        },
        Row {
            what: "its failure does not matter any more",
            config: script(),
            story: with(&[(1.0, STOP), (2.0, Event::ScriptDone { ok: false })]),
            want: vec![told_up, (1.0, LastScript), (2.0, Exit(0))],
        },
        Row {
            what: "while a down is pending: down",
            config: script(),
            story: with(&[(1.0, LINK_DOWN), (2.0, STOP), (3.0, DONE)]),
            want: vec![told_up, (2.0, LastScript), (3.0, Exit(0))],
        },
        Row {
            what: "after a down: nothing more",
            config: script(),
            story: with(&[(1.0, LINK_DOWN), (9.5, DONE), (10.0, STOP)]),
            want: vec![told_up, (9.0, tell(Down, Some(Up))), (10.0, Exit(0))],
        },
        Row {
            what: "-q",
            config: Config { at_stop: false, ..script() },
            story: with(&[(1.0, STOP)]),
            want: vec![told_up, (1.0, Exit(0))],
        },
        Row {
            what: "QUIT: no program",
            config: script(),
            story: with(&[(1.0, Event::Quit)]),
            want: vec![told_up, (1.0, Exit(0))],
        },
        Row {
            what: "the running program ends first",
            config: script(),
            story: vec![(0.0, LINK_UP), (1.0, STOP), (2.0, DONE), (3.0, DONE)],
            want: vec![told_up, (2.0, LastScript), (3.0, Exit(0))],
        },
        Row {
            what: "asked twice: at once",
            config: script(),
            story: vec![(0.0, LINK_UP), (1.0, STOP), (2.0, STOP)],
            want: vec![told_up, (2.0, Exit(0))],
        },
        Row {
            what: "the interface has gone: down, then 1",
            config: script(),
            story: with(&[(1.0, Event::Missing), (2.0, DONE)]),
            want: vec![told_up, (1.0, LastScript), (2.0, Exit(1))],
        },
        Row {
            what: "before anything is known",
            config: script(),
            story: vec![(0.0, STOP)],
            want: vec![(0.0, Exit(0))],
        },
        Row {
            what: "services are left alone; the record goes",
            config: services(),
            story: vec![(0.0, LINK_UP), (1.0, LINK_DOWN), (2.0, STOP)],
            want: vec![(0.0, Restore), (0.0, ServicesUp), (1.0, Demote), (2.0, Withdraw), (2.0, Exit(0))],
        },
    ]);
}

/// A machine that has come to `state`, its program idle, and the time then. Delays 8 s, record and
/// program.
fn at(state: &str) -> (Debounce, Duration) {
    let mut machine = Debounce::new(Config { script: true, ..services() });
    let up = [(0, LINK_UP), (0, DONE)];
    let down = [(10, LINK_DOWN), (18, Event::Tick), (18, DONE)];
    let story: Vec<(u64, Event)> = match state {
        "Start" => Vec::new(),
        "Up" => up.to_vec(),
        "Failing" => [&up[..], &[(10, LINK_DOWN)]].concat(),
        "Recovering" => [&up[..], &[(10, LINK_DOWN), (12, LINK_UP)]].concat(),
        "Down" => [&up[..], &down].concat(),
        "Rising" => [&up[..], &down, &[(30, LINK_UP)]].concat(),
        "Stopping" => [&up[..], &[(40, STOP)]].concat(),
        other => panic!("{other}"),
    };
    let mut now = Duration::ZERO;
    for (secs, event) in story {
        now = Duration::from_secs(secs);
        machine.step(now, event);
    }
    assert_eq!(name(&machine), state);
    (machine, now)
}

fn name(machine: &Debounce) -> &'static str {
    match machine.state {
        State::Start => "Start",
        State::Up => "Up",
        State::Failing { .. } => "Failing",
        State::Recovering { .. } => "Recovering",
        State::Down => "Down",
        State::Rising { .. } => "Rising",
        State::Stopping { .. } => "Stopping",
    }
}

#[test]
fn every_event_in_every_state() {
    const FAILED: Event = Event::ScriptDone { ok: false };
    const SOON: Event = Event::Tick;
    let rose = || vec![Restore, ServicesUp, tell(Up, Some(Down))];
    let ends = || vec![Withdraw, Exit(0)];
    let last = || vec![Withdraw, LastScript];
    let table: Vec<(&str, Event, &str, Vec<Action>)> = vec![
        ("Start", LINK_UP, "Up", vec![Restore, ServicesUp, tell(Up, None)]),
        ("Start", LINK_DOWN, "Failing", vec![Demote]),
        ("Start", DONE, "Start", vec![]),
        ("Start", FAILED, "Start", vec![]),
        ("Start", SOON, "Start", vec![]),
        ("Start", STOP, "Stopping", ends()),
        ("Start", Event::Quit, "Stopping", ends()),
        ("Start", Event::Missing, "Stopping", vec![Withdraw, Exit(1)]),
        ("Up", LINK_UP, "Up", vec![]),
        ("Up", LINK_DOWN, "Failing", vec![Demote]),
        ("Up", DONE, "Up", vec![]),
        ("Up", FAILED, "Up", vec![]),
        ("Up", SOON, "Up", vec![]),
        ("Up", STOP, "Stopping", last()),
        ("Up", Event::Quit, "Stopping", ends()),
        ("Up", Event::Missing, "Stopping", last()),
        ("Failing", LINK_UP, "Recovering", vec![]),
        ("Failing", LINK_DOWN, "Failing", vec![]),
        ("Failing", DONE, "Failing", vec![]),
        ("Failing", FAILED, "Failing", vec![]),
        ("Failing", SOON, "Failing", vec![]),
        ("Failing", STOP, "Stopping", last()),
        ("Failing", Event::Quit, "Stopping", ends()),
        ("Failing", Event::Missing, "Stopping", last()),
        ("Recovering", LINK_UP, "Recovering", vec![]),
        ("Recovering", LINK_DOWN, "Failing", vec![]),
        ("Recovering", DONE, "Recovering", vec![]),
        ("Recovering", FAILED, "Recovering", vec![]),
        ("Recovering", SOON, "Recovering", vec![]),
        ("Recovering", STOP, "Stopping", last()),
        ("Recovering", Event::Quit, "Stopping", ends()),
        ("Recovering", Event::Missing, "Stopping", last()),
        ("Down", LINK_UP, "Rising", vec![]),
        ("Down", LINK_DOWN, "Down", vec![]),
        ("Down", DONE, "Down", vec![]),
        ("Down", FAILED, "Down", vec![]),
        ("Down", SOON, "Down", vec![]),
        ("Down", STOP, "Stopping", ends()),
        ("Down", Event::Quit, "Stopping", ends()),
        ("Down", Event::Missing, "Stopping", vec![Withdraw, Exit(1)]),
        ("Rising", LINK_UP, "Rising", vec![]),
        ("Rising", LINK_DOWN, "Down", vec![]),
        ("Rising", DONE, "Rising", vec![]),
        ("Rising", FAILED, "Rising", vec![]),
        ("Rising", SOON, "Rising", vec![]),
        ("Rising", STOP, "Stopping", ends()),
        ("Rising", Event::Quit, "Stopping", ends()),
        ("Rising", Event::Missing, "Stopping", vec![Withdraw, Exit(1)]),
        ("Stopping", LINK_UP, "Stopping", vec![]),
        ("Stopping", LINK_DOWN, "Stopping", vec![]),
        ("Stopping", DONE, "Stopping", vec![Exit(0)]),
        ("Stopping", FAILED, "Stopping", vec![Exit(0)]),
        ("Stopping", SOON, "Stopping", vec![]),
        ("Stopping", STOP, "Stopping", vec![Exit(0)]),
        ("Stopping", Event::Quit, "Stopping", vec![Exit(0)]),
        ("Stopping", Event::Missing, "Stopping", vec![]),
    ];
    for (state, event, then, actions) in table {
        let (mut machine, now) = at(state);
        assert_eq!(machine.step(now, event), actions, "{state} {event:?}");
        assert_eq!(name(&machine), then, "{state} {event:?}");
    }
    let due: [(&str, &str, Vec<Action>); 3] = [
        ("Failing", "Down", vec![ServicesDown, tell(Down, Some(Up))]),
        ("Recovering", "Up", vec![Restore, ServicesUp]),
        ("Rising", "Up", rose()),
    ];
    for (state, then, actions) in due {
        let (mut machine, _) = at(state);
        let deadline = machine.deadline().unwrap();
        assert_eq!(machine.step(deadline, Event::Tick), actions, "{state} when it is due");
        assert_eq!(name(&machine), then, "{state} when it is due");
    }
    // Suspended, only the end is acted on; what the link has come to meanwhile is, when resumed.
    for state in ["Start", "Up", "Failing", "Recovering", "Down", "Rising", "Stopping"] {
        let (mut machine, now) = at(state);
        for event in [Event::Suspend, Event::Suspend, LINK_UP, Event::Missing, LINK_DOWN, Event::Tick] {
            assert_eq!(machine.step(now + Duration::from_secs(99), event), [], "{state} {event:?}");
        }
        assert_eq!((name(&machine), machine.deadline()), (state, None));
        let last = now + Duration::from_secs(100);
        assert_eq!((machine.step(last, Event::Resume), machine.deadline()), (vec![], None), "suspended twice");
        let resumed = machine.step(last, Event::Resume);
        let (then, actions) = match state {
            "Start" => ("Failing", vec![Demote]),
            "Up" => ("Failing", vec![Demote]),
            "Failing" => ("Down", vec![ServicesDown, tell(Down, Some(Up))]),
            "Recovering" => ("Failing", vec![]),
            "Down" | "Rising" => ("Down", vec![]),
            same => (same, vec![]),
        };
        assert_eq!((name(&machine), resumed), (then, actions), "{state} resumed");
        let (mut machine, now) = at(state);
        assert_eq!(machine.step(now, Event::Resume), [], "{state}: was not suspended");
    }
    let (mut machine, now) = at("Up");
    machine.step(now, Event::Suspend);
    assert_eq!(machine.step(now, Event::Missing), []);
    assert_eq!(machine.step(now, Event::Resume), last(), "still missing when resumed");
    let (mut machine, now) = at("Up");
    machine.step(now, Event::Suspend);
    assert_eq!(machine.step(now, STOP), last());
}

#[test]
fn a_flapping_link_is_damped() {
    let quick = Config { up_delay: Duration::ZERO, down_delay: Duration::ZERO, ..services() };
    let damped = Config { longest_hold: Duration::from_secs(30), ..quick };
    let flaps = |count: u32| {
        let one = |n| [(f64::from(n) / 2.0, LINK_UP), (f64::from(n) / 2.0 + 0.25, LINK_DOWN)];
        let mut story: Vec<(f64, Event)> = (0..count).flat_map(one).collect();
        story.push((f64::from(count) / 2.0, LINK_UP));
        story
    };
    let passed_on = |count: u32| {
        let one = |n| {
            let (up, down) = (f64::from(n) / 2.0, f64::from(n) / 2.0 + 0.25);
            [(up, Restore), (up, ServicesUp), (down, Demote), (down, ServicesDown)]
        };
        (0..count).flat_map(one).collect::<Vec<_>>()
    };
    check(vec![
        Row {
            what: "four losses are passed on",
            config: damped,
            story: flaps(4),
            want: [passed_on(4), vec![(2.0, Restore), (2.0, ServicesUp)]].concat(),
        },
        Row {
            what: "after the fifth it must last a second",
            config: damped,
            story: flaps(5),
            want: [
                &passed_on(4)[..],
                &[(2.0, Restore), (2.0, ServicesUp), (2.25, DampingBegins), (2.25, Demote), (2.25, ServicesDown)],
                &[(3.5, DampingEnds), (3.5, Restore), (3.5, ServicesUp)],
            ]
            .concat(),
        },
        Row {
            what: "three more losses: eight seconds, and nobody hears of them",
            config: damped,
            story: flaps(8),
            want: [
                &passed_on(4)[..],
                &[(2.0, Restore), (2.0, ServicesUp), (2.25, DampingBegins), (2.25, Demote), (2.25, ServicesDown)],
                &[(12.0, DampingEnds), (12.0, Restore), (12.0, ServicesUp)],
            ]
            .concat(),
        },
        Row {
            what: "switched off, each is passed on",
            config: quick,
            story: flaps(8),
            want: [passed_on(8), vec![(4.0, Restore), (4.0, ServicesUp)]].concat(),
        },
        Row {
            what: "a longer delay than the hold stays",
            config: Config { up_delay: Duration::from_secs(8), ..damped },
            story: [&[(0.0, LINK_DOWN)], &flaps(5)[..]].concat(),
            want: vec![
                (0.0, Demote),
                (0.0, ServicesDown),
                (2.25, DampingBegins),
                (3.5, DampingEnds),
                (10.5, Restore),
                (10.5, ServicesUp),
            ],
        },
    ]);
}

/// What the world has come to.
#[derive(Default)]
struct World {
    health: Option<Verdict>,
    wanted: Option<Verdict>,
    told: Option<Verdict>,
    running: bool,
    damped: bool,
}

impl World {
    fn perform(&mut self, actions: Vec<Action>, link: Verdict) {
        for action in actions {
            match action {
                Demote => {
                    assert_eq!(link, Down, "at once, so while the link is down");
                    assert_ne!(self.health.replace(Down), Some(Down));
                }
                Restore => {
                    assert_eq!(link, Up);
                    assert_ne!(self.health.replace(Up), Some(Up));
                }
                ServicesUp => self.wanted = Some(Up),
                ServicesDown => self.wanted = Some(Down),
                Action::Script { current, previous } => {
                    assert!(!self.running, "one at a time");
                    assert_eq!(previous, self.told);
                    assert_ne!(self.told.replace(current), Some(current));
                    self.running = true;
                }
                DampingBegins => assert!(!std::mem::replace(&mut self.damped, true)),
                DampingEnds => assert!(std::mem::replace(&mut self.damped, false)),
                Withdraw | LastScript | Exit(_) => panic!("nobody asked"),
            }
        }
    }
}

#[test]
fn whatever_the_link_does_the_last_word_is_right_and_nothing_is_said_twice() {
    for seed in 0..2000 {
        let mut rng = netd_core::rng::Rng::seeded(seed);
        let mut below = |n: u32| rng.next_u32() % n;
        let mut config = Config { script: true, ignore_failure: true, ..services() };
        config.up_delay = Duration::from_millis(below(3000).into());
        config.down_delay = Duration::from_millis(below(3000).into());
        config.longest_hold = Duration::from_secs(below(3).into()) * 15;
        let (mut machine, mut now) = (Debounce::new(config), Duration::ZERO);
        // Without -l a dead link at the start is known to the program without being told.
        let mut link = Down;
        let mut world = World { told: Some(Down), ..World::default() };
        world.perform(machine.step(now, Event::Link(link)), link);
        for _ in 0..60 {
            now += Duration::from_millis(below(2000).into());
            let event = match below(6) {
                0 if world.running => {
                    world.running = false;
                    DONE
                }
                1 => Event::Tick,
                2 if below(4) == 0 => Event::Suspend,
                2 => Event::Resume,
                _ => {
                    link = if below(2) == 0 { Up } else { Down };
                    Event::Link(link)
                }
            };
            world.perform(machine.step(now, event), link);
        }
        while machine.suspended() > 0 {
            world.perform(machine.step(now, Event::Resume), link);
        }
        for _ in 0..5 {
            if let Some(deadline) = machine.deadline() {
                now = now.max(deadline);
                world.perform(machine.step(now, Event::Tick), link);
            }
            if std::mem::take(&mut world.running) {
                world.perform(machine.step(now, DONE), link);
            }
        }
        assert_eq!(machine.deadline(), None, "seed {seed}: nothing is pending");
        assert!(!world.damped, "seed {seed}: damping ends");
        assert_eq!((world.health, world.wanted, world.told), (Some(link), Some(link), Some(link)), "seed {seed}");
    }
}

/// An hour of a link that is lost in fits, at rates from twenty a second to one in a minute, with
/// no delays at all.
#[test]
fn however_the_link_flaps_the_runs_of_a_minute_are_few() {
    /// Ups that may be told in a minute: four at once, six that were forgotten meanwhile, and after
    /// each hold one: 1, 2, 4, 8, 16 s. A down follows each, and a run at the edge of the minute.
    const MOST: usize = 2 * (4 + 6 + 5) + 1;
    let mut seen = 0;
    for seed in 0..200 {
        let mut rng = netd_core::rng::Rng::seeded(seed);
        let mut below = |n: u32| rng.next_u32() % n;
        let longest_hold = Duration::from_secs(30);
        let config = Config { up_delay: Duration::ZERO, down_delay: Duration::ZERO, longest_hold, ..script() };
        let (mut machine, mut now, mut link) = (Debounce::new(config), Duration::ZERO, Up);
        let mut runs: Vec<Duration> = Vec::new();
        let mut note = |machine: &mut Debounce, at: Duration, event: Event| {
            let mut actions = machine.step(at, event);
            while let Some(action) = actions.pop() {
                if let Action::Script { .. } = action {
                    runs.push(at);
                    actions.extend(machine.step(at, DONE));
                }
            }
        };
        let mut rate = 1000;
        note(&mut machine, now, LINK_UP);
        while now < Duration::from_secs(3600) {
            if below(30) == 0 {
                rate = [50, 200, 1000, 5000, 12_000, 60_000][below(6) as usize];
            }
            let next = now + Duration::from_millis((rate / 2 + below(rate)).into());
            while let Some(deadline) = machine.deadline().filter(|d| *d < next) {
                note(&mut machine, deadline, Event::Tick);
            }
            now = next;
            link = if link == Up { Down } else { Up };
            note(&mut machine, now, Event::Link(link));
        }
        while let Some(deadline) = machine.deadline() {
            assert!(deadline <= now + longest_hold, "seed {seed}: it ends");
            note(&mut machine, deadline, Event::Tick);
        }
        assert_eq!((machine.settled(), machine.is_damped()), (Some(link), false), "seed {seed}");
        for (at, first) in runs.iter().enumerate() {
            let minute = runs.iter().skip(at).take_while(|t| **t < *first + Duration::from_secs(60)).count();
            seen = seen.max(minute);
            assert!(minute <= MOST, "seed {seed}: {minute} runs in the minute from {first:?}");
        }
    }
    assert!(seen > 8, "the link did flap: {seen}");
}
