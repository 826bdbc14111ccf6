//! DHCP: from the start of a client to its handler and to the address on the interface.

mod hard;
mod patient;
mod watch;

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use testkit::{Lab, wait_until};

use crate::table::{OURS, Row, median};
use crate::world::{NETWORKD, Starter, World, networkd_files, script, sh};
use hard::Hard;
use watch::Watch;

const FIFO: &str = "/run/bench.fifo";
const LIMIT: Duration = Duration::from_secs(10);

/// The command of a client, and what is reset before each run.
struct Client {
    name: &'static str,
    command: String,
    reset: String,
    acts: Acts,
}

/// The program that puts the address on the interface.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Acts {
    /// The client's handler.
    Handler,
    /// The service fw.
    Fw,
    /// The client itself, which has no handler.
    Itself,
}

fn clients(applets: &str) -> Vec<Client> {
    let client = |name, command: &str, reset: &str, acts| Client {
        name,
        command: command.to_owned(),
        reset: reset.to_owned(),
        acts,
    };
    vec![
        client("udhcpc", "udhcpc -f -i eth0 -s /run/handler", "", Acts::Handler),
        client(
            "dhcpcd",
            "dhcpcd -f /run/dhcpcd.conf -c /run/handler -A --nodelay -4 -B eth0",
            "rm -rf /run/dhcpcd /var/lib/dhcpcd/*",
            Acts::Handler,
        ),
        client(
            "dhclient",
            "dhclient -d -sf /run/handler -lf /run/dhclient.leases -pf /run/dhclient.pid eth0",
            "rm -f /run/dhclient.leases",
            Acts::Handler,
        ),
        client("networkd", NETWORKD, &networkd_files(&[("eth0", 100)]), Acts::Itself),
        client(OURS, &format!("{applets}/udhcpc -f -i eth0 -s /run/handler"), "", Acts::Handler),
        client(
            "ours+fw",
            &format!("env SVDIR=/run/sv {applets}/udhcpc -f -i eth0 --ipconf /run/service/fw"),
            "rm -rf /run/service",
            Acts::Fw,
        ),
    ]
}

/// The handler of all clients. It writes one byte into a fifo (a builtin, no fork), then sets the
/// address.
const HANDLER: &str = "#!/bin/sh
case ${1:-$reason} in bound | BOUND | REBOOT) echo b > /run/bench.fifo ;; *) exit 0 ;; esac
exec ip addr replace ${new_ip_address:-$ip}/${mask:-24} dev $interface
";

/// Runs every client `times` times.
pub(crate) fn bench(world: &World, applets: &str, times: usize) -> io::Result<Vec<Row>> {
    script("/run/handler", HANDLER);
    std::fs::write("/run/dhcpcd.conf", "nodev\nnoipv6\nnoipv4ll\noption routers, domain_name_servers\n")?;
    sh(&format!("rm -f {FIFO}; mkfifo {FIFO}"));
    let mut handler = Vec::new();
    let mut address = Vec::new();
    let mut note = String::new();
    for client in clients(applets) {
        let mut samples = (Vec::new(), Vec::new());
        for _ in 0..times {
            world.clean();
            sh(&client.reset);
            let mut starter = Starter::enter(world)?;
            if client.acts == Acts::Fw {
                start_fw(&mut starter, applets)?;
            }
            let (to_handler, to_address) = one_run(world, &mut starter, &client)?;
            samples.0.extend(to_handler);
            samples.1.extend(to_address);
        }
        if samples.1.len() < times {
            note.push_str(&format!("{}: {} of {times} runs; ", client.name, samples.1.len()));
        }
        if client.acts == Acts::Handler {
            handler.push((client.name, median(samples.0)));
        }
        address.push((client.name, median(samples.1)));
    }
    world.clean();
    let medians = format!("median of {times} {note}");
    Ok(vec![
        Row::new("DHCP: start -> handler, ms", handler).note(medians.clone()),
        Row::new("DHCP: start -> address, ms", address).note(medians),
    ])
}

/// The hard cases. The quick ones leave out what takes minutes.
pub(crate) fn hard_cases(lab: &Lab, applets: &str, times: usize, quick: bool) -> io::Result<Vec<Row>> {
    let world = World::bare(lab);
    // The clients' handler writes into the fifo. Without a reader it would block.
    let _reader = OpenOptions::new().read(true).write(true).open(FIFO)?;
    let hard = Hard::new(&world, applets, times, quick);
    let mut rows = hard.servers()?;
    if !quick {
        rows.extend([hard.thoughtful()?, hard.throttled()?, patient::without_a_server(lab, applets)?]);
    }
    rows.extend(hard.resting()?);
    world.clean();
    Ok(rows)
}

/// Starts a runsvdir over fw alone, so that a published lease reaches the kernel as in a real
/// appliance.
fn start_fw(starter: &mut Starter, applets: &str) -> io::Result<()> {
    sh(
        "rm -rf /run/sv; mkdir -p /run/sv /run/etc; cp -r services/fw /run/sv/fw; echo 'extif=\"eth0\"' > /run/sv/fw/fw.conf",
    );
    let path = std::env::var("PATH").unwrap_or_default();
    let command = format!("env SVDIR=/run/sv FW_ETC=/run/etc PATH={applets}:{path} runsvdir /run/sv");
    starter.start("runsvdir", &command)?;
    // Its first run has configured the static records, and has ended.
    wait_until("fw ran", LIMIT, || {
        let ran = std::fs::exists("/run/service/fw/.lock").unwrap_or(false);
        ran && std::fs::read("/run/sv/fw/supervise/stat").is_ok_and(|s| s.starts_with(b"down"))
    });
    Ok(())
}

fn one_run(world: &World, starter: &mut Starter, client: &Client) -> io::Result<(Option<f64>, Option<f64>)> {
    // Opened for reading and writing, so that open does not wait for the other side.
    let mut fifo = OpenOptions::new().read(true).write(true).custom_flags(0o4000).open(FIFO)?;
    let mut watch = Watch::open(world)?;
    let start = Instant::now();
    starter.start("client", &client.command)?;
    let mut handler = None;
    let mut address = None;
    let mut byte = [0; 16];
    while start.elapsed() < LIMIT && (address.is_none() || (client.acts == Acts::Handler && handler.is_none())) {
        if fifo.read(&mut byte).is_ok_and(|n| n > 0) {
            handler.get_or_insert(start.elapsed());
        }
        if let Some(at) = watch.address(Duration::from_micros(200), "none") {
            address.get_or_insert(at.saturating_duration_since(start));
        }
    }
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    Ok((handler.map(ms), address.map(ms)))
}
