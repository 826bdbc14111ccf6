//! `udhcpc --show`: the current leases as their records tell them (`--ipconf`), in text or JSON.
//!
//! `main` reads the files; the rest is pure. It asks no running process: the record is what everybody else goes by. The keys of
//! the JSON are a promise: udhcpc(8) lists them. Called by daemon.rs.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use applet::json;
use netd::clock;
use netd::ipconf;
use netd_core::record::text::Record;

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
        Some(interface) => vec![dir.join(format!("dhcp_{interface}.ipconf"))],
        None => match ipconf::list(&dir) {
            Ok(paths) => paths.into_iter().filter(|p| is_lease(p)).collect(),
            Err(e) => return fail(&format!("{}: {e}", dir.display())),
        },
    };
    let (now, boot_id) = (clock::now(), clock::boot_id());
    let (mut found, mut code) = (Vec::new(), 0);
    for path in &paths {
        match ipconf::read(&dir, path) {
            Ok(records) => match records.first().map(|record| (record, left(record, &boot_id, now))) {
                Some((record, Some(left))) => found.push((record.clone(), left)),
                Some((_, None)) => code = fail(&format!("{}: the lease has ended", path.display())),
                None => code = fail(&format!("{}: no record", path.display())),
            },
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
    let out = if show.json { array(&found) } else { found.iter().map(|(r, left)| text(r, *left)).collect() };
    match io::stdout().write_all(out.as_bytes()) {
        Ok(()) => code,
        Err(_) => EXIT_FAILURE,
    }
}

fn is_lease(path: &Path) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("dhcp_"))
}

fn fail(what: &dyn Display) -> u8 {
    let _ = writeln!(io::stderr(), "udhcpc: {what}");
    EXIT_FAILURE
}

/// Time until the end of a lease of this boot; `None`: it has ended.
pub fn left(record: &Record, boot_id: &str, now: Duration) -> Option<Duration> {
    let end = Duration::from_secs(record.get("lease_end_boottime")?.parse().ok()?);
    (record.get("boot_id") == Some(boot_id)).then(|| end.checked_sub(now))?.filter(|left| !left.is_zero())
}

/// A line for the address, and one for each thing that is known.
pub fn text(record: &Record, left: Duration) -> String {
    let get = |key| record.get(key).unwrap_or_default();
    let mut out = format!("{} {}\n", get("if"), get("ipmask"));
    let rows = [
        ("router", "gw"),
        ("routes", "routes"),
        ("dns", "dns"),
        ("domain", "domain"),
        ("search", "search"),
        ("ntp", "ntp"),
        ("hostname", "hostname"),
        ("fqdn", "fqdn"),
        ("portal", "captive_portal"),
        ("mtu", "mtu"),
        ("server", "serverid"),
    ];
    for (name, key) in rows {
        if !get(key).is_empty() {
            out.push_str(&format!("  {name} {}\n", get(key)));
        }
    }
    out.push_str(&format!("  ends in {}\n", spoken(left.as_secs())));
    out
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
pub fn array(leases: &[(Record, Duration)]) -> String {
    let mut out = String::from("[");
    for (index, (record, left)) in leases.iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        object(&mut out, record, *left);
    }
    out.push_str(if leases.is_empty() { "]\n" } else { "\n]\n" });
    out
}

fn object(out: &mut String, record: &Record, left: Duration) {
    let get = |key| record.get(key).filter(|v| !v.is_empty());
    let text = |key| json::or_null(get(key).map(json::string));
    let number = |key| json::or_null(get(key).and_then(|v| v.parse::<u64>().ok()));
    let words = |key| get(key).unwrap_or_default().split_ascii_whitespace().map(json::string).collect::<Vec<_>>();
    let list = |key| format!("[{}]", words(key).join(","));
    let prefix_len = get("ipmask").and_then(|v| v.split_once('/')?.1.parse::<u8>().ok());
    let pairs: Vec<String> = words("routes")
        .chunks_exact(2)
        .map(|pair| {
            format!("{{\"net\":{},\"router\":{}}}", pair.first().map_or("", |n| n), pair.last().map_or("", |r| r))
        })
        .collect();
    let values = [
        ("interface", text("if")),
        ("ip", text("ip")),
        ("prefix_len", json::or_null(prefix_len)),
        ("broadcast", text("broadcast")),
        ("router", text("gw")),
        ("routes", format!("[{}]", pairs.join(","))),
        ("dns", list("dns")),
        ("domain", text("domain")),
        ("search", list("search")),
        ("ntp", list("ntp")),
        ("hostname", text("hostname")),
        ("fqdn", text("fqdn")),
        ("captive_portal", text("captive_portal")),
        ("mtu", number("mtu")),
        ("server", text("serverid")),
        ("seconds_left", left.as_secs().to_string()),
        ("lease_end", number("lease_end")),
        ("pid", number("owner")),
    ];
    json::object(out, &values);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        [
            ("if", "eth0"),
            ("ip", "192.0.2.10"),
            ("ipmask", "192.0.2.10/24"),
            ("gw", ""),
            ("routes", "10.0.0.0/8 192.0.2.1 0.0.0.0/0 192.0.2.7"),
            ("dns", "192.0.2.1 192.0.2.2"),
            ("captive_portal", "https://example.org/a?b=\"c\\"),
            ("serverid", "192.0.2.1"),
            ("lease_end", "1700000000"),
            ("lease_end_boottime", "5000"),
            ("boot_id", "12345678"),
            ("owner", "77"),
        ]
        .iter()
        .fold(Record::new(), |r, (k, v)| r.with(k, *v))
    }

    #[test]
    fn a_lease_counts_on_the_clock_of_its_boot_and_until_its_end() {
        let at = |secs, boot_id| left(&record(), boot_id, Duration::from_secs(secs));
        assert_eq!(at(1000, "12345678"), Some(Duration::from_secs(4000)));
        assert_eq!(at(5000, "12345678"), None);
        assert_eq!(at(9000, "12345678"), None);
        assert_eq!(at(1000, "87654321"), None);
        assert_eq!(left(&Record::new().with("boot_id", "1"), "1", Duration::ZERO), None);
    }

    #[test]
    fn a_person_reads_it_as_lines() {
        let want = "eth0 192.0.2.10/24\n  routes 10.0.0.0/8 192.0.2.1 0.0.0.0/0 192.0.2.7\n  dns 192.0.2.1 192.0.2.2\n  \
                    portal https://example.org/a?b=\"c\\\n  server 192.0.2.1\n  ends in 1 h 6 min\n";
        assert_eq!(text(&record(), Duration::from_secs(4000)), want);
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
            r#""captive_portal":"https://example.org/a?b=\"c\\","mtu":null,"server":"192.0.2.1","#,
            r#""seconds_left":4000,"lease_end":1700000000,"pid":77}"#,
            "\n]\n"
        );
        assert_eq!(array(&[(record(), Duration::from_secs(4000))]), want);
        assert_eq!(array(&[]), "[]\n");
    }

    #[test]
    fn the_manual_page_lists_the_keys_in_their_order() {
        let page = include_str!("../../../man/udhcpc.8");
        let section = page.split_once(".Sh LEASES").map(|(_, rest)| rest).unwrap();
        let section = section.split_once(".Sh ").unwrap().0;
        let listed: Vec<&str> =
            section.lines().filter_map(|l| l.strip_prefix(".It Cm ")).flat_map(|l| l.split(" , ")).collect();
        let text = array(&[(Record::new(), Duration::ZERO)]);
        let keys: Vec<&str> =
            text.split('"').filter(|w| w.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).collect();
        assert_eq!(listed, keys);
    }
}
