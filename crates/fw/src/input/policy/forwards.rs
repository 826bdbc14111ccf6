//! The words of fw.conf about hosts behind this machine that the outside may reach: `port_forward`
//! (IPv4, another address and perhaps another port) and `open6` (IPv6, the host's own address).
//!
//! Pure. Called by policy.rs; want/forwards.rs and firewall/forwards.rs act on them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use netd_core::net::IfName;

use super::{Word, bad, doors, split};
use crate::model::Prefix;

/// A range of ports, both ends included.
pub type Ports = (u16, u16);

/// The most ports of one `port_forward` that get other numbers. nft cannot shift a range without a
/// map, and a map is empty while the table is replaced (firewall/text.rs): each port has a rule.
const MAX_SHIFTED: usize = 1000;

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    fn parse(text: &str) -> Option<Protocol> {
        match text {
            "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// What is asked for, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The ports that are asked for.
    pub ports: Ports,
    /// The network that may ask; `None`: every one.
    pub source: Option<Prefix>,
}

impl Asked {
    /// Whether a packet can be meant by both.
    fn overlaps(&self, other: &Asked) -> bool {
        let (low, high) = self.ports;
        let sources = match (self.source, other.source) {
            (Some(a), Some(b)) => a.contains(b.ip) || b.contains(a.ip),
            (None, _) | (_, None) => true,
        };
        self.protocol == other.protocol && low <= other.ports.1 && other.ports.0 <= high && sources
    }
}

/// A port forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// As the administrator has written it.
    pub word: String,
    /// What is forwarded.
    pub asked: Asked,
    /// The host that answers.
    pub target: Ipv4Addr,
    /// Its ports: as many as are asked for, or a single one.
    pub to: Ports,
}

/// An open IPv6 host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// As the administrator has written it.
    pub word: String,
    /// What is open.
    pub asked: Asked,
    /// The interface behind which the host is.
    pub interface: String,
    /// The lower 64 bits of its address; the upper ones are zero.
    pub suffix: Ipv6Addr,
}

/// The hosts that the outside may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwards {
    /// `port_forward`.
    pub ports: Vec<Forward>,
    /// Its line in fw.conf; 0: the word says nothing.
    pub ports_line: usize,
    /// `open6`.
    pub hosts: Vec<Host>,
    /// Its line in fw.conf; 0: the word says nothing.
    pub hosts_line: usize,
}

/// The table.
pub(super) const WORDS: &[Word] = &[
    Word {
        name: "port_forward",
        means: "ports that hosts behind this machine answer",
        read: |p, given| {
            let ports = all(given.value, forward, |f| (&f.word, &f.asked), |_, _| true)?;
            p.forwards.ports_line = if ports.is_empty() { 0 } else { given.line };
            p.forwards.ports = ports;
            Ok(())
        },
    },
    Word {
        name: "open6",
        means: "IPv6 hosts behind this machine that are open to the outside",
        read: |p, given| {
            let is_same = |a: &Host, b: &Host| (&a.interface, a.suffix) == (&b.interface, b.suffix);
            let hosts = all(given.value, host, |h| (&h.word, &h.asked), is_same)?;
            p.forwards.hosts_line = if hosts.is_empty() { 0 } else { given.line };
            p.forwards.hosts = hosts;
            Ok(())
        },
    },
];

/// Every word of a list, of which no two that `can_clash` are asked for by the same packet.
fn all<T>(
    value: &str,
    read: fn(&str) -> Result<T, String>,
    asked: fn(&T) -> (&str, &Asked),
    can_clash: fn(&T, &T) -> bool,
) -> Result<Vec<T>, String> {
    let mut out: Vec<T> = Vec::new();
    for word in split(value) {
        let new = read(word).map_err(|why| format!("{}: {why}", bad(word)))?;
        let clash = |old: &&T| can_clash(old, &new) && asked(old).1.overlaps(asked(&new).1);
        if let Some(old) = out.iter().find(clash) {
            return Err(format!("{}: the same as {}, or a part of it", bad(word), asked(old).0));
        }
        out.push(new);
    }
    Ok(out)
}

/// `tcp/8080>10.0.0.50:80`
fn forward(word: &str) -> Result<Forward, String> {
    let (asked, target) = sides(word)?;
    if asked.source.is_some_and(|source| source.ip.is_ipv6()) {
        return Err("port_forward is for IPv4; IPv6 hosts have open6".to_owned());
    }
    let (address, ports) = match target.split_once(':') {
        Some((address, ports)) => (address, Some(doors::port_range(ports).ok_or("no ports behind the address")?)),
        None => (target, None),
    };
    let address: Ipv4Addr = address.parse().map_err(|_| "no IPv4 address of a host behind '>'")?;
    if !is_host(address) {
        return Err("no address of a host behind '>'".to_owned());
    }
    let to = ports.unwrap_or(asked.ports);
    let (width, wanted) = (width(asked.ports), width(to));
    if wanted != 1 && wanted != width {
        return Err(format!("{width} ports cannot become {wanted}"));
    }
    if wanted != 1 && to != asked.ports && width > MAX_SHIFTED {
        return Err(format!("more than {MAX_SHIFTED} ports with other numbers"));
    }
    Ok(Forward { word: word.to_owned(), asked, target: address, to })
}

