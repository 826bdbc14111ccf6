use super::*;
use netd_core::rng::Rng;

const MS: Duration = Duration::from_millis(1);

fn differs() -> Found {
    Found::Differs("lan0 is gone".into())
}

fn tell() -> Action {
    Action::Tell("lan0 is gone".into())
}

/// A machine whose first look has found nothing.
fn quiet() -> Follow {
    let mut machine = Follow::new(Duration::ZERO);
    assert_eq!(machine.step(Duration::ZERO, Event::Tick), [Action::Look]);
    assert_eq!(machine.step(Duration::ZERO, Event::Looked(Found::Same)), []);
    assert_eq!(machine.deadline(), None);
    machine
}

#[test]
fn a_burst_is_one_look_and_one_word_to_fw_which_is_waited_for() {
    let mut machine = quiet();
    let at = Duration::from_secs(10);
    assert_eq!(machine.step(at, Event::Stirred), []);
    assert_eq!(machine.step(at + MS, Event::Table), []);
    assert_eq!(machine.deadline(), Some(at + SETTLE));
    assert_eq!(machine.step(at + MS, Event::Tick), []);
    assert_eq!(machine.step(at + SETTLE, Event::Tick), [Action::Look]);
    assert_eq!(machine.step(at + SETTLE, Event::Looked(differs())), [tell()]);
    // What fw does meanwhile is no news.
    for event in [Event::Stirred, Event::Table, Event::Stirred] {
        assert_eq!(machine.step(at + 10 * MS, event), []);
    }
    assert_eq!(machine.step(at + 20 * MS, Event::Ran), [Action::Look]);
    assert_eq!(machine.step(at + 20 * MS, Event::Looked(Found::Same)), []);
    assert_eq!(machine.deadline(), None);
}

#[test]
fn what_happens_while_fw_runs_is_looked_at_when_it_has_ended() {
    let mut machine = quiet();
    let at = Duration::from_secs(10);
    machine.step(at, Event::Stirred);
    assert_eq!(machine.step(at + SETTLE, Event::Tick), [Action::Look]);
    assert_eq!(machine.step(at + SETTLE, Event::Looked(Found::Busy)), []);
    assert_eq!(machine.deadline(), Some(at + SETTLE + BUSY), "should its end go unnoticed");
    assert_eq!(machine.step(at + 9 * MS, Event::Table), []);
    assert_eq!(machine.step(at + 20 * MS, Event::Ran), [Action::Look]);
    assert_eq!(machine.step(at + 20 * MS, Event::Looked(differs())), [tell()]);
    assert_eq!(machine.step(at + 40 * MS, Event::Ran), [Action::Look]);
    assert_eq!(machine.step(at + 40 * MS, Event::Looked(differs())), [tell()], "it was undone again: at once");
}

#[test]
fn fw_that_does_not_run_is_told_again() {
    let mut machine = quiet();
    let at = Duration::from_secs(10);
    machine.step(at, Event::Table);
    machine.step(at + SETTLE, Event::Tick);
    machine.step(at + SETTLE, Event::Looked(differs()));
    assert_eq!(machine.deadline(), Some(at + SETTLE + PATIENCE));
    assert_eq!(machine.step(at + SETTLE + PATIENCE, Event::Tick), [Action::Look]);
    assert_eq!(machine.step(at + SETTLE + PATIENCE, Event::Looked(differs())), [tell()]);
}

#[test]
fn a_default_route_of_another_program_makes_one_run_whatever_fw_left() {
    let mut machine = quiet();
    let at = Duration::from_secs(10);
    machine.step(at, Event::Owed("why"));
    assert_eq!(machine.step(at + SETTLE, Event::Tick), [Action::Look]);
    assert_eq!(machine.step(at + SETTLE, Event::Looked(Found::Same)), [Action::Tell("why".into())]);
    machine.step(at + 9 * MS, Event::Ran);
    assert_eq!(machine.step(at + 9 * MS, Event::Looked(Found::Same)), []);
    assert_eq!(machine.deadline(), None);
}

#[test]
fn noise_is_looked_at_more_rarely_but_the_table_is_not() {
    let (mut machine, mut now, mut looks) = (quiet(), Duration::from_secs(10), 0);
    let end = now + Duration::from_secs(10);
    while now < end {
        machine.step(now, Event::Stirred);
        if machine.deadline().is_some_and(|d| now >= d) {
            assert_eq!(machine.step(now, Event::Tick), [Action::Look]);
            assert_eq!(machine.step(now, Event::Looked(Found::Same)), []);
            looks += 1;
        }
        now += MS / 2;
    }
    assert!((70..90).contains(&looks), "{looks}");
    machine.step(now, Event::Stirred);
    machine.step(now, Event::Table);
    assert!(machine.deadline().is_some_and(|d| d <= now + SETTLE));
}

/// The kernel and fw: what is there, what fw left, and when its run ends.
struct World {
    there: u64,
    left: u64,
    /// What fw makes when it can.
    wanted: u64,
    can_mend: bool,
    runs: Option<(Duration, Duration)>,
    again: bool,
}

impl World {
    fn found(&self, now: Duration) -> Found {
        match self.runs {
            Some((from, _)) if now >= from => Found::Busy,
            _ if self.there == self.left => Found::Same,
            _ => differs(),
        }
    }

