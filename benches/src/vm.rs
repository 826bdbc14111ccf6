//! A whole machine, in qemu without acceleration: from the network card to the default route, and
//! the memory in use then.
//!
//! All subjects have the same kernel, init, card and server. Moments are the guest's: those of `ip
//! -ts monitor`, on the kernel's clock. busybox and runit start when the card is there, which suits
//! them best. Ours starts as the first process, before the drivers.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use testkit::vm::{AGENT, APPLETS, CARD, FIREWALL, Image, Kit, Machine, SERVICES, Wire};
use testkit::{Lab, poll_for};

use crate::table::{OURS, OURS_ONE, Row, median};

/// Boots of each subject; the median counts.
const BOOTS: usize = 3;
/// A small router has less, but Debian's kernel needs this much.
const MEGABYTES: u32 = 128;
/// The limit for a lease, and for everything that starts after it (a link-local address takes 5 s).
const LIMIT: Duration = Duration::from_secs(60);
/// The time before the first look. A look takes the machine's only processor for 40 ms and would be
/// measured.
const BOOTED: Duration = Duration::from_secs(4);
/// The time after the last event, for work that makes no event.
const SETTLE: Duration = Duration::from_secs(1);
/// The guest's time of day wraps at this value.
const DAY_MS: f64 = 86_400_000.0;

