//! Tables and simulated time for the machine.

use super::*;
use Action::{Demote, Exit, LastScript, Restore, ServicesDown, ServicesUp, Withdraw};
use Verdict::{Down, Up};

const LINK_UP: Event = Event::Link(Up);
const LINK_DOWN: Event = Event::Link(Down);

/// The seed's delays: -u8 -d8, with a program.
fn script() -> Config {
    Config {
        up_delay: Duration::from_secs(8),
        down_delay: Duration::from_secs(8),
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

const STOP: Event = Event::Stop { code: 0 };
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
            what: "-p: nothing at the start, whatever -l says",
            config: Config { at_start: false, initial_down: true, ..script() },
            story: vec![(0.0, LINK_UP), (1.0, LINK_DOWN)],
            want: vec![(9.0, tell(Down, Some(Up)))],
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
            story: with(&[(1.0, Event::Stop { code: 1 }), (2.0, DONE)]),
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

/// What the world has come to.
#[derive(Default)]
struct World {
    health: Option<Verdict>,
    wanted: Option<Verdict>,
    told: Option<Verdict>,
    running: bool,
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
                Withdraw | LastScript | Exit(_) => panic!("nobody asked"),
            }
        }
    }
}

#[test]
fn whatever_the_link_does_the_last_word_is_right_and_nothing_is_said_twice() {
    for seed in 0..2000 {
        let mut rng = netd::rng::Rng::seeded(seed);
        let mut below = |n: u32| rng.next_u32() % n;
        let mut config = Config { script: true, ignore_failure: true, ..services() };
        config.up_delay = Duration::from_millis(below(3000).into());
        config.down_delay = Duration::from_millis(below(3000).into());
        let (mut machine, mut now) = (Debounce::new(config), Duration::ZERO);
        // Without -l a dead link at the start is known to the program without being told.
        let mut link = Down;
        let mut world = World { told: Some(Down), ..World::default() };
        world.perform(machine.step(now, Event::Link(link)), link);
        for _ in 0..40 {
            now += Duration::from_millis(below(2000).into());
            let event = match below(3) {
                0 if world.running => {
                    world.running = false;
                    DONE
                }
                1 => Event::Tick,
                _ => {
                    link = if below(2) == 0 { Up } else { Down };
                    Event::Link(link)
                }
            };
            world.perform(machine.step(now, event), link);
        }
        for _ in 0..3 {
            if let Some(deadline) = machine.deadline() {
                now = now.max(deadline);
                world.perform(machine.step(now, Event::Tick), link);
            }
            if std::mem::take(&mut world.running) {
                world.perform(machine.step(now, DONE), link);
            }
        }
        assert_eq!(machine.deadline(), None, "seed {seed}: nothing is pending");
        assert_eq!((world.health, world.wanted, world.told), (Some(link), Some(link), Some(link)), "seed {seed}");
    }
}
