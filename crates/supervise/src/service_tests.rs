//! The machine against its table, against stories, and against random sequences.

use super::*;
use crate::control::RunState;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Long after any start: no second is due.
const LATER: Duration = Duration::from_secs(1000);

fn command(letter: char) -> Event {
    Event::Command(Command::from_letter(u8::try_from(letter).unwrap()).unwrap())
}

/// Everything that one step does, as short words.
fn words(actions: &[Action]) -> String {
    let word = |action: &Action| match action {
        Action::Run => "run".to_owned(),
        Action::Finish { code, status } => format!("finish({code},{status})"),
        Action::Control(letter) => format!("control/{}", char::from(*letter)),
        Action::Signal(command) => format!("sig-{}", char::from(command.letter())),
        Action::Stamp => "stamp".to_owned(),
        Action::Save => "save".to_owned(),
        Action::TimedOut => "timed-out".to_owned(),
        Action::GaveUp => "gave-up".to_owned(),
        Action::Done => "done".to_owned(),
    };
    actions.iter().map(word).collect::<Vec<_>>().join(" ")
}

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
fn service_in(state: &str) -> Service {
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
    ("down", "d", "down", "save"),
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
    ("waiting", "d", "down", "save"),
    ("waiting", "x", "done", "save done"),
    ("waiting", "p c", "waiting", "save"),
    (
        "waiting",
        "t k h a i q 1 2 started exec-failed fork-failed no-finish ended handled refused settings ready input-ended tick",
        "waiting",
        "",
    ),
    // control/u runs: what comes is queued.
    (
        "preparing",
        "u o d x p c t k h a i q 1 2 started exec-failed fork-failed no-finish ended settings ready input-ended tick",
        "preparing",
        "",
    ),
    ("preparing", "handled refused", "starting", "run"),
    (
        "starting",
        "u o d x p c t k h a i q 1 2 no-finish ended handled refused settings ready input-ended tick",
        "starting",
        "",
    ),
    ("starting", "started", "running", "stamp save"),
    ("starting", "exec-failed", "finishing", "stamp finish(111,0)"),
    ("starting", "fork-failed", "waiting", ""),
    ("running", "u o", "running", "save"),
    ("running", "d x", "running", "save control/t"),
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
    ("running", "started exec-failed fork-failed no-finish handled refused settings input-ended tick", "running", ""),
    ("running", "ready", "running", "save"),
    ("running", "ended", "finishing", "finish(3,0)"),
    // ./run has ended while control/h runs: ./finish waits for that.
    (
        "ended",
        "u o d x p c t k h a i q 1 2 started exec-failed fork-failed no-finish ended settings ready input-ended tick",
        "ended",
        "",
    ),
    ("ended", "handled refused", "finishing", "finish(3,0)"),
    ("finishing", "u o d x p c t k h a i q 1 2 ended handled refused settings ready input-ended tick", "finishing", ""),
    ("finishing", "started", "finish", "save"),
    ("finishing", "exec-failed no-finish", "waiting", "stamp save"),
    ("finishing", "fork-failed", "ended", ""),
    // ./finish gets no signal.
    ("finish", "u o d x p c", "finish", "save"),
    (
        "finish",
        "t k h a i q 1 2 started exec-failed fork-failed no-finish handled refused settings ready input-ended tick",
        "finish",
        "",
    ),
    ("finish", "ended", "waiting", "stamp save"),
    (
        "done",
        "u o d x p c t k h a i q 1 2 started exec-failed fork-failed no-finish ended handled refused settings ready input-ended tick",
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
        "ready" => Event::Ready,
        "input-ended" => Event::InputEnded,
        "tick" => Event::Tick,
        letter => command(letter.chars().next().unwrap()),
    }
}