/// `tcp/443>lan0::5`
fn host(word: &str) -> Result<Host, String> {
    let (asked, target) = sides(word)?;
    if asked.source.is_some_and(|source| source.ip.is_ipv4()) {
        return Err("open6 is for IPv6; IPv4 hosts have port_forward".to_owned());
    }
    let (interface, suffix) = target.split_at(target.find(':').ok_or("no INTERFACE::SUFFIX behind '>'")?);
    let interface = IfName::parse(interface).ok_or("no interface behind '>'")?;
    let suffix: Ipv6Addr = suffix.parse().map_err(|_| "no ::SUFFIX behind the interface")?;
    if u128::from(suffix) >> 64 != 0 {
        return Err("a suffix has 64 bits at most, and is written ::SUFFIX".to_owned());
    }
    // RFC 4291 2.6.1: the suffix of zeros is the address of all routers.
    if suffix.is_unspecified() {
        return Err("the suffix of zeros is no host's".to_owned());
    }
    Ok(Host { word: word.to_owned(), asked, interface: interface.to_string(), suffix })
}

/// `PROTOCOL/PORTS>TARGET`, and the source `@NETWORK`, which may end either side.
fn sides(word: &str) -> Result<(Asked, &str), String> {
    let (left, right) = word.split_once('>').ok_or("not PROTOCOL/PORTS>TARGET")?;
    let (what, target, source) = match (left.split_once('@'), right.split_once('@')) {
        (Some((what, source)), None) => (what, right, Some(source)),
        (None, Some((target, source))) => (left, target, Some(source)),
        (None, None) => (left, right, None),
        (Some(_), Some(_)) => return Err("two sources".to_owned()),
    };
    let (protocol, ports) = what.split_once('/').ok_or("not PROTOCOL/PORTS>TARGET")?;
    let protocol = Protocol::parse(protocol).ok_or("the protocol is neither tcp nor udp")?;
    let ports = doors::port_range(ports).ok_or("no port or range of ports")?;
    let source = source.map(|text| Prefix::parse(text).map(Prefix::network).ok_or("no network behind '@'"));
    // A source of everything is none.
    let source = source.transpose()?.filter(|source| !source.is_default());
    Ok((Asked { protocol, ports, source }, target))
}

fn width((low, high): Ports) -> usize {
    usize::from(high.saturating_sub(low)) + 1
}

