//! The stage of the demo: the world, the appliance, the pings, and the timeline that prints itself.

#![expect(clippy::disallowed_methods, reason = "it is the clock of the acts")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use testkit::appliance::{Appliance, FW_CONF, LAN_IPCONF};
use testkit::probe::{Loss, Probe};
use testkit::timeline::{Event, Timeline};
use testkit::uplinks::{TARGET, TwoUplinks};
use testkit::{Lab, poll_for};

use crate::screen::{Tone, line, paint};

/// The time between two pings.
const PING_INTERVAL: Duration = Duration::from_millis(2);
/// How long the pings must flow without a loss before an act is over.
const SETTLE: Duration = Duration::from_millis(300);
/// The services of the appliance.
const SERVICES: [&str; 8] = [
    "fw",
    "ifplugd_eth0",
    "ifplugd_eth1",
    "dhcp_eth0",
    "dhcp_eth1",
    "dhcp_eth0_pinger",
    "dhcp_eth1_pinger",
    "zcip_eth1",
];

/// Err names the event that an act waited for in vain.
pub(crate) type Told = Result<(), String>;

struct ActLoss {
    title: String,
    lan: Loss,
    home: Option<Loss>,
}

/// The stage.
pub(crate) struct Story {
    pub(crate) world: TwoUplinks,
    pub(crate) appliance: Appliance,
    pub(crate) timeline: Timeline,
    pub(crate) lan_pings: Probe,
    pub(crate) home_pings: Option<Probe>,
    losses: Vec<ActLoss>,
    cue: Arc<Mutex<Instant>>,
    lab: Lab,
}

impl Story {
    /// Builds everything. The cables are unplugged and the supervisor runs.
    pub(crate) fn raise(netsv: &Path, services: &Path) -> Story {
        line(&paint(Tone::Strong, "netsv demo: a router with two providers, in network namespaces of its own"));
        line("");
        line("  [lan] -- lan0 [home] eth0 -- [isp_a] --.");
        line("                       eth1 -- [isp_b] ----- [internet] 203.0.113.10");
        line("");
        let lab = Lab::new();
        lab.use_netsv(netsv);
        let world = TwoUplinks::build(&lab);
        let mut appliance = Appliance::prepare(&lab, &world.home, services, &SERVICES);
        appliance.write("fw/fw.conf", FW_CONF);
        appliance.write("fw/conf/lan.ipconf", LAN_IPCONF);
        let timeline = Timeline::start();
        let cue = Arc::new(Mutex::new(Instant::now()));
        let base = Arc::clone(&cue);
        timeline.print_with(move |_, event| print_event(*base.lock().unwrap_or_else(PoisonError::into_inner), event));
        timeline.watch_kernel(&world.home, Box::new(kernel_filter()));
        for service in SERVICES {
            timeline.watch_log(service, appliance.log_file(service), Box::new(log_text));
        }
        let lan_pings = Probe::start(Some("lan"), TARGET, PING_INTERVAL).expect("start pings in lan");
        appliance.start();
        if let Some(log) = appliance.init_log() {
            timeline.watch_log("runsvdir", log, Box::new(log_text));
        }
        Story { world, appliance, timeline, lan_pings, home_pings: None, losses: Vec::new(), cue, lab }
    }

    /// Begins an act, and returns its begin.
    pub(crate) fn begin(&self, title: &str) -> Instant {
        line("");
        line(&paint(Tone::Strong, title));
        let now = Instant::now();
        *self.cue.lock().unwrap_or_else(PoisonError::into_inner) = now;
        now
    }

    /// Notes something that the story does to the appliance.
    pub(crate) fn cue(&self, text: &str) -> Instant {
        self.timeline.note("demo", text)
    }

    /// Prints a line below the timeline of an act.
    pub(crate) fn result(&self, text: &str) {
        line(&format!("  => {}", paint(Tone::Good, text)));
    }

