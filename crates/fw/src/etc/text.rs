//! hosts and dnsmasq_servers.conf as text, rendered from the records. PURE.
//!
//! Called by etc.rs, which reads and writes the files.

use std::net::IpAddr;

use super::servers::{Facts, Reader};

/// First line of resolv.conf and dnsmasq_servers.conf when they are ours.
pub(super) const HEADER: &str = "# Made by fw from *.ipconf records: edits are lost\n";
const HOSTS_BEGIN: &str = "# fw begin: made from *.ipconf records, edits inside are lost";
const HOSTS_END: &str = "# fw end";

pub(crate) fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// dnsmasq_servers.conf, for dnsmasq's `--servers-file`. `dnsmasq` words of a record stand in place
/// of its `dns`. `None`: leave the file alone, because no record has a server and the file is not
/// ours.
pub fn dnsmasq_servers(facts: &Facts, old: &[u8]) -> Option<String> {
    let asks_itself = |word: &str| {
        let server = word.strip_prefix("server=").and_then(|server| server.parse().ok());
        server.is_some_and(|ip| facts.is_own(ip))
    };
    let mut lines: Vec<String> = Vec::new();
    for entry in facts.resolving(Reader::Dnsmasq) {
        match entry.network.dnsmasq.is_empty() {
            true => {
                facts.servers(entry, Reader::Dnsmasq).for_each(|ip| push_new(&mut lines, format!("server={ip}")));
            }
            false => {
                let words = entry.network.dnsmasq.iter().filter(|word| !asks_itself(word));
                words.for_each(|word| push_new(&mut lines, word.clone()));
            }
        }
    }
    if lines.is_empty() && !old.starts_with(HEADER.as_bytes()) {
        return None;
    }
    Some(HEADER.to_owned() + &lines.iter().map(|l| format!("{l}\n")).collect::<String>())
}

/// The lines of hosts that name this machine. In a LAN its name is its address there: an uplink has
/// a line only on a machine without a LAN.
fn own_lines(facts: &Facts, hostname: &str) -> Vec<String> {
    let mut lines = vec!["127.0.0.1 localhost".to_owned(), "::1 localhost ip6-localhost ip6-loopback".to_owned()];
    if hostname.is_empty() {
        return lines;
    }
    let named = facts.records.iter().filter_map(|entry| {
        let ip = entry.network.address?.ip;
        (!ip.is_loopback() && !is_zone_bound(ip)).then_some((*entry, ip))
    });
    let (inside, outside): (Vec<_>, Vec<_>) = named.partition(|(e, _)| facts.inside.contains(&e.interface()));
    for (entry, ip) in if inside.is_empty() { outside } else { inside } {
        let full = entry.network.said.domain.as_ref().map(|d| format!("{hostname}.{d} ")).unwrap_or_default();
        push_new(&mut lines, format!("{ip} {full}{hostname}"));
    }
    lines
}

/// Whether this is a file of ours in which nothing is left.
pub fn is_empty(content: &[u8]) -> bool {
    content.is_empty() || content == HEADER.as_bytes()
}

/// hosts: the lines between our two marks; all other lines are the administrator's and stay, byte
/// by byte.
pub fn hosts(facts: &Facts, hostname: &str, old: &[u8]) -> Vec<u8> {
    let block = own_lines(facts, hostname);
    let (mut before, mut after, mut inside) = (Vec::new(), Vec::new(), false);
    let mut seen = false;
    let text = old.strip_suffix(b"\n").unwrap_or(old);
    let lines = || text.split(|byte| *byte == b'\n').filter(|_| !text.is_empty());
    let ends = lines().filter(|line| *line == HOSTS_END.as_bytes()).count();
    let mut ended = 0;
    for line in lines() {
        ended += usize::from(line == HOSTS_END.as_bytes());
        match line {
            // The administrator has deleted the end mark: all lines that follow may be his.
            _ if line == HOSTS_BEGIN.as_bytes() => (inside, seen) = (ended < ends, true),
            _ if inside => inside = line != HOSTS_END.as_bytes(),
            other => {
                let part = if seen { &mut after } else { &mut before };
                part.extend_from_slice(other);
                part.push(b'\n');
            }
        }
    }
    let ours = match facts.goes {
        true => String::new(),
        false => format!("{HOSTS_BEGIN}\n{}\n{HOSTS_END}\n", block.join("\n")),
    };
    [before, ours.into_bytes(), after].concat()
}

