//! The switches below /proc/sys: those that are needed now, and those that nothing needs any more,
//! which get back what they held. PURE.
//!
//! Needed ones are set before all else: an interface listens to router advertisements before this
//! machine forwards, and promote_secondaries stands before an address goes. Given back is last. A
//! switch that holds another value than fw's belongs to the program that has changed it since.
//! Called by plan.rs.

use crate::have::Have;
use crate::input::memory::{Memory, SavedSwitch};
use crate::model::{ACCEPT_RA, FORWARD_V4, FORWARD_V6, Sysctl};
use crate::want::Want;

/// What is to be done about them.
pub(super) struct Switches {
    /// To be set before all else.
    pub(super) needed: Vec<Sysctl>,
    /// To be set after all else.
    pub(super) given_back: Vec<Sysctl>,
    /// To be remembered.
    pub(super) saved: Vec<SavedSwitch>,
}

/// Compares.
pub(super) fn compare(want: &Want, have: &Have, memory: &Memory) -> Switches {
    let mut out = Switches { needed: Vec::new(), given_back: Vec::new(), saved: Vec::new() };
    for wanted in &want.sysctls {
        // An unreadable switch belongs to a missing interface or an older kernel.
        let Some(now) = value(have, &wanted.path) else { continue };
        let saved = memory.switch(&wanted.path, now);
        if is_needed(wanted, now, have) {
            let original = saved.map_or(now, |s| s.original.as_str());
            out.save(&wanted.path, original, &wanted.value);
            out.needed.push(wanted.clone());
        } else if let Some(saved) = saved {
            out.save(&saved.path, &saved.original, &saved.ours);
        }
    }
    let mut past: Vec<&SavedSwitch> = memory.switches.iter().collect();
    // No packet is forwarded when the others go back.
    applet::sort::sort_by_key(&mut past, |s| ![FORWARD_V4, FORWARD_V6].contains(&s.path.as_str()));
    for saved in past {
        let is_wanted = want.sysctls.iter().any(|s| s.path == saved.path);
        let is_twice = out.given_back.iter().any(|s| s.path == saved.path);
        if !is_wanted && !is_twice && value(have, &saved.path) == Some(saved.ours.as_str()) {
            out.given_back.push(Sysctl { path: saved.path.clone(), value: saved.original.clone() });
        }
    }
    out
}

impl Switches {
    fn save(&mut self, path: &str, original: &str, ours: &str) {
        if original != ours {
            self.saved.push(SavedSwitch { path: path.into(), original: original.into(), ours: ours.into() });
        }
    }
}

fn value<'a>(have: &'a Have, path: &str) -> Option<&'a str> {
    have.sysctls.iter().find(|s| s.path == path).map(|s| s.value.as_str())
}