const HANDLER: &str = "#!/bin/sh
[ \"$1\" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
ip route add default via $router dev $interface
";

/// When these records are there, every process that will run is running.
const RECORDS: &str =
    "cd /run/service/fw && ls dhcp_eth0.ipconf link_eth0.ipconf zcip_eth0.ipconf health_eth0.ipconf | wc -l";

/// The program that brings the network up.
struct Subject {
    column: &'static str,
    /// The command in init's shell.
    command: &'static str,
    /// Whether it starts before the drivers are loaded.
    first: bool,
    firewall: bool,
}

impl Subject {
    fn is_ours(&self) -> bool {
        self.column.starts_with(OURS)
    }
}

const RUNSVDIR: &str = "UDHCPC=/usr/lib/netsv/udhcpc runsvdir -P /var/service";
const RUNSVDIR_ONE: &str = "UDHCPC=/usr/lib/netsv/udhcpc runsvdir -1 -P /var/service";

/// Each in the way that its authors recommend; then ours in the way of the others, and ours with
/// its firewall.
const SUBJECTS: [Subject; 7] = [
    subject("busybox", "ip link set eth0 up; udhcpc -f -i eth0 -s /etc/handler", false),
    subject("runit", "ip link set eth0 up; /usr/bin/runsvdir -P /var/service", false),
    subject(OURS_ONE, RUNSVDIR_ONE, true),
    subject(OURS, RUNSVDIR, true),
    subject(OURS_ONE, RUNSVDIR_ONE, false),
    subject(OURS, RUNSVDIR, false),
    Subject { column: OURS, command: RUNSVDIR, first: true, firewall: true },
];

const fn subject(column: &'static str, command: &'static str, first: bool) -> Subject {
    Subject { column, command, first, firewall: false }
}

/// The moments of a boot, in ms since the kernel's start.
struct Boot {
    card: f64,
    route: f64,
    used_kb: f64,
}

/// All rows. `quick` leaves out the other variants of ours.
pub(crate) fn bench(lab: &Lab, netsv: &str, quick: bool) -> io::Result<Vec<Row>> {
    let kit = Kit::find().map_err(io::Error::other)?;
    let wire = Wire::build(lab);
    let mut seen: Vec<(&Subject, Vec<Boot>)> = Vec::new();
    for subject in SUBJECTS.iter().take(if quick { 4 } else { SUBJECTS.len() }) {
        let (order, wall) =
            (if subject.first { "first" } else { "after the card" }, if subject.firewall { ", nft" } else { "" });
        eprintln!("  vm: {}, {order}{wall}", subject.column);
        let boots = (0..BOOTS).map(|_| one_boot(lab, &kit, &wire, netsv, subject)).collect::<io::Result<Vec<_>>>()?;
        seen.push((subject, boots));
    }
    let row = |name: &str, wanted: &dyn Fn(&Subject) -> bool, value: fn(&Boot) -> f64| {
        let values = seen.iter().filter(|(subject, _)| wanted(subject));
        let values =
            values.map(|(subject, boots)| (subject.column, median(boots.iter().map(value).collect()))).collect();
        Row::new(name, values)
    };
    let as_meant = |s: &Subject| s.first == s.is_ours() && !s.firewall;
    let after = |s: &Subject| !s.first;
    let walled = |s: &Subject| !s.is_ours() || s.firewall;
    let delay = |boot: &Boot| boot.route - boot.card;
    let mut rows = vec![
        row("VM: network card seen -> default route, ms", &as_meant, delay)
            .note(format!("median of {BOOTS}; ours: whole suite, runs before the card")),
        row("VM: kernel's start -> default route, ms", &as_meant, |boot| boot.route),
        row("VM: memory used, all running, kB", &as_meant, |boot| boot.used_kb)
            .note("MemAvailable's change; with the drivers"),
    ];
    if !quick {
        rows.push(row("VM: the same, started after the card, ms", &after, delay));
        rows.push(row("VM: the same, ours with its nft table, ms", &walled, delay).note("fw.conf names extif"));
    }
    Ok(rows)
}

fn image(kit: &Kit, netsv: &str, subject: &Subject) -> Image {
    let mut image = Image::new(kit);
    let mut drivers = CARD.to_vec();
    image.script("/etc/handler", HANDLER);
    match subject.column {
        "busybox" => {}
        "runit" => {
            for program in ["runsvdir", "runsv"] {
                image.program(&kit.program(program), &format!("/usr/bin/{program}"));
            }
            image.script("/var/service/dhcp/run", "#!/bin/sh\nexec udhcpc -f -i eth0 -s /etc/handler\n");
        }
        _ => {
            image.netsv(netsv.as_ref());
            SERVICES.iter().for_each(|(kind, name)| image.service(kind, name));
            match subject.firewall {
                true => {
                    image.program(&kit.program("nft"), "/sbin/nft");
                    // The firewall's drivers come before the card, so that loading them is not
                    // measured.
                    drivers = [&FIREWALL[..], &CARD].concat();
                    // The interface is named, as on a router: the table need not wait for a default
                    // route.
                    image.file("/var/service/fw/fw.conf", "extif=\"eth0\"\n");
                }
                // This is the only difference from a copy of the directory.
                false => image.file("/var/service/fw/fw.conf", "firewall=\"no\"\n"),
            }
        }
    }
    image.modules("drivers", &drivers);
    let start = |now: bool| if now { format!("{} >/run/log 2>&1 &", subject.command) } else { String::new() };
    let init = format!(
        "#!/bin/sh
export PATH={APPLETS}:/bin:/sbin:/usr/bin SVDIR=/var/service
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs run /run
echo 1 >/proc/sys/kernel/printk
{AGENT}
/sbin/ip -ts -o monitor link address route >/run/monitor 2>&1 &
until [ -s /run/monitor ]; do ip link set lo up; ip link set lo down; done
ip link set lo up
grep MemAvailable /proc/meminfo >/run/memory
{}
for module in $(cat /lib/modules/drivers); do insmod $module; done
{}
while :; do sleep 1000; done
",
        start(subject.first),
        start(!subject.first)
    );
    image.script("/init", &init);
    image
}

fn one_boot(lab: &Lab, kit: &Kit, wire: &Wire, netsv: &str, subject: &Subject) -> io::Result<Boot> {
    let mut machine = Machine::boot(lab, kit, wire, image(kit, netsv, subject), MEGABYTES, &[])?;
    std::thread::sleep(BOOTED);
    let leased = poll_for(LIMIT, || {
        std::thread::sleep(SETTLE);
        let events = machine.run("cat /run/monitor");
        (moments(&events).len() == 2).then_some(events)
    });
    let failed = |machine: &mut Machine, what: &str| {
        let said = machine.run("cat /run/log /run/monitor; tail -n 20 /var/log/service/*/current; dmesg | tail -n 20");
        io::Error::other(format!("{}: {what}\n{said}", subject.column))
    };
    let console = machine.console();
    if console.contains("insmod:") {
        return Err(failed(&mut machine, &console));
    }
    let Some(events) = leased else { return Err(failed(&mut machine, "no default route")) };
    if subject.is_ours() {
        let all = poll_for(LIMIT, || {
            std::thread::sleep(SETTLE);
            (machine.run(RECORDS).trim().ends_with('4')).then_some(())
        });
        if all.is_none() {
            return Err(failed(&mut machine, "not all of it runs"));
        }
    }
    std::thread::sleep(SETTLE);
    let memory = machine.run("cat /run/memory; grep MemAvailable /proc/meminfo");
    let kb: Vec<f64> = memory.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let at = moments(&events);
    let started = kernel_start(&machine.run("grep offset: /proc/timer_list"));
    drop(machine);
    let (Some(card), Some(route), Some(started), [before, now]) =
        (at.get("card"), at.get("route"), started, kb.as_slice())
    else {
        return Err(io::Error::other(format!("{}: not understood: {memory}{events}", subject.column)));
    };
    let since = |at: f64| (at - started).rem_euclid(DAY_MS);
    Ok(Boot { card: since(*card), route: since(*route), used_kb: before - now })
}

/// When the monitor saw the card and the default route, in ms of the day.
fn moments(events: &str) -> BTreeMap<&'static str, f64> {
    let mut at = BTreeMap::new();
    for line in events.lines() {
        let what = match line {
            _ if line.contains(" eth0: ") => "card",
            _ if line.contains(" default via ") && !line.contains("Deleted") && !line.contains("fe80:") => "route",
            _ => continue,
        };
        if let Some(ms) = time_of_day(line) {
            at.entry(what).or_insert(ms);
        }
    }
    at
}