/// Whether a host can have the address.
fn is_host(ip: Ipv4Addr) -> bool {
    let special = ip.is_loopback() || ip.is_multicast() || ip.is_broadcast() || ip.is_link_local();
    // RFC 1122 3.2.1.3: 0.0.0.0/8 is "this network".
    !special && ip.octets()[0] != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::policy::{parse, tests::clean};

    fn prefix(text: &str) -> Prefix {
        Prefix::parse(text).unwrap()
    }

    #[test]
    fn a_port_forward_in_all_its_forms() {
        let text = "port_forward='tcp/8080>10.0.0.50:80 udp/5060-5070>10.0.0.60, \
                    tcp/9000-9010@203.0.113.7/24>10.0.0.5:22 tcp/9000-9010>10.0.0.6:1-11@198.51.100.1'";
        let ports = clean(text).forwards.ports;
        let forward = |word: &str, protocol, ports, source: &str, target: [u8; 4], to| Forward {
            word: word.into(),
            asked: Asked { protocol, ports, source: Prefix::parse(source) },
            target: target.into(),
            to,
        };
        use Protocol::{Tcp, Udp};
        assert_eq!(
            ports,
            [
                forward("tcp/8080>10.0.0.50:80", Tcp, (8080, 8080), "", [10, 0, 0, 50], (80, 80)),
                forward("udp/5060-5070>10.0.0.60", Udp, (5060, 5070), "", [10, 0, 0, 60], (5060, 5070)),
                forward(
                    "tcp/9000-9010@203.0.113.7/24>10.0.0.5:22",
                    Tcp,
                    (9000, 9010),
                    "203.0.113.0/24",
                    [10, 0, 0, 5],
                    (22, 22)
                ),
                forward(
                    "tcp/9000-9010>10.0.0.6:1-11@198.51.100.1",
                    Tcp,
                    (9000, 9010),
                    "198.51.100.1",
                    [10, 0, 0, 6],
                    (1, 11)
                ),
            ]
        );
    }

    #[test]
    fn an_open_host_is_named_by_interface_and_suffix() {
        let hosts = clean("open6='tcp/443>lan0::5 udp/500@2001:db8::7/32>br-lan.5::211:22ff:fe33:4455'").forwards.hosts;
        let what = |h: &Host| (h.asked.protocol, h.asked.ports, h.asked.source, h.interface.clone(), h.suffix);
        let suffix = |text: &str| text.parse().unwrap();
        assert_eq!(
            hosts.iter().map(what).collect::<Vec<_>>(),
            [
                (Protocol::Tcp, (443, 443), None, "lan0".into(), suffix("::5")),
                (
                    Protocol::Udp,
                    (500, 500),
                    Some(prefix("2001:db8::/32")),
                    "br-lan.5".into(),
                    suffix("::211:22ff:fe33:4455")
                ),
            ]
        );
    }

    #[test]
    fn what_cannot_be_meant_is_an_error_that_names_the_word() {
        for (line, why) in [
            ("port_forward='tcp/80'", "tcp/80: not PROTOCOL/PORTS>TARGET"),
            ("port_forward='80>10.0.0.1'", "not PROTOCOL/PORTS>TARGET"),
            ("port_forward='sctp/80>10.0.0.1'", "the protocol is neither tcp nor udp"),
            ("port_forward='tcp/0>10.0.0.1'", "no port or range of ports"),
            ("port_forward='tcp/9-3>10.0.0.1'", "no port or range of ports"),
            ("port_forward='tcp/80>host'", "no IPv4 address"),
            ("port_forward='tcp/80>[fd00::5]:80'", "no ports behind the address"),
            ("port_forward='tcp/80>10.0.0.1:http'", "no ports behind the address"),
            ("port_forward='tcp/80>127.0.0.1'", "no address of a host"),
            ("port_forward='tcp/80>224.0.0.1'", "no address of a host"),
            ("port_forward='tcp/80>0.0.0.0'", "no address of a host"),
            ("port_forward='tcp/80>10.0.0.1:80-81'", "1 ports cannot become 2"),
            ("port_forward='tcp/80-90>10.0.0.1:80-81'", "11 ports cannot become 2"),
            ("port_forward='tcp/1-2000>10.0.0.1:2-2001'", "more than 1000 ports with other numbers"),
            ("port_forward='tcp/80@x>10.0.0.1'", "no network behind '@'"),
            ("port_forward='tcp/80@10/8>10.0.0.1@10/8'", "two sources"),
            ("port_forward='tcp/80@fd00::/8>10.0.0.1'", "port_forward is for IPv4"),
            ("port_forward='tcp/80>10.0.0.1 tcp/80>10.0.0.1'", "the same as tcp/80>10.0.0.1, or a part of it"),
            ("port_forward='tcp/80-90>10.0.0.1 udp/85>10.0.0.1 tcp/85>10.0.0.2'", "the same as tcp/80-90>10.0.0.1"),
            ("port_forward='tcp/80@10/8>10.0.0.1 tcp/80@10.1/16>10.0.0.2'", "or a part of it"),
            ("port_forward='tcp/80@10.1/16>10.0.0.1 tcp/80>10.0.0.2'", "or a part of it"),
            ("open6='tcp/443>lan0'", "no INTERFACE::SUFFIX"),
            ("open6='tcp/443>::5'", "no interface"),
            ("open6='tcp/443>lan0:5'", "no ::SUFFIX"),
            ("open6='tcp/443>lan0::'", "the suffix of zeros"),
            ("open6='tcp/443>lan0::1:0:0:0:5'", "64 bits at most"),
            ("open6='tcp/443@10/8>lan0::5'", "open6 is for IPv6"),
            ("open6='tcp/443>lan0::5 tcp/443>lan0::0005'", "the same as tcp/443>lan0::5"),
        ] {
            let (policy, errors) = parse(format!("# fw\n{line}\n").as_bytes());
            assert_eq!(errors.iter().map(|e| e.line).collect::<Vec<_>>(), [2], "{line}: {errors:?}");
            assert!(errors[0].what.contains(why), "{line}: {}", errors[0].what);
            assert_eq!(policy.forwards, Forwards::default(), "{line}");
        }
    }

    #[test]
    fn what_differs_in_protocol_source_interface_or_suffix_is_no_double() {
        clean("port_forward='tcp/80>10.0.0.1 udp/80>10.0.0.1 tcp/81@10/8>10.0.0.1 tcp/81@11/8>10.0.0.2'");
        clean("open6='tcp/443>lan0::5 tcp/443>lan1::5 tcp/443>lan0::6 udp/443>lan0::5'");
    }
}
