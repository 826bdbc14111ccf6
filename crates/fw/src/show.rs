//! What is applied, from where and since when, as text for people and as JSON. PURE.
//!
//! It shows what the kernel has, beside the records that ask for it: an object of ours that the
//! kernel lost is missing here, and counted as a change that waits. Called by commands/show.rs.

use std::time::Duration;

use applet::json;

/// An address or a route of ours that the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// As ip(8) writes it.
    pub text: String,
    /// File, line and key that ask for it; empty: none does any more.
    pub from: String,
    /// How long the kernel has had it, where it says so.
    pub age: Option<Duration>,
    /// What is left of its lifetime; `None`: for ever.
    pub left: Option<Duration>,
    /// The route is not used: its link is down.
    pub dead: bool,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// The link is up.
    pub up: bool,
    /// `outside`, the name of a zone, or what else it is.
    pub role: String,
    /// Why it is that.
    pub reason: String,
    /// Addresses.
    pub addresses: Vec<Object>,
    /// Routes of the main table.
    pub routes: Vec<Object>,
}

/// An uplink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uplink {
    /// Interface.
    pub name: String,
    /// The packets go there now.
    pub active: bool,
    /// From 1.
    pub rank: usize,
    /// The metric of its best default route; `None`: it has none now.
    pub metric: Option<u32>,
    /// What the link watcher and the pinger say, and where.
    pub health: Vec<(bool, String)>,
    /// Its default routes stand behind the others.
    pub demoted: bool,
    /// Each packet costs (fw.conf, metered).
    pub metered: bool,
    /// Its link is down, or its route is dead.
    pub dead: bool,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Show {
    /// Seconds since 1970 of the last change, and now.
    pub applied: Option<(u64, u64)>,
    /// Changes that the next run would make.
    pub waiting: usize,
    /// `fw down` was said.
    pub is_down: bool,
    /// An edit waits for its confirmation, and for how long.
    pub confirm: Option<Duration>,
    /// In the order of preference.
    pub uplinks: Vec<Uplink>,
    /// In the kernel's order.
    pub interfaces: Vec<Interface>,
    /// Port forwards, and where each is asked for.
    pub forwards: Vec<(String, String)>,
}

impl Uplink {
    fn state(&self) -> &'static str {
        match self {
            Uplink { active: true, .. } => "active",
            Uplink { metric: None, .. } => "no route",
            Uplink { dead: true, .. } => "link down",
            Uplink { demoted: true, .. } => "demoted",
            Uplink { .. } => "standby",
        }
    }

    /// Why it is first, or not.
    fn why(&self) -> String {
        let mut out = vec![format!("rank {}", self.rank)];
        out.extend(self.metric.map(|metric| format!("metric {metric}")));
        out.extend(self.metered.then(|| "metered".to_owned()));
        out.extend(self.health.iter().map(|(good, from)| format!("health {} ({from})", word(*good))));
        out.join(", ")
    }

    fn json(&self) -> String {
        let verdicts = self
            .health
            .iter()
            .map(|(good, from)| object(&[("health", json::string(word(*good))), ("from", json::string(from))]));
        object(&[
            ("interface", json::string(&self.name)),
            ("state", json::string(self.state())),
            ("rank", self.rank.to_string()),
            ("metric", json::or_null(self.metric)),
            ("demoted", self.demoted.to_string()),
            ("metered", self.metered.to_string()),
            ("verdicts", array(verdicts)),
        ])
    }
}

fn word(good: bool) -> &'static str {
    if good { "up" } else { "down" }
}

impl Object {
    fn notes(&self) -> String {
        let mut out = Vec::new();
        out.push(if self.from.is_empty() { "no record asks for it".to_owned() } else { self.from.clone() });
        out.extend(self.age.map(|age| format!("since {}", span(age))));
        out.extend(self.left.map(|left| format!("{} left", span(left))));
        out.extend(self.dead.then(|| "link down".to_owned()));
        out.join(", ")
    }

