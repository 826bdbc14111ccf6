//! An edit that is rolled back by itself unless it is confirmed: what a run of fw does. PURE.
//!
//! `fw apply --confirm SECS` keeps the content that was confirmed last in `.confirmed`, and writes
//! a mark with a deadline. Both are in the directory of the service, on the disk, so that neither a
//! kill nor a reboot loses them. There is no daemon: the mark, the clock and the boot decide at
//! every run.
//!
//! ```text
//!             apply --confirm            confirm
//!   Settled ------------------> Pending ---------> Settled
//!                                |   ^ |
//!                                |   +-+ apply --confirm: a new deadline
//!            the deadline, a reboot, INT
//!                                v
//!                              Over ------------> Settled
//!                                    rolled back
//! ```
//!
//! Killed between any two actions, a run leaves a mark, and the next run does all of it again.
//! Called by commands/confirm.rs, which performs the actions.

use std::time::Duration;

/// The longest time to wait for a confirmation: a day.
pub const MAX_SECS: u64 = 86_400;

/// The mark of an edit that waits for its confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Seconds of CLOCK_BOOTTIME, and the boot that they count from.
    pub deadline_secs: u64,
    /// The first digits of the boot's id, as records bear them.
    pub boot_id: String,
}

impl Mark {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Option<Mark> {
        let (deadline, boot_id) = text.trim_end().split_once(' ')?;
        let is_id = !boot_id.is_empty() && boot_id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        Some(Mark { deadline_secs: netd_core::net::decimal(deadline)?, boot_id: boot_id.to_owned() }).filter(|_| is_id)
    }

    /// The file's text.
    pub fn render(&self) -> String {
        format!("{} {}\n", self.deadline_secs, self.boot_id)
    }
}

/// The clock and the boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// CLOCK_BOOTTIME.
    pub boottime: Duration,
    /// The boot, as in [`Mark`].
    pub boot_id: String,
}

/// How an edit stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No edit waits.
    Settled,
    /// One waits, and this much is left.
    Pending(Duration),
    /// One was not confirmed in time.
    Over(Why),
}

/// Why an edit is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its time is over.
    Late,
    /// The machine has started again.
    OtherBoot,
    /// The mark cannot be read.
    Damaged,
    /// The administrator has interrupted the wait.
    GivenUp,
}

impl Why {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Why::Late => "was not confirmed in time",
            Why::OtherBoot => "was not confirmed before the machine started again",
            Why::Damaged => "has a mark that cannot be read",
            Why::GivenUp => "was given up",
        }
    }
}

/// How it stands. `mark` is the text of the file, if there is one.
pub fn standing(mark: Option<&str>, now: &Moment) -> Standing {
    let Some(text) = mark else { return Standing::Settled };
    let Some(mark) = Mark::parse(text) else { return Standing::Over(Why::Damaged) };
    let left = Duration::from_secs(mark.deadline_secs).saturating_sub(now.boottime);
    match (mark.boot_id == now.boot_id, left.is_zero()) {
        (false, _) => Standing::Over(Why::OtherBoot),
        (true, true) => Standing::Over(Why::Late),
        (true, false) => Standing::Pending(left),
    }
}

/// What fw was called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `fw apply`, by hand or by the service.
    Apply,
    /// `fw apply --confirm SECS`.
    Try {
        /// Seconds.
        secs: u64,
    },
    /// `fw confirm`.
    Confirm,
    /// A wait in the foreground was interrupted.
    GiveUp,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Keep what was confirmed last in `.confirmed`, on the disk.
    Keep,
    /// Write the mark, on the disk.
    Mark(Mark),
    /// Have the supervisor start a run then.
    Wake(Mark),
    /// Make the kernel match the files.
    Apply,
    /// Put the confirmed files in place, and keep the edit beside them.
    Restore(Why),
    /// Ask the kernel whether it matches the files.
    Verify,
    /// Take the mark away, on the disk, then what was kept.
    Settle,
    /// It cannot be done: the command fails with these words.
    Refuse(&'static str),
}

/// What is said where nothing waits.
pub const NOTHING: &str = "no edit waits for its confirmation";
/// What is said of a confirmation after the deadline.
pub const TOO_LATE: &str = "too late: the edit was rolled back";
/// What is said of a new edit that came after the end of an old one.
pub const AGAIN: &str = "an earlier edit had to be rolled back first: put the edit in place again";

