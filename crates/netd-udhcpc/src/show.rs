//! `udhcpc --show`: the current leases as their records tell them (`--ipconf`), in text or JSON.
//!
//! `main` reads the files; the rest is pure. It asks no running process, because all other programs
//! use the record, too. The keys of the JSON are a promise: udhcpc(8) lists them. Called by
//! daemon.rs.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use applet::json;
use netd::clock;
use netd::ipconf;
use netd_core::record::{Hop, Kind, Lease};

/// Where records are without `--ipconf`; as fw's.
const DIRECTORY: &str = "/run/service/fw";
/// udhcpc's exit code for everything that goes wrong.
const EXIT_FAILURE: u8 = 1;

/// What to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Show {
    /// Only this interface; `None`: all that have a lease.
    pub interface: Option<String>,
    /// The directory of the records.
    pub dir: Option<PathBuf>,
    /// In JSON.
    pub json: bool,
}

/// Prints; the result is the exit code: 1 when there is no lease.
pub(crate) fn main(show: &Show) -> u8 {
    let variable =
        std::env::var_os("FW_DYNAMIC").filter(|v| !v.is_empty()).unwrap_or_else(|| OsString::from(DIRECTORY));
    let dir = show.dir.clone().unwrap_or_else(|| variable.into());
    let paths = match &show.interface {
        Some(interface) => vec![dir.join(format!("{}.ipconf", Kind::Lease.name(interface)))],
        None => match ipconf::list(&dir) {
            Ok(paths) => paths.into_iter().filter(|p| is_lease(p)).collect(),
            Err(e) => return fail(&format!("{}: {e}", dir.display())),
        },
    };
    let (now, boot_id) = (clock::now(), clock::boot_id());
    let (mut found, mut code) = (Vec::new(), 0);
    for path in &paths {
        match ipconf::read(&dir, path) {
            Ok(records) => {
                match records.first().map(|r| Lease::parse(r).and_then(|l| Some((l.left(now, &boot_id)?, l)))) {
                    Some(Some((left, lease))) => found.push((lease, left)),
                    Some(None) => code = fail(&format!("{}: the lease has ended", path.display())),
                    None => code = fail(&format!("{}: no record", path.display())),
                }
            }
            Err(ipconf::ReadError::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
                code = fail(&format!(
                    "no lease on {} in {}",
                    show.interface.as_deref().unwrap_or_default(),
                    dir.display()
                ));
            }
            Err(e) => code = fail(&format!("{}: {e}", path.display())),
        }
    }
    if paths.is_empty() {
        code = fail(&format!("no lease in {}", dir.display()));
    }
    let out = if show.json { array(&found) } else { found.iter().map(|(lease, left)| text(lease, *left)).collect() };
    match io::stdout().write_all(out.as_bytes()) {
        Ok(()) => code,
        Err(_) => EXIT_FAILURE,
    }
}

fn is_lease(path: &Path) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(Kind::Lease.prefix()))
}

fn fail(what: &dyn Display) -> u8 {
    let _ = writeln!(io::stderr(), "udhcpc: {what}");
    EXIT_FAILURE
}

/// A line for the address, and one for each thing that is known.
pub fn text(lease: &Lease, left: Duration) -> String {
    let said = &lease.said;
    let mut out = format!("{} {}/{}\n", lease.interface, lease.ip, lease.prefix_len);
    let rows = [
        ("router", words(&said.routers)),
        ("routes", words(&said.routes)),
        ("dns", words(&said.dns)),
        ("domain", words(said.domain.as_slice())),
        ("search", words(&said.search)),
        ("ntp", words(&said.ntp)),
        ("hostname", words(said.hostname.as_slice())),
        ("fqdn", words(said.fqdn.as_slice())),
        ("portal", words(said.captive_portal.as_slice())),
        ("mtu", words(said.mtu.as_slice())),
        ("server", words(lease.server_id.as_slice())),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        out.push_str(&format!("  {name} {value}\n"));
    }
    out.push_str(&format!("  ends in {}\n", spoken(left.as_secs())));
    out
}

fn words<T: Display>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}

/// Two units are enough.
fn spoken(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs} s"),
        (0, 0, m) => format!("{m} min {} s", secs % 60),
        (0, h, m) => format!("{h} h {m} min"),
        (d, h, _) => format!("{d} d {h} h"),
    }
}

/// An array of one object for each lease, and a line feed.
pub fn array(leases: &[(Lease, Duration)]) -> String {
    let mut out = String::from("[");
    for (index, (lease, left)) in leases.iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        object(&mut out, lease, *left);
    }
    out.push_str(if leases.is_empty() { "]\n" } else { "\n]\n" });
    out
}