    /// Waits for an event on the timeline at or after `from`.
    pub(crate) fn event(
        &self,
        what: &str,
        from: Instant,
        timeout: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Event, String> {
        self.timeline.wait(from, timeout, wanted).ok_or_else(|| format!("{what} (waited {timeout:?})"))
    }

    /// Waits for a condition.
    pub(crate) fn until<T>(&self, what: &str, timeout: Duration, look: impl FnMut() -> Option<T>) -> Result<T, String> {
        poll_for(timeout, look).ok_or_else(|| format!("{what} (waited {timeout:?})"))
    }

    /// Ends an act: waits until pings flow steadily from both hosts, then prints the losses of the
    /// act.
    pub(crate) fn end(&mut self, title: &str, from: Instant) -> Told {
        let steady_from = Instant::now();
        self.until("pings from the LAN host flow steadily", Duration::from_secs(15), || {
            let since = self.lan_pings.recovered(steady_from)?;
            (since.elapsed() >= SETTLE).then_some(())
        })?;
        let to = Instant::now();
        // Time for the last replies to arrive.
        let _ = poll_for(Duration::from_millis(50), || None::<()>);
        let act = ActLoss {
            title: title.to_owned(),
            lan: self.lan_pings.loss(from, to),
            home: self.home_pings.as_ref().map(|pings| pings.loss(from, to)),
        };
        self.result(&format!("pings lost: {}", loss_text(&act)));
        self.losses.push(act);
        Ok(())
    }

    /// How long after `from` the pings of the LAN host flowed for good again.
    pub(crate) fn flowing_after(&self, from: Instant) -> Option<Duration> {
        self.lan_pings.recovered(from).map(|at| at.saturating_duration_since(from))
    }

    /// Starts the appliance's own pings; it must have a route by now.
    pub(crate) fn start_home_pings(&mut self) {
        self.home_pings = Some(Probe::start(Some("home"), TARGET, PING_INTERVAL).expect("start pings in home"));
    }

    /// Prints one line per act.
    pub(crate) fn print_losses(&self) {
        line("");
        line(&paint(Tone::Strong, "Pings lost, one sent every 2 ms"));
        for act in &self.losses {
            line(&format!("  {:<60} {}", act.title, loss_text(act)));
        }
    }

    /// Prints the event that did not come, and all logs.
    pub(crate) fn print_failure(&self, what: &str) {
        line("");
        line(&self.appliance.logs());
        line(&format!("ip route: {}", self.world.home.ip(&["route"])));
        line(&format!("ip address: {}", self.world.home.ip(&["-brief", "address"])));
        line(&paint(Tone::Alarm, &format!("demo: DID NOT HAPPEN: {what}")));
    }

    /// Prints the hints for --keep.
    pub(crate) fn print_how_to_look_inside(&self) {
        let outer = std::env::var(testkit::OUTER_PID).unwrap_or_default();
        let user =
            if std::env::var_os(testkit::USER_NAMESPACE).is_some() { " --user --preserve-credentials" } else { "" };
        let enter = format!("nsenter --target {outer}{user} --mount --net --pid=/proc/{outer}/ns/pid_for_children");
        let bin: PathBuf = self.lab.dir().join("bin");
        let services = self.appliance.services().display();
        let inside = format!("env SVDIR={services} PATH={}:$PATH:/usr/sbin:/sbin", bin.display());
        line("");
        line(&paint(Tone::Strong, "It stays up until Enter or Ctrl-C. From another terminal, as the same user:"));
        line("");
        line(&format!("  {enter} ip netns exec home {inside} sh -c 'sv status {services}/*'"));
        line(&format!("  {enter} ip -n home route"));
        line(&format!("  {enter} ip -n isp_a link set customer down      # pulls the cable of eth0; up plugs it"));
        line(&format!("  {enter} ip netns exec lan ping 203.0.113.10"));
        line("");
    }
}

fn loss_text(act: &ActLoss) -> String {
    let one = |loss: &Loss| match loss.lost {
        0 => format!("0 of {}", loss.sent),
        lost => format!("{lost} of {} (longest gap {} ms)", loss.sent, loss.longest_gap.as_millis()),
    };
    match &act.home {
        Some(home) => format!("LAN host {}, appliance itself {}", one(&act.lan), one(home)),
        None => format!("LAN host {}", one(&act.lan)),
    }
}

fn print_event(cue: Instant, event: &Event) {
    let ms = event.at.saturating_duration_since(cue).as_secs_f64() * 1000.0;
    let tone = match event.source.as_str() {
        "demo" => Tone::Alarm,
        "home" => Tone::Plain,
        _ => Tone::Quiet,
    };
    let source = if event.source == "home" { "kernel" } else { &event.source };
    line(&paint(tone, &format!("  {ms:>9.1} ms  {source:<13} {}", event.text)));
}

/// svlogd -tt puts a stamp before each line. The timeline has its own stamps, so this removes
/// svlogd's.
fn log_text(text: &str) -> Option<String> {
    let (stamp, rest) = text.split_once(' ').unwrap_or(("", text));
    let is_stamp = stamp.starts_with(|c: char| c.is_ascii_digit() || c == '@');
    let text = if is_stamp { rest } else { text };
    (!text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// The words of a default route that the story needs, and the flags that stand at its end.
fn default_route(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let value = |key: &str| words.iter().skip_while(|word| **word != key).nth(1).copied().unwrap_or("?");
    let metric = if words.contains(&"metric") { value("metric") } else { "0" };
    let dead = if words.contains(&"linkdown") { ", no link" } else { "" };
    format!("default route {} via {} metric {metric}{dead}", value("dev"), value("via"))
}

/// Selects lines of `ip -o monitor`: changes of carrier of eth0 and eth1, their IPv4 addresses, and
/// default routes of the main table (the other tables are for answers).
fn kernel_filter() -> impl FnMut(&str) -> Option<String> + Send {
    let mut carrier: Vec<(String, bool)> = Vec::new();
    move |text: &str| {
        let (verb, rest) = text.strip_prefix("Deleted ").map_or(("+", text), |rest| ("-", rest));
        if rest.starts_with("default ") {
            return (!rest.contains(" table ")).then(|| format!("{verb} {}", default_route(rest)));
        }
        let (_, rest) = rest.split_once(": ")?;
        let interface: String = rest.chars().take_while(|c| !matches!(c, ':' | '@' | ' ')).collect();
        if !interface.starts_with("eth") {
            return None;
        }
        if let Some((_, address)) = rest.split_once(" inet ") {
            return Some(format!("{verb} address {} on {interface}", address.split(' ').next()?));
        }
        let flags = rest.split_once('<')?.1.split_once('>')?.0;
        let has = flags.split(',').any(|flag| flag == "LOWER_UP");
        match carrier.iter_mut().find(|(name, _)| *name == interface) {
            Some((_, known)) if *known == has => return None,
            Some((_, known)) => *known = has,
            None => carrier.push((interface.clone(), has)),
        }
        Some(format!("{interface}: {}", if has { "carrier" } else { "no carrier" }))
    }
}