const EVENTS: [&str; 25] = [
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

/// A shell that answers at once: no control scripts, and a ./finish or none.
struct Shell {
    service: Service,
    now: Duration,
    finish: bool,
    next_pid: u32,
    said: Vec<Action>,
}

impl Shell {
    fn new(want: Want) -> Shell {
        let mut shell =
            Shell { service: Service::new(Role::Main, want), now: LATER, finish: false, next_pid: 1, said: vec![] };
        shell.tell(Event::Tick);
        shell
    }

    /// The actions that matter to the process, as short words.
    fn tell(&mut self, event: Event) -> String {
        self.said.clear();
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.service.step(self.now, event) {
                events.extend(self.answer(action));
                if !matches!(action, Action::Save | Action::Stamp | Action::Control(_)) {
                    self.said.push(action);
                }
            }
        }
        words(&self.said)
    }

    fn answer(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Finish { .. } if !self.finish => Some(Event::NoFinish),
            Action::Run | Action::Finish { .. } => {
                self.next_pid += 1;
                Some(Event::Started { pid: self.next_pid })
            }
            Action::Control(_) => Some(Event::Control { handled: false }),
            Action::Signal(_) | Action::TimedOut | Action::GaveUp | Action::Stamp | Action::Save | Action::Done => None,
        }
    }

    fn after(&mut self, time: Duration) -> &mut Shell {
        self.now += time;
        self
    }
}

const ENDED: Event = Event::Ended(Exit::Code(0));

#[test]
fn a_service_that_lived_a_second_starts_again_at_once() {
    let mut shell = Shell::new(Want::Up);
    assert_eq!(shell.after(ms(1000)).tell(ENDED), "finish(0,0) run");
}

#[test]
fn one_that_ended_by_itself_too_soon_waits_a_second_and_obeys_meanwhile() {
    let mut shell = Shell::new(Want::Up);
    assert_eq!(shell.after(ms(999)).tell(ENDED), "finish(0,0)");
    assert_eq!(shell.service.deadline(), Some(shell.now + THROTTLE));
    assert_eq!(shell.after(ms(999)).tell(Event::Tick), "");
    let mut told = Shell { service: shell.service.clone(), said: vec![], ..shell };
    assert_eq!(shell.after(ms(1)).tell(Event::Tick), "run");
    assert_eq!(told.tell(command('d')), "");
    assert_eq!((told.service.deadline(), told.service.stat().as_str()), (None, "down\n"));
    assert_eq!(told.tell(command('u')), "run");
}

#[test]
fn the_time_of_finish_counts_as_life() {
    let mut shell = Shell::new(Want::Up);
    shell.finish = true;
    assert_eq!(shell.after(ms(10)).tell(ENDED), "finish(0,0)");
    assert_eq!(shell.after(ms(1000)).tell(ENDED), "run");
}

#[test]
fn any_number_of_u_during_a_one_shot_run_gives_exactly_one_more_at_once() {
    let mut shell = Shell::new(Want::Down);
    assert_eq!(shell.tell(command('u')), "run");
    shell.tell(command('o'));
    for _ in 0..5 {
        assert_eq!(shell.after(ms(1)).tell(command('u')), "");
    }
    assert_eq!(shell.tell(ENDED), "finish(0,0) run");
    shell.tell(command('o'));
    assert_eq!(shell.after(ms(1)).tell(ENDED), "finish(0,0)");
    assert_eq!((shell.service.stat().as_str(), shell.service.deadline()), ("down\n", None));
}

#[test]
fn only_what_was_to_run_once_and_was_not_told_to_end_has_ended_as_such() {
    for (letters, once) in
        [("o", true), ("uo", true), ("", false), ("d", false), ("od", false), ("ot", false), ("oh", false)]
    {
        let mut shell = Shell::new(Want::Up);
        letters.chars().for_each(|c| drop(shell.tell(command(c))));
        shell.tell(ENDED);
        assert_eq!(shell.service.once(), once, "{letters}");
    }
}

#[test]
fn a_u_during_finish_is_not_lost() {
    let mut shell = Shell::new(Want::Down);
    shell.finish = true;
    shell.tell(command('o'));
    shell.tell(ENDED);
    assert_eq!(shell.service.stat(), "finish, want down\n");
    assert_eq!(shell.tell(command('u')), "");
    assert_eq!(shell.tell(ENDED), "run");
}

#[test]
fn k_then_u_before_the_end_is_known_starts_no_second_one() {
    let mut shell = Shell::new(Want::Up);
    assert_eq!(shell.tell(command('k')), "sig-k");
    assert_eq!(shell.tell(command('u')), "");
    assert_eq!(shell.tell(Event::Ended(Exit::Signal { signal: 9, core: false })), "finish(-1,9) run");
}

