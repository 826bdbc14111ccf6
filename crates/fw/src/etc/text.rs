//! resolv.conf, hosts and dnsmasq_servers.conf as text, rendered from the records. PURE.
//!
//! Called by etc.rs, which reads and writes the files.

use std::net::IpAddr;

use crate::record::Entry;

/// First line of resolv.conf and dnsmasq_servers.conf when they are ours.
const HEADER: &str = "# Made by fw from *.ipconf records: edits are lost\n";
const HOSTS_BEGIN: &str = "# fw begin: made from *.ipconf records, edits inside are lost";
const HOSTS_END: &str = "# fw end";
/// Records that count for name service: those with servers, and of them those with the highest
/// `dns_prio`. Servers of a bad uplink come last.
fn resolving<'a>(records: &[&'a Entry]) -> Vec<&'a Entry> {
    let mut with: Vec<&Entry> =
        records.iter().copied().filter(|e| !e.network.said.dns.is_empty() || !e.network.dnsmasq.is_empty()).collect();
    let highest = with.iter().map(|e| e.network.dns_prio).max();
    with.retain(|e| Some(e.network.dns_prio) == highest);
    with.sort_by_key(|e| records.iter().any(|o| o.interface() == e.interface() && o.is_bad()));
    with
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// resolv.conf. `None`: leave the file alone, because no record has a server and the file is not
/// ours.
pub fn resolv_conf(records: &[&Entry], old: &[u8]) -> Option<String> {
    let entries = resolving(records);
    let (mut servers, mut search) = (Vec::new(), Vec::new());
    for entry in entries {
        entry.network.said.dns.iter().for_each(|ip| push_new(&mut servers, *ip));
        entry
            .network
            .said
            .search
            .iter()
            .chain(entry.network.said.domain.iter().filter(|_| entry.network.said.search.is_empty()))
            .for_each(|d| {
                push_new(&mut search, d.as_str());
            });
    }
    if servers.is_empty() && !old.starts_with(HEADER.as_bytes()) {
        return None;
    }
    let mut out = HEADER.to_owned();
    if !search.is_empty() {
        out += &format!("search {}\n", search.join(" "));
    }
    servers.iter().for_each(|ip| out += &format!("nameserver {ip}\n"));
    Some(out)
}

/// dnsmasq_servers.conf, for dnsmasq's `--servers-file`. `dnsmasq` words of a record stand in place
/// of its `dns`.
pub fn dnsmasq_servers(records: &[&Entry], old: &[u8]) -> Option<String> {
    let mut lines: Vec<String> = Vec::new();
    for entry in resolving(records) {
        match entry.network.dnsmasq.is_empty() {
            true => entry.network.said.dns.iter().for_each(|ip| push_new(&mut lines, format!("server={ip}"))),
            false => entry.network.dnsmasq.iter().for_each(|word| push_new(&mut lines, word.clone())),
        }
    }
    if lines.is_empty() && !old.starts_with(HEADER.as_bytes()) {
        return None;
    }
    Some(HEADER.to_owned() + &lines.iter().map(|l| format!("{l}\n")).collect::<String>())
}

/// hosts: the lines between our two marks; all other lines are the administrator's and stay, byte
/// by byte.
pub fn hosts(records: &[&Entry], hostname: &str, old: &[u8]) -> Vec<u8> {
    let mut block = vec!["127.0.0.1 localhost".to_owned(), "::1 localhost ip6-localhost ip6-loopback".to_owned()];
    for entry in records {
        let Some(address) = entry.network.address.map(|a| a.ip).filter(|ip| !ip.is_loopback() && !is_zone_bound(*ip))
        else {
            continue;
        };
        if !hostname.is_empty() {
            let full = entry.network.said.domain.as_ref().map(|d| format!("{hostname}.{d} ")).unwrap_or_default();
            push_new(&mut block, format!("{address} {full}{hostname}"));
        }
    }
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
    let ours = format!("{HOSTS_BEGIN}\n{}\n{HOSTS_END}\n", block.join("\n"));
    [before, ours.into_bytes(), after].concat()
}

