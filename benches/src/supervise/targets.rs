//! What the figures shall be: a ratio to a peer of the same run, or a number. PURE.

use std::fmt::Write;

use crate::table::{OURS, OURS_ONE, Row};

pub(crate) const USS: &str = "private memory (USS) per supervisor, kB";
pub(crate) const ADDED: &str = "new directory -> running, ms";
pub(crate) const KILLED: &str = "restart after kill -9, ms";
pub(crate) const AGAIN: &str = "re-run asked for while running, ms after the exit";
pub(crate) const RESTART: &str = "sv restart, there and back, ms";
pub(crate) const STATUS: &str = "sv status of 200, ms";
pub(crate) const UP: &str = "200 services up, ms";
pub(crate) const WAKEUPS: &str = "wake-ups while idle";
pub(crate) const LOGGER: &str = "logger with time stamps, CPU ms";

/// What a limit is a multiple of.
enum Of {
    Runit,
    BestPeer,
    One,
}

/// In the row, the column is at most `limit` times `of`.
struct Target {
    row: &'static str,
    column: &'static str,
    limit: f64,
    of: Of,
}

const fn at_most(row: &'static str, column: &'static str, limit: f64, of: Of) -> Target {
    Target { row, column, limit, of }
}

const TARGETS: [Target; 16] = [
    at_most(USS, OURS, 1.0, Of::Runit),
    at_most(USS, OURS_ONE, 4.0, Of::One),
    at_most(ADDED, OURS, 15.0, Of::One),
    at_most(ADDED, OURS_ONE, 15.0, Of::One),
    at_most(KILLED, OURS, 1.0, Of::Runit),
    at_most(KILLED, OURS_ONE, 1.0, Of::Runit),
    at_most(AGAIN, OURS, 5.0, Of::One),
    at_most(AGAIN, OURS_ONE, 5.0, Of::One),
    at_most(RESTART, OURS, 10.0, Of::One),
    at_most(RESTART, OURS_ONE, 10.0, Of::One),
    at_most(STATUS, OURS, 1.0 / 1.6, Of::Runit),
    at_most(UP, OURS, 0.7, Of::Runit),
    at_most(UP, OURS_ONE, 0.3, Of::Runit),
    at_most(WAKEUPS, OURS, 0.0, Of::One),
    at_most(WAKEUPS, OURS_ONE, 0.0, Of::One),
    at_most(LOGGER, OURS, 0.5, Of::BestPeer),
];

/// A line for each target whose column is there.
pub(crate) fn judge(rows: &[Row]) -> String {
    let mut out = String::new();
    for target in TARGETS {
        let Some(row) = rows.iter().find(|row| row.name == target.row) else { continue };
        let Some(value) = row.value(target.column) else { continue };
        let (base, of) = match target.of {
            Of::Runit => (row.value("runit"), " x runit"),
            Of::BestPeer => (row.best_peer(), " x the best peer"),
            Of::One => (Some(1.0), ""),
        };
        let Some(measured) = base.map(|base| value / base) else { continue };
        let verdict = if measured <= target.limit { "met" } else { "MISSED" };
        let (name, column, limit) = (target.row, target.column, target.limit);
        let _ = writeln!(out, "{verdict:6}  {name}: {column} {measured:.2}{of}, at most {limit:.2}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_ratio_or_a_number_and_without_its_column_it_is_not_judged() {
        let rows = [
            Row::new(UP, vec![("runit", Some(300.0)), ("s6", Some(100.0)), (OURS, Some(150.0))]),
            Row::new(ADDED, vec![("runit", Some(2000.0)), (OURS_ONE, Some(20.0)), (OURS, None)]),
            Row::new(LOGGER, vec![("runit", Some(300.0)), ("s6", Some(100.0)), (OURS, Some(60.0))]),
            Row::new(WAKEUPS, vec![("runit", Some(0.0)), (OURS, Some(0.0))]),
        ];
        assert_eq!(
            judge(&rows).lines().collect::<Vec<_>>(),
            [
                "MISSED  new directory -> running, ms: ours -1 20.00, at most 15.00",
                "met     200 services up, ms: ours 0.50 x runit, at most 0.70",
                "met     wake-ups while idle: ours 0.00, at most 0.00",
                "MISSED  logger with time stamps, CPU ms: ours 0.60 x the best peer, at most 0.50",
            ]
        );
    }
}
