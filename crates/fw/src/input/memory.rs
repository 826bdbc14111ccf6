//! What fw remembers from one run to the next, in `.memory` of the dynamic directory (gone after a
//! reboot, as /run is).
//!
//! Pure: the text of the file. Lines are `uplink IF`, `had IF TEXT`, `outside IF`, `inside IF`,
//! `number IF N`, `best IF`, `said TEXT`, `mtu IF ORIGINAL OURS [lease]`, `switch PATH ORIGINAL
//! OURS`, `address IF ADDR/LEN`, and those of links.rs. An unknown line is skipped, so that a
//! damaged file costs comfort and nothing else. Called by input.rs.

use netd_core::net::IfName;

use crate::model::{self, Prefix};

pub mod links;

/// The last word of an MTU that a lease asked for.
const LEASE: &str = "lease";

/// The MTU that fw lowered on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedMtu {
    /// Interface.
    pub interface: String,
    /// Bytes before fw lowered it.
    pub original: u32,
    /// Bytes that fw set; another value means that another program has changed it since.
    pub ours: u32,
    /// A lease asked for it.
    pub leased: bool,
}

/// A switch below /proc/sys that fw has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedSwitch {
    /// Path below `/proc/sys/`.
    pub path: String,
    /// What it held before.
    pub original: String,
    /// What fw set; another value means that another program has changed it since.
    pub ours: String,
}

/// Everything remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Interfaces that have been uplinks: they keep their rank.
    pub uplinks: Vec<String>,
    /// What made an uplink of an interface since boot.
    pub had: Vec<(String, String)>,
    /// Interfaces that were outside, for the first table of the next run and for what has turned.
    pub outside: Vec<String>,
    /// Interfaces that were inside.
    pub inside: Vec<String>,
    /// The number of each of them: its table, and the mark of connections that came in by it.
    pub numbers: Vec<(String, u8)>,
    /// The uplink that had the best default route: it keeps that when all are bad.
    pub best: Option<String>,
    /// States that fw has reported. It reports each again only after the state was over.
    pub said: Vec<String>,
    /// MTUs to give back when no record asks for one any more.
    pub mtus: Vec<SavedMtu>,
    /// Switches to give back when nothing asks for them any more.
    pub switches: Vec<SavedSwitch>,
    /// Addresses that fw has made: the owner tag for kernels before 5.18, which have no IFA_PROTO.
    pub addresses: Vec<(String, Prefix)>,
    /// What fw has changed of links.
    pub links: links::Links,
}

impl Memory {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Memory {
        let mut memory = Memory::default();
        for line in text.lines() {
            if let Some(said) = line.strip_prefix("said ") {
                memory.said.push(said.to_owned());
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["switch", path, original, ours] if is_switch(path) => memory.switches.push(SavedSwitch {
                    path: (*path).to_owned(),
                    original: (*original).to_owned(),
                    ours: (*ours).to_owned(),
                }),
                [kind, name, rest @ ..] if IfName::parse(name).is_some() => memory.take(kind, name, rest),
                _ => {}
            }
        }
        memory
    }

    /// The union of old and new memory, for the time of the changes. After a kill half way the next
    /// run must recognise every address and MTU that fw has set, and must not take an uplink for a
    /// LAN.
    pub fn beside(&self, before: &Memory) -> Memory {
        let mut both = Memory { said: before.said.clone(), ..self.clone() };
        both.uplinks.extend(before.uplinks.iter().filter(|u| !self.uplinks.contains(u)).cloned());
        both.had.extend(before.had.iter().filter(|(n, _)| !self.had.iter().any(|(own, _)| own == n)).cloned());
        both.outside.extend(before.outside.iter().filter(|n| !self.outside.contains(n)).cloned());
        both.inside.retain(|n| !before.outside.contains(n));
        both.mtus.extend(before.mtus.iter().filter(|m| !self.mtus.contains(m)).cloned());
        both.links.add(&before.links);
        both.switches.extend(before.switches.iter().filter(|s| !self.switches.contains(s)).cloned());
        both.addresses.extend(before.addresses.iter().filter(|a| !self.addresses.contains(a)).cloned());
        both
    }

    /// The MTU that fw has set on this link, if it is still so.
    pub fn mtu(&self, name: &str, now: u32) -> Option<&SavedMtu> {
        self.mtus.iter().find(|m| m.interface == name && m.ours == now)
    }

    /// The switch as fw has set it, if it is still so.
    pub fn switch(&self, path: &str, now: &str) -> Option<&SavedSwitch> {
        self.switches.iter().find(|s| s.path == path && s.ours == now)
    }

    fn take(&mut self, kind: &str, name: &str, rest: &[&str]) {
        let interface = name.to_owned();
        match (kind, rest) {
            ("uplink", []) => self.uplinks.push(interface),
            ("had", [_, ..]) => self.had.push((interface, rest.join(" "))),
            ("outside", []) => self.outside.push(interface),
            ("inside", []) => self.inside.push(interface),
            ("number", [number]) => self.numbers.extend(model::decimal(number).map(|n| (interface, n))),
            ("best", []) => self.best = Some(interface),
            ("mtu", [original, ours, by @ ..]) => {
                if let (Some(original), Some(ours)) = (model::decimal(original), model::decimal(ours)) {
                    self.mtus.push(SavedMtu { interface, original, ours, leased: by == [LEASE] });
                }
            }
            ("address", [prefix]) => self.addresses.extend(Prefix::parse(prefix).map(|p| (interface, p))),
            _ => self.links.take(kind, name, rest),
        }
    }

