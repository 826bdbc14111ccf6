//! resolv.conf: its text, whose file it is, and what was in it before fw. PURE.
//!
//! An administrator's own content stays in the file as comments while the records have servers, and
//! comes back when they have none. So there is no second file that a power cut or a new /run could
//! part from it. Called by etc.rs, which reads and writes the file.

use std::path::Path;

use super::servers::{Facts, Reader};
use super::text::{HEADER, push_new};

/// Above the content that was there before.
const KEPT: &[u8] = b"# What was here before fw, which comes back when no record has a name server:\n";
/// Before each line of it.
const KEPT_LINE: &[u8] = b"#|";
/// The lines of it that stay in force (resolv.conf(5)).
const STAYING: [&[u8]; 2] = [b"options", b"sortlist"];
/// Directories in which each file is that of the administrator who links to it. A directory below
/// them is a program's.
const SHARED: [&str; 4] = ["/run", "/var/run", "/tmp", "/var/tmp"];
/// Both programs of this name begin the file that they make with a line of these words.
const RESOLVCONF: &[u8] = b"enerated by resolvconf";

/// What etc.rs has found in the place of the file.
pub struct Found<'a> {
    /// The directory of the file.
    pub etc: &'a Path,
    /// The file that a symbolic link leads to; `None`: it is no link.
    pub target: Option<&'a Path>,
    /// The directory of that file exists.
    pub has_directory: bool,
    /// Its content; empty when there is no file.
    pub content: &'a [u8],
    /// The program resolvconf is installed.
    pub has_resolvconf: bool,
}

impl Found<'_> {
    /// Why the file is another program's, which fw leaves alone.
    pub fn of_another(&self) -> Option<String> {
        let first = self.content.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let Some(target) = self.target else {
            let is_its = self.has_resolvconf && first.windows(RESOLVCONF.len()).any(|words| words == RESOLVCONF);
            return is_its.then(|| "resolvconf makes it".to_owned());
        };
        (!self.is_followed(target)).then(|| format!("it is a link to {}, a file of another program", target.display()))
    }

    fn is_followed(&self, target: &Path) -> bool {
        let Some(directory) = target.parent() else { return false };
        if is_ours(self.content) {
            return true;
        }
        if !self.has_directory || target.file_name() != Some("resolv.conf".as_ref()) {
            return false;
        }
        let is_shared = SHARED.iter().any(|shared| directory == Path::new(shared));
        let is_of_a_program = ["/run", "/var/run"].iter().any(|run| directory.starts_with(run));
        is_shared || directory.starts_with(self.etc) || (!is_of_a_program && self.content.is_empty())
    }
}

fn is_ours(content: &[u8]) -> bool {
    content.starts_with(HEADER.as_bytes())
}

/// The content that fw has found and keeps in its own file.
fn before(content: &[u8]) -> Option<Vec<u8>> {
    if !is_ours(content) {
        return (!content.is_empty()).then(|| content.to_vec());
    }
    let at = content.windows(KEPT.len()).position(|part| part == KEPT)?;
    let lines = content.get(at + KEPT.len()..)?.split(|byte| *byte == b'\n');
    let kept: Vec<&[u8]> = lines.map_while(|line| line.strip_prefix(KEPT_LINE)).collect();
    Some(kept.join(&b'\n'))
}