    fn told(&mut self, now: Duration) {
        match self.runs {
            Some(_) => self.again = true,
            None => self.runs = Some((now + 3 * MS, now + 20 * MS)),
        }
    }

    /// fw has ended: its events, if it has changed something.
    fn end(&mut self, now: Duration) -> bool {
        let changes = self.can_mend && self.there != self.wanted;
        if changes {
            self.there = self.wanted;
        }
        self.left = self.there;
        self.runs = None;
        if std::mem::take(&mut self.again) {
            self.told(now);
        }
        changes
    }
}

/// Random destruction by others. After quiet, all is as fw left it, and fw was told at most once
/// more than there were bursts; nothing goes on for ever, also when fw cannot mend it.
#[test]
fn nothing_missing_is_left_alone_and_nothing_goes_in_a_circle() {
    for seed in 0..300 {
        let mut rng = Rng::seeded(seed);
        let can_mend = rng.below(4) > 0;
        let mut world = World { there: 0, left: 0, wanted: 0, can_mend, runs: None, again: false };
        let (mut machine, mut now) = (Follow::new(Duration::ZERO), Duration::ZERO);
        let (mut tells, mut bursts, mut next) = (0, 0, Duration::from_millis(rng.below(100)));
        let stop = Duration::from_secs(30);
        let end = stop + Duration::from_secs(90);
        while now < end {
            let run_ends = world.runs.map(|(_, end)| end);
            let strike = (next < stop).then_some(next);
            let Some(at) = [machine.deadline(), run_ends, strike].into_iter().flatten().min() else { break };
            now = now.max(at);
            let mut events = Vec::new();
            if run_ends.is_some_and(|at| at <= now) {
                let changed = world.end(now);
                events.extend(changed.then_some(Event::Stirred));
                events.push(Event::Ran);
            } else if strike.is_some_and(|at| at <= now) {
                // A burst: several events within a millisecond.
                world.there = rng.below(1000) + 1;
                bursts += 1;
                events.extend((0..=rng.below(5)).map(|n| if n % 2 == 0 { Event::Table } else { Event::Stirred }));
                next = now + Duration::from_millis(rng.below(4000));
            } else {
                events.push(Event::Tick);
            }
            for event in events {
                let mut queue = vec![event];
                while let Some(event) = queue.pop() {
                    for action in machine.step(now, event) {
                        match action {
                            Action::Look => queue.push(Event::Looked(world.found(now))),
                            Action::Tell(_) => {
                                tells += 1;
                                world.told(now);
                            }
                            Action::Slower => {}
                        }
                    }
                }
            }
        }
        assert_eq!(world.there, world.left, "seed {seed}: a difference was left alone");
        assert_eq!(machine.deadline(), None, "seed {seed}: it does not come to rest");
        assert!(tells <= bursts, "seed {seed}: told {tells} times for {bursts} bursts");
        assert!(!can_mend || world.there == world.wanted, "seed {seed}");
    }
}

/// Another program that undoes at once what fw does: the runs get rarer, up to one in half a
/// minute.
#[test]
fn a_program_that_fights_fw_is_answered_more_and_more_rarely() {
    let (mut machine, mut now) = (quiet(), Duration::from_secs(10));
    let mut told = Vec::new();
    let mut event = Event::Table;
    while now < Duration::from_secs(310) {
        let mut actions = machine.step(now, event);
        if actions == [Action::Look] {
            actions = machine.step(now, Event::Looked(differs()));
        }
        if actions.contains(&tell()) {
            told.push(now);
            (now, event) = (now + 20 * MS, Event::Ran);
        } else {
            let Some(at) = machine.deadline() else { panic!("it rests while something is missing") };
            (now, event) = (now.max(at), Event::Tick);
        }
    }
    assert!(told.len() < 50, "{}", told.len());
    let gaps: Vec<Duration> = told.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(gaps[..18].iter().all(|gap| *gap < 100 * MS), "{gaps:?}");
    assert!(gaps.last().is_some_and(|gap| *gap >= LONGEST_HOLD), "{gaps:?}");
    // It has ended: the next difference counts as if nothing had been.
    machine.step(now, Event::Ran);
    machine.step(now, Event::Looked(Found::Same));
    now += Duration::from_secs(60);
    for _ in 0..10 {
        machine.step(now, Event::Table);
        now += SETTLE;
        assert_eq!(machine.step(now, Event::Tick), [Action::Look]);
        assert!(machine.step(now, Event::Looked(differs())).contains(&tell()));
        machine.step(now, Event::Ran);
        machine.step(now, Event::Looked(Found::Same));
    }
}

/// Another program that flushes all tables every few seconds is answered at once each time.
#[test]
fn a_flush_every_few_seconds_is_mended_at_once_for_ever() {
    let (mut machine, mut now) = (quiet(), Duration::from_secs(10));
    for _ in 0..1000 {
        machine.step(now, Event::Table);
        assert_eq!(machine.step(now + SETTLE, Event::Tick), [Action::Look]);
        assert_eq!(machine.step(now + SETTLE, Event::Looked(differs())), [tell()]);
        machine.step(now + 20 * MS, Event::Ran);
        machine.step(now + 20 * MS, Event::Looked(Found::Same));
        now += Duration::from_secs(3);
    }
}
