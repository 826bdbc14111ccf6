//! Link-local addresses: from the start of the program to a usable address. All programs run at the
//! same time, each on a cable of its own, because they sleep nearly all of the time.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use testkit::{Lab, Net, Proc};

use super::{FIFO, Said};
use crate::table::{OURS, Row, median};
use crate::world::{script, sh};

/// RFC 3927 needs 4 to 7 s without a conflict.
const LIMIT: Duration = Duration::from_secs(20);
/// The kernel's linkwatch makes a new link's operstate known within a second.
const LINKWATCH: Duration = Duration::from_millis(1500);

/// The script of both programs. avahi-autoipd calls it with `BIND IFACE IP`, zcip with `config` and
/// variables.
const HANDLER: &str = "#!/bin/sh
case $1 in
BIND) interface=$2 ip=$3 ;;
config) ;;
*) exit 0 ;;
esac
ip addr replace $ip/16 dev $interface scope link
";

struct Claimer {
    name: &'static str,
    /// The interfaces have this name and a number.
    prefix: &'static str,
    /// The command without the interface and without the arguments after it.
    command: Vec<String>,
    script_last: bool,
}

impl Claimer {
    fn start(&self, net: &Net, n: usize) -> (String, Instant, Proc) {
        let interface = format!("{}{n}", self.prefix);
        let mut argv: Vec<&str> = self.command.iter().map(String::as_str).collect();
        argv.push(&interface);
        if self.script_last {
            argv.push("/run/claimed");
        }
        (interface.clone(), Instant::now(), net.spawn(&argv))
    }
}

fn claimers(applets: &str) -> [Claimer; 2] {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    [
        Claimer {
            name: "avahi",
            prefix: "avahi",
            command: words("avahi-autoipd --no-drop-root --no-chroot -t /run/claimed"),
            script_last: false,
        },
        Claimer {
            name: OURS,
            prefix: "ours",
            command: words(&format!("{applets}/zcip -f --state /run/claims")),
            script_last: true,
        },
    ]
}

pub(super) fn bench(lab: &Lab, applets: &str, quick: bool, said: &Said) -> io::Result<Vec<Row>> {
    let count = if quick { 3 } else { 9 };
    script("/run/claimed", &format!("{HANDLER}echo $interface > {FIFO}\n"));
    sh("mkdir -p /run/claims /var/lib/avahi-autoipd");
    let (near, far) = (lab.net("claimers"), lab.net("claimed"));
    let claimers = claimers(applets);
    for (claimer, n) in claimers.iter().flat_map(|claimer| (0..count).map(move |n| (claimer, n))) {
        let interface = format!("{}{n}", claimer.prefix);
        lab.cable((&near, &interface), (&far, &interface));
    }
    std::thread::sleep(LINKWATCH);
    let new = claim(&near, &claimers, count, said);
    // A quick run leaves avahi out: it needs as long for the second time.
    let [_, ours] = &claimers;
    let again = claim(&near, if quick { std::slice::from_ref(ours) } else { &claimers }, count, said);
    let note = format!("median of {count}");
    Ok(vec![
        Row::new("link-local address: start -> usable, new, s", new).note(note.clone()),
        Row::new("link-local address: start -> usable, remembered, s", again).note(note),
    ])
}

/// Starts all programs, waits for all of them, and ends them.
fn claim(near: &Net, claimers: &[Claimer], count: usize, said: &Said) -> Vec<(&'static str, Option<f64>)> {
    said.drain();
    let begun: Vec<Vec<_>> = claimers.iter().map(|c| (0..count).map(|n| c.start(near, n)).collect()).collect();
    let end = Instant::now() + LIMIT;
    let mut usable = HashMap::new();
    while usable.len() < claimers.len() * count {
        let Some((at, interface)) = said.next(end.saturating_duration_since(Instant::now())) else { break };
        usable.entry(interface).or_insert(at);
    }
    let mut medians = Vec::new();
    for (claimer, begun) in claimers.iter().zip(begun) {
        let took = |(interface, start, _): &(String, Instant, Proc)| {
            usable.get(interface).map(|at| at.saturating_duration_since(*start).as_secs_f64())
        };
        medians.push((claimer.name, median(begun.iter().filter_map(took).collect())));
        for (interface, _, daemon) in begun {
            daemon.stop();
            near.ip(&["address", "flush", "dev", &interface]);
        }
    }
    medians
}
