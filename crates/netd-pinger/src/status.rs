//! What the pinger knows, as a file and for people and programs. PURE.
//!
//! The file has the form of an `*.ipconf` (one record for the uplink, one per target), so that
//! there is one reader of such text, and shell scripts can use it; its name is not one of a record
//! that fw reads. Called by watch.rs (render) and lib.rs (show).

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use applet::json;
use netd_core::net::IfName;
use netd_core::record::text::{self, Record};
use netd_core::record::{Cause, Status, TargetStatus, UplinkState};

use crate::history::Numbers;
use crate::target::Target;
use crate::watchdog::Report;

/// The file's text.
pub(crate) fn render(iface: &IfName, report: &Report, targets: &[Target], now: Duration) -> String {
    let (ip, router) = report.lease.map_or((None, None), |l| (Some(l.ip), l.router));
    let mut rows: Vec<TargetStatus> = router.map(|_| row("router".into(), &report.router)).into_iter().collect();
    rows.extend(targets.iter().zip(&report.targets).map(|(t, numbers)| row(t.to_string(), numbers)));
    let status = Status {
        interface: iface.clone(),
        state: report.state,
        cause: report.cause,
        since_boottime: report.since.as_secs(),
        written_boottime: now.as_secs(),
        ip,
        router,
        restarts: report.restarts,
        targets: rows,
        other: Vec::new(),
    };
    // Nothing in it has a quote or a control character.
    text::render(&status.render()).unwrap_or_default()
}

fn row(name: String, numbers: &Numbers) -> TargetStatus {
    let Numbers { asked, lost, last, mean, worst } = *numbers;
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    TargetStatus { name, asked: count(asked), lost: count(lost), last, mean, worst, other: Vec::new() }
}

/// The file again, as text or JSON, and whether the uplink is bad. `None`: it is no such file.
pub(crate) fn show(records: &[Record], json: bool, now: Duration) -> Option<(String, bool)> {
    let status = Status::parse(records)?;
    let ages = [status.since_boottime, status.written_boottime].map(|at| now.as_secs().saturating_sub(at));
    let text = if json { as_json(&status, ages) } else { as_text(&status, ages) };
    Some((text, matches!(status.state, UplinkState::Bad | UplinkState::Recovering)))
}

fn as_text(status: &Status, [since, written]: [u64; 2]) -> String {
    let cause = match status.cause {
        Some(Cause::Router) => " (the router is silent)",
        Some(Cause::Behind) => " (nothing behind the router answers)",
        Some(Cause::Found) | None => "",
    };
    let mut out = format!("{}: {}{cause} for {since} s", status.interface, status.state);
    let restarts = Some(status.restarts).filter(|restarts| *restarts != 0);
    for (label, value) in [
        ("address", status.ip.map(|ip| ip.to_string())),
        ("router", status.router.map(|ip| ip.to_string())),
        ("restarts", restarts.map(|n| n.to_string())),
    ] {
        if let Some(value) = value {
            let _ = write!(out, ", {label} {value}");
        }
    }
    let _ = writeln!(out, "; written {written} s ago");
    if !status.targets.is_empty() {
        let _ =
            writeln!(out, "{:<28} {:>5} {:>5} {:>9} {:>9} {:>9}", "target", "asked", "lost", "last", "mean", "worst");
    }
    for target in &status.targets {
        let time = |time| millis(time).map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        let [last, mean, worst] = [target.last, target.mean, target.worst].map(time);
        let TargetStatus { name, asked, lost, .. } = target;
        let _ = writeln!(out, "{name:<28} {asked:>5} {lost:>5} {last:>9} {mean:>9} {worst:>9}");
    }
    out
}