#[test]
fn tcu_is_obeyed_in_order() {
    let mut shell = Shell::new(Want::Up);
    let said: Vec<String> = "tcu".chars().map(|c| shell.tell(command(c))).collect();
    assert_eq!(said, ["sig-t", "sig-c", ""]);
    assert_eq!(shell.service.stat(), "run, got TERM\n");
    assert_eq!(shell.tell(Event::Ended(Exit::Signal { signal: 15, core: false })), "finish(-1,15) run");
    assert_eq!(shell.service.stat(), "run\n");
}

#[test]
fn stat_names_what_is_wanted() {
    let mut shell = Shell::new(Want::Up);
    shell.tell(command('p'));
    assert_eq!(shell.service.stat(), "run, paused\n");
    assert_eq!(shell.tell(command('d')), "sig-t sig-c");
    assert_eq!(shell.service.stat(), "run, paused, got TERM, want down\n");
    shell.tell(command('x'));
    assert_eq!(shell.service.stat(), "run, paused, got TERM, want exit\n");
    assert_eq!(shell.tell(ENDED), "finish(0,0) done");
    assert!(shell.service.done());
}

#[test]
fn x_can_be_taken_back_while_the_process_lives() {
    let mut shell = Shell::new(Want::Up);
    shell.tell(command('x'));
    shell.tell(command('u'));
    assert_eq!(shell.tell(ENDED), "finish(0,0) run");
}

#[test]
fn after_a_term_to_the_supervisor_nothing_keeps_the_service() {
    for letter in ['u', 'o', 'd'] {
        let mut shell = Shell::new(Want::Up);
        assert_eq!(shell.tell(Event::Terminate), "sig-t sig-c");
        shell.tell(command(letter));
        assert_eq!(shell.service.stat(), "run, got TERM, want exit\n", "{letter}");
        assert_eq!(shell.tell(ENDED), "finish(0,0) done", "{letter}");
        assert!(shell.service.done());
    }
}

#[test]
fn commands_wait_for_a_control_script_in_their_order() {
    let mut service = service_in("running");
    let told: Vec<String> = "thd".chars().map(|c| words(&service.step(LATER, command(c)))).collect();
    assert_eq!(told, ["control/t", "", ""]);
    assert_eq!(service.queued(), 2);
    // control/t did the work: no TERM.
    assert_eq!(words(&service.step(LATER, Event::Control { handled: true })), "control/h");
    assert_eq!(words(&service.step(LATER, Event::Control { handled: false })), "sig-h save control/t");
    assert_eq!(words(&service.step(LATER, Event::Control { handled: false })), "sig-t save sig-c control/d");
    assert_eq!(words(&service.step(LATER, Event::Control { handled: false })), "");
    assert_eq!(service.stat(), "run, got TERM, want down\n");
}

#[test]
fn a_signal_never_goes_to_a_process_that_came_after_the_script_was_started() {
    let mut service = service_in("running");
    service.step(LATER, command('t'));
    assert_eq!(words(&service.step(LATER, ENDED)), "save");
    assert_eq!(words(&service.step(LATER, Event::Control { handled: false })), "finish(0,0)");
    assert_eq!(words(&service.step(LATER, Event::NoFinish)), "stamp save control/u");
}

#[test]
fn a_run_that_cannot_be_executed_is_tried_ever_more_rarely_until_it_can() {
    let mut service = service_in("starting");
    let mut now = LATER;
    let mut pauses = Vec::new();
    for _ in 0..6 {
        service.step(now, Event::ExecFailed);
        service.step(now, Event::NoFinish);
        let at = service.deadline().unwrap();
        pauses.push((at - now).as_secs());
        now = at;
        assert_eq!(words(&service.step(now, Event::Tick)), "control/u");
        service.step(now, Event::Control { handled: false });
    }
    assert_eq!(pauses, [1, 2, 4, 8, 8, 8]);
    service.step(now, Event::Started { pid: 1 });
    // And runit's rule is the rule again.
    service.step(now + THROTTLE, ENDED);
    assert_eq!(words(&service.step(now + THROTTLE, Event::NoFinish)), "stamp save control/u");
    service.step(now, Event::Control { handled: false });
    service.step(now, Event::ExecFailed);
    service.step(now, Event::NoFinish);
    assert_eq!(service.deadline(), Some(now + THROTTLE));
}

