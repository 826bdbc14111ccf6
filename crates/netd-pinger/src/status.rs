//! What the pinger knows, as a file and for people and programs. PURE.
//!
//! The file has the form of an `*.ipconf` (one record for the uplink, one per target), so that there is one reader of such
//! text, and shell scripts can use it; its name is not one of a record that fw reads. Called by watch.rs (render) and lib.rs (show).

use netd_core::record::text;
use std::fmt::Write;
use std::time::Duration;

use netd_core::record::text::Record;

use crate::history::Numbers;
use crate::target::Target;
use crate::watchdog::Report;

/// The file's text.
pub(crate) fn render(iface: &str, report: &Report, targets: &[Target], now: Duration) -> String {
    let secs = |d: Duration| d.as_secs().to_string();
    let (ip, router) = report.lease.map_or((None, None), |l| (Some(l.ip), l.router));
    let text = |ip: Option<std::net::Ipv4Addr>| ip.map_or_else(String::new, |ip| ip.to_string());
    let uplink = Record::new()
        .with("if", iface)
        .with("state", report.state)
        .with("cause", report.cause)
        .with("since_boottime", secs(report.since))
        .with("written_boottime", secs(now))
        .with("ip", text(ip))
        .with("router", text(router))
        .with("restarts", report.restarts.to_string());
    let mut records = vec![uplink];
    records.extend(router.map(|_| record("router".into(), &report.router)));
    records.extend(targets.iter().zip(&report.targets).map(|(t, numbers)| record(t.to_string(), numbers)));
    // Nothing in it has a quote or a control character.
    text::render(&records).unwrap_or_default()
}

fn record(target: String, numbers: &Numbers) -> Record {
    let micros = |time: Option<Duration>| time.map_or_else(String::new, |t| t.as_micros().to_string());
    Record::new()
        .with("target", target)
        .with("asked", numbers.asked.to_string())
        .with("lost", numbers.lost.to_string())
        .with("last_us", micros(numbers.last))
        .with("mean_us", micros(numbers.mean))
        .with("worst_us", micros(numbers.worst))
}

/// The file again, as text or JSON, and whether the uplink is bad. `None`: it is no such file.
pub(crate) fn show(records: &[Record], json: bool, now: Duration) -> Option<(String, bool)> {
    let (uplink, targets) = records.split_first()?;
    let state = uplink.get("state")?;
    let age = |key: &str| Some(now.as_secs().saturating_sub(uplink.get(key)?.parse().ok()?));
    let (since, written) = (age("since_boottime")?, age("written_boottime")?);
    let text = match json {
        true => as_json(uplink, targets, since, written),
        false => as_text(uplink, targets, since, written),
    };
    Some((text, matches!(state, "bad" | "recovering")))
}

fn field<'a>(record: &'a Record, name: &str) -> &'a str {
    record.get(name).unwrap_or_default()
}

fn as_text(uplink: &Record, targets: &[Record], since: u64, written: u64) -> String {
    let cause = match field(uplink, "cause") {
        "router" => " (the router is silent)",
        "behind" => " (nothing behind the router answers)",
        _ => "",
    };
    let mut out = format!("{}: {}{cause} for {since} s", field(uplink, "if"), field(uplink, "state"));
    for (key, label) in [("ip", "address"), ("router", "router"), ("restarts", "restarts")] {
        let value = field(uplink, key);
        if !matches!(value, "" | "0") {
            let _ = write!(out, ", {label} {value}");
        }
    }
    let _ = writeln!(out, "; written {written} s ago");
    if !targets.is_empty() {
        let _ =
            writeln!(out, "{:<28} {:>5} {:>5} {:>9} {:>9} {:>9}", "target", "asked", "lost", "last", "mean", "worst");
    }
    for target in targets {
        let time = |name| millis(field(target, name)).map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        let [last, mean, worst] = ["last_us", "mean_us", "worst_us"].map(time);
        let [name, asked, lost] = ["target", "asked", "lost"].map(|name| field(target, name));
        let _ = writeln!(out, "{name:<28} {asked:>5} {lost:>5} {last:>9} {mean:>9} {worst:>9}");
    }
    out
}

