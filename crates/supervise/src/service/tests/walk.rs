//! Random sequences in simulated time, and what must hold at every step of them.

use super::*;

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
    /// What the file `again` says.
    again: Option<Duration>,
}

impl World {
    fn tell(&mut self, event: Event) {
        self.step(event);
        if self.service.rests() {
            self.step(Event::Again(self.again));
        }
    }

    fn step(&mut self, event: Event) {
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
                // What is left in place starts it once more.
                self.again.take_if(|_| self.walk.below(2) == 0);
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
            Action::PutOff => {
                self.again = None;
                None
            }
            Action::Stamp | Action::Save | Action::GaveUp | Action::AskInput | Action::InputHeld => None,
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
            6 if self.walk.below(4) == 0 => {
                self.again = Some(self.now + ms(self.walk.below(3000)));
                self.tell(Event::Tick);
            }
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
            again: None,
        };
        for _ in 0..200 {
            world.something_happens();
            // A deadline lies ahead, and not beyond the longest pause.
            if let Some(at) = world.service.deadline() {
                assert!(at > world.now && at <= world.now + most, "seed {seed}");
            }
        }
        // In the order given: the scripts asked for are a subsequence of the commands, `d` asking
        // for t and d, and u being asked for by itself too.
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