    fn json(&self) -> String {
        let from = Some(&self.from).filter(|from| !from.is_empty()).map(|from| json::string(from));
        object(&[
            ("object", json::string(&self.text)),
            ("from", json::or_null(from)),
            ("age_secs", json::or_null(self.age.map(|d| d.as_secs()))),
            ("left_secs", json::or_null(self.left.map(|d| d.as_secs()))),
            ("dead", self.dead.to_string()),
        ])
    }
}

impl Show {
    /// For people: three columns.
    pub fn text(&self) -> String {
        let mut rows: Vec<[String; 3]> = vec![self.state()];
        rows.extend(
            self.confirm.map(|left| row("confirm", &format!("{} left", span(left)), "fw confirm keeps the edit")),
        );
        rows.extend(titled("uplink", self.uplinks.iter().map(|u| (format!("{} {}", u.name, u.state()), u.why()))));
        for interface in &self.interfaces {
            let up = if interface.up { "" } else { ", link down" };
            rows.push(row(&interface.name, &format!("{}{up}", interface.role), &interface.reason));
            let objects = interface.addresses.iter().chain(&interface.routes);
            rows.extend(objects.map(|object| row("", &object.text, &object.notes())));
        }
        rows.extend(titled("forward", self.forwards.iter().cloned()));
        aligned(&rows)
    }

    fn state(&self) -> [String; 3] {
        let waiting = match (self.is_down, self.waiting) {
            (true, _) => "down: fw apply brings it up".to_owned(),
            (false, 0) => "the kernel has all of it".to_owned(),
            (false, 1) => "1 change waits: fw plan".to_owned(),
            (false, n) => format!("{n} changes wait: fw plan"),
        };
        let ago =
            |(at, now): (u64, u64)| format!("{}, {} ago", date(at), span(Duration::from_secs(now.saturating_sub(at))));
        row("applied", &self.applied.map_or("never".to_owned(), ago), &waiting)
    }

    /// For programs: fw(8) has the shape.
    pub fn json(&self) -> String {
        let interfaces = self.interfaces.iter().map(|i| {
            object(&[
                ("name", json::string(&i.name)),
                ("up", i.up.to_string()),
                ("role", json::string(&i.role)),
                ("reason", json::string(&i.reason)),
                ("addresses", array(i.addresses.iter().map(Object::json))),
                ("routes", array(i.routes.iter().map(Object::json))),
            ])
        });
        let forwards = self
            .forwards
            .iter()
            .map(|(rule, from)| object(&[("forward", json::string(rule)), ("from", json::string(from))]));
        let confirm = self.confirm.map(|left| object(&[("left_secs", left.as_secs().to_string())]));
        let mut out = object(&[
            ("applied", json::or_null(self.applied.map(|(at, _)| json::string(&date(at))))),
            ("changes_waiting", self.waiting.to_string()),
            ("down", self.is_down.to_string()),
            ("confirm", json::or_null(confirm)),
            ("uplinks", array(self.uplinks.iter().map(Uplink::json))),
            ("interfaces", array(interfaces)),
            ("forwards", array(forwards)),
        ]);
        out.push('\n');
        out
    }
}

fn row(a: &str, b: &str, c: &str) -> [String; 3] {
    [a.to_owned(), b.to_owned(), c.to_owned()]
}

/// Rows of which the first has a title.
fn titled(title: &str, rows: impl Iterator<Item = (String, String)>) -> Vec<[String; 3]> {
    rows.enumerate().map(|(n, (b, c))| row(if n == 0 { title } else { "" }, &b, &c)).collect()
}

