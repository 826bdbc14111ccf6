//! What to do about a link that comes and goes: the state machine of ifplugd. PURE.
//!
//! Two speeds. At once: `Demote`, so that fw moves the default route while the lease still stands.
//! Delayed: the script and the services, and `Restore`, the hold-down of a link that came back. A
//! flap back cancels what is pending, and one that comes too often is damped. One script runs at a
//! time; what changed meanwhile is told when it has ended, and only the outcome. Called by `watch`,
//! which turns kernel messages, signals and ended scripts into [`Event`]s.

use std::time::Duration;

use crate::damping::Damping;

/// Whether packets can flow: as the link is, or as the script was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They can.
    Up,
    /// They cannot, or there is no such interface.
    Down,
}

/// What the options ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// From carrier to action (-u).
    pub(crate) up_delay: Duration,
    /// From no carrier to action (-d).
    pub(crate) down_delay: Duration,
    /// The longest that a flapping link is held down after it came back (--damp); zero: never.
    pub(crate) longest_hold: Duration,
    /// A program is to be told (-r).
    pub(crate) script: bool,
    /// Services and the link's record are to be kept (--services).
    pub(crate) services: bool,
    /// Tell the program at the start (not -p).
    pub(crate) at_start: bool,
    /// At the start tell it however the link is, with -p too (-l).
    pub(crate) initial_down: bool,
    /// Tell it `down` when stopped (not -q).
    pub(crate) at_stop: bool,
    /// Go on when it failed (-I).
    pub(crate) ignore_failure: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The link is now so. The first one is the state at the start.
    Link(Verdict),
    /// The program has ended.
    ScriptDone {
        /// With 0.
        ok: bool,
    },
    /// There is no such interface, and that is an error.
    Missing,
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGQUIT: no program any more.
    Quit,
    /// SIGUSR1: what the link does is not to be acted on for now.
    Suspend,
    /// SIGUSR2: it is again.
    Resume,
    /// The deadline may have passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Record health=down: fw is to prefer other uplinks.
    Demote,
    /// Record health=up.
    Restore,
    /// Remove the record: a stopped watcher knows nothing.
    Withdraw,
    /// Say that the link flaps and is damped.
    DampingBegins,
    /// Say that it does so no more.
    DampingEnds,
    /// `u` to the services.
    ServicesUp,
    /// `d` to the services.
    ServicesDown,
    /// Run the program.
    Script {
        /// What it is told.
        current: Verdict,
        /// What it was told last; `None` before the first time.
        previous: Option<Verdict>,
    },
    /// Run the program with `down` because the daemon stops; it was told `up`.
    LastScript,
    /// End the daemon with this exit code.
    Exit(u8),
}

/// Where the link stands. `until` is the time at which the pending change becomes true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is known yet.
    Start,
    /// Up, and everybody knows.
    Up,
    /// Lost: demoted, the down action is pending.
    Failing { until: Duration },
    /// Back before the down action: still demoted, the restoring is pending.
    Recovering { until: Duration },
    /// Down, and everybody knows.
    Down,
    /// Back after the down action: the up action is pending.
    Rising { until: Duration },
    /// Told to stop: the running program ends first.
    Stopping { code: u8 },
}

/// The program and what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    /// None runs.
    Idle { told: Option<Verdict> },
    /// It runs and is being told.
    Running { told: Verdict },
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Debounce {
    config: Config,
    state: State,
    /// The debounced verdict: what the program should have been told.
    settled: Option<Verdict>,
    script: Script,
    damping: Damping,
    /// How often more it was suspended than resumed.
    suspended: u32,
    /// The latest of the link meanwhile: [`Event::Link`] or [`Event::Missing`].
    missed: Option<Event>,
}

impl Debounce {
    /// Knows nothing yet.
    pub(crate) fn new(config: Config) -> Debounce {
        Debounce {
            config,
            state: State::Start,
            settled: None,
            script: Script::Idle { told: None },
            damping: Damping::new(config.longest_hold),
            suspended: 0,
            missed: None,
        }
    }