fn is_needed(wanted: &Sysctl, now: &str, have: &Have) -> bool {
    if wanted.path.ends_with("/rp_filter") {
        // The kernel takes the larger of `all` and the interface's own value. Loose is needed only
        // where that is strict.
        return now == "1" || (now == "0" && value(have, "net/ipv4/conf/all/rp_filter") == Some("1"));
    }
    if wanted.path.ends_with(ACCEPT_RA) {
        // 0: the administrator wants none.
        return now == "1";
    }
    now != wanted.value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch(path: &str, value: &str) -> Sysctl {
        Sysctl { path: path.into(), value: value.into() }
    }

    fn saved(path: &str, original: &str, ours: &str) -> SavedSwitch {
        SavedSwitch { path: path.into(), original: original.into(), ours: ours.into() }
    }

    /// What is set first, what is set last, what is remembered.
    fn run(wanted: &[(&str, &str)], now: &[(&str, &str)], memory: &[SavedSwitch]) -> [Vec<String>; 3] {
        let list = |all: &[(&str, &str)]| all.iter().map(|(p, v)| switch(p, v)).collect();
        let want = Want { sysctls: list(wanted), ..Want::default() };
        let have = Have { sysctls: list(now), ..Have::default() };
        let out = compare(&want, &have, &Memory { switches: memory.to_vec(), ..Memory::default() });
        let lines = |all: &[Sysctl]| all.iter().map(|s| format!("{}={}", s.path, s.value)).collect();
        let kept = out.saved.iter().map(|s| format!("{} {} {}", s.path, s.original, s.ours)).collect();
        [lines(&out.needed), lines(&out.given_back), kept]
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn what_was_switched_is_remembered_and_given_back_while_it_is_still_ours() {
        assert_eq!(run(&[("a", "1")], &[("a", "0")], &[]), [&["a=1"][..], &NONE, &["a 0 1"]]);
        assert_eq!(run(&[("a", "1")], &[("a", "1")], &[saved("a", "0", "1")]), [&NONE[..], &NONE, &["a 0 1"]]);
        assert_eq!(run(&[], &[("a", "1")], &[saved("a", "0", "1")]), [&NONE[..], &["a=0"], &NONE]);
        assert_eq!(run(&[], &[("a", "2")], &[saved("a", "0", "1")]), [NONE; 3], "another program's by now");
        assert_eq!(run(&[], &[], &[saved("a", "0", "1")]), [NONE; 3], "its interface is gone");
        assert_eq!(run(&[("a", "1")], &[("a", "1")], &[]), [NONE; 3], "it was so before");
        assert_eq!(run(&[("a", "1")], &[], &[]), [NONE; 3], "this kernel has none");
        // Another value is wanted than before.
        let again = run(&[("a", "2")], &[("a", "1")], &[saved("a", "0", "1")]);
        assert_eq!(again, [&["a=2"][..], &NONE, &["a 0 2"]]);
        let back = run(&[("a", "0")], &[("a", "1")], &[saved("a", "0", "1")]);
        assert_eq!(back, [&["a=0"][..], &NONE, &NONE]);
    }

    /// The memory of a run that was killed: both what it meant to set and what was there.
    #[test]
    fn a_run_that_is_killed_half_way_forgets_no_original() {
        let both = [saved("a", "0", "2"), saved("a", "0", "1")];
        for now in ["0", "1", "2"] {
            let [_, _, kept] = run(&[("a", "2")], &[("a", now)], &both);
            assert_eq!(kept, ["a 0 2"], "{now}");
            let [_, back, _] = run(&[], &[("a", now)], &both);
            assert_eq!(back, if now == "0" { vec![] } else { vec!["a=0"] }, "{now}");
        }
    }

    #[test]
    fn some_are_set_only_where_they_are_in_the_way() {
        let all = ("net/ipv4/conf/all/rp_filter", "1");
        for (path, want, now, is_set) in [
            ("net/ipv4/conf/eth0/rp_filter", "2", "1", true),
            ("net/ipv4/conf/eth0/rp_filter", "2", "0", true),
            ("net/ipv6/conf/eth0/accept_ra", "2", "1", true),
            ("net/ipv6/conf/eth0/accept_ra", "2", "0", false),
            ("net/ipv6/conf/eth0/accept_ra", "2", "2", false),
        ] {
            let [needed, _, kept] = run(&[(path, want)], &[(path, now), all], &[]);
            assert_eq!((needed.len(), kept.len()), (usize::from(is_set), usize::from(is_set)), "{path} {now}");
        }
        let loose = "net/ipv4/conf/eth0/rp_filter";
        assert_eq!(run(&[(loose, "2")], &[(loose, "0")], &[]), [NONE; 3], "none is strict");
    }

    #[test]
    fn forwarding_ends_before_the_rest_is_given_back() {
        let accept = "net/ipv6/conf/eth0/accept_ra";
        let memory = [saved(accept, "1", "2"), saved(FORWARD_V6, "0", "1")];
        let [_, back, _] = run(&[], &[(accept, "2"), (FORWARD_V6, "1")], &memory);
        assert_eq!(back, [format!("{FORWARD_V6}=0"), format!("{accept}=1")]);
    }
}