/// Columns as wide as their widest cell, with two blanks between them.
fn aligned(rows: &[[String; 3]]) -> String {
    let width = |at: usize| rows.iter().filter_map(|r| r.get(at)).map(|c| c.chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    let line = |[a, b, c]: &[String; 3]| format!("{a:first$}  {b:second$}  {c}").trim_end().to_owned() + "\n";
    rows.iter().map(line).collect()
}

/// RFC 3339.
fn date(secs: u64) -> String {
    applet::date::utc(secs)
}

/// A length of time in its largest unit, for people.
pub fn span(time: Duration) -> String {
    match time.as_secs() {
        secs @ 0..=119 => format!("{secs} s"),
        secs @ 120..=7_199 => format!("{} min", secs / 60),
        secs @ 7_200..=172_799 => format!("{} h", secs / 3600),
        secs => format!("{} days", secs / 86_400),
    }
}

/// An object of JSON.
pub fn object(values: &[(&str, String)]) -> String {
    let mut out = String::new();
    json::object(&mut out, values);
    out
}

/// An array of JSON.
pub fn array(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Show {
        let object = |text: &str, from: &str| Object { text: text.into(), from: from.into(), ..Object::default() };
        let uplink = |name: &str, rank, metric| Uplink { name: name.into(), rank, metric, ..Uplink::default() };
        let address = Object {
            age: Some(Duration::from_secs(600)),
            left: Some(Duration::from_secs(3540)),
            ..object("10.0.0.5/24", "dyn/dhcp_eth0.ipconf:3 ipmask")
        };
        Show {
            applied: Some((1_796_000_045, 1_796_000_765)),
            waiting: 1,
            is_down: false,
            confirm: Some(Duration::from_secs(95)),
            uplinks: vec![
                Uplink { active: true, ..uplink("eth1", 2, Some(200)) },
                Uplink {
                    demoted: true,
                    health: vec![(false, "dyn/health_eth0.ipconf:2 health".into())],
                    ..uplink("eth0", 1, Some(20_100))
                },
                uplink("wwan0", 3, None),
            ],
            interfaces: vec![
                Interface {
                    name: "eth0".into(),
                    up: true,
                    role: "outside".into(),
                    reason: "it has a default route".into(),
                    addresses: vec![address],
                    routes: vec![object("default via 10.0.0.1 metric 20100", "dyn/dhcp_eth0.ipconf:4 gw")],
                },
                Interface { name: "lan0".into(), role: "zone lan".into(), ..Interface::default() },
            ],
            forwards: vec![("tcp/8080>10.0.0.50:80".into(), "fw.conf:7".into())],
        }
    }

    #[test]
    fn people_read_three_columns() {
        let want = "\
applied  2026-11-30T00:54:05Z, 12 min ago   1 change waits: fw plan
confirm  95 s left                          fw confirm keeps the edit
uplink   eth1 active                        rank 2, metric 200
         eth0 demoted                       rank 1, metric 20100, health down (dyn/health_eth0.ipconf:2 health)
         wwan0 no route                     rank 3
eth0     outside                            it has a default route
         10.0.0.5/24                        dyn/dhcp_eth0.ipconf:3 ipmask, since 10 min, 59 min left
         default via 10.0.0.1 metric 20100  dyn/dhcp_eth0.ipconf:4 gw
lan0     zone lan, link down
forward  tcp/8080>10.0.0.50:80              fw.conf:7
";
        assert_eq!(home().text(), want);
        assert_eq!(Show::default().text(), "applied  never  the kernel has all of it\n");
    }

    #[test]
    fn programs_read_json() {
        let json = home().json();
        let part = r#""uplinks":[{"interface":"eth1","state":"active","rank":2,"metric":200,"demoted":false,"metered":false,"verdicts":[]}"#;
        assert!(json.contains(part), "{json}");
        let part = r#"{"object":"10.0.0.5/24","from":"dyn/dhcp_eth0.ipconf:3 ipmask","age_secs":600,"left_secs":3540,"dead":false}"#;
        assert!(json.contains(part), "{json}");
        assert!(json.starts_with(
            r#"{"applied":"2026-11-30T00:54:05Z","changes_waiting":1,"down":false,"confirm":{"left_secs":95},"#
        ));
        let none = r#"{"applied":null,"changes_waiting":0,"down":false,"confirm":null,"uplinks":[],"interfaces":[],"forwards":[]}"#;
        assert_eq!(Show::default().json(), format!("{none}\n"));
    }

    #[test]
    fn spans_in_their_largest_unit() {
        for (secs, text) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (200_000, "2 days")] {
            assert_eq!(span(Duration::from_secs(secs)), text);
        }
    }
}