#[test]
fn what_does_not_end_after_term_is_killed_in_time() {
    let mut shell = Shell::new(Want::Up);
    shell.tell(Event::Settings(Settings { timeout_kill: Some(ms(300)), ..Settings::default() }));
    assert_eq!(shell.tell(command('d')), "sig-t sig-c");
    let due = shell.now + ms(300);
    assert_eq!(shell.service.deadline(), Some(due));
    // Another d does not put it off.
    shell.after(ms(200)).tell(command('d'));
    assert_eq!(shell.service.deadline(), Some(due));
    assert_eq!(shell.after(ms(99)).tell(Event::Tick), "");
    assert_eq!(shell.after(ms(1)).tell(Event::Tick), "timed-out");
    assert_eq!((shell.tell(Event::Tick).as_str(), shell.service.deadline()), ("", None));
    assert_eq!(shell.tell(Event::Ended(Exit::Signal { signal: 9, core: false })), "finish(-1,9)");
    // Other signals have no such time, and a new process begins anew.
    shell.tell(command('u'));
    shell.tell(command('i'));
    assert_eq!(shell.service.deadline(), None);
}

#[test]
fn a_script_that_did_it_for_term_gets_the_same_time() {
    let mut service = service_in("running");
    service.step(LATER, Event::Settings(Settings { timeout_kill: Some(ms(300)), ..Settings::default() }));
    service.step(LATER, command('t'));
    service.step(LATER, Event::Control { handled: true });
    // It was asked to go on, so nothing must end.
    assert_eq!(service.deadline(), None);
    service.step(LATER, command('d'));
    service.step(LATER, Event::Control { handled: true });
    assert_eq!(service.deadline(), Some(LATER + ms(300)));
}

#[test]
fn a_finish_that_hangs_is_killed_in_time() {
    let mut shell = Shell::new(Want::Up);
    shell.finish = true;
    shell.tell(Event::Settings(Settings { timeout_finish: Some(ms(50)), ..Settings::default() }));
    shell.after(THROTTLE).tell(ENDED);
    assert_eq!(shell.service.deadline(), Some(shell.now + ms(50)));
    assert_eq!(shell.after(ms(50)).tell(Event::Tick), "timed-out");
    assert_eq!(shell.tell(Event::Ended(Exit::Signal { signal: 9, core: false })), "run");
}

#[test]
fn finish_may_say_that_it_shall_stay_down_where_that_was_allowed() {
    for allowed in [false, true] {
        let mut shell = Shell::new(Want::Up);
        shell.finish = true;
        shell.tell(Event::Settings(Settings { permanent_failure: allowed, ..Settings::default() }));
        shell.after(THROTTLE).tell(ENDED);
        let said = shell.tell(Event::Ended(Exit::Code(PERMANENT_FAILURE)));
        assert_eq!(said, if allowed { "gave-up" } else { "run" });
        assert_eq!(shell.service.want(), if allowed { Want::Down } else { Want::Up });
        // It is told as any other.
        assert_eq!(shell.tell(command('u')), if allowed { "run" } else { "" });
    }
}

#[test]
fn readiness_is_the_running_process_s() {
    let mut shell = Shell::new(Want::Up);
    assert!(!shell.service.ready());
    shell.tell(Event::Ready);
    assert!(shell.service.ready());
    shell.after(THROTTLE).tell(ENDED);
    assert!(!shell.service.ready());
}

#[test]
fn deaths_are_the_ends_that_nobody_asked_for() {
    let mut shell = Shell::new(Want::Up);
    shell.after(THROTTLE).tell(ENDED);
    assert_eq!((shell.service.deaths(), shell.service.last_exit()), (1, Some(Exit::Code(0))));
    shell.tell(command('t'));
    shell.tell(Event::Ended(Exit::Signal { signal: 15, core: false }));
    assert_eq!(shell.service.deaths(), 1);
    shell.tell(command('o'));
    shell.tell(ENDED);
    assert_eq!(shell.service.deaths(), 1);
}