/// The file. `None`: leave it alone, because no record has a server and it is not ours.
pub fn text(facts: &Facts, old: &[u8]) -> Option<Vec<u8>> {
    let (mut servers, mut search) = (Vec::new(), Vec::new());
    for entry in facts.resolving(Reader::Library) {
        facts.servers(entry, Reader::Library).for_each(|ip| push_new(&mut servers, ip));
        let said = &entry.network.said;
        let domain = said.domain.iter().filter(|_| said.search.is_empty());
        said.search.iter().chain(domain).for_each(|name| push_new(&mut search, name.as_str()));
    }
    if facts.asks_itself && !facts.goes {
        servers = vec![facts.itself()];
    }
    let before = before(old);
    if servers.is_empty() {
        return is_ours(old).then(|| before.unwrap_or_else(|| HEADER.into()));
    }
    let mut out = HEADER.to_owned();
    if !search.is_empty() {
        out += &format!("search {}\n", search.join(" "));
    }
    servers.iter().for_each(|ip| out += &format!("nameserver {ip}\n"));
    let mut out = out.into_bytes();
    for line in before.iter().flat_map(|text| text.split(|byte| *byte == b'\n')) {
        let word = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        if STAYING.contains(&word) {
            out.extend([line, b"\n"].concat());
        }
    }
    if let Some(before) = before {
        out.extend_from_slice(KEPT);
        before.split(|byte| *byte == b'\n').for_each(|line| out.extend([KEPT_LINE, line, b"\n"].concat()));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{entry, facts};
    use super::*;

    fn text_of(facts: &Facts, old: &[u8]) -> String {
        String::from_utf8(text(facts, old).unwrap()).unwrap()
    }

    #[test]
    fn only_the_highest_priority_counts_and_each_server_once() {
        let a = entry(&[("if", "eth0"), ("dns", "1.1.1.1 8.8.8.8"), ("domain", "lan")]);
        let b = entry(&[("if", "eth1"), ("dns", "8.8.8.8 9.9.9.9"), ("search", "example.org lan"), ("domain", "x")]);
        let none = entry(&[("if", "eth2"), ("dns_prio", "9")]);
        assert_eq!(
            text_of(&facts(&[&a, &b, &none]), b""),
            format!("{HEADER}search lan example.org\nnameserver 1.1.1.1\nnameserver 8.8.8.8\nnameserver 9.9.9.9\n")
        );
        let vpn = entry(&[("if", "tun0"), ("dns", "10.0.0.53"), ("dns_prio", "5")]);
        assert_eq!(text_of(&facts(&[&a, &vpn]), b""), format!("{HEADER}nameserver 10.0.0.53\n"));
    }

    #[test]
    fn without_servers_a_foreign_file_stays_and_ours_is_emptied() {
        assert_eq!(text(&facts(&[]), b"nameserver 192.0.2.1\n"), None);
        let ours = format!("{HEADER}nameserver 1.1.1.1\n");
        assert_eq!(text_of(&facts(&[]), ours.as_bytes()), HEADER);
    }

    #[test]
    fn the_administrators_content_is_kept_in_the_file_and_comes_back_byte_for_byte() {
        let a = entry(&[("if", "eth0"), ("dns", "1.1.1.1")]);
        let with = facts(&[&a]);
        for content in
            [&b"nameserver 9.9.9.9\noptions timeout:1 use-vc\n"[..], b"options rotate", b"# im B\xfcro\n\n\n", b"\n"]
        {
            let once = text(&with, content).unwrap();
            assert!(once.starts_with(format!("{HEADER}nameserver 1.1.1.1\n").as_bytes()));
            assert_eq!(text(&with, &once).unwrap(), once, "a second run changes nothing");
            assert_eq!(text(&facts(&[]), &once).unwrap(), content, "{}", content.escape_ascii());
        }
        let once = text_of(&with, b"nameserver 9.9.9.9\noptions timeout:1 use-vc\n");
        let live: Vec<&str> = once.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(live, ["nameserver 1.1.1.1", "options timeout:1 use-vc"]);
    }

    #[test]
    fn dns_self_names_this_machine_and_keeps_the_domains() {
        let a = entry(&[("if", "eth0"), ("dns", "1.1.1.1"), ("domain", "example.org")]);
        let mut itself = facts(&[&a]);
        itself.asks_itself = true;
        assert_eq!(text_of(&itself, b""), format!("{HEADER}search example.org\nnameserver 127.0.0.1\n"));
        itself.own = vec!["::1".parse().unwrap()];
        assert_eq!(text_of(&itself, b""), format!("{HEADER}search example.org\nnameserver ::1\n"));
        itself.records.clear();
        assert_eq!(text_of(&itself, b""), format!("{HEADER}nameserver ::1\n"), "the LAN's names are there offline");
    }

    #[test]
    fn a_fw_that_goes_asks_nobody_and_gives_the_file_back() {
        let mut itself = facts(&[]);
        itself.asks_itself = true;
        let once = text(&itself, b"nameserver 9.9.9.9\n").unwrap();
        itself.goes = true;
        assert_eq!(text_of(&itself, &once), "nameserver 9.9.9.9\n");
    }

    #[test]
    fn whose_file_it_is() {
        let ours = format!("{HEADER}nameserver 1.1.1.1\n");
        let found = |target: Option<&'static str>, content: &str| {
            let content = content.to_owned();
            let found = Found {
                etc: Path::new("/etc"),
                target: target.map(Path::new),
                has_directory: true,
                content: content.as_bytes(),
                has_resolvconf: true,
            };
            found.of_another().is_some()
        };
        let resolved = "/run/systemd/resolve/stub-resolv.conf";
        for (target, content, is_another) in [
            (None, "nameserver 9.9.9.9\n", false),
            (None, "# Generated by resolvconf\nnameserver 9.9.9.9\n", true),
            (None, "# Generated by NetworkManager\n", false),
            // services/README tells to link it so.
            (Some("/run/resolv.conf"), "", false),
            (Some("/run/resolv.conf"), "nameserver 9.9.9.9\n", false),
            (Some("/tmp/resolv.conf"), "nameserver 9.9.9.9\n", false),
            (Some("/etc/local/resolv.conf"), "nameserver 9.9.9.9\n", false),
            (Some(resolved), "nameserver 127.0.0.53\n", true),
            (Some(resolved), "", true),
            (Some(resolved), &ours, false),
            (Some("/run/resolvconf/resolv.conf"), "", true),
            (Some("/run/NetworkManager/resolv.conf"), "", true),
            (Some("/data/resolv.conf"), "", false),
            (Some("/data/resolv.conf"), &ours, false),
            (Some("/data/resolv.conf"), "nameserver 9.9.9.9\n", true),
            (Some("/data/names"), "", true),
        ] {
            assert_eq!(found(target, content), is_another, "{target:?} {content:?}");
        }
        let gone = Found {
            etc: Path::new("/etc"),
            target: Some(Path::new("/data/resolv.conf")),
            has_directory: false,
            content: b"",
            has_resolvconf: false,
        };
        assert!(gone.of_another().is_some(), "the program of the directory may not have begun");
    }
}