    /// The file's text.
    pub fn render(&self) -> String {
        let uplinks = self.uplinks.iter().map(|n| format!("uplink {n}\n"));
        let had = self.had.iter().map(|(n, text)| format!("had {n} {}\n", text.replace(char::is_control, "?")));
        let outside = self.outside.iter().map(|n| format!("outside {n}\n"));
        let inside = self.inside.iter().map(|n| format!("inside {n}\n"));
        let zones = had.chain(outside).chain(inside);
        let said = self.said.iter().map(|text| format!("said {text}\n"));
        let by = |m: &SavedMtu| if m.leased { format!(" {LEASE}") } else { String::new() };
        let mtus = self.mtus.iter().map(|m| format!("mtu {} {} {}{}\n", m.interface, m.original, m.ours, by(m)));
        let switches = self.switches.iter().map(|s| format!("switch {} {} {}\n", s.path, s.original, s.ours));
        let addresses = self.addresses.iter().map(|(n, p)| format!("address {n} {p}\n"));
        let best = self.best.iter().map(|n| format!("best {n}\n"));
        let numbers = self.numbers.iter().map(|(n, number)| format!("number {n} {number}\n"));
        let all =
            uplinks.chain(zones).chain(numbers).chain(best).chain(said).chain(mtus).chain(switches).chain(addresses);
        all.chain(self.links.render()).collect()
    }
}

/// Whether it is one of the network's: the file is fw's own, but a damaged one must not lead out.
fn is_switch(path: &str) -> bool {
    path.starts_with("net/") && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use netd_core::net::{AddrGen, Mac};

    fn links() -> links::Links {
        let mac = |text| Mac::parse(text).unwrap();
        let (original, ours) = (mac("02:00:00:00:00:01"), mac("02:00:00:00:00:02"));
        let addr_gen =
            links::Saved { interface: "lan0".into(), original: AddrGen::Eui64, ours: AddrGen::StablePrivacy };
        links::Links {
            macs: vec![links::Saved { interface: "eth0".into(), original, ours }],
            addr_gens: vec![addr_gen],
            ports: vec![("lan0".into(), "br0".into())],
        }
    }

    #[test]
    fn while_the_kernel_is_changed_both_sides_are_remembered() {
        let mtu = |ours| SavedMtu { interface: "eth0".into(), original: 1500, ours, leased: false };
        let address = |text| ("eth0".to_owned(), Prefix::parse(text).unwrap());
        let switch = |ours: &str| SavedSwitch { path: "net/a".into(), original: "0".into(), ours: ours.into() };
        let memory = |uplink: &str, ours, text| Memory {
            uplinks: vec![uplink.into()],
            had: vec![(uplink.into(), "a lease".into())],
            outside: vec![uplink.into()],
            inside: ["eth0", "eth1", "lan0"].map(str::to_owned).into_iter().filter(|n| n != uplink).collect(),
            mtus: vec![mtu(ours)],
            switches: vec![switch(text)],
            addresses: vec![address(text)],
            ..Memory::default()
        };
        let (before, after) = (memory("eth1", 1400, "10.0.0.1/24"), memory("eth0", 1300, "10.0.0.2/24"));
        let both = after.beside(&before);
        assert_eq!(both.uplinks, ["eth0", "eth1"]);
        assert_eq!((both.had.len(), both.outside.join(" ").as_str()), (2, "eth0 eth1"));
        assert_eq!(both.inside, ["lan0"], "what was outside is not yet inside");
        assert_eq!(both.mtus, [mtu(1300), mtu(1400)]);
        assert_eq!(both.addresses, [address("10.0.0.2/24"), address("10.0.0.1/24")]);
        assert_eq!(both.switches, [switch("10.0.0.2/24"), switch("10.0.0.1/24")]);
        assert_eq!(after.beside(&after), after);
        let with_links = Memory { links: links(), ..after.clone() };
        assert_eq!((with_links.beside(&before).links, before.beside(&with_links).links), (links(), links()));
        assert_eq!(with_links.beside(&with_links), with_links);
    }

    #[test]
    fn what_is_rendered_reads_back_and_damage_is_skipped() {
        let memory = Memory {
            uplinks: vec!["eth0".into(), "wlan0".into()],
            had: vec![("eth0".into(), "dyn/dhcp_eth0.ipconf:1, a daemon's record, names it".into())],
            outside: vec!["eth0".into(), "wlan0".into()],
            inside: vec!["lan0".into()],
            numbers: vec![("eth0".into(), 2), ("wlan0".into(), 1)],
            best: Some("wlan0".into()),
            said: vec!["conf/usb.ipconf:1: no interface usb0 yet".into()],
            mtus: [("eth0", false), ("wlan0", true)]
                .map(|(name, leased)| SavedMtu { interface: name.into(), original: 1500, ours: 1400, leased })
                .to_vec(),
            switches: vec![SavedSwitch { path: "net/ipv4/ip_forward".into(), original: "0".into(), ours: "1".into() }],
            addresses: vec![("eth0".into(), Prefix::parse("10.0.0.1/24").unwrap())],
            links: links(),
        };
        let text = memory.render();
        assert_eq!(Memory::parse(&text), memory);
        assert_eq!(
            Memory::parse(&format!(
                "\u{0}junk\nuplink a b c\nuplink ../x\nmtu eth0 x y\nswitch ../x 0 1\nswitch net/../../x 0 1\nswitch net//x 0 1\nmac lan0 1 2\naddr_gen lan0 x y\nport lan0 ../x\n{text}uplink"
            )),
            memory
        );
    }
}
