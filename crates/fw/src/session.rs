//! The session that fw was called from: over which addresses it comes, and whether a plan would
//! cut it.
//!
//! Shell: it reads /proc of its own ancestors. A session is a TCP connection that one of them holds
//! (sshd, telnetd), or the addresses that sshd has put into SSH_CONNECTION; sudo(8) takes that
//! away, so the environment of every ancestor is looked at. Called by commands/down.rs.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::change::Change;
use crate::have::Have;

/// More ancestors than a session has.
const ANCESTORS: usize = 64;
/// TCP_ESTABLISHED of linux/tcp_states.h, as /proc/net/tcp shows it.
const ESTABLISHED: &str = "01";

/// The two ends of the connection that a session comes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ends {
    /// This machine's address.
    pub local: IpAddr,
    /// The other machine's.
    pub peer: IpAddr,
}

/// The connections of the session, as far as they can be seen.
pub fn ends() -> Vec<Ends> {
    let mut found = BTreeSet::new();
    let mut inodes = BTreeSet::new();
    let mut pid = std::process::id();
    for _ in 0..ANCESTORS {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        found.extend(ssh_connection(&environment));
        for fd in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            inodes.extend(fs::read_link(fd.path()).ok().and_then(|link| socket(link.to_str()?)));
        }
        match parent(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()) {
            Some(parent) if parent != 0 => pid = parent,
            Some(_) | None => break,
        }
    }
    for table in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
        found.extend(table.lines().filter_map(|line| connection(line, &inodes)));
    }
    found.into_iter().collect()
}

/// The address that the plan takes away from a session, if any: its own, or the way to the other
/// machine.
pub fn cut(sessions: &[Ends], changes: &[Change], have: &Have) -> Option<IpAddr> {
    let is_on = |index: u32, ip: IpAddr| have.addresses.iter().any(|a| a.index == index && a.address.ip == ip);
    let cuts = |ends: &Ends, change: &Change| match change {
        Change::DelAddress(_, there) => there.address.ip == ends.local,
        Change::DelRoute(_, route) => route.destination.contains(ends.peer),
        Change::DelLink { index, .. } => is_on(*index, ends.local),
        _ => false,
    };
    sessions.iter().find(|ends| changes.iter().any(|change| cuts(ends, change))).map(|ends| ends.local)
}

/// sshd's SSH_CONNECTION in an environment: the client's address and port, the server's.
fn ssh_connection(environment: &[u8]) -> Option<Ends> {
    let variables = environment.split(|byte| *byte == 0);
    let value = variables.filter_map(|v| std::str::from_utf8(v).ok()?.strip_prefix("SSH_CONNECTION=")).next()?;
    let mut words = value.split(' ');
    // An address that is valid on one link only has the name of an interface behind it.
    let address = |word: &str| word.split('%').next()?.parse::<IpAddr>().ok();
    Some(Ends { peer: address(words.next()?)?, local: address(words.nth(1)?)? })
}

fn socket(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn parent(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// A line of /proc/net/tcp or tcp6 (proc_net(5)) about an established connection of these inodes.
fn connection(line: &str, inodes: &BTreeSet<u64>) -> Option<Ends> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, peer, ESTABLISHED, _, _, _, _, _, inode, ..] = words.as_slice() else { return None };
    let ends = Ends { local: address(local)?, peer: address(peer)? };
    inode.parse().is_ok_and(|inode| inodes.contains(&inode)).then_some(ends)
}

/// HEX:PORT, where the hexadecimal digits are words of 32 bits as this machine keeps them.
fn address(text: &str) -> Option<IpAddr> {
    let (digits, _) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(digits.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let bytes = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::have::{Address, Route};
    use crate::model::PROTOCOL;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    fn ends_of(local: &str, peer: &str) -> Ends {
        Ends { local: local.parse().unwrap(), peer: peer.parse().unwrap() }
    }

    #[test]
    fn a_connection_of_this_process_is_seen_and_a_listener_is_none() {
        let listener = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = |what: &[Ends]| what.iter().any(|e| e.local == address.ip() && e.peer == address.ip());
        let client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert!(seen(&ends()), "{:?}", ends());
        drop(client);
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn what_sshd_says_and_what_proc_shows() {
        let environment = b"TERM=xterm\0SSH_CONNECTION=192.168.5.2 50000 192.168.5.1 22\0A=b\0";
        assert_eq!(ssh_connection(environment), Some(ends_of("192.168.5.1", "192.168.5.2")));
        let local = b"SSH_CONNECTION=fe80::2%lan0 50000 fe80::1%lan0 22\0";
        assert_eq!(ssh_connection(local), Some(ends_of("fe80::1", "fe80::2")));
        for other in [&b""[..], b"SSH_CONNECTION=\0", b"SSH_CONNECTION=a b c d\0", b"SSH_CONNECTION=\xff\0"] {
            assert_eq!(ssh_connection(other), None);
        }
        assert_eq!((socket("socket:[4711]"), socket("pipe:[4711]")), (Some(4711), None));
        assert_eq!(parent("Name:\tsh\nPPid:\t17\n"), Some(17));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn lines_of_the_kernels_table() {
        let inodes = BTreeSet::from([4711]);
        let line = |local: &str, state: &str, inode: u32| {
            let text = format!("   0: {local} 0205A8C0:C350 {state} 00000000:00000000 02:0 0 0 0 {inode} 2 0");
            connection(&text, &inodes)
        };
        assert_eq!(line("0105A8C0:0016", "01", 4711), Some(ends_of("192.168.5.1", "192.168.5.2")));
        assert_eq!(line("0105A8C0:0016", "0A", 4711), None, "a listener");
        assert_eq!(line("0105A8C0:0016", "01", 4712), None, "of another process");
        assert_eq!(line("0105A8C0", "01", 4711), None);
        assert_eq!(address("0000000000000000FFFF00000105A8C0:0016"), Some("192.168.5.1".parse().unwrap()));
        assert_eq!(address("B80D0120000000000000000001000000:0016"), Some("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn a_plan_cuts_a_session_that_loses_its_address_or_its_way_back() {
        let address = |text: &str| Address { protocol: PROTOCOL, ..crate::have::tests::address(text, 1) };
        let route = |text: &str| Route { protocol: PROTOCOL, ..crate::have::tests::route(text, 1) };
        let sessions = [ends_of("192.168.5.1", "192.168.5.2")];
        let have = Have { addresses: vec![address("192.168.5.1/24")], ..Have::default() };
        let is_cut = |change: Change| cut(&sessions, &[change], &have).is_some();
        assert!(is_cut(Change::DelAddress("lan0".into(), address("192.168.5.1/24"))));
        assert!(!is_cut(Change::DelAddress("lan0".into(), address("192.168.6.1/24"))));
        assert!(!is_cut(Change::AddAddress("lan0".into(), address("192.168.5.1/24"))));
        assert!(is_cut(Change::DelRoute("lan0".into(), route("192.168.5.0/24"))));
        assert!(is_cut(Change::DelRoute("lan0".into(), route("0/0"))));
        assert!(!is_cut(Change::DelRoute("lan0".into(), route("10.0.0.0/8"))));
        assert!(is_cut(Change::DelLink { index: 1, name: "br0".into() }));
        assert!(!is_cut(Change::DelLink { index: 2, name: "br1".into() }));
        assert_eq!(cut(&[], &[Change::DelAddress("lan0".into(), address("192.168.5.1/24"))], &have), None);
    }
}