/// "[2026-11-25T00:34:32.370644] ...".
fn time_of_day(line: &str) -> Option<f64> {
    let (_, time) = line.split_once('T')?;
    let (time, _) = time.split_once(']')?;
    let parts: Vec<f64> = time.split(':').map_while(|part| part.parse().ok()).collect();
    let [hours, minutes, seconds] = parts.as_slice() else { return None };
    Some(((hours * 60.0 + minutes) * 60.0 + seconds) * 1000.0)
}

/// The kernel's start in ms of the day: the offset of CLOCK_REALTIME, the second clock in
/// /proc/timer_list.
fn kernel_start(offsets: &str) -> Option<f64> {
    let nanoseconds: f64 = offsets.lines().nth(1)?.split_whitespace().nth(1)?.parse().ok()?;
    Some((nanoseconds / 1e6).rem_euclid(DAY_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_the_first_of_their_kind_on_the_kernels_clock() {
        let events = "[2026-11-25T00:00:01.500000] 1: lo: <LOOPBACK> mtu 65536\n\
                      [2026-11-25T00:00:02.250000] 2: eth0: <BROADCAST,MULTICAST> mtu 1500\n\
                      [2026-11-25T00:00:02.500000] 2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500\n\
                      [2026-11-25T00:00:02.600000] default via fe80::2 dev eth0 proto ra\n\
                      [2026-11-25T00:00:02.750000] default via 192.0.2.1 dev eth0\n";
        let at = moments(events);
        assert_eq!((at.len(), at["card"], at["route"]), (2, 2250.0, 2750.0));
        let start = kernel_start("  .offset:     0 nsecs\n  .offset:     1795564800250000000 nsecs\n").unwrap();
        assert!((start - 250.0).abs() < 1.0, "{start}");
    }
}
