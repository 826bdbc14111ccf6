//! The words of sv: what each sends, and which state it waits for. Pure: no file, no clock.

use applet::control::{Command, RunState, Status, Want};
use applet::getopt::{Arg, Opt, opt};

/// What the services are to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Nothing is sent: status.
    Report,
    /// Nothing to see: a signal.
    Sent,
    /// ./run runs, wanted up, and ./check agrees.
    Up,
    /// Nothing runs, wanted down.
    Down,
    /// Started once since, or running and not to be restarted.
    Once,
    /// runsv is gone.
    Gone,
    /// Another ./run than before, if one is wanted.
    Again,
    /// Another ./run than before: `u` was sent too.
    AgainUp,
    /// STOP was sent.
    Paused,
    /// CONT was sent.
    Continued,
    /// Whatever is wanted of it.
    AsWanted,
}

/// A word, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) letters: Vec<Command>,
    pub(super) goal: Goal,
    /// Wait and report.
    pub(super) wait: bool,
    /// Send KILL when the wait is over.
    pub(super) kill: bool,
}

/// daemontools' options, with busybox's and the rest of the letters.
pub(crate) const SVC_OPTIONS: &[Opt] = &[
    opt('u', "", Arg::No),
    opt('d', "", Arg::No),
    opt('o', "", Arg::No),
    opt('p', "", Arg::No),
    opt('c', "", Arg::No),
    opt('h', "", Arg::No),
    opt('a', "", Arg::No),
    opt('i', "", Arg::No),
    opt('t', "", Arg::No),
    opt('k', "", Arg::No),
    opt('x', "", Arg::No),
    opt('1', "", Arg::No),
    opt('2', "", Arg::No),
    opt('q', "", Arg::No),
];

impl Order {
    /// Whether it ends a process: the time that the service has for that counts.
    pub(super) fn ends(&self) -> bool {
        self.letters.iter().any(|letter| matches!(letter, Command::Down | Command::Exit | Command::Term))
    }
}

/// Understands a word. Of the single commands only the first letter counts, as in runit; `None` is
/// wrong use.
pub(super) fn order(word: &str, verbose: bool) -> Option<Order> {
    use Command::{Continue, Down, Exit, Hangup, Term, Up};
    let long = |letters: &[Command], goal, kill| Some(Order { letters: letters.to_vec(), goal, wait: true, kill });
    match word {
        "check" => return long(&[], Goal::AsWanted, false),
        "start" => return long(&[Up], Goal::Up, false),
        "stop" => return long(&[Down], Goal::Down, false),
        "reload" => return long(&[Hangup], Goal::Sent, false),
        "restart" => return long(&[Term, Continue, Up], Goal::AgainUp, false),
        "shutdown" => return long(&[Exit], Goal::Gone, false),
        "try-restart" => return long(&[Term, Continue], Goal::Again, false),
        "force-reload" => return long(&[Term, Continue], Goal::Again, true),
        "force-restart" => return long(&[Term, Continue, Up], Goal::AgainUp, true),
        "force-shutdown" => return long(&[Exit], Goal::Gone, true),
        "force-stop" => return long(&[Down], Goal::Down, true),
        _ => {}
    }
    let letter = *word.as_bytes().first()?;
    match letter {
        b's' => return Some(Order { letters: Vec::new(), goal: Goal::Report, wait: false, kill: false }),
        b'X' | b'E' => return long(&[Exit], Goal::Gone, true),
        b'D' => return long(&[Down], Goal::Down, true),
        b'T' => return long(&[Term, Continue], Goal::Again, true),
        _ => {}
    }
    let command = Command::from_letter(if letter == b'e' { b'x' } else { letter })?;
    let goal = match command {
        Command::Up => Goal::Up,
        Command::Down => Goal::Down,
        Command::Once => Goal::Once,
        Command::Exit => Goal::Gone,
        Command::Term | Command::Kill => Goal::Again,
        Command::Pause => Goal::Paused,
        Command::Continue => Goal::Continued,
        Command::Hangup | Command::Alarm | Command::Interrupt | Command::Quit | Command::Usr1 | Command::Usr2 => {
            Goal::Sent
        }
    };
    Some(Order { letters: vec![command], goal, wait: verbose, kill: false })
}

impl Goal {
    /// Whether `now`, read after runsv had read the command, shows that it has taken effect;
    /// `before` was read before it was sent. ./check, and the end of runsv, are asked for
    /// elsewhere.
    pub(super) fn reached(self, before: &Status, now: &Status) -> bool {
        let running = now.pid.is_some() && now.state == RunState::Run;
        let down = now.pid.is_none() && now.state == RunState::Down;
        let another = (now.since, now.pid) != (before.since, before.pid);
        match self {
            Goal::Report | Goal::Sent => true,
            // A process that was told to end is not up, even if it is there.
            Goal::Up => running && now.want == Want::Up && !now.got_term,
            Goal::Down => down && now.want == Want::Down,
            Goal::Once if before.state == RunState::Down => another && now.want == Want::Down,
            Goal::Once => now.want == Want::Down,
            Goal::Gone => false,
            Goal::Again if now.want == Want::Down => down,
            Goal::Again | Goal::AgainUp => running && another && !now.got_term && now.want == Want::Up,
            Goal::Paused => now.pid.is_none() || now.paused,
            Goal::Continued => now.pid.is_none() || !now.paused,
            Goal::AsWanted => match now.want {
                Want::Up => Goal::Up.reached(before, now),
                Want::Down => down,
            },
        }
    }