fn as_json(status: &Status, [since, written]: [u64; 2]) -> String {
    let mut out = String::new();
    let times = |t: &TargetStatus| [t.last, t.mean, t.worst].map(|time| json::or_null(millis(time)));
    let targets: Vec<String> = status
        .targets
        .iter()
        .map(|t| (t, times(t)))
        .map(|(t, [last, mean, worst])| {
            let mut one = String::new();
            let values = [
                ("target", json::string(&t.name)),
                ("asked", t.asked.to_string()),
                ("lost", t.lost.to_string()),
                ("last_ms", last),
                ("mean_ms", mean),
                ("worst_ms", worst),
            ];
            json::object(&mut one, &values);
            one
        })
        .collect();
    let ip = |ip: Option<Ipv4Addr>| json::or_null(ip.map(|ip| json::string(&ip.to_string())));
    let values = [
        ("interface", json::string(&status.interface)),
        ("state", json::string(status.state.word())),
        ("cause", json::or_null(status.cause.map(|cause| json::string(cause.word())))),
        ("address", ip(status.ip)),
        ("router", ip(status.router)),
        ("restarts", status.restarts.to_string()),
        ("since_secs", since.to_string()),
        ("age_secs", written.to_string()),
        ("targets", format!("[{}]", targets.join(","))),
    ];
    json::object(&mut out, &values);
    out.push('\n');
    out
}

/// Milliseconds with two places.
fn millis(time: Option<Duration>) -> Option<String> {
    let hundredths = time?.as_micros() / 10;
    Some(format!("{}.{:02}", hundredths / 100, hundredths % 100))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Lease;

    fn report() -> Report {
        let ms = Duration::from_millis;
        Report {
            state: UplinkState::Bad,
            cause: Some(Cause::Behind),
            since: Duration::from_secs(100),
            restarts: 0,
            lease: Some(Lease { ip: [192, 0, 2, 100].into(), router: Some([192, 0, 2, 1].into()) }),
            router: Numbers { asked: 60, lost: 1, last: Some(ms(1)), mean: Some(ms(2)), worst: Some(ms(30)) },
            targets: vec![Numbers { asked: 60, lost: 60, ..Numbers::default() }],
        }
    }

    fn shown(report: &Report, json: bool) -> (String, bool) {
        let targets = [Target::parse("icmp:203.0.113.10").unwrap()];
        let text = render(&IfName::parse("eth0").unwrap(), report, &targets, Duration::from_secs(180));
        let records = text::parse(text.as_bytes()).unwrap();
        show(&records, json, Duration::from_secs(183)).unwrap()
    }

    #[test]
    fn people_read_it() {
        let want = "eth0: bad (nothing behind the router answers) for 83 s, address 192.0.2.100, router 192.0.2.1; written 3 s ago\n\
                    target                       asked  lost      last      mean     worst\n\
                    router                          60     1   1.00 ms   2.00 ms  30.00 ms\n\
                    icmp:203.0.113.10               60    60         -         -         -\n";
        assert_eq!(shown(&report(), false), (want.to_owned(), true));
        let idle = Report { state: UplinkState::Idle, cause: None, lease: None, targets: Vec::new(), ..report() };
        assert_eq!(shown(&idle, false), ("eth0: idle for 83 s; written 3 s ago\n".to_owned(), false));
    }

    #[test]
    fn programs_read_it() {
        let want = "{\"interface\":\"eth0\",\"state\":\"bad\",\"cause\":\"behind\",\"address\":\"192.0.2.100\",\"router\":\"192.0.2.1\",\
                    \"restarts\":0,\"since_secs\":83,\"age_secs\":3,\"targets\":[\
                    {\"target\":\"router\",\"asked\":60,\"lost\":1,\"last_ms\":1.00,\"mean_ms\":2.00,\"worst_ms\":30.00},\
                    {\"target\":\"icmp:203.0.113.10\",\"asked\":60,\"lost\":60,\"last_ms\":null,\"mean_ms\":null,\"worst_ms\":null}]}\n";
        assert_eq!(shown(&report(), true).0, want);
    }

    #[test]
    fn another_file_is_none() {
        for text in ["", "let cfg=cfg+1\nif[$cfg]=eth0\n", "let cfg=cfg+1\nstate[$cfg]=bad\nsince_boottime[$cfg]=x\n"] {
            assert_eq!(show(&text::parse(text.as_bytes()).unwrap(), true, Duration::ZERO), None);
        }
    }
}
