//! The targets of the figures: a ratio to a peer in the same run, or a number. PURE. A target
//! without its row is not judged; a whole run has all rows.

use std::fmt::Write;

use crate::table::{BARE, OURS, OURS_ONE, Row};

pub(crate) const USS: &str = "private memory (USS) per supervisor, kB";
pub(crate) const ADDED: &str = "new directory -> running, ms";
pub(crate) const KILLED: &str = "restart after kill -9, ms";
pub(crate) const AGAIN: &str = "re-run asked for while running, ms after the exit";
pub(crate) const RESTART: &str = "sv restart, there and back, ms";
pub(crate) const STATUS: &str = "sv status of 200, ms";
pub(crate) const UP: &str = "200 services up, ms";
pub(crate) const LOST: &str = "sv down; sv up, 200 times: lost";
pub(crate) const WAKEUPS: &str = "wake-ups while idle";
pub(crate) const LOGGER: &str = "logger with time stamps, CPU ms";

/// The value of which a limit is a multiple.
enum Of {
    Peer(&'static str),
    BestPeer,
    One,
}

const RUNIT: Of = Of::Peer("runit");

/// In the row the column is at most `limit` times `of`.
struct Target {
    row: &'static str,
    column: &'static str,
    limit: f64,
    of: Of,
}

const fn at_most(row: &'static str, column: &'static str, limit: f64, of: Of) -> Target {
    Target { row, column, limit, of }
}

const TARGETS: [Target; 52] = [
    at_most(USS, OURS, 1.0, RUNIT),
    at_most(USS, OURS_ONE, 4.0, Of::One),
    at_most(ADDED, OURS, 15.0, Of::One),
    at_most(ADDED, OURS_ONE, 15.0, Of::One),
    at_most(KILLED, OURS, 1.0, RUNIT),
    at_most(KILLED, OURS_ONE, 1.0, RUNIT),
    at_most(AGAIN, OURS, 5.0, Of::One),
    at_most(AGAIN, OURS_ONE, 5.0, Of::One),
    at_most(RESTART, OURS, 10.0, Of::One),
    at_most(RESTART, OURS_ONE, 10.0, Of::One),
    // The lower bound for a true status of each service is 0.75 x runit in C: open ok and status,
    // look for log and down. Tried and kept: relative paths, one write, the record as a link's
    // text, half the instructions. Tried without gain on a machine that does other work, too: a
    // compiler that favours speed, two threads.
    at_most(STATUS, OURS, 1.0, RUNIT),
    // The loop that supervises nothing is 0.7 x runit by itself. Tried and kept: fewer copies and
    // closes in a child, a runsv that starts without a copy of runsvdir. A runsv that is forked and
    // not executed is 0.86 x runit, but without CAP_SYS_RESOURCE ps cannot show it as runsv.
    at_most(UP, OURS, 1.0, RUNIT),
    at_most(UP, OURS_ONE, 1.05, Of::Peer(BARE)),
    at_most(LOST, OURS, 0.0, Of::One),
    at_most(LOST, OURS_ONE, 0.0, Of::One),
    at_most(WAKEUPS, OURS, 0.0, Of::One),
    at_most(WAKEUPS, OURS_ONE, 0.0, Of::One),
    at_most(LOGGER, OURS, 0.5, Of::BestPeer),
    at_most("DHCP: start -> handler, ms", OURS, 10.0, Of::One),
    at_most("DHCP: start -> address, with conflict check, ms", OURS, 300.0, Of::One),
    at_most("DHCP: server 10 s late -> address after, s", OURS, 2.0, Of::One),
    at_most("DHCP: NAK once -> address, ms", OURS, 50.0, Of::One),
    at_most("DHCP: duplicate address -> good one, s", OURS, 1.0, Of::One),
    at_most("DHCP: restart -> address, state kept, ms", OURS, 10.0, Of::One),
    at_most("DHCP: private dirty memory while bound, kB", OURS, 150.0, Of::One),
    at_most("DHCP: wake-ups while bound", OURS, 0.0, Of::One),
    at_most("DHCP: each ACK takes 3.5 s -> address, s", OURS, 1.1, Of::BestPeer),
    at_most("DHCP: one message in 5 s passes -> address, s", OURS, 1.1, Of::BestPeer),
    at_most("DHCP: messages a minute without a server", OURS, 5.0, Of::One),
    at_most("DHCP: messages a minute without a server", OURS, 1.0, Of::Peer("dhcpcd")),
    at_most("DHCP: rogue offers first, never confirms -> address, s", OURS, 5.0, Of::One),
    at_most("cable pulled: kernel's event -> handler, ms", OURS, 5.0, Of::One),
    at_most("cable pulled: pings lost (every 2 ms)", OURS, 1.0, Of::One),
    at_most("cable pulled -> pings flow for good, ms", OURS, 200.0, Of::One),
    at_most("plugged back: pings lost", OURS, 0.0, Of::One),
    at_most("link-local address: start -> usable, new, s", OURS, 5.0, Of::One),
    at_most("link-local address: start -> usable, remembered, s", OURS, 1.5, Of::One),
    at_most("fw, 3 records, from nothing, ms", OURS, 20.0, Of::One),
    at_most("fw, 3 records, one changed: pings lost, uplink", OURS, 0.0, Of::One),
    at_most("fw, 51 records, from nothing, ms", OURS, 50.0, Of::One),
    at_most("fw, 51 records, one changed: pings lost, uplink", OURS, 0.0, Of::One),
    at_most("fw, 51 records, nothing changed: kernel writes", OURS, 0.0, Of::One),
    at_most("fw, a large policy, nothing changed, ms", OURS, 5.0, Of::One),
    at_most("fw, a large policy, nothing changed: kernel writes", OURS, 0.0, Of::One),
    at_most("fw, a large policy, one forward changed, ms", OURS, 1.3, Of::Peer("nft -f")),
    at_most("fw, a large policy, flushed by others -> closed again, ms", OURS, 50.0, Of::One),
    at_most("fw, a large policy, 100 changes: forwarded pings lost", OURS, 0.0, Of::One),
    at_most("router silent, link up -> pings flow for good, ms", OURS, 3000.0, Of::One),
    at_most("idle uplink's client killed: pings lost", OURS, 0.0, Of::One),
    at_most("VM: network card seen -> default route, ms", OURS, 0.5, Of::Peer("busybox")),
    at_most("static binary, MB", OURS, 2.3, Of::One),
    at_most("dynamic binary, MB", OURS, 1.4, Of::One),
];

/// Returns a line for each target whose column is there.
pub(crate) fn judge(rows: &[Row]) -> String {
    let mut out = String::new();
    for target in TARGETS {
        let Some(row) = rows.iter().find(|row| row.name == target.row) else { continue };
        let Some(value) = row.value(target.column) else { continue };
        let (base, of) = match target.of {
            Of::Peer(peer) => (row.value(peer), format!(" x {peer}")),
            Of::BestPeer => (row.best_peer(), " x the best peer".to_owned()),
            Of::One => (Some(1.0), String::new()),
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
    fn every_target_is_for_a_row_that_some_part_makes() {
        let sources = [
            include_str!("dhcp.rs"),
            include_str!("dhcp/hard.rs"),
            include_str!("dhcp/patient.rs"),
            include_str!("failover.rs"),
            include_str!("links/cable.rs"),
            include_str!("links/link_local.rs"),
            include_str!("links/one_shot.rs"),
            include_str!("links/policy.rs"),
            include_str!("links/whole.rs"),
            include_str!("main.rs"),
            include_str!("vm.rs"),
        ];
        let constants = [USS, ADDED, KILLED, AGAIN, RESTART, STATUS, UP, LOST, WAKEUPS, LOGGER];
        for target in TARGETS.iter().filter(|target| !constants.contains(&target.row)) {
            // The rows of fw begin with the number of records.
            let name = target.row.strip_prefix("fw, ").and_then(|name| Some(name.split_once(", ")?.1));
            let name = format!("\"{}\"", name.unwrap_or(target.row));
            assert!(sources.iter().any(|source| source.contains(&name)), "{name}");
        }
    }

    #[test]
    fn a_target_is_a_ratio_or_a_number_and_without_its_column_it_is_not_judged() {
        let rows = [
            Row::new(
                UP,
                vec![("runit", Some(300.0)), (BARE, Some(100.0)), (OURS_ONE, Some(104.0)), (OURS, Some(310.0))],
            ),
            Row::new(ADDED, vec![("runit", Some(2000.0)), (OURS_ONE, Some(20.0)), (OURS, None)]),
            Row::new(LOGGER, vec![("runit", Some(300.0)), ("s6", Some(100.0)), (OURS, Some(60.0))]),
            Row::new(WAKEUPS, vec![("runit", Some(0.0)), (OURS, Some(0.0))]),
        ];
        assert_eq!(
            judge(&rows).lines().collect::<Vec<_>>(),
            [
                "MISSED  new directory -> running, ms: ours -1 20.00, at most 15.00",
                "MISSED  200 services up, ms: ours 1.03 x runit, at most 1.00",
                "met     200 services up, ms: ours -1 1.04 x the loop, at most 1.05",
                "met     wake-ups while idle: ours 0.00, at most 0.00",
                "MISSED  logger with time stamps, CPU ms: ours 0.60 x the best peer, at most 0.50",
            ]
        );
    }
}
