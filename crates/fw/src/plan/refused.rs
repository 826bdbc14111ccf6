//! What the kernel has refused: who asked for it, and whether the run fails. PURE.
//!
//! What a server said never fails a run, nor does what the kernel lacks or an administrator has
//! switched off: it is left out, and said once. All else is an error in every run. Called by
//! run.rs.

use nix::errno::Errno;

use crate::change::Change;
use crate::have::Route;
use crate::model::TABLE_MAIN;
use crate::want::{Origin, Want, WantRoute};

/// The kernel has it not, or it is switched off: an access list or disable_ipv6, rfkill(8), a
/// read-only /proc/sys, a family, a feature, a link that is down.
const OFF: [Errno; 6] =
    [Errno::EACCES, Errno::ERFKILL, Errno::EROFS, Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP, Errno::ENETDOWN];

/// A line about a refused change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The run fails.
    Error(String),
    /// It is left out.
    LeftOut(String),
}

/// Judges one. `reason` is the kernel's answer in words.
pub fn judge(change: &Change, errno: Errno, reason: &str, want: &Want) -> Verdict {
    let origin = asked_by(change, want);
    let text = match origin {
        Some(origin) => format!("{}: {change}: {reason}", origin.place),
        None => format!("{change}: {reason}"),
    };
    let is_off = OFF.contains(&errno) || (matches!(change, Change::Sysctl(_)) && errno == Errno::EPERM);
    let is_said = match change {
        // An MTU that no record asks for is one that a record asked for before.
        Change::LinkMtu { .. } => origin.is_none_or(|o| !o.is_static),
        _ => origin.is_some_and(|o| !o.is_static),
    };
    if is_off || is_said { Verdict::LeftOut(format!("{text}: left out")) } else { Verdict::Error(text) }
}

/// Whether it is a route in the own table of an uplink, and refused in the main table, too: one
/// line is enough.
pub fn is_echo<'a>(change: &Change, mut refused: impl Iterator<Item = &'a Change>) -> bool {
    let Some(route) = change.route().filter(|r| r.table != TABLE_MAIN) else { return false };
    let place = |r: &Route| (r.index, r.destination, r.gateway);
    refused.any(|other| other.route().is_some_and(|o| o.table == TABLE_MAIN && place(o) == place(route)))
}

