//! Why a change is planned: the record and the key that ask for it, or the fact that none does any
//! more. PURE.
//!
//! `fw plan` prints it behind each line. Called by commands/plan.rs.

use std::fmt;

use crate::change::Change;
use crate::have::{Address, Route, Rule};
use crate::model::{ACCEPT_RA, FORWARD_V4, FORWARD_V6, PROTOCOL, TABLE_MAIN};
use crate::plan::refused::asked_by;
use crate::record::Entry;
use crate::want::{Origin, Want, WantLink, WantRoute};
use crate::ways::{self, lists};

/// What is said of an object that fw has made and that no record wants.
const NOT_ASKED: &str = "no record asks for it any more";

/// Why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The record and the key that decide.
    pub origin: Option<Origin>,
    /// What they mean here; empty where the key says it all.
    pub text: String,
}

impl Reason {
    fn plain(text: &str) -> Reason {
        Reason { origin: None, text: text.to_owned() }
    }

    fn with(origin: &Origin, text: String) -> Reason {
        Reason { origin: Some(origin.clone()), text }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.text.as_str()) {
            (None, text) => f.write_str(text),
            (Some(origin), "") => write!(f, "{origin}"),
            (Some(origin), text) => write!(f, "{origin}: {text}"),
        }
    }
}

/// Why this change is planned. `policy` names fw.conf and the line of a word in it.
pub fn reason(change: &Change, want: &Want, policy: &dyn Fn(&str) -> String) -> Reason {
    if let Some(origin) = asked_by(change, want) {
        return Reason { origin: Some(origin.clone()), text: meaning(change, origin) };
    }
    match change {
        Change::Sysctl(switch) => self::switch(&switch.path, want, policy),
        Change::DelAddress(name, there) => gone_address(name, there, want, policy),
        Change::DelRoute(name, there) => gone_route(name, there, want, policy),
        Change::AddRule(rule) if want.routed.iter().any(|by| Some(by.source) == rule.source) => {
            Reason::plain(&policy("route_by"))
        }
        Change::AddRule(rule) => new_rule(rule, want),
        Change::DelRule(_) => Reason::plain("no uplink needs it any more"),
        Change::AddRoute(_, route) if !route.unicast => {
            Reason::plain(&format!("{}: by no other uplink", policy("route_by")))
        }
        Change::LinkMtu { .. } | Change::LinkMac { .. } | Change::LinkAddrGen { .. } => {
            Reason::plain("no record asks for another one any more")
        }
        Change::DelLink { name, .. } => match want.links.iter().find(|l| l.interface == *name) {
            Some(WantLink { kind: Some(kind), .. }) => Reason::with(&kind.origin, "it was another link".to_owned()),
            _ => Reason::plain(NOT_ASKED),
        },
        Change::LinkMaster { .. } => Reason::plain(NOT_ASKED),
        Change::Neighbours { .. } => Reason::plain("the address moves between a port and its bridge"),
        Change::AddLink { .. } => Reason::plain("a record asks for it"),
        Change::LinkUp { .. }
        | Change::AddAddress(..)
        | Change::RefreshAddress(..)
        | Change::AddRoute(..)
        | Change::ReplaceRoute(..) => Reason::plain("a record asks for it"),
    }
}

/// What a key means for an object where the key itself does not say it.
fn meaning(change: &Change, origin: &Origin) -> String {
    let text = match change {
        Change::LinkUp { .. } => "its interface has to be up",
        Change::RefreshAddress(..) => "its lifetime, or the metric of its network, has changed",
        Change::AddRoute(_, route) | Change::ReplaceRoute(_, route) if lists::is_table(route.table) => {
            "for hosts of route_by"
        }
        Change::AddRoute(_, route) if !route.unicast => "nothing for this network leaves by an uplink",
        Change::AddRoute(_, route) | Change::ReplaceRoute(_, route) if route.table != TABLE_MAIN => {
            "the uplink's own table"
        }
        Change::AddRoute(_, route) if origin.key == "ipmask" && route.gateway.is_none() => "the address's own network",
        _ => "",
    };
    text.to_owned()
}