/// Whether the address is useless without the name of an interface.
fn is_zone_bound(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record;
    use netd_core::record::text::Record;

    fn entry(fields: &[(&str, &str)]) -> Entry {
        let record = fields.iter().fold(Record::new(), |r, (k, v)| r.with(k, *v));
        record::read(&record, true, "f:1".into()).unwrap().0
    }

    #[test]
    fn only_the_highest_priority_counts_and_each_server_once() {
        let a = entry(&[("if", "eth0"), ("dns", "1.1.1.1 8.8.8.8"), ("domain", "lan")]);
        let b = entry(&[("if", "eth1"), ("dns", "8.8.8.8 9.9.9.9"), ("search", "example.org lan"), ("domain", "x")]);
        let none = entry(&[("if", "eth2"), ("dns_prio", "9")]);
        assert_eq!(
            resolv_conf(&[&a, &b, &none], b"").unwrap(),
            format!("{HEADER}search lan example.org\nnameserver 1.1.1.1\nnameserver 8.8.8.8\nnameserver 9.9.9.9\n")
        );
        let vpn = entry(&[("if", "tun0"), ("dns", "10.0.0.53"), ("dns_prio", "5")]);
        assert_eq!(resolv_conf(&[&a, &vpn], b"").unwrap(), format!("{HEADER}nameserver 10.0.0.53\n"));
    }

    #[test]
    fn servers_of_a_bad_uplink_come_last() {
        let a = entry(&[("if", "eth0"), ("dns", "1.1.1.1")]);
        let b = entry(&[("if", "eth1"), ("dns", "2.2.2.2")]);
        let bad = entry(&[("if", "eth0"), ("health", "down")]);
        assert_eq!(
            resolv_conf(&[&a, &b, &bad], b"").unwrap(),
            format!("{HEADER}nameserver 2.2.2.2\nnameserver 1.1.1.1\n")
        );
    }

    #[test]
    fn without_servers_a_foreign_file_stays_and_ours_is_emptied() {
        assert_eq!(resolv_conf(&[], b"nameserver 192.0.2.1\n"), None);
        assert_eq!(resolv_conf(&[], format!("{HEADER}nameserver 1.1.1.1\n").as_bytes()).as_deref(), Some(HEADER));
        assert_eq!(dnsmasq_servers(&[], b"server=192.0.2.1\n"), None);
    }

    #[test]
    fn dnsmasq_words_replace_the_servers_of_their_record() {
        let a = entry(&[("if", "eth0"), ("dns", "1.1.1.1"), ("dnsmasq", "server=/corp/10.0.0.1 no-resolv")]);
        let b = entry(&[("if", "eth1"), ("dns", "2.2.2.2")]);
        assert_eq!(
            dnsmasq_servers(&[&a, &b], b"").unwrap(),
            format!("{HEADER}server=/corp/10.0.0.1\nno-resolv\nserver=2.2.2.2\n")
        );
    }

    #[test]
    fn hosts_keeps_the_administrators_lines_and_is_stable() {
        let a = entry(&[("if", "eth0"), ("ipmask", "10.0.0.5/24"), ("domain", "lan")]);
        let lo = entry(&[("if", "lo"), ("ipmask", "127.0.0.1/8")]);
        // A comment in Latin-1, which is no UTF-8.
        let printer = b"10.9.9.9 printer # im B\xfcro\n";
        let once = hosts(&[&lo, &a], "box", printer);
        assert_eq!(
            once.strip_prefix(printer).unwrap(),
            format!(
                "{HOSTS_BEGIN}\n127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n\
                 10.0.0.5 box.lan box\n{HOSTS_END}\n"
            )
            .as_bytes()
        );
        let more = [&once, &b"10.8.8.8 scanner\n"[..]].concat();
        let twice = hosts(&[], "box", &more);
        assert!(twice.starts_with(printer) && twice.ends_with(b"10.8.8.8 scanner\n"), "{}", twice.escape_ascii());
        assert!(!twice.windows(8).any(|w| w == b"10.0.0.5"));
        assert_eq!(hosts(&[], "box", &twice), twice);
    }

    #[test]
    fn a_block_of_hosts_whose_end_was_deleted_costs_no_line() {
        let old = format!("{HOSTS_BEGIN}\n127.0.0.1 localhost\n10.9.9.9 printer\n");
        let new = String::from_utf8(hosts(&[], "box", old.as_bytes())).unwrap();
        assert!(new.starts_with(HOSTS_BEGIN) && new.ends_with("\n10.9.9.9 printer\n"), "{new}");
        assert_eq!(hosts(&[], "box", new.as_bytes()), new.as_bytes());
    }
}