#[test]
fn finish_learns_how_it_ended() {
    for (exit, args) in [
        (Exit::Code(0), (0, 0)),
        (Exit::Code(111), (111, 0)),
        (Exit::Signal { signal: 15, core: false }, (-1, 15)),
        (Exit::Signal { signal: 11, core: true }, (-1, 139)),
        (Exit::Unknown, (-1, 0)),
    ] {
        assert_eq!(exit.finish_args(), args);
    }
}

#[test]
fn the_log_has_no_scripts_no_finish_and_ends_by_the_end_of_its_input() {
    let mut log = Service::new(Role::Log, Want::Up);
    assert_eq!(words(&log.step(LATER, Event::Tick)), "run");
    log.step(LATER, Event::Started { pid: 3 });
    assert_eq!(words(&log.step(LATER, command('x'))), "");
    assert_eq!(words(&log.step(LATER + THROTTLE, ENDED)), "stamp save run");
    log.step(LATER, Event::Started { pid: 4 });
    assert_eq!(words(&log.step(LATER, Event::InputEnded)), "save");
    assert_eq!(log.stat(), "run, want exit\n");
    assert_eq!(words(&log.step(LATER, command('u'))), "");
    assert_eq!(words(&log.step(LATER, command('d'))), "save sig-t save sig-c");
    assert_eq!(words(&log.step(LATER, ENDED)), "stamp save done");
}

#[test]
fn an_adopted_process_is_steered_as_if_it_were_a_child() {
    let found = Found::Run { pid: 5, started: LATER };
    let mut service = Service::adopt(Role::Main, Want::Up, false, false, found);
    assert_eq!(words(&service.step(LATER, Event::Tick)), "");
    assert_eq!(service.running(), (RunState::Run, Some(5)));
    assert_eq!(words(&service.step(LATER + THROTTLE, Event::Ended(Exit::Unknown))), "finish(-1,0)");
    let mut gone = Service::adopt(Role::Main, Want::Up, false, false, Found::RunEnded);
    assert_eq!(words(&gone.step(LATER, Event::Tick)), "finish(-1,0)");
    assert_eq!(words(&gone.step(LATER, Event::NoFinish)), "stamp save control/u");
    let mut down = Service::adopt(Role::Main, Want::Down, false, false, Found::Nothing);
    assert_eq!(words(&down.step(LATER, Event::Tick)), "");
}

/// xorshift64*: enough to walk about, and the same walk for the same seed.
struct Walk(u64);

impl Walk {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

/// What exists outside: processes and scripts that end when the walk says so.
struct World {
    service: Service,
    now: Duration,
    walk: Walk,
    run: bool,
    finish: bool,
    script: Option<u8>,
    /// Letters of the commands that were given, and of the scripts that were asked for.
    given: Vec<u8>,
    asked: Vec<u8>,
    runs: u32,
}

impl World {
    fn tell(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.service.step(self.now, event) {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Run => {
                assert!(!self.run && !self.finish, "a second instance");
                match self.walk.below(10) {
                    0 => return Some(Event::ExecFailed),
                    1 => return Some(Event::ForkFailed),
                    _ => {}
                }
                (self.run, self.runs) = (true, self.runs + 1);
                Some(Event::Started { pid: 100 + self.runs })
            }
            Action::Finish { .. } => {
                assert!(!self.run && !self.finish, "finish beside another process");
                match self.walk.below(4) {
                    0 => Some(Event::ForkFailed),
                    1 => Some(Event::NoFinish),
                    2 => Some(Event::ExecFailed),
                    _ => {
                        self.finish = true;
                        Some(Event::Started { pid: 99 })
                    }
                }
            }
            Action::Control(letter) => {
                assert!(self.script.is_none(), "two scripts at once");
                self.asked.push(letter);
                if self.walk.below(3) == 0 {
                    self.script = Some(letter);
                    return None;
                }
                Some(Event::Control { handled: self.walk.below(2) == 0 })
            }
            Action::Signal(_) => {
                assert!(self.run, "a signal to nothing, or to finish");
                None
            }
            Action::TimedOut => {
                assert!(self.run || self.finish, "KILL to nothing");
                None
            }
            Action::Done => {
                assert!(!self.run && !self.finish && self.script.is_none(), "done while something runs");
                None
            }
            Action::Stamp | Action::Save | Action::GaveUp => None,
        }
    }