/// What a run does.
pub fn step(standing: &Standing, event: Event, now: &Moment) -> Vec<Action> {
    let roll_back = |why: Why| vec![Action::Restore(why), Action::Apply, Action::Verify, Action::Settle];
    let refused = |why: Why, words| [roll_back(why), vec![Action::Refuse(words)]].concat();
    match (standing, event) {
        (Standing::Settled | Standing::Pending(_), Event::Apply) => vec![Action::Apply],
        (Standing::Settled, Event::Try { secs }) => [vec![Action::Keep], attempt(secs, now)].concat(),
        // What the edit is compared with stays the content that was confirmed.
        (Standing::Pending(_), Event::Try { secs }) => attempt(secs, now),
        (Standing::Settled, Event::Confirm) => vec![Action::Refuse(NOTHING)],
        (Standing::Settled, Event::GiveUp) => Vec::new(),
        (Standing::Pending(_), Event::Confirm) => vec![Action::Settle],
        (Standing::Pending(_), Event::GiveUp) => roll_back(Why::GivenUp),
        (Standing::Over(why), Event::Apply | Event::GiveUp) => roll_back(*why),
        (Standing::Over(why), Event::Try { .. }) => refused(*why, AGAIN),
        (Standing::Over(why), Event::Confirm) => refused(*why, TOO_LATE),
    }
}

fn attempt(secs: u64, now: &Moment) -> Vec<Action> {
    // The second that has begun does not count, so that the administrator has at least the time
    // asked for.
    let now_secs = now.boottime.as_secs() + u64::from(now.boottime.subsec_nanos() > 0);
    let mark = Mark { deadline_secs: now_secs.saturating_add(secs), boot_id: now.boot_id.clone() };
    // The supervisor knows of the deadline before the edit can cut the administrator off.
    vec![Action::Mark(mark.clone()), Action::Wake(mark), Action::Apply]
}

/// One file of the administrator, by its name below the directory of the service.
pub type Content = (String, Vec<u8>);

/// The same of a file as it is now. Without content: it cannot be read.
pub type Found = (String, Option<Vec<u8>>);

/// What a rollback does to the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Keep a copy of this file among the rejected ones.
    Reject(String),
    /// Write this content.
    Write(String, Vec<u8>),
    /// Remove the file: it was not there.
    Remove(String),
}