    /// When to call [`Debounce::step`] with [`Event::Tick`] at the latest.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        if self.suspended > 0 {
            return None;
        }
        let pending = match self.state {
            State::Stopping { .. } => return None,
            State::Failing { until } | State::Recovering { until } | State::Rising { until } => Some(until),
            State::Start | State::Up | State::Down => None,
        };
        pending.into_iter().chain(self.damping.deadline()).min()
    }

    /// Whether the link flaps, so that its single changes are no news.
    pub(crate) fn is_damped(&self) -> bool {
        self.damping.is_on()
    }

    /// Unless 0, nothing is to be acted on: it must be resumed as often.
    pub(crate) fn suspended(&self) -> u32 {
        self.suspended
    }

    /// What has lasted long enough to be acted on.
    pub(crate) fn settled(&self) -> Option<Verdict> {
        self.settled
    }

    /// Takes in one event; the actions are to be performed in their order.
    pub(crate) fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        match event {
            Event::Link(_) | Event::Missing if self.suspended > 0 => {
                self.missed = Some(event);
                Vec::new()
            }
            Event::Link(Verdict::Up) => self.link_up(now),
            Event::Link(Verdict::Down) => self.link_down(now),
            // The last `down` may well be what removes the interface.
            Event::Missing if matches!(self.state, State::Stopping { .. }) => Vec::new(),
            Event::Missing => self.stop(1),
            Event::Tick => self.tick(now),
            Event::ScriptDone { ok } => self.script_done(ok),
            Event::Stop => self.stop(0),
            Event::Quit => self.quit(),
            Event::Suspend => {
                self.suspended = self.suspended.saturating_add(1);
                Vec::new()
            }
            Event::Resume => {
                self.suspended = self.suspended.saturating_sub(1);
                // Back into `missed` while it is still suspended.
                let missed = self.missed.take().unwrap_or(Event::Tick);
                self.step(now, missed)
            }
        }
    }

    fn link_up(&mut self, now: Duration) -> Vec<Action> {
        self.state = match self.state {
            State::Start => return self.start(now, Verdict::Up),
            State::Failing { .. } => State::Recovering { until: self.believed(now) },
            State::Down => State::Rising { until: self.believed(now) },
            same @ (State::Up | State::Recovering { .. } | State::Rising { .. } | State::Stopping { .. }) => same,
        };
        self.tick(now)
    }

    /// When a link that is back now is to be believed.
    fn believed(&mut self, now: Duration) -> Duration {
        now + self.config.up_delay.max(self.damping.back(now))
    }

    fn lost(&mut self, now: Duration) -> Option<Action> {
        self.damping.lost(now).then_some(Action::DampingBegins)
    }

    fn link_down(&mut self, now: Duration) -> Vec<Action> {
        let until = now + self.config.down_delay;
        let mut out = Vec::new();
        self.state = match self.state {
            State::Start => return self.start(now, Verdict::Down),
            State::Up => {
                out.extend(self.lost(now));
                out.extend(self.config.services.then_some(Action::Demote));
                State::Failing { until }
            }
            State::Recovering { .. } => {
                out.extend(self.lost(now));
                State::Failing { until }
            }
            State::Rising { .. } => {
                out.extend(self.lost(now));
                State::Down
            }
            same @ (State::Failing { .. } | State::Down | State::Stopping { .. }) => same,
        };
        out.extend(self.tick(now));
        out
    }

    /// The first look. A live link is acted on at once: a daemon that was restarted must not take
    /// it away. For a dead one the services get the usual delay, and the program is told only with
    /// -l, which outdoes -p in the originals.
    fn start(&mut self, now: Duration, link: Verdict) -> Vec<Action> {
        let mut out = Vec::new();
        let tell = match link {
            Verdict::Up => self.config.at_start || self.config.initial_down,
            Verdict::Down => self.config.initial_down,
        };
        if !tell {
            self.script = Script::Idle { told: Some(link) };
        }
        match link {
            Verdict::Up => out.extend(self.settle_up()),
            Verdict::Down => {
                self.settled = Some(Verdict::Down);
                out.extend(self.config.services.then_some(Action::Demote));
                out.extend(self.tell());
                self.state = match self.config.services {
                    true => State::Failing { until: now + self.config.down_delay },
                    false => State::Down,
                };
                out.extend(self.tick(now));
            }
        }
        out
    }

    fn tick(&mut self, now: Duration) -> Vec<Action> {
        let mut out = Vec::new();
        if self.deadline().is_none_or(|d| now < d) {
            return out;
        }
        out.extend(self.damping.tick(now).then_some(Action::DampingEnds));
        match self.state {
            State::Failing { until } if now >= until => out.extend(self.settle_down()),
            State::Recovering { until } | State::Rising { until } if now >= until => out.extend(self.settle_up()),
            State::Failing { .. } | State::Recovering { .. } | State::Rising { .. } => {}
            State::Start | State::Up | State::Down | State::Stopping { .. } => {}
        }
        out
    }

    fn settle_up(&mut self) -> Vec<Action> {
        self.state = State::Up;
        self.settled = Some(Verdict::Up);
        let mut out = Vec::new();
        if self.config.services {
            out.extend([Action::Restore, Action::ServicesUp]);
        }
        out.extend(self.tell());
        out
    }

    fn settle_down(&mut self) -> Vec<Action> {
        self.state = State::Down;
        self.settled = Some(Verdict::Down);
        let mut out = Vec::new();
        out.extend(self.config.services.then_some(Action::ServicesDown));
        out.extend(self.tell());
        out
    }

    /// Runs the program when it has not been told what is settled, and none runs.
    fn tell(&mut self) -> Option<Action> {
        match (self.settled, self.script) {
            (Some(current), Script::Idle { told }) if told != Some(current) => self.run_script(current, told),
            (Some(_) | None, Script::Idle { .. } | Script::Running { .. }) => None,
        }
    }

    fn run_script(&mut self, current: Verdict, previous: Option<Verdict>) -> Option<Action> {
        self.config.script.then(|| {
            self.script = Script::Running { told: current };
            Action::Script { current, previous }
        })
    }

    fn script_done(&mut self, ok: bool) -> Vec<Action> {
        let Script::Running { told } = self.script else { return Vec::new() };
        self.script = Script::Idle { told: Some(told) };
        if let State::Stopping { code } = self.state {
            return self.last_word(code).into_iter().collect();
        }
        if !ok && !self.config.ignore_failure {
            return vec![Action::Exit(1)];
        }
        self.tell().into_iter().collect()
    }

    fn stop(&mut self, code: u8) -> Vec<Action> {
        // Asked twice: the program that is waited for may hang.
        if let State::Stopping { code } = self.state {
            return vec![Action::Exit(code)];
        }
        self.state = State::Stopping { code };
        let mut out = Vec::new();
        out.extend(self.config.services.then_some(Action::Withdraw));
        out.extend(self.last_word(code));
        out
    }

    /// `down`, when the program believes in `up`; then the end. `None` while the program runs.
    fn last_word(&mut self, code: u8) -> Option<Action> {
        match self.script {
            Script::Running { .. } => None,
            Script::Idle { told: Some(Verdict::Up) } if self.config.at_stop && self.config.script => {
                self.script = Script::Running { told: Verdict::Down };
                Some(Action::LastScript)
            }
            Script::Idle { .. } => Some(Action::Exit(code)),
        }
    }

    fn quit(&mut self) -> Vec<Action> {
        let mut out = Vec::new();
        let stopping = matches!(self.state, State::Stopping { .. });
        out.extend((self.config.services && !stopping).then_some(Action::Withdraw));
        self.state = State::Stopping { code: 0 };
        out.push(Action::Exit(0));
        out
    }
}

#[cfg(test)]
mod tests;
