//! Records and fw.conf: text that any user with write access to the directory can choose.

use netd_core::record::{Author, Lease, LinkLocal, Network, Remembered, Status, Verdict, text};
use std::collections::BTreeSet;
use std::time::Duration;

use fw::firewall;
use fw::firewall::admin::Own;
use fw::firewall::parts::{Inserts, Marking, Parts};
use fw::have::Have;
use fw::input::lease::{self, Now};
use fw::input::memory::Memory;
use fw::input::policy;
use fw::want::{self, judged};
use netd_udhcpc::record;

/// Whatever is read can be written and read again unchanged, as text and as each kind of record. A
/// lease is resumed only before its end.
pub fn record(data: &[u8]) {
    let Ok(records) = text::parse(data) else { return };
    let plain = |c: char| !c.is_control() || c == '\t';
    for record in &records {
        assert!(record.fields().all(|(name, value)| text::is_field_name(name) && value.chars().all(plain)));
        let now = Duration::from_secs(1000);
        if let Some(resume) = record::resume(record, "eth0", "0123abcd", now) {
            assert!(resume.end > now && !resume.ip.is_unspecified() && !resume.ip.is_multicast());
        }
        for author in [Author::Administrator, Author::Program] {
            if let Ok((network, _)) = Network::parse(record, author)
                && let Some(back) = again(&[network.render()])
            {
                assert_eq!(Network::parse(&back[0], Author::Administrator), Ok((network, Vec::new())));
            }
        }
        kind(record, Lease::parse, Lease::render);
        kind(record, LinkLocal::parse, LinkLocal::render);
        kind(record, Verdict::parse, Verdict::render);
        kind(record, Remembered::parse, Remembered::render);
    }
    if let Some(status) = Status::parse(&records)
        && let Some(back) = again(&status.render())
    {
        assert_eq!(Status::parse(&back), Some(status));
    }
    if let Some(back) = again(&records) {
        assert_eq!(records, back);
    }
}

/// The records as a file would return them. `None`: a value could leave its quotes.
fn again(records: &[text::Record]) -> Option<Vec<text::Record>> {
    let text = text::render(records).ok()?;
    Some(text::parse(text.as_bytes()).expect("what we write can be read"))
}

fn kind<T: PartialEq + std::fmt::Debug>(
    record: &text::Record,
    parse: fn(&text::Record) -> Option<T>,
    render: fn(&T) -> text::Record,
) {
    if let Some(value) = parse(record)
        && let Some(back) = again(&[render(&value)])
    {
        assert_eq!(parse(&back[0]), Some(value));
    }
}

/// The administrator's own rules: what is taken is taken again as it is, and closes no brace that
/// it has not opened.
fn own_rules(data: &[u8]) {
    let Ok(own) = Own::parse(data) else { return };
    assert_eq!(Own::parse(own.text().as_bytes()).as_ref(), Ok(&own));
    let mut depth = 0_i32;
    for line in own.text().lines() {
        // Strings are at odd places between quotes; a comment ends the line.
        for (place, part) in line.split('"').enumerate().filter(|(place, _)| place % 2 == 0) {
            let code = part.split('#').next().unwrap_or_default();
            for c in code.chars() {
                depth += i32::from(c == '{') - i32::from(c == '}');
                assert!(depth >= 0, "{line} at {place}");
            }
            if code.len() < part.len() {
                break;
            }
        }
    }
    assert_eq!(depth, 0);
}

/// A policy, the daemons' records and the administrator's, divided by NULs. The rules must consist
/// of allowed characters, and names of interfaces must be possible names.
pub fn fw(data: &[u8]) {
    own_rules(data);
    let mut parts = data.splitn(3, |b| *b == 0);
    let (policy, _) = policy::parse(parts.next().unwrap_or_default());
    let mut entries = Vec::new();
    for is_static in [false, true] {
        let Ok(records) = text::parse(parts.next().unwrap_or_default()) else { return };
        let read = records.iter().filter_map(|r| fw::record::read(r, is_static, "fuzz".into()).ok());
        entries.extend(read.map(|(entry, _)| entry));
    }
    let external: BTreeSet<String> = entries.iter().map(|e| e.interface().to_owned()).collect();
    let external: Vec<String> = external.into_iter().collect();
    let now = Now {
        boottime: Duration::from_secs(1000),
        wall: Duration::from_secs(2_000_000_000),
        boot_id: "0123abcd".into(),
    };
    let (mut current, _) = lease::current(entries, &now);
    assert!(current.iter().all(|(_, left)| left.is_none_or(|left| left > Duration::ZERO)));
    let memory = Memory { uplinks: external.clone(), ..Memory::default() };
    let have = Have::default();
    judged::judge(&mut current, &have);
    let want = want::want(&current, &policy, &memory, &have);
    assert!(want.addresses.len() <= current.len());
    let marking = Marking::of(&want);
    let inserts = Inserts::default();
    let parts =
        Parts { zones: &want.zones, marking: &marking, policy: &policy, openings: &want.openings, inserts: &inserts };
    if let Some(rules) = firewall::text::render(&parts) {
        let allowed = |c: char| c.is_ascii_graphic() || " \t\n".contains(c);
        assert!(rules.chars().all(allowed), "{rules}");
        for name in &external {
            // Each name has two quotes around it, and none in it.
            assert!(!name.contains(['"', '\\', ';', '{', '}']) && name.len() < 16, "{name}");
        }
        assert_eq!(rules.matches('{').count(), rules.matches('}').count());
    }
}