fn switch(path: &str, want: &Want, policy: &dyn Fn(&str) -> String) -> Reason {
    if !want.sysctls.iter().any(|s| s.path == path) {
        return Reason::plain(NOT_ASKED);
    }
    if path == FORWARD_V4 {
        return Reason::plain(&policy("forward"));
    }
    let default = |r: &&WantRoute, v4: bool| r.destination.is_default() && r.destination.ip.is_ipv4() == v4;
    if path == FORWARD_V6 {
        let route = want.routes.iter().find(|r| default(r, false));
        return route.map_or(Reason::plain(&policy("forward")), |r| {
            Reason::with(&r.origin, "the default route of a router".to_owned())
        });
    }
    if path.ends_with(ACCEPT_RA) {
        return Reason::plain("it goes on to hear router advertisements while this machine forwards");
    }
    let mut words = path.split('/').skip(1);
    let (v4, name) = (words.next() == Some("ipv4"), words.nth(1).unwrap_or_default());
    let routes = want.routes.iter().filter(|r| r.interface == name && default(r, v4));
    let addresses = want.addresses.iter().filter(|a| a.interface == name && a.address.ip.is_ipv4() == v4);
    let of_address = || addresses.map(|a| &a.origin).next();
    match path.rsplit('/').next() {
        Some("rp_filter") => routes.map(|r| &r.origin).next().map(|o| Reason::with(o, "one of several uplinks".into())),
        Some("keep_addr_on_down") => {
            of_address().map(|o| Reason::with(o, "the address outlives ip link set down".into()))
        }
        Some("arp_ignore" | "arp_announce") => {
            of_address().map(|o| Reason::with(o, "another interface is in the same network".to_owned()))
        }
        _ => of_address().map(|o| Reason::with(o, String::new())),
    }
    .unwrap_or_else(|| Reason::plain("a record of this interface needs it"))
}

fn gone_address(name: &str, there: &Address, want: &Want, policy: &dyn Fn(&str) -> String) -> Reason {
    let same = want.addresses.iter().find(|a| a.interface == name && a.address.ip == there.address.ip);
    match same {
        Some(new) => Reason::with(&new.origin, format!("/{} now", new.address.len)),
        None if there.protocol != PROTOCOL => Reason::plain(&policy("reset_all_netdevs")),
        None => Reason::plain(NOT_ASKED),
    }
}

fn gone_route(name: &str, there: &Route, want: &Want, policy: &dyn Fn(&str) -> String) -> Reason {
    if there.protocol != PROTOCOL {
        return Reason::plain(&policy("reset_all_netdevs"));
    }
    let same = |r: &&WantRoute| r.interface == name && r.destination == there.destination;
    if lists::is_table(there.table) {
        return Reason::plain("no host of route_by needs it any more");
    }
    match want.routes.iter().find(same) {
        Some(_) if there.table != TABLE_MAIN => Reason::plain("the uplink needs no table of its own any more"),
        Some(new) if new.gateway == there.gateway => Reason::with(&new.origin, format!("metric {} now", new.metric)),
        Some(new) => {
            Reason::with(&new.origin, new.gateway.map_or("on the link now".into(), |g| format!("via {g} now")))
        }
        None => Reason::plain(NOT_ASKED),
    }
}

fn new_rule(rule: &Rule, want: &Want) -> Reason {
    let table = |number: &u8| ways::table(*number) == rule.table || ways::mark(*number) == rule.mark;
    let by_mark = want.numbers.iter().find(|(_, number)| table(number)).map(|(name, _)| name);
    match rule.source.and_then(|source| want.addresses.iter().find(|a| a.address.ip == source.ip)) {
        Some(address) => Reason::with(&address.origin, format!("answers leave by {}", address.interface)),
        None => Reason::plain(&by_mark.map_or("answers leave by the uplink that was asked".to_owned(), |name| {
            format!("answers of hosts behind leave by {name} when it was asked")
        })),
    }
}