/// What brings `now` back to `kept`. All copies are made before the first file changes.
pub fn moves(kept: &[Content], now: &[Found]) -> Vec<Move> {
    let old = |name: &str| kept.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes);
    let mut rejects = Vec::new();
    let mut changes = Vec::new();
    for (name, bytes) in now {
        if old(name).is_some() && old(name) == bytes.as_ref() {
            continue;
        }
        rejects.push(Move::Reject(name.clone()));
        if old(name).is_none() {
            changes.push(Move::Remove(name.clone()));
        }
    }
    for (name, bytes) in kept {
        let same = now.iter().any(|(n, content)| n == name && content.as_ref() == Some(bytes));
        if !same {
            changes.push(Move::Write(name.clone(), bytes.clone()));
        }
    }
    // What was taken away comes back before what was added goes: an address is never missed for an
    // order of files.
    applet::sort::sort_by_key(&mut changes, |m| matches!(m, Move::Remove(_)));
    rejects.extend(changes);
    rejects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Moment {
        Moment { boottime: Duration::from_secs(secs), boot_id: "0a1b2c3d".into() }
    }

    fn stand(mark: &str, secs: u64) -> Standing {
        standing(Some(mark), &at(secs))
    }

    #[test]
    fn the_mark_the_clock_and_the_boot_decide() {
        assert_eq!(standing(None, &at(5)), Standing::Settled);
        assert_eq!(stand("100 0a1b2c3d\n", 40), Standing::Pending(Duration::from_secs(60)));
        assert_eq!(stand("100 0a1b2c3d\n", 99), Standing::Pending(Duration::from_secs(1)));
        assert_eq!(stand("100 0a1b2c3d\n", 100), Standing::Over(Why::Late));
        assert_eq!(stand("100 0a1b2c3d\n", 5000), Standing::Over(Why::Late));
        // The clock of another boot tells nothing.
        assert_eq!(stand("100 ffffffff\n", 40), Standing::Over(Why::OtherBoot));
        for damaged in ["", "\n", "100", "100 \n", "soon 0a1b2c3d\n", "-1 0a1b2c3d\n", "1 0a1b;reboot\n", "1 0a1b 2\n"]
        {
            assert_eq!(stand(damaged, 40), Standing::Over(Why::Damaged), "{damaged:?}");
        }
        let mark = Mark { deadline_secs: 100, boot_id: "0a1b2c3d".into() };
        assert_eq!(Mark::parse(&mark.render()), Some(mark));
    }

    #[test]
    fn every_event_in_every_standing() {
        let mark = Mark { deadline_secs: 72, boot_id: "0a1b2c3d".into() };
        let now = Moment { boottime: Duration::from_millis(41_500), boot_id: "0a1b2c3d".into() };
        let [settled, pending, over] =
            [Standing::Settled, Standing::Pending(Duration::from_secs(9)), Standing::Over(Why::Late)];
        let tried = [Action::Mark(mark.clone()), Action::Wake(mark), Action::Apply];
        let back = [Action::Restore(Why::Late), Action::Apply, Action::Verify, Action::Settle];
        let and = |actions: &[Action], last: &str| {
            let words = [NOTHING, TOO_LATE, AGAIN].into_iter().find(|w| *w == last).unwrap();
            [actions, &[Action::Refuse(words)]].concat()
        };
        let again = Event::Try { secs: 30 };
        for (standing, event, want) in [
            (&settled, Event::Apply, vec![Action::Apply]),
            (&settled, again, [&[Action::Keep][..], &tried].concat()),
            (&settled, Event::Confirm, and(&[], NOTHING)),
            (&settled, Event::GiveUp, vec![]),
            (&pending, Event::Apply, vec![Action::Apply]),
            (&pending, again, tried.to_vec()),
            (&pending, Event::Confirm, vec![Action::Settle]),
            (&pending, Event::GiveUp, [&[Action::Restore(Why::GivenUp)], &back[1..]].concat()),
            (&over, Event::Apply, back.to_vec()),
            (&over, again, and(&back, AGAIN)),
            (&over, Event::Confirm, and(&back, TOO_LATE)),
            (&over, Event::GiveUp, back.to_vec()),
        ] {
            assert_eq!(step(standing, event, &now), want, "{standing:?} {event:?}");
        }
    }

    /// The disk as far as the actions touch it, and a run that is killed after `steps` of them.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    struct Disk {
        mark: Option<String>,
        kept: bool,
        /// 0: the confirmed content; 1: the edit.
        files: u8,
        kernel: u8,
    }

    fn run(disk: &mut Disk, event: Event, now: &Moment, steps: usize) {
        let standing = standing(disk.mark.as_deref(), now);
        for action in step(&standing, event, now).into_iter().take(steps) {
            match action {
                Action::Keep => disk.kept = true,
                Action::Mark(mark) => disk.mark = Some(mark.render()),
                Action::Apply => disk.kernel = disk.files,
                Action::Restore(_) => {
                    assert!(disk.kept, "nothing to go back to: {disk:?}");
                    disk.files = 0;
                }
                Action::Settle => (disk.mark, disk.kept) = (None, false),
                Action::Verify => assert_eq!(disk.kernel, disk.files),
                Action::Wake(_) | Action::Refuse(_) => {}
            }
        }
    }

    #[test]
    fn killed_anywhere_an_edit_that_is_not_confirmed_is_undone_and_a_confirmed_one_stays() {
        for (first, second) in (0..6).flat_map(|a| (0..6).map(move |b| (a, b))) {
            let mut disk = Disk { files: 1, ..Disk::default() };
            run(&mut disk, Event::Try { secs: 30 }, &at(10), first);
            // Without a mark the edit was never tried: it is an edit as any other.
            let tried = disk.mark.is_some();
            run(&mut disk, Event::Apply, &at(20), 9);
            assert_eq!((disk.files, disk.kernel), (1, 1), "before the deadline all triggers work as usual");
            let mut confirmed = disk.clone();
            run(&mut disk, Event::Apply, &at(40), second);
            run(&mut disk, Event::Apply, &at(41), 9);
            assert_eq!((disk.files, disk.kernel), if tried { (0, 0) } else { (1, 1) }, "{first} {second}");
            assert_eq!(disk.mark, None);
            run(&mut confirmed, Event::Confirm, &at(39), 9);
            run(&mut confirmed, Event::Apply, &at(50), 9);
            assert_eq!((confirmed.files, confirmed.kernel, confirmed.mark), (1, 1, None));
        }
    }

    #[test]
    fn the_files_go_back_and_no_word_of_the_edit_is_lost() {
        let kept = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
        let now = |name: &str, text: &str| (name.to_owned(), Some(text.as_bytes().to_vec()));
        let old = [kept("conf/a", "1"), kept("conf/gone", "2"), kept("fw.conf", "3"), kept("conf/dir", "4")];
        let unreadable = ("conf/dir".to_owned(), None);
        let edit = [now("conf/a", "1"), now("conf/new", "9"), now("fw.conf", "33"), unreadable];
        let [reject, write] = [|n: &str| Move::Reject(n.into()), |n: &str| Move::Write(n.into(), Vec::new())];
        let shown: Vec<Move> = moves(&old, &edit)
            .into_iter()
            .map(|m| match m {
                Move::Write(name, bytes) => {
                    assert!(old.contains(&(name.clone(), bytes)));
                    write(&name)
                }
                other => other,
            })
            .collect();
        assert_eq!(
            shown,
            [
                reject("conf/new"),
                reject("fw.conf"),
                reject("conf/dir"),
                write("conf/gone"),
                write("fw.conf"),
                write("conf/dir"),
                Move::Remove("conf/new".into()),
            ]
        );
        let same: Vec<_> = old.iter().map(|(n, b)| (n.clone(), Some(b.clone()))).collect();
        assert_eq!(moves(&old, &same), []);
    }
}
