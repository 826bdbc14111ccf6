//! One run of fw, the seed's and ours, on the same records: two uplinks and loopback, then with 48
//! more interfaces.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use testkit::probe::Probe;
use testkit::{Lab, Net, wait_until};

use super::ms;
use crate::table::{OURS, Row, median};
use crate::world::{TARGET, sh};

const PACE: Duration = Duration::from_millis(1);
/// Time for the last answers to arrive.
const TRAVEL: Duration = Duration::from_millis(100);
/// The number of interfaces beside the uplinks.
const MORE: u32 = 48;

/// One of the two programs: its service directory, and the directory of the daemons' records.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) dir: String,
    pub(super) records: String,
    pub(super) environment: String,
}

/// The results of one program. The table shows the median of each list.
#[derive(Default)]
struct Seen {
    fresh_ms: Vec<f64>,
    changed_ms: Vec<f64>,
    uplink_lost: Vec<f64>,
    loopback_lost: Vec<f64>,
    same_ms: Vec<f64>,
    writes: Option<f64>,
}

pub(super) fn bench(lab: &Lab, applets: &str, quick: bool) -> io::Result<Vec<Row>> {
    let room = Room::build(lab, "one_shot");
    let path = std::env::var("PATH").unwrap_or_default();
    let subjects = [
        Subject {
            name: "seed",
            dir: "/run/once/seed".into(),
            records: "/run/once/seed.run".into(),
            environment: "SEED_RUN=/run/once/seed.run".into(),
        },
        Subject {
            name: OURS,
            dir: "/run/once/ours".into(),
            records: "/run/once/ours.run".into(),
            environment: format!("FW_DYNAMIC=/run/once/ours.run FW_ETC=/run/once/etc PATH={applets}:{path}"),
        },
    ];
    sh("mkdir -p /run/once/seed.run /run/once/ours.run /run/once/etc; cp -r benches/seed/fw /run/once/seed; \
        cp -r services/fw /run/once/ours; echo 'preferred_default_route_iface=\"eth0\"' > /run/once/ours/fw.conf");
    let rounds = if quick { 3 } else { 7 };
    let mut rows = few_or_many(&room, &subjects, 3, rounds)?;
    room.cables(lab, 2..MORE + 2);
    rows.extend(few_or_many(&room, &subjects, 3 + MORE, rounds)?);
    Ok(rows)
}

fn few_or_many(room: &Room, subjects: &[Subject], records: u32, rounds: usize) -> io::Result<Vec<Row>> {
    let mut all = Vec::new();
    for subject in subjects {
        // The seed needs seconds for many records.
        let rounds = if records > 3 && subject.name == "seed" { rounds.div_ceil(2) } else { rounds };
        all.push((subject.name, one(room, subject, records, rounds)?));
    }
    let row = |what: &str, get: fn(&Seen) -> Option<f64>| {
        let name = format!("fw, {records} records, {what}");
        Row::new(&name, all.iter().map(|(name, seen)| (*name, get(seen))).collect())
    };
    Ok(vec![
        row("from nothing, ms", |s| median(s.fresh_ms.clone())).note(format!("./run, median of {rounds}")),
        row("one changed, ms", |s| median(s.changed_ms.clone())),
        row("one changed: pings lost, uplink", |s| median(s.uplink_lost.clone())).note("every 1 ms"),
        row("one changed: pings lost, loopback", |s| median(s.loopback_lost.clone())),
        row("nothing changed, ms", |s| median(s.same_ms.clone())),
        row("nothing changed: kernel writes", |s| s.writes).note("requests that change, and switches written"),
    ])
}

fn one(room: &Room, subject: &Subject, records: u32, rounds: usize) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let mut shell = Shell::enter(&room.home)?;
    let run = format!("cd {}; env {} ./run", subject.dir, subject.environment);
    for n in 2..MORE + 2 {
        let _ = fs::remove_file(format!("{}/dhcp_eth{n}.ipconf", subject.records));
    }
    for n in 0..records - 1 {
        subject.record(n, 2)?;
    }
    for _ in 0..rounds {
        room.empty(&mut shell)?;
        seen.fresh_ms.push(ms(shell.run(&run)?));
    }
    let targets = [TARGET, Ipv4Addr::LOCALHOST];
    let probes = targets.map(|target| Probe::start(Some(room.home.name()), target, PACE));
    let [uplink, loopback] = probes;
    let (uplink, loopback) = (uplink?, loopback?);
    wait_until("pings flow", Duration::from_secs(5), || {
        let lately = Instant::now() - TRAVEL;
        uplink.first_answer(lately).is_some() && loopback.first_answer(lately).is_some()
    });
    for round in 0..rounds {
        // The other uplink has another address.
        subject.record(1, 3 + u32::from(round % 2 == 0))?;
        let start = Instant::now();
        seen.changed_ms.push(ms(shell.run(&run)?));
        std::thread::sleep(TRAVEL);
        let end = Instant::now();
        std::thread::sleep(TRAVEL);
        seen.uplink_lost.push(uplink.loss(start, end).lost as f64);
        seen.loopback_lost.push(loopback.loss(start, end).lost as f64);
    }
    drop((uplink, loopback));
    for _ in 0..rounds {
        seen.same_ms.push(ms(shell.run(&run)?));
    }
    seen.writes = Some(writes(&mut shell, subject)?);
    Ok(seen)
}