/// The record that asks for it.
pub fn asked_by<'a>(change: &Change, want: &'a Want) -> Option<&'a Origin> {
    let link = |name: &str| want.links.iter().find(|l| l.interface == name);
    let kind = |name: &str| link(name).and_then(|l| l.kind.as_ref()).map(|kind| &kind.origin);
    match change {
        Change::LinkUp { name, .. } => link(name).map(|l| &l.origin),
        Change::AddLink { link: made, .. } => kind(&made.name),
        Change::LinkMaster { name, .. } => link(name).and_then(|l| l.master.as_ref()).map(|m| &m.origin),
        Change::LinkMac { name, .. } => {
            link(name).and_then(|l| l.mac.as_ref()).map(|m| &m.origin).or_else(|| kind(name))
        }
        Change::LinkAddrGen { name, .. } => link(name).and_then(|l| l.addr_gen.as_ref()).map(|m| &m.origin),
        Change::LinkMtu { name, .. } => link(name).and_then(|l| l.mtu_origin.as_ref()),
        Change::AddAddress(name, a) | Change::RefreshAddress(name, a) => {
            want.addresses.iter().find(|w| w.interface == *name && w.address == a.address).map(|w| &w.origin)
        }
        Change::AddRoute(name, r) | Change::ReplaceRoute(name, r) => {
            let is_it = |w: &&WantRoute| match r.unicast {
                true => w.interface == *name && w.destination == r.destination && w.gateway == r.gateway,
                false => w.unreachable && w.destination == r.destination,
            };
            want.routes.iter().find(is_it).map(|w| &w.origin)
        }
        Change::Sysctl(_)
        | Change::Neighbours { .. }
        | Change::DelLink { .. }
        | Change::DelRoute(..)
        | Change::DelAddress(..)
        | Change::AddRule(_)
        | Change::DelRule(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::have::Have;
    use crate::input::memory::Memory;
    use crate::input::policy::Policy;
    use crate::model::Sysctl;
    use crate::record;
    use netd_core::record::text;

    fn want(fields: &str) -> Want {
        let current: Vec<_> = ["static if=eth0 ipmask=10.0.0.5/24 gw=10.0.0.1 mtu=1400", fields]
            .into_iter()
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (is_static, line) = line.strip_prefix("static ").map_or((false, line), |l| (true, l));
                let text = format!("let cfg=cfg+1; {}", line.replace('=', "[$cfg]="));
                let record = &text::parse(text.as_bytes()).unwrap()[0];
                let place = if is_static { "conf:1" } else { "dyn:1" };
                (record::read(record, is_static, place.into()).unwrap().0, None)
            })
            .collect();
        crate::want::want(&current, &Policy::default(), &Memory::default(), &Have::default())
    }

    /// The line about the change with this text, among those that the wishes lead to.
    fn verdict(fields: &str, change: &str, errno: Errno) -> Verdict {
        let want = want(fields);
        let link = |name: &str, index| crate::have::Link {
            index,
            name: name.into(),
            mtu: 1500,
            min_mtu: 68,
            ..crate::have::Link::default()
        };
        let have = Have { links: vec![link("eth0", 1), link("eth1", 2)], ..Have::default() };
        let plan = crate::plan::plan(&want, &have, &Memory::default());
        let change = plan.changes.iter().find(|c| c.to_string().starts_with(change)).unwrap();
        judge(change, errno, "no", &want)
    }

    #[test]
    fn whose_wish_it_was_and_what_the_kernel_lacks() {
        let lease = "if=eth1 ipmask=10.1.0.5/24 gw=10.1.0.255 mtu=1300";
        for (fields, change, errno, want) in [
            ("", "+ address 10.0.0.5", Errno::EINVAL, "error conf:1"),
            ("", "+ route default", Errno::EINVAL, "error conf:1"),
            ("", "~ link eth0 mtu", Errno::EBUSY, "error conf:1"),
            ("", "~ link eth0 up", Errno::EIO, "error conf:1"),
            ("", "~ link eth0 up", Errno::ERFKILL, "left out conf:1"),
            ("", "+ route default", Errno::ENETDOWN, "left out conf:1"),
            ("", "+ address 10.0.0.5", Errno::EACCES, "left out conf:1"),
            (lease, "+ address 10.1.0.5", Errno::EINVAL, "left out dyn:1"),
            (lease, "+ route default via 10.1.0.255", Errno::EINVAL, "left out dyn:1"),
            (lease, "+ route 10.1.0.0/24", Errno::EINVAL, "left out dyn:1"),
            (lease, "~ link eth1 mtu", Errno::EBUSY, "left out dyn:1"),
            (lease, "~ link eth1 up", Errno::ENOENT, "left out dyn:1"),
            (lease, "+ route default via 10.0.0.1", Errno::EINVAL, "error conf:1"),
            // The smaller of two MTUs is the server's.
            ("if=eth0 mtu=1300", "~ link eth0 mtu", Errno::EBUSY, "left out dyn:1"),
            ("if=eth0 mtu=1450", "~ link eth0 mtu", Errno::EBUSY, "error conf:1"),
        ] {
            let line = match verdict(fields, change, errno) {
                Verdict::Error(text) => format!("error {text}"),
                Verdict::LeftOut(text) => format!("left out {text}"),
            };
            assert!(line.starts_with(&format!("{want}: {change}")), "{fields}: {change}: {errno}: {line}");
        }
    }

    #[test]
    fn switches_and_what_no_record_asks_for() {
        let switch = Change::Sysctl(Sysctl { path: "net/ipv4/ip_forward".into(), value: "1".into() });
        for (errno, is_error) in [(Errno::EROFS, false), (Errno::EPERM, false), (Errno::EINVAL, true)] {
            assert_eq!(matches!(judge(&switch, errno, "no", &Want::default()), Verdict::Error(_)), is_error, "{errno}");
        }
        // An MTU that is given back was a lease's.
        let back = Change::LinkMtu { index: 1, name: "eth0".into(), mtu: 1500 };
        let text = "~ link eth0 mtu 1500: busy: left out".to_owned();
        assert_eq!(judge(&back, Errno::EBUSY, "busy", &Want::default()), Verdict::LeftOut(text));
    }
}
