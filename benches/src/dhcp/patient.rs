//! DHCP with few answers: a slow server, gear that lets one message through in five seconds, and no
//! server at all.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use testkit::Lab;
use testkit::dhcpd::{Config, Custom, Dhcpd, Encodable, Message, MessageType, Mode, grant};

use super::hard::{FIRST, Hard, NEVER, ROUTER};
use super::{Acts, clients};
use crate::table::Row;
use crate::world::sh;

/// The gear lets one message through in this time (Motorola BSR, its default).
const PASSES: Duration = Duration::from_secs(5);
/// The server's delay before it acknowledges.
const THINKS: Duration = Duration::from_millis(3500);
/// Clients may send often in the first minute. The bench then looks at the rest.
const EAGER: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(180);

impl Hard<'_> {
    pub(super) fn thoughtful(&self) -> io::Result<Row> {
        let mode = || Mode::Custom(Custom(Box::new(|message: &Message| answer(message, THINKS))));
        self.one_run_each("DHCP: each ACK takes 3.5 s -> address, s", mode)
    }

    pub(super) fn throttled(&self) -> io::Result<Row> {
        let mode = || {
            let mut passed: Option<Instant> = None;
            Mode::Custom(Custom(Box::new(move |message: &Message| {
                if passed.is_some_and(|at| at.elapsed() < PASSES) {
                    return Vec::new();
                }
                passed = Some(Instant::now());
                answer(message, Duration::ZERO)
            })))
        };
        self.one_run_each("DHCP: one message in 5 s passes -> address, s", mode)
    }

    fn one_run_each(&self, name: &str, mode: fn() -> Mode) -> io::Result<Row> {
        let mut values = Vec::new();
        for client in self.clients(&[]) {
            let _server = self.server(mode())?;
            let (start, bound) = self.run(&client, "none", NEVER)?;
            values.push((client.name, bound.map(|at| (at - start).as_secs_f64())));
        }
        Ok(Row::new(name, values).note(format!("one run; - is not in {} s", NEVER.as_secs())))
    }
}

/// Answers as a usual server does, but acknowledges only after this time.
fn answer(message: &Message, thinks: Duration) -> Vec<Vec<u8>> {
    let kind = match message.opts().msg_type() {
        Some(MessageType::Discover) => MessageType::Offer,
        Some(MessageType::Request) => {
            std::thread::sleep(thinks);
            MessageType::Ack
        }
        _ => return Vec::new(),
    };
    grant(&Config::for_router(ROUTER), message, kind, FIRST).to_vec().into_iter().collect()
}

/// Runs all clients at once, each in a network of its own. A listener there counts their messages
/// and never answers.
pub(super) fn without_a_server(lab: &Lab, applets: &str) -> io::Result<Row> {
    let mut running = Vec::new();
    for client in clients(applets).into_iter().filter(|client| client.acts == Acts::Handler) {
        let name = client.name.replace(' ', "");
        let (home, isp) = (lab.net(&format!("alone_{name}")), lab.net(&format!("silent_{name}")));
        let cable = lab.cable((&home, "eth0"), (&isp, "cust"));
        isp.address("cust", &format!("{}/24", Ipv4Addr::new(10, 1, 0, 1)));
        let counter = Dhcpd::start(&isp, "cust", Config { mode: Mode::Silent, ..Config::for_router(ROUTER) })?;
        sh(&client.reset);
        let process = home.spawn(&["sh", "-c", &format!("mount -o remount,ro /sys; exec {}", client.command)]);
        running.push((client.name, counter, process, cable));
    }
    std::thread::sleep(QUIET);
    let minutes = (QUIET - EAGER).as_secs_f64() / 60.0;
    let rate = |counter: &Dhcpd| {
        let seen = counter.seen();
        // Counted from a client's own first message, because clients do not begin at the same time.
        let first = seen.first()?.at;
        let later = seen.iter().filter(|message| (first + EAGER..first + QUIET).contains(&message.at));
        Some(later.count() as f64 / minutes)
    };
    let values = running.iter().map(|(name, counter, ..)| (*name, rate(counter))).collect();
    Ok(Row::new("DHCP: messages a minute without a server", values).note("in the second and third minute"))
}