fn object(out: &mut String, lease: &Lease, left: Duration) {
    let said = &lease.said;
    let route = |hop: &Hop| {
        let (net, router) = hop.words();
        format!("{{\"net\":{},\"router\":{}}}", json::string(&net), json::string(&router))
    };
    let values = [
        ("interface", json::string(&lease.interface)),
        ("ip", json::string(&lease.ip.to_string())),
        ("prefix_len", lease.prefix_len.to_string()),
        ("broadcast", string(said.broadcast.as_ref())),
        ("router", string(said.routers.first())),
        ("routes", format!("[{}]", said.routes.iter().map(route).collect::<Vec<_>>().join(","))),
        ("dns", strings(&said.dns)),
        ("domain", string(said.domain.as_ref())),
        ("search", strings(&said.search)),
        ("ntp", strings(&said.ntp)),
        ("hostname", string(said.hostname.as_ref())),
        ("fqdn", string(said.fqdn.as_ref())),
        ("captive_portal", string(said.captive_portal.as_ref())),
        ("mtu", json::or_null(said.mtu)),
        ("server", string(lease.server_id.as_ref())),
        ("seconds_left", left.as_secs().to_string()),
        ("lease_end", json::or_null(lease.end)),
        ("pid", json::or_null(lease.owner)),
    ];
    json::object(out, &values);
}

fn string<T: Display>(value: Option<&T>) -> String {
    json::or_null(value.map(|value| json::string(&value.to_string())))
}

fn strings<T: Display>(values: &[T]) -> String {
    format!("[{}]", values.iter().map(|value| json::string(&value.to_string())).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use netd_core::record::Said;

    use super::*;

    fn lease() -> Lease {
        let text = "let cfg=cfg+1\nif[$cfg]=eth0\nip[$cfg]=192.0.2.10\nipmask[$cfg]=192.0.2.10/24\ngw[$cfg]=\n\
                    routes[$cfg]='10.0.0.0/8 192.0.2.1 0.0.0.0/0 192.0.2.7'\ndns[$cfg]='192.0.2.1 192.0.2.2'\n\
                    captive_portal[$cfg]='https://example.org/a?b=c'\nserverid[$cfg]=192.0.2.1\nlease_end[$cfg]=1700000000\n\
                    lease_end_boottime[$cfg]=5000\nboot_id[$cfg]=12345678\nowner[$cfg]=77\n";
        Lease::parse(&netd_core::record::text::parse(text.as_bytes()).unwrap()[0]).unwrap()
    }

    #[test]
    fn a_lease_counts_on_the_clock_of_its_boot_and_until_its_end() {
        let at = |secs, boot_id| lease().left(Duration::from_secs(secs), boot_id);
        assert_eq!(at(1000, "12345678"), Some(Duration::from_secs(4000)));
        assert_eq!(at(5000, "12345678"), None);
        assert_eq!(at(9000, "12345678"), None);
        assert_eq!(at(1000, "87654321"), None);
    }

    #[test]
    fn a_person_reads_it_as_lines() {
        let want = "eth0 192.0.2.10/24\n  routes 10.0.0.0/8 192.0.2.1 0.0.0.0/0 192.0.2.7\n  dns 192.0.2.1 192.0.2.2\n  \
                    portal https://example.org/a?b=c\n  server 192.0.2.1\n  ends in 1 h 6 min\n";
        assert_eq!(text(&lease(), Duration::from_secs(4000)), want);
        for (secs, want) in [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90_000, "1 d 1 h")] {
            assert_eq!(spoken(secs), want);
        }
    }

    #[test]
    fn a_program_reads_it_as_json() {
        let want = concat!(
            "[\n",
            r#"{"interface":"eth0","ip":"192.0.2.10","prefix_len":24,"broadcast":null,"router":null,"#,
            r#""routes":[{"net":"10.0.0.0/8","router":"192.0.2.1"},{"net":"0.0.0.0/0","router":"192.0.2.7"}],"#,
            r#""dns":["192.0.2.1","192.0.2.2"],"domain":null,"search":[],"ntp":[],"hostname":null,"fqdn":null,"#,
            r#""captive_portal":"https://example.org/a?b=c","mtu":null,"server":"192.0.2.1","#,
            r#""seconds_left":4000,"lease_end":1700000000,"pid":77}"#,
            "\n]\n"
        );
        assert_eq!(array(&[(lease(), Duration::from_secs(4000))]), want);
        assert_eq!(array(&[]), "[]\n");
    }

    #[test]
    fn the_manual_page_lists_the_keys_in_their_order() {
        let page = include_str!("../../../man/udhcpc.8");
        let section = page.split_once(".Sh LEASES").map(|(_, rest)| rest).unwrap();
        let section = section.split_once(".Sh ").unwrap().0;
        let listed: Vec<&str> =
            section.lines().filter_map(|l| l.strip_prefix(".It Cm ")).flat_map(|l| l.split(" , ")).collect();
        let text = array(&[(Lease { said: Said::default(), ..lease() }, Duration::ZERO)]);
        let keys: Vec<&str> =
            text.split('"').filter(|w| w.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).collect();
        assert_eq!(listed, keys);
    }
}
