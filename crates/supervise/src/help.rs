//! What each applet of this crate prints for `--help`: its usage, and a line for each option and
//! word.
//!
//! The manual pages say more. Printed by `src/main.rs`; the tests hold each text against the table
//! of options.

/// runsvdir(8).
pub const RUNSVDIR: &str = "\
usage: runsvdir [-P] [-1w] [-W secs] dir [log]

Runs a runsv for each service directory in dir, and follows what changes there.

  -P       run each service in a session of its own
  -1       run all services in this one process
  -w       at TERM end all services, and wait for them
  -W SECS  as -w, but end what is left after SECS seconds by force
  log      a text of 7 characters or more, in which ps shows the last messages
";

/// runsv(8).
pub const RUNSV: &str = "\
usage: runsv dir

Runs dir/run, and dir/log/run, again and again, as `sv` says.
";

/// sv(8).
pub const SV: &str = "\
usage: sv [-v] [-w sec] command service ...
       sv [--json] [--lines N] status [service ...]
       sv enable|disable service ...
       sv list

  -v         wait and report, also for the commands of one letter; status with ten lines of the log
  -w SEC     wait for SEC seconds, not longer (default $SVWAIT, or 7); implies -v
  -V         print the version and the usage
  --json     status in JSON
  --lines N  status with the last N lines of the log

Commands of which the first letter counts:
  status                        the state; without a service that of all
  up, down, once                start and keep up; stop; start and do not start again
  exit                          stop, and end the runsv
  pause cont hup alarm interrupt quit 1 2 term kill
                                send this signal

Commands that wait and report:
  start, stop, restart, reload  up; down; term, cont, up; hup
  try-restart, shutdown, check  term, cont; exit; wait for the state that is wanted
  force-stop, force-reload, force-restart, force-shutdown
                                the same, then KILL when the time is over

Commands that are whole words:
  enable, disable               link it from $SVSOURCE (/etc/sv) into $SVDIR; remove the link
  list                          all services, enabled or not

A service is a directory in $SVDIR (default /var/service), or a path with `/' or `.' in front.
";

/// svc, as daemontools has it.
pub const SVC: &str = "\
usage: svc [-udopchaitkx12q] service ...

  -u -d -o       up; down; once
  -x             down, then end the runsv
  -p -c          STOP; CONT
  -h -a -i -t    HUP; ALRM; INT; TERM
  -k -q -1 -2    KILL; QUIT; USR1; USR2
";

/// svok, as daemontools has it.
pub const SVOK: &str = "\
usage: svok service

Exits 0 when a runsv runs in the service's directory, 100 when none does.
";

/// svlogd(8).
pub const SVLOGD: &str = "\
usage: svlogd [-tttTvV] [-r c] [-R xyz] [-l len] [-b buflen] dir ...

  -t        put a TAI64N stamp before each line; -tt: the time in UTC; -ttt: the same with a T in it
  -T        the time is local; with -ttt the difference to UTC is behind it
  -r C      write C in the place of each character that cannot be printed
  -R XYZ    write _ (or C) in the place of each of these characters, too
  -l LEN    the length of a line that patterns see (default 1000)
  -b SIZE   the size of the buffer (default 1024)
  -v        say more
  -V        print the version and the usage
";

/// chpst(8).
pub const CHPST: &str = "\
usage: chpst [options] prog ...

  -u USER[:GROUP]...  run as this user, with these groups; `:UID:GID' for numbers
  -U USER[:GROUP]     set $UID and $GID
  -b ARGV0            give the program this name
  -e DIR              set a variable for each file in DIR
  -/ ROOT             change the root directory
  -C PWD              change the working directory
  -n NICE             add NICE to the nice value
  -l LOCK             lock the file LOCK; wait when it is taken
  -L LOCK             the same, but fail when it is taken
  -m N                limit data segment, stack, locked memory and all memory, N bytes each
  -d N                limit the data segment
  -o N                limit open descriptors
  -p N                limit processes of the user
  -f N                limit the size of files
  -c N                limit the size of core files
  -r N                limit resident memory
  -t N                limit processor seconds
  -P                  run the program in a session of its own
  -0 -1 -2            close standard input; output; error
  -v                  say more
  -V                  print the version and the usage
";

/// setuidgid, as daemontools has it.
pub const SETUIDGID: &str = "usage: setuidgid account child\n\nRuns child as the user account.\n";
/// envuidgid, as daemontools has it.
pub const ENVUIDGID: &str = "usage: envuidgid account child\n\nRuns child with $UID and $GID of account.\n";
/// envdir, as daemontools has it.
pub const ENVDIR: &str = "usage: envdir dir child\n\nRuns child with a variable for each file in dir.\n";
/// pgrphack, as daemontools has it.
pub const PGRPHACK: &str = "usage: pgrphack child\n\nRuns child in a session of its own.\n";
/// setlock, as daemontools has it.
pub const SETLOCK: &str = "\
usage: setlock [ -nNxX ] file program [ arg ... ]

  -n  fail when the file is locked
  -N  wait when the file is locked (default)
  -x  exit 0 when it cannot be locked
  -X  exit 111 when it cannot be locked (default)
";
/// softlimit, as daemontools has it.
pub const SOFTLIMIT: &str = "\
usage: softlimit [options] child

  -a N  limit all memory to N bytes
  -c N  limit the size of core files
  -d N  limit the data segment
  -f N  limit the size of files
  -l N  limit locked memory
  -m N  as -d, -s, -l and -a
  -o N  limit open descriptors
  -p N  limit processes of the user
  -r N  limit resident memory
  -s N  limit the stack
  -t N  limit processor seconds
  N is a number, or `=' for the hard limit.
";

#[cfg(test)]
mod tests {
    use applet::manpage;

    use super::*;
    use crate::{chpst, runsvdir, sv, svlogd};

    #[test]
    fn each_option_has_a_line() {
        for (text, table) in [
            (RUNSVDIR, runsvdir::OPTIONS),
            (SV, sv::OPTIONS),
            (SVC, sv::SVC_OPTIONS),
            (SVLOGD, svlogd::OPTIONS),
            (CHPST, chpst::OPTIONS),
            (SETLOCK, chpst::SETLOCK_OPTIONS),
            (SOFTLIMIT, chpst::SOFTLIMIT_OPTIONS),
        ] {
            assert_eq!(manpage::listed(text), manpage::names(table), "{text}");
        }
    }

    #[test]
    fn lines_fit_a_terminal() {
        for text in [RUNSVDIR, RUNSV, SV, SVC, SVOK, SVLOGD, CHPST, SETLOCK, SOFTLIMIT] {
            assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        }
    }
}