/// Whether the address is useless without the name of an interface.
fn is_zone_bound(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{entry, facts};
    use super::*;

    #[test]
    fn without_servers_a_foreign_file_stays() {
        assert_eq!(dnsmasq_servers(&facts(&[]), b"server=192.0.2.1\n"), None);
    }

    #[test]
    fn dnsmasq_words_replace_the_servers_of_their_record() {
        let a = entry(&[("if", "eth0"), ("dns", "1.1.1.1"), ("dnsmasq", "server=/corp/10.0.0.1 no-resolv")]);
        let b = entry(&[("if", "eth1"), ("dns", "2.2.2.2")]);
        assert_eq!(
            dnsmasq_servers(&facts(&[&a, &b]), b"").unwrap(),
            format!("{HEADER}server=/corp/10.0.0.1\nno-resolv\nserver=2.2.2.2\n")
        );
    }

    #[test]
    fn dnsmasq_is_not_told_to_ask_itself_by_a_word_either() {
        let words = "server=127.0.0.1 server=127.0.0.1#5353 server=/corp/10.0.0.1";
        let a = entry(&[("if", "eth0"), ("dnsmasq", words)]);
        assert_eq!(
            dnsmasq_servers(&facts(&[&a]), b"").unwrap(),
            format!("{HEADER}server=127.0.0.1#5353\nserver=/corp/10.0.0.1\n")
        );
    }

    #[test]
    fn in_a_lan_the_routers_name_is_its_address_there() {
        let uplink = entry(&[("if", "eth0"), ("ipmask", "192.0.2.100/24"), ("domain", "isp.example")]);
        let lan = entry(&[("if", "lan0"), ("ipmask", "10.0.0.1/24"), ("domain", "lan")]);
        let guest = entry(&[("if", "guest0"), ("ipmask", "10.0.2.1/24")]);
        let mut router = facts(&[&uplink, &lan, &guest]);
        router.inside = vec!["lan0", "guest0"];
        let text = String::from_utf8(hosts(&router, "box", b"")).unwrap();
        assert!(text.contains("\n10.0.0.1 box.lan box\n10.0.2.1 box\n"), "{text}");
        assert!(!text.contains("192.0.2.100"), "{text}");
        let laptop = facts(&[&uplink]);
        assert!(String::from_utf8(hosts(&laptop, "box", b"")).unwrap().contains("\n192.0.2.100 box.isp.example box\n"));
    }

    #[test]
    fn hosts_keeps_the_administrators_lines_and_is_stable() {
        let a = entry(&[("if", "eth0"), ("ipmask", "10.0.0.5/24"), ("domain", "lan")]);
        let lo = entry(&[("if", "lo"), ("ipmask", "127.0.0.1/8")]);
        // A comment in Latin-1, which is no UTF-8.
        let printer = b"10.9.9.9 printer # im B\xfcro\n";
        let once = hosts(&facts(&[&lo, &a]), "box", printer);
        assert_eq!(
            once.strip_prefix(printer).unwrap(),
            format!(
                "{HOSTS_BEGIN}\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n\
                 10.0.0.5 box.lan box\n{HOSTS_END}\n"
            )
            .as_bytes()
        );
        let more = [&once, &b"10.8.8.8 scanner\n"[..]].concat();
        let twice = hosts(&facts(&[]), "box", &more);
        assert!(twice.starts_with(printer) && twice.ends_with(b"10.8.8.8 scanner\n"), "{}", twice.escape_ascii());
        assert!(!twice.windows(8).any(|w| w == b"10.0.0.5"));
        assert_eq!(hosts(&facts(&[]), "box", &twice), twice);
    }

    #[test]
    fn a_block_of_hosts_whose_end_was_deleted_costs_no_line() {
        let old = format!("{HOSTS_BEGIN}\n127.0.0.1 localhost\n10.9.9.9 printer\n");
        let new = String::from_utf8(hosts(&facts(&[]), "box", old.as_bytes())).unwrap();
        assert!(new.starts_with(HOSTS_BEGIN) && new.ends_with("\n10.9.9.9 printer\n"), "{new}");
        assert_eq!(hosts(&facts(&[]), "box", new.as_bytes()), new.as_bytes());
    }
}