impl Subject {
    /// Writes the record of an interface. The first two are uplinks.
    pub(super) fn record(&self, n: u32, host: u32) -> io::Result<()> {
        let uplink = if n < 2 {
            format!("gw[$cfg]='10.{n}.0.1'\nnet[$cfg]='0/0'\ndns[$cfg]='10.{n}.0.1'\n")
        } else {
            String::new()
        };
        let ip = format!("10.{n}.0.{host}");
        let text = format!("let cfg=cfg+1\nif[$cfg]='eth{n}'\nip[$cfg]='{ip}'\nipmask[$cfg]='{ip}/24'\n{uplink}");
        fs::write(format!("{}/dhcp_eth{n}.ipconf", self.records), text)
    }
}

/// Counts the requests of one more run that ask the kernel to change something, and the sysctls
/// that it writes.
pub(super) fn writes(shell: &mut Shell, subject: &Subject) -> io::Result<f64> {
    shell.run(&format!(
        "cd {}; env {} strace -f -v -e trace=sendto,sendmsg,setsockopt,openat -o /run/once/trace ./run",
        subject.dir, subject.environment
    ))?;
    let trace = fs::read_to_string("/run/once/trace")?;
    let requests =
        ["=RTM_NEW", "=RTM_DEL", "=RTM_SET", "|NFT_MSG_NEW", "|NFT_MSG_DEL", "|IPCTNL_MSG_CT_DELETE", "SO_SET_REPLACE"];
    let switch = |line: &&str| line.contains("\"/proc/sys/") && (line.contains("O_WRONLY") || line.contains("O_RDWR"));
    let asked: usize = requests.iter().map(|request| trace.matches(request).count()).sum();
    Ok((asked + trace.lines().filter(switch).count()) as f64)
}

/// A machine whose uplinks and other interfaces all lead to one router.
pub(super) struct Room {
    pub(super) home: Net,
    router: Net,
}

impl Room {
    pub(super) fn build(lab: &Lab, name: &str) -> Room {
        let room = Room { home: lab.net(name), router: lab.net(&format!("{name}_router")) };
        room.router.address("lo", &format!("{TARGET}/32"));
        room.cables(lab, 0..2);
        // The router answers an echo by the way it came, whatever its source address.
        room.router.sysctl("net/ipv4/conf/all/rp_filter", "0");
        room
    }

    pub(super) fn cables(&self, lab: &Lab, numbers: Range<u32>) {
        for n in numbers {
            let (near, far) = (format!("eth{n}"), format!("far{n}"));
            lab.cable((&self.home, &near), (&self.router, &far));
            self.router.address(&far, &format!("10.{n}.0.1/24"));
        }
    }

    /// Removes everything that a run sets.
    pub(super) fn empty(&self, shell: &mut Shell) -> io::Result<()> {
        let text = "nft flush ruleset; for i in /sys/class/net/*; do i=${i##*/}; ip addr flush dev $i; ip route flush dev $i; done";
        shell.run(text).map(drop)
    }
}

/// A shell that lives in the namespace, so that the bench does not measure the entry into it.
pub(super) struct Shell {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Shell {
    pub(super) fn enter(net: &Net) -> io::Result<Shell> {
        let mut child = net.command(&["sh"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let missing = || io::Error::other("no pipe to the shell");
        let orders = child.stdin.take().ok_or_else(missing)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        let mut shell = Shell { child, orders, answers };
        shell.run("true")?;
        Ok(shell)
    }

    /// Runs a command to its end and returns the time that it took.
    pub(super) fn run(&mut self, command: &str) -> io::Result<Duration> {
        let start = Instant::now();
        writeln!(self.orders, "( {command} ) >/run/once.log 2>&1 </dev/null; echo $?")?;
        let mut code = String::new();
        self.answers.read_line(&mut code)?;
        let took = start.elapsed();
        if code.trim() == "0" {
            return Ok(took);
        }
        let log = fs::read_to_string("/run/once.log").unwrap_or_default();
        Err(io::Error::other(format!("{command}: exit {}\n{log}", code.trim())))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