    fn something_happens(&mut self) {
        match self.walk.below(8) {
            0..3 => {
                let letters = b"uuoodtkpchaiq12";
                let letter = letters[usize::try_from(self.walk.below(letters.len() as u64)).unwrap()];
                self.given.push(letter);
                self.tell(Event::Command(Command::from_letter(letter).unwrap()));
            }
            3 if self.run => {
                self.run = false;
                self.tell(ENDED);
            }
            4 if self.finish => {
                self.finish = false;
                self.tell(ENDED);
            }
            5 if self.script.is_some() => self.script_ends(),
            6 => {
                self.now += ms(self.walk.below(1500));
                self.tell(Event::Tick);
            }
            _ => self.tell(Event::Tick),
        }
    }

    fn script_ends(&mut self) {
        self.script = None;
        let handled = self.walk.below(2) == 0;
        self.tell(Event::Control { handled });
    }
}

/// None, and some of everything.
const SETTINGS: [Settings; 3] = [
    Settings {
        restart_delay: None,
        restart_max_delay: None,
        timeout_kill: None,
        timeout_finish: None,
        permanent_failure: false,
    },
    Settings {
        restart_delay: Some(ms(20)),
        restart_max_delay: Some(ms(9000)),
        timeout_kill: Some(ms(300)),
        timeout_finish: Some(ms(700)),
        permanent_failure: false,
    },
    Settings {
        restart_delay: None,
        restart_max_delay: Some(ms(4000)),
        timeout_kill: Some(ms(1)),
        timeout_finish: None,
        permanent_failure: true,
    },
];

#[test]
fn whatever_happens_there_is_at_most_one_and_what_is_wanted_comes_about() {
    for seed in 1..=500 {
        let mut service = Service::new(Role::Main, Want::Down);
        let settings = SETTINGS[usize::try_from(seed).unwrap() % SETTINGS.len()];
        service.step(LATER, Event::Settings(settings));
        let most = [EXEC_FAILED_MOST, settings.restart_max_delay.unwrap_or_default()].into_iter().max().unwrap();
        let mut world = World {
            service,
            now: LATER,
            walk: Walk(seed),
            run: false,
            finish: false,
            script: None,
            given: vec![],
            asked: vec![],
            runs: 0,
        };
        for _ in 0..200 {
            world.something_happens();
            // A deadline lies ahead, and not beyond the longest pause.
            if let Some(at) = world.service.deadline() {
                assert!(at > world.now && at <= world.now + most, "seed {seed}");
            }
        }
        // In the order given: the scripts asked for are a subsequence of the commands, `d` asking for t and d, and u
        // being asked for by itself too.
        let mut asked = world.asked.iter().filter(|l| b"haiq12kpc".contains(l)).peekable();
        for letter in &world.given {
            asked.next_if_eq(&letter);
        }
        assert_eq!(asked.next(), None, "seed {seed}: out of order");
        // Up is wanted, and everything that can end does: it comes up, and no command is left over.
        world.tell(command('u'));
        for _ in 0..200 {
            if world.script.is_some() {
                world.script_ends();
            } else if world.finish {
                world.finish = false;
                world.tell(ENDED);
            } else if world.run && world.service.queued() == 0 {
                break;
            }
            world.now += most;
            world.tell(Event::Tick);
        }
        assert!(world.run && world.service.queued() == 0, "seed {seed}: wanted up, but {}", world.service.stat());
        // Down and exit likewise, and after a TERM whatever else is asked for.
        let term = seed % 2 == 0;
        world.tell(if term { Event::Terminate } else { command('x') });
        for _ in 0..200 {
            if term {
                world.tell(command('u'));
            }
            if world.script.is_some() {
                world.script_ends();
            } else if world.run || world.finish {
                (world.run, world.finish) = (false, false);
                world.tell(ENDED);
            }
            world.now += THROTTLE;
            world.tell(Event::Tick);
        }
        assert!(world.service.done(), "seed {seed}: wanted exit, but {}", world.service.stat());
    }
}