    /// Whether ./check has a say.
    pub(super) fn asks_check(self, now: &Status) -> bool {
        match self {
            Goal::Up | Goal::Again | Goal::AgainUp | Goal::AsWanted => now.state == RunState::Run,
            Goal::Report | Goal::Sent | Goal::Down | Goal::Once | Goal::Gone | Goal::Paused | Goal::Continued => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use applet::control::Tai64n;

    fn status(text: &str) -> Status {
        let mut words = text.split(' ');
        let (state, pid) = match words.next().unwrap() {
            "down" => (RunState::Down, None),
            "run" => (RunState::Run, Some(10)),
            "rerun" => (RunState::Run, Some(11)),
            "finish" => (RunState::Finish, Some(12)),
            other => panic!("{other}"),
        };
        let mut status = Status {
            since: Tai64n { secs: u64::from(pid.unwrap_or(9)), nanos: 0 },
            pid,
            paused: false,
            want: Want::Up,
            got_term: false,
            state,
        };
        for word in words {
            match word {
                "d" => status.want = Want::Down,
                "term" => status.got_term = true,
                "paused" => status.paused = true,
                "later" => status.since.nanos = 1,
                other => panic!("{other}"),
            }
        }
        status
    }

    #[test]
    fn a_state_that_is_older_than_the_command_is_not_a_success() {
        for (goal, before, now, reached) in [
            (Goal::Up, "down d", "down d", false),
            (Goal::Up, "down d", "run", true),
            (Goal::Up, "run d", "run d", false),
            (Goal::Up, "run d", "run", true),
            (Goal::Up, "run d term", "run term", false),
            (Goal::Down, "down", "down", false),
            (Goal::Down, "down", "down d", true),
            (Goal::Down, "run", "finish d", false),
            (Goal::Once, "down d", "down d", false),
            (Goal::Once, "down d", "run d", true),
            (Goal::Once, "down d", "down d later", true),
            (Goal::Once, "run", "run", false),
            (Goal::Once, "run", "run d", true),
            (Goal::AgainUp, "run", "run", false),
            (Goal::AgainUp, "run", "run term", false),
            (Goal::AgainUp, "run", "down", false),
            (Goal::AgainUp, "run", "rerun", true),
            (Goal::AgainUp, "down d", "down d", false),
            (Goal::AgainUp, "down d", "run", true),
            (Goal::Again, "run d", "run d", false),
            (Goal::Again, "run d", "down d", true),
            (Goal::Again, "down d", "down d", true),
            (Goal::Again, "run", "rerun", true),
            (Goal::Paused, "run", "run", false),
            (Goal::Paused, "run", "run paused", true),
            (Goal::Continued, "run paused", "run paused", false),
            (Goal::Continued, "run paused", "run", true),
            (Goal::AsWanted, "down", "down", false),
            (Goal::AsWanted, "down d", "down d", true),
            (Goal::AsWanted, "run", "run", true),
            (Goal::Gone, "down d", "down d", false),
            (Goal::Sent, "run", "run", true),
        ] {
            assert_eq!(goal.reached(&status(before), &status(now)), reached, "{goal:?}: {before} -> {now}");
        }
    }

    #[test]
    fn words_are_understood_as_runit_understands_them() {
        let letters = |word: &str| {
            order(word, false).map(|o| {
                let text: String = o.letters.iter().map(|c| char::from(c.letter())).collect();
                (text, o.wait, o.kill)
            })
        };
        let row = |text: &str, wait, kill| Some((text.to_owned(), wait, kill));
        for (word, expected) in [
            ("up", row("u", false, false)),
            ("uuuu", row("u", false, false)),
            ("exit", row("x", false, false)),
            ("cont", row("c", false, false)),
            ("check", row("", true, false)),
            ("status", row("", false, false)),
            ("start", row("u", true, false)),
            ("stop", row("d", true, false)),
            ("restart", row("tcu", true, false)),
            ("reload", row("h", true, false)),
            ("shutdown", row("x", true, false)),
            ("try-restart", row("tc", true, false)),
            ("force-stop", row("d", true, true)),
            ("force-reload", row("tc", true, true)),
            ("force-restart", row("tcu", true, true)),
            ("force-shutdown", row("x", true, true)),
            ("T", row("tc", true, true)),
            ("D", row("d", true, true)),
            ("E", row("x", true, true)),
            ("U", None),
            ("refresh", None),
            ("force-up", None),
            ("zzz", None),
            ("", None),
        ] {
            assert_eq!(letters(word), expected, "{word}");
        }
        assert!(order("up", true).unwrap().wait);
    }
}
