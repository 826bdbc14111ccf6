//! DHCP under difficulties: a server that is late, refuses or lies, an address that is in use, a
//! restart; and the cost of a client that only holds its lease. The difficult servers are the test
//! kit's. dnsmasq serves the rest.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use testkit::dhcpd::{Config, Custom, DhcpOption, Dhcpd, Encodable, Message, MessageType, Mode, OptionCode, grant};

use super::watch::Watch;
use super::{Acts, Client, clients};
use crate::supervise::{settle, switches};
use crate::table::{OURS, Row, median};
use crate::world::{Starter, World, private_kb, sh};

/// The router with its server, and the first address of its pool.
pub(super) const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
pub(super) const FIRST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
/// A longer wait counts as never.
pub(super) const NEVER: Duration = Duration::from_secs(40);

/// What all rows share.
pub(super) struct Hard<'a> {
    world: &'a World,
    applets: &'a str,
    times: usize,
    quick: bool,
}

/// The begin of a measurement, from the server and the moment at which the client was started.
type From = fn(&Dhcpd, Instant) -> Option<Instant>;

impl<'a> Hard<'a> {
    pub(super) fn new(world: &'a World, applets: &'a str, times: usize, quick: bool) -> Hard<'a> {
        Hard { world, applets, times: times.min(5), quick }
    }

    /// The rows about servers that are late, refuse or lie.
    pub(super) fn servers(&self) -> io::Result<Vec<Row>> {
        let mut rows = vec![self.checked()?, self.refused()?, self.restarted()?];
        rows.extend(self.taken()?);
        rows.extend(self.late()?);
        rows.extend(self.rogue()?);
        Ok(rows)
    }

    pub(super) fn server(&self, mode: Mode) -> io::Result<Dhcpd> {
        Dhcpd::start(self.world.isp(), "cust", Config { mode, ..Config::for_router(ROUTER) })
    }

    /// The clients of the plain rows, except the one with fw. `more` adds options to the commands
    /// of the clients that it names.
    pub(super) fn clients(&self, more: &[(&str, &str)]) -> Vec<Client> {
        let mut found: Vec<Client> = clients(self.applets).into_iter().filter(|c| c.acts != Acts::Fw).collect();
        for client in &mut found {
            for (name, words) in more.iter().filter(|(name, _)| *name == client.name) {
                client.command = match *name {
                    "dhcpcd" => client.command.replace("-A --nodelay", words),
                    _ => format!("{} {words}", client.command),
                };
            }
        }
        found
    }

    /// Starts one client in a clean world and waits for an address other than `unwanted`.
    pub(super) fn run(
        &self,
        client: &Client,
        unwanted: &str,
        limit: Duration,
    ) -> io::Result<(Instant, Option<Instant>)> {
        self.world.clean();
        sh(&client.reset);
        let mut starter = Starter::enter(self.world)?;
        let mut watch = Watch::open(self.world)?;
        let start = Instant::now();
        starter.start("client", &client.command)?;
        Ok((start, watch.address(limit, unwanted)))
    }

    /// The medians of all clients, in milliseconds.
    fn row(&self, name: &str, mode: fn() -> Mode, clients: &[Client], from: From) -> io::Result<Row> {
        let mut values = Vec::new();
        for client in clients {
            let mut samples = Vec::new();
            for _ in 0..self.times {
                let server = self.server(mode())?;
                let (start, bound) = self.run(client, "none", NEVER)?;
                let began = from(&server, start);
                samples.extend(
                    bound
                        .zip(began)
                        .map(|(bound, began)| bound.saturating_duration_since(began).as_secs_f64() * 1000.0),
                );
            }
            values.push((client.name, median(samples)));
        }
        Ok(Row::new(name, values).note(format!("median of {}", self.times)))
    }

    fn checked(&self) -> io::Result<Row> {
        let mut clients = self.clients(&[("udhcpc", "-a"), ("dhcpcd", ""), (OURS, "--acd fast")]);
        clients.retain(|c| !["dhclient", "networkd"].contains(&c.name));
        let name = "DHCP: start -> address, with conflict check, ms";
        Ok(self
            .row(name, || Mode::Normal, &clients, |_, start| Some(start))?
            .note("dhclient and networkd have none by themselves; ours: --acd fast"))
    }

    fn refused(&self) -> io::Result<Row> {
        // The server sends it as soon as it sees the first REQUEST.
        let refusal: From = |server, _| {
            let first = server.seen().into_iter().find(|seen| seen.kind == Some(MessageType::Request))?;
            Some(server.started() + first.at)
        };
        self.row("DHCP: NAK once -> address, ms", || Mode::NakOnce, &self.clients(&[]), refusal)
    }

    /// The bound client gets kill -9, and starts again while its server is there.
    fn restarted(&self) -> io::Result<Row> {
        let mut values = Vec::new();
        for client in self.clients(&[(OURS, "--state /run/state")]) {
            let mut samples = Vec::new();
            for _ in 0..self.times {
                sh("rm -rf /run/state; mkdir -p /run/state");
                let _server = self.server(Mode::Normal)?;
                let (_, bound) = self.run(&client, "none", NEVER)?;
                if bound.is_none() {
                    continue;
                }
                self.world.clean();
                sh("rm -rf /run/dhcpcd");
                let mut starter = Starter::enter(self.world)?;
                let mut watch = Watch::open(self.world)?;
                let start = Instant::now();
                starter.start("client", &client.command)?;
                samples.extend(watch.address(NEVER, "none").map(|at| (at - start).as_secs_f64() * 1000.0));
            }
            values.push((client.name, median(samples)));
        }
        Ok(Row::new("DHCP: restart -> address, state kept, ms", values).note("udhcpc keeps none; ours: --state"))
    }

    /// The provider's machine answers ARP requests for the first address of the pool.
    fn taken(&self) -> io::Result<Option<Row>> {
        let mut clients = self.clients(&[("udhcpc", "-a"), ("dhcpcd", ""), (OURS, "--acd fast")]);
        if self.quick {
            clients.retain(|c| c.name == OURS || c.name == "dhcpcd");
        }
        let taken = format!("{FIRST}/24");
        self.world.isp().ip(&["address", "add", &taken, "dev", "cust"]);
        let mut values = Vec::new();
        for client in clients.iter().filter(|c| !["dhclient", "networkd"].contains(&c.name)) {
            let _server = self.server(Mode::Normal)?;
            let (start, good) = self.run(client, &FIRST.to_string(), NEVER)?;
            values.push((client.name, good.map(|at| (at - start).as_secs_f64())));
        }
        self.world.isp().ip(&["address", "del", &taken, "dev", "cust"]);
        let note = "one run; dhclient and networkd take the duplicate";
        Ok(Some(Row::new("DHCP: duplicate address -> good one, s", values).note(note)))
    }

    fn late(&self) -> io::Result<Option<Row>> {
        if self.quick {
            return Ok(None);
        }
        let mut values = Vec::new();
        for client in self.clients(&[]) {
            self.world.clean();
            sh(&client.reset);
            let mut starter = Starter::enter(self.world)?;
            let mut watch = Watch::open(self.world)?;
            let server = self.server(Mode::Silent)?;
            starter.start("client", &client.command)?;
            std::thread::sleep(Duration::from_secs(10));
            server.set_mode(Mode::Normal);
            let up = Instant::now();
            values.push((client.name, watch.address(NEVER, "none").map(|at| (at - up).as_secs_f64())));
        }
        Ok(Some(Row::new("DHCP: server 10 s late -> address after, s", values).note("one run")))
    }

    /// The rogue is always first with its offer, and never acknowledges.
    fn rogue(&self) -> io::Result<Option<Row>> {
        if self.quick {
            return Ok(None);
        }
        let mut values = Vec::new();
        for client in self.clients(&[]) {
            let (first, server_id) = (Ipv4Addr::new(10, 1, 0, 200), Ipv4Addr::new(10, 1, 0, 66));
            let config = Config { mode: Mode::OfferOnly, first, server_id, ..Config::for_router(ROUTER) };
            let _rogue = Dhcpd::start(self.world.isp(), "cust", config)?;
            let _honest = self.server(Mode::Custom(Custom(Box::new(slowly))))?;
            let (start, bound) = self.run(&client, "none", NEVER / 2)?;
            values.push((client.name, bound.map(|at| (at - start).as_secs_f64())));
        }
        let note = format!("one run; - is not in {} s", NEVER.as_secs() / 2);
        Ok(Some(Row::new("DHCP: rogue offers first, never confirms -> address, s", values).note(note)))
    }

    /// The cost of holding a lease.
    pub(super) fn resting(&self) -> io::Result<Vec<Row>> {
        let span = Duration::from_secs(if self.quick { 10 } else { 30 });
        let (mut memory, mut wakeups) = (Vec::new(), Vec::new());
        let _server = self.server(Mode::Normal)?;
        for client in self.clients(&[]) {
            self.world.clean();
            sh(&client.reset);
            let mut starter = Starter::enter(self.world)?;
            let mut watch = Watch::open(self.world)?;
            starter.start("client", &client.command)?;
            if watch.address(NEVER, "none").is_none() {
                continue;
            }
            drop(watch);
            let shell = starter.pid();
            let pids: Vec<u32> = self.world.pids().into_iter().filter(|pid| *pid != shell).collect();
            settle(&pids);
            let before = switches(&pids);
            std::thread::sleep(span);
            wakeups.push((client.name, Some((switches(&pids) - before) as f64)));
            memory.push((client.name, Some(private_kb(&pids).1)));
        }
        Ok(vec![
            Row::new("DHCP: private dirty memory while bound, kB", memory),
            Row::new("DHCP: wake-ups while bound", wakeups).note(format!("in {} s", span.as_secs())),
        ])
    }
}

/// An honest server that is slow to answer.
fn slowly(message: &Message) -> Vec<Vec<u8>> {
    std::thread::sleep(Duration::from_millis(30));
    let config = Config::for_router(ROUTER);
    let id = message.opts().get(OptionCode::ServerIdentifier);
    let other = id.is_some_and(|id| *id != DhcpOption::ServerIdentifier(ROUTER));
    let kind = match message.opts().msg_type() {
        Some(MessageType::Discover) => MessageType::Offer,
        Some(MessageType::Request) if !other => MessageType::Ack,
        _ => return Vec::new(),
    };
    grant(&config, message, kind, FIRST).to_vec().into_iter().collect()
}