fn as_json(uplink: &Record, targets: &[Record], since: u64, written: u64) -> String {
    let text = |name: &str| json_text(field(uplink, name));
    let mut out = format!("{{\"interface\":{},\"state\":{}", text("if"), text("state"));
    for (key, name) in [("cause", "cause"), ("ip", "address"), ("router", "router")] {
        let value = if field(uplink, key).is_empty() { "null".to_owned() } else { text(key) };
        let _ = write!(out, ",\"{name}\":{value}");
    }
    let restarts = number(field(uplink, "restarts"));
    let _ = write!(out, ",\"restarts\":{restarts},\"since_secs\":{since},\"age_secs\":{written},\"targets\":[");
    for (n, target) in targets.iter().enumerate() {
        let (asked, lost) = (number(field(target, "asked")), number(field(target, "lost")));
        let comma = if n == 0 { "" } else { "," };
        let name = json_text(field(target, "target"));
        let _ = write!(out, "{comma}{{\"target\":{name},\"asked\":{asked},\"lost\":{lost}");
        for (key, name) in [("last_us", "last_ms"), ("mean_us", "mean_ms"), ("worst_us", "worst_ms")] {
            let time = millis(field(target, key)).unwrap_or_else(|| "null".to_owned());
            let _ = write!(out, ",\"{name}\":{time}");
        }
        out.push('}');
    }
    out.push_str("]}\n");
    out
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// Microseconds as milliseconds with two places.
fn millis(text: &str) -> Option<String> {
    let hundredths = text.parse::<u64>().ok()? / 10;
    Some(format!("{}.{:02}", hundredths / 100, hundredths % 100))
}

/// A record's value has no control characters.
fn json_text(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Lease;

    fn report() -> Report {
        let ms = Duration::from_millis;
        Report {
            state: "bad",
            cause: "behind",
            since: Duration::from_secs(100),
            restarts: 0,
            lease: Some(Lease { ip: [192, 0, 2, 100].into(), router: Some([192, 0, 2, 1].into()) }),
            router: Numbers { asked: 60, lost: 1, last: Some(ms(1)), mean: Some(ms(2)), worst: Some(ms(30)) },
            targets: vec![Numbers { asked: 60, lost: 60, ..Numbers::default() }],
        }
    }

    fn shown(report: &Report, json: bool) -> (String, bool) {
        let targets = [Target::parse("icmp:203.0.113.10").unwrap()];
        let text = render("eth0", report, &targets, Duration::from_secs(180));
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
        let idle = Report { state: "idle", cause: "", lease: None, targets: Vec::new(), ..report() };
        assert_eq!(shown(&idle, false), ("eth0: idle for 83 s; written 3 s ago\n".to_owned(), false));
    }

    #[test]
    fn programs_read_it() {
        let want = "{\"interface\":\"eth0\",\"state\":\"bad\",\"cause\":\"behind\",\"address\":\"192.0.2.100\",\"router\":\"192.0.2.1\",\
                    \"restarts\":0,\"since_secs\":83,\"age_secs\":3,\"targets\":[\
                    {\"target\":\"router\",\"asked\":60,\"lost\":1,\"last_ms\":1.00,\"mean_ms\":2.00,\"worst_ms\":30.00},\
                    {\"target\":\"icmp:203.0.113.10\",\"asked\":60,\"lost\":60,\"last_ms\":null,\"mean_ms\":null,\"worst_ms\":null}]}\n";
        assert_eq!(shown(&report(), true).0, want);
        assert_eq!(json_text("a\"\\b"), "\"a\\\"\\\\b\"");
    }

    #[test]
    fn another_file_is_none() {
        for text in ["", "let cfg=cfg+1\nif[$cfg]=eth0\n", "let cfg=cfg+1\nstate[$cfg]=bad\nsince_boottime[$cfg]=x\n"] {
            assert_eq!(show(&text::parse(text.as_bytes()).unwrap(), true, Duration::ZERO), None);
        }
    }
}
