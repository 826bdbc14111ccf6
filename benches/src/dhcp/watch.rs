//! The addresses of the uplink, and the moments at which the kernel reported them.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::world::World;

/// A running `ip monitor`.
pub(crate) struct Watch {
    monitor: Child,
    lines: Receiver<(Instant, String)>,
}

impl Watch {
    /// It listens when this returns.
    pub(crate) fn open(world: &World) -> io::Result<Watch> {
        let home = world.home.name();
        let mut monitor =
            Command::new("ip").args(["-n", home, "-4", "-o", "monitor", "address"]).stdout(Stdio::piped()).spawn()?;
        let out = monitor.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let (tx, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = tx.send((Instant::now(), line));
            }
        });
        // An address of the loopback interface comes and goes until the monitor reports it.
        let mut watch = Watch { monitor, lines };
        for _ in 0..100 {
            world.at_home("ip addr add 127.0.0.9/32 dev lo; ip addr del 127.0.0.9/32 dev lo");
            if watch.next(Duration::from_millis(20)).is_some() {
                while watch.next(Duration::from_millis(20)).is_some() {}
                return Ok(watch);
            }
        }
        Err(io::Error::other("ip monitor says nothing"))
    }

    fn next(&mut self, limit: Duration) -> Option<(Instant, String)> {
        self.lines.recv_timeout(limit).ok()
    }

    /// When the uplink had an address that does not contain `unwanted`.
    pub(crate) fn address(&mut self, limit: Duration, unwanted: &str) -> Option<Instant> {
        let end = Instant::now() + limit;
        loop {
            let (at, line) = self.next(end.saturating_duration_since(Instant::now()))?;
            if line.contains("eth0") && !line.contains("Deleted") && !line.contains(unwanted) {
                return Some(at);
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}