/// Why one of the files of name service changes.
pub fn of_file<'a>(name: &str, records: impl Iterator<Item = &'a Entry>) -> Reason {
    let key: &'static str = if name == "hosts" { "ipmask" } else { "dns" };
    let speaks = |entry: &&Entry| match key {
        "dns" => !entry.network.said.dns.is_empty() || !entry.network.dnsmasq.is_empty(),
        _ => entry.network.address.is_some_and(|a| !a.ip.is_loopback()),
    };
    let places: Vec<String> = records.filter(speaks).map(|e| Origin::by(e, key).to_string()).collect();
    match places.is_empty() {
        true => Reason::plain("no record has anything for it"),
        false => Reason::plain(&places.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::have::{Have, Link};
    use crate::input::memory::Memory;
    use crate::input::policy;
    use crate::model::{Prefix, Scope, Sysctl};
    use crate::record;
    use netd_core::record::text;

    const LAN: &str = "# the LAN\nlet cfg=cfg+1\nif[$cfg]=lan0\nipmask[$cfg]=192.168.5.1/24\nmtu[$cfg]=1400\n";
    const LEASE: &str = "let cfg=cfg+1\nif[$cfg]=eth0\nipmask[$cfg]=10.0.0.5/24\ngw[$cfg]=10.0.0.1\n";
    const OTHER: &str = "let cfg=cfg+1\nif[$cfg]=eth1\nipmask[$cfg]=10.1.0.5/24\nroutes[$cfg]='0/0 10.1.0.1'\n";

    fn want(policy: &str) -> Want {
        let files = [("conf/lan", LAN), ("dyn/eth0", LEASE), ("dyn/eth1", OTHER)];
        let records = files.iter().map(|(file, content)| {
            let record = &text::parse(content.as_bytes()).unwrap()[0];
            let is_static = file.starts_with("conf");
            (record::read(record, is_static, format!("{file}.ipconf:{}", record.line)).unwrap().0, None)
        });
        crate::want::want(
            &records.collect::<Vec<_>>(),
            &policy::parse(policy.as_bytes()).0,
            &Memory::default(),
            &Have::default(),
        )
    }

    fn have() -> Have {
        let link = |(name, index): (&str, u32)| Link {
            index,
            name: name.into(),
            up: false,
            loopback: false,
            mtu: 1500,
            min_mtu: 68,
            ..Link::default()
        };
        let links = [("lan0", 1), ("eth0", 2), ("eth1", 3)].map(link).to_vec();
        let off = |s: &Sysctl| Sysctl { path: s.path.clone(), value: "0".into() };
        let sysctls = want("").sysctls.iter().map(off).collect();
        let rule = Rule {
            priority: 32_766,
            v4: true,
            source: None,
            mark: 0,
            table: TABLE_MAIN,
            specific: false,
            protocol: 2,
            plain: true,
        };
        Have { links, sysctls, rules: vec![rule], ..Have::default() }
    }

    fn knob(word: &str) -> String {
        format!("fw.conf {word}")
    }

    fn why(change: &Change) -> String {
        reason(change, &want(""), &knob).to_string()
    }

    #[test]
    fn each_line_of_a_first_run_names_its_record_and_key() {
        let plan = crate::plan::plan(&want(""), &have(), &Memory::default());
        let lines: Vec<String> = plan.changes.iter().map(|c| format!("{c}  # {}", why(c))).collect();
        let ignore = "net/ipv4/conf/lan0/ignore_routes_with_linkdown=1";
        for line in [
            "~ sysctl net/ipv4/ip_forward=1  # fw.conf forward",
            &format!("~ sysctl {ignore}  # conf/lan.ipconf:4 ipmask"),
            "~ sysctl net/ipv4/conf/eth1/rp_filter=2  # dyn/eth1.ipconf:4 routes: one of several uplinks",
            "~ link lan0 mtu 1400  # conf/lan.ipconf:5 mtu",
            "~ link lan0 up  # conf/lan.ipconf:3 if: its interface has to be up",
            "+ address 192.168.5.1/24 dev lan0 valid_lft forever  # conf/lan.ipconf:4 ipmask",
            "+ route default via 10.0.0.1 dev eth0 metric 100 src 10.0.0.5  # dyn/eth0.ipconf:4 gw",
            "+ route default via 10.1.0.1 dev eth1 metric 200 src 10.1.0.5  # dyn/eth1.ipconf:4 routes",
            "+ route 10.0.0.0/24 dev eth0 metric 100 src 10.0.0.5  # dyn/eth0.ipconf:3 ipmask: the address's own network",
            "+ route unreachable 192.168.5.0/24 metric 4294967294  \
             # conf/lan.ipconf:4 ipmask: nothing for this network leaves by an uplink",
            "+ rule from 10.0.0.5 lookup 213001 suppress_prefixlength 0 priority 32763  \
             # dyn/eth0.ipconf:3 ipmask: answers leave by eth0",
        ] {
            // A strict reverse path filter is one of another machine.
            let is_there = lines.iter().any(|l| l == line) || line.contains("rp_filter");
            assert!(is_there, "{line}\n{}", lines.join("\n"));
        }
        let marks = lines.iter().find(|l| l.starts_with("+ rule from all fwmark 0x2000000/0xff000000 lookup 213002"));
        assert!(marks.is_some_and(|l| l.ends_with("leave by eth1 when it was asked")), "{marks:?}");
        let filter = Change::Sysctl(Sysctl { path: "net/ipv4/conf/eth1/rp_filter".into(), value: "2".into() });
        assert_eq!(why(&filter), "dyn/eth1.ipconf:4 routes: one of several uplinks");
    }

    fn address(text: &str, protocol: u8) -> Change {
        let address = Address { protocol, ..crate::have::tests::address(text, 1) };
        Change::DelAddress("lan0".into(), address)
    }

    fn route(gateway: &str, metric: u32, table: u32) -> Change {
        let route = Route {
            gateway: gateway.parse::<IpAddr>().ok(),
            metric,
            table,
            scope: Scope::Global,
            protocol: PROTOCOL,
            ..crate::have::tests::route("0/0", 2)
        };
        Change::DelRoute("eth0".into(), route)
    }

    #[test]
    fn what_goes_says_why_too() {
        for (change, want) in [
            (address("192.168.9.1/24", PROTOCOL), NOT_ASKED),
            (address("192.168.5.1/16", PROTOCOL), "conf/lan.ipconf:4 ipmask: /24 now"),
            (address("192.168.9.1/24", 0), "fw.conf reset_all_netdevs"),
            (route("10.0.0.1", 20_100, TABLE_MAIN), "dyn/eth0.ipconf:4 gw: metric 100 now"),
            (route("10.0.0.9", 100, TABLE_MAIN), "dyn/eth0.ipconf:4 gw: via 10.0.0.1 now"),
            (route("10.0.0.1", 0, 213_001), "the uplink needs no table of its own any more"),
            (Change::LinkMtu { index: 2, name: "eth0".into(), mtu: 1500 }, "no record asks for another one any more"),
            (Change::DelRule(have().rules[0]), "no uplink needs it any more"),
            (Change::Sysctl(Sysctl { path: "net/ipv4/conf/eth9/arp_ignore".into(), value: "0".into() }), NOT_ASKED),
        ] {
            assert_eq!(why(&change), want, "{change}");
        }
        let routed = Change::AddRule(Rule { source: Prefix::parse("10.0.3.0/24"), ..have().rules[0] });
        let want = want("route_by='10.0.3.0/24>eth1'");
        assert_eq!(reason(&routed, &want, &knob).to_string(), "fw.conf route_by");
    }
}
