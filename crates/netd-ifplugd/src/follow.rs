//! When fw is told that the kernel is no longer as fw left it: the state machine of --all. PURE.
//!
//! Events only say when to look; what counts is the comparison of the kernel with what fw left
//! (netd_core::left). fw writes that at the end of each run, so fw's own changes are no difference,
//! nor is anything that fw cannot mend: an endless loop of event, `u` and run has no start. One
//! look and one `u` answer a burst of events. After the `u` the machine waits for the end of fw's
//! run and looks again, so nothing that happens meanwhile is lost. Another program that destroys
//! what fw makes again and again is answered more and more rarely. Called by `all`.

use std::time::Duration;

/// From an event to the look, so that one look serves a burst.
const SETTLE: Duration = Duration::from_millis(2);
/// On a machine whose events are no difference again and again, each look waits twice as long as
/// the last, so many times: up to 128 ms. A change of fw's table never waits for that.
const MOST_NOISE: u32 = 6;
/// Without a look for so long, the noise is forgotten.
const QUIET: Duration = Duration::from_secs(1);
/// So long after a `u` the machine looks, should fw not have run: it may be down, or slow.
const PATIENCE: Duration = Duration::from_secs(5);
/// While fw runs, the machine looks this often, should the end of the run go unnoticed.
const BUSY: Duration = Duration::from_secs(1);
/// So many times in a row fw is told at once ...
const TRIES: u32 = 20;
/// ... one of which comes back in so much time in which all is as fw left it. A program that
/// flushes all tables every few seconds does not get ahead of fw.
const FORGET: Duration = Duration::from_secs(2);
/// The first wait after that; each further one is twice as long ...
const FIRST_HOLD: Duration = Duration::from_secs(1);
/// ... up to this: what fw costs then is not noticed.
const LONGEST_HOLD: Duration = Duration::from_secs(16);
/// So long without a difference, and the first wait is short again.
const CALM: Duration = Duration::from_secs(10);

/// What a look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// All is as fw left it, or fw has left nothing yet.
    Same,
    /// It is not, in this way.
    Differs(String),
    /// fw is running.
    Busy,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Something has changed that may concern fw.
    Stirred,
    /// fw's nft table has changed.
    Table,
    /// A default route of another program has come or gone, or the kernel's messages have
    /// overflowed: fw has to judge again, whatever it left.
    Owed(&'static str),
    /// A run of fw has ended.
    Ran,
    /// The outcome of [`Action::Look`].
    Looked(Found),
    /// The deadline may have passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Compare the kernel with what fw left; answered by [`Event::Looked`] at once.
    Look,
    /// `u` to fw, for this reason.
    Tell(String),
    /// Say that another program is at work against fw, and that fw is told more rarely.
    Slower,
}

/// Where the machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has happened since the last look.
    Quiet,
    /// A look is due.
    Settling { until: Duration },
    /// The look that is being made.
    Looking,
    /// fw runs; look at its end.
    Busy { until: Duration },
    /// fw was told; look at the end of its run.
    Told { until: Duration },
    /// fw is not to be told before.
    Holding { until: Duration },
}

/// How often fw is told: a program that undoes what fw does must not keep the machine busy.
#[derive(Debug)]
struct Pace {
    /// Times that are left.
    tries: u32,
    /// The next wait when none is left.
    hold: Duration,
    /// When fw was told last.
    told: Duration,
    /// Since when all is as fw left it.
    same: Option<Duration>,
}

impl Pace {
    fn same(&mut self, now: Duration) {
        self.same = self.same.or(Some(now));
    }

    /// When fw may be told of a difference that is seen now.
    fn allowed(&mut self, now: Duration) -> Duration {
        let calm = self.same.take().map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let forgotten = u32::try_from(calm.as_millis() / FORGET.as_millis()).unwrap_or(TRIES);
        self.tries = self.tries.saturating_add(forgotten).min(TRIES);
        if calm >= CALM {
            self.hold = FIRST_HOLD;
        }
        if self.tries > 0 { now } else { self.told + self.hold }
    }

    /// fw is told; true when the waits begin with it.
    fn told(&mut self, now: Duration) -> bool {
        self.told = now;
        if self.tries == 0 {
            self.hold = (self.hold * 2).min(LONGEST_HOLD);
        }
        self.tries = self.tries.saturating_sub(1);
        self.tries == 0 && self.hold == FIRST_HOLD
    }
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Follow {
    state: State,
    /// fw has to run, whatever a look finds.
    owed: Option<&'static str>,
    pace: Pace,
    /// Looks in a row that found nothing.
    noise: u32,
    looked: Duration,
}

impl Follow {
    /// The first look is due at once: what happened while no watcher was there counts, too.
    pub(crate) fn new(now: Duration) -> Follow {
        let pace = Pace { tries: TRIES, hold: FIRST_HOLD, told: now, same: None };
        Follow { state: State::Settling { until: now }, owed: None, pace, noise: 0, looked: now }
    }

    /// When [`Event::Tick`] is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Quiet | State::Looking => None,
            State::Settling { until } | State::Busy { until } | State::Told { until } | State::Holding { until } => {
                Some(until)
            }
        }
    }

    /// One step.
    pub(crate) fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        match event {
            Event::Stirred => self.stirred(now, self.settle(now)),
            Event::Table => self.stirred(now, SETTLE),
            Event::Owed(reason) => {
                self.owed = Some(reason);
                self.stirred(now, SETTLE);
            }
            // In whatever state: fw may have run without being told, and have mended it.
            Event::Ran => return self.look(now),
            Event::Tick => {
                return match self.deadline() {
                    Some(until) if now >= until => self.look(now),
                    Some(_) | None => Vec::new(),
                };
            }
            Event::Looked(found) => return self.looked(now, found),
        }
        Vec::new()
    }

    fn settle(&self, now: Duration) -> Duration {
        let noise = if now.saturating_sub(self.looked) > QUIET { 0 } else { self.noise };
        SETTLE * (1 << noise.min(MOST_NOISE))
    }

    fn stirred(&mut self, now: Duration, wait: Duration) {
        let at = now + wait;
        match self.state {
            State::Quiet => self.state = State::Settling { until: at },
            State::Settling { until } => self.state = State::Settling { until: until.min(at) },
            // The look at the end sees it.
            State::Busy { .. } | State::Told { .. } | State::Holding { .. } | State::Looking => {}
        }
    }

    fn look(&mut self, now: Duration) -> Vec<Action> {
        if now.saturating_sub(self.looked) > QUIET {
            self.noise = 0;
        }
        (self.state, self.looked) = (State::Looking, now);
        vec![Action::Look]
    }

    fn looked(&mut self, now: Duration, found: Found) -> Vec<Action> {
        let reason = match found {
            Found::Busy => {
                self.state = State::Busy { until: now + BUSY };
                return Vec::new();
            }
            Found::Differs(what) => what,
            Found::Same => match self.owed {
                Some(reason) => reason.to_owned(),
                None => {
                    self.pace.same(now);
                    self.noise = self.noise.saturating_add(1);
                    self.state = State::Quiet;
                    return Vec::new();
                }
            },
        };
        let until = self.pace.allowed(now);
        if until > now {
            self.state = State::Holding { until };
            return Vec::new();
        }
        self.owed = None;
        self.noise = 0;
        self.state = State::Told { until: now + PATIENCE };
        let began = self.pace.told(now);
        let mut actions = vec![Action::Tell(reason)];
        actions.extend(began.then_some(Action::Slower));
        actions
    }
}

#[cfg(test)]
mod tests;
