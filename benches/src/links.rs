//! The programs around a link: the link watcher, link-local addresses, the pinger, fw, and the
//! whole suite with two uplinks.

mod cable;
mod carrier;
mod link_local;
mod one_shot;
mod policy;
mod whole;

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use testkit::Lab;

use crate::table::Row;
use crate::world::{World, sh};

pub(crate) const FIFO: &str = "/run/links.fifo";

/// All rows. `quick` leaves out the long ones: the seed's delays, and waits for what a peer never
/// does.
pub(crate) fn bench(lab: &Lab, world: &World, applets: &str, quick: bool) -> io::Result<Vec<Row>> {
    let said = Said::open()?;
    eprintln!("  links: cables");
    let mut rows = cable::bench(world, applets, quick, &said)?;
    eprintln!("  links: link-local addresses");
    rows.extend(link_local::bench(lab, applets, quick, &said)?);
    eprintln!("  links: one run of fw");
    rows.extend(one_shot::bench(lab, applets, quick)?);
    eprintln!("  links: fw with a large policy");
    rows.extend(policy::bench(lab, applets, quick)?);
    rows.extend(whole::bench(world, applets, quick)?);
    Ok(rows)
}

/// The lines that the handlers write, over one fifo. They use a builtin of the shell, so there is
/// no fork.
struct Said(Receiver<(Instant, String)>);

impl Said {
    fn open() -> io::Result<Said> {
        sh(&format!("rm -f {FIFO}; mkfifo {FIFO}"));
        // Opened for reading and writing: no handler blocks in open, and the reader never sees an
        // end of file.
        let fifo = OpenOptions::new().read(true).write(true).open(FIFO)?;
        let (tx, rx) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(fifo).lines().map_while(Result::ok) {
                let _ = tx.send((Instant::now(), line));
            }
        });
        Ok(Said(rx))
    }

    /// Drops the lines that have arrived.
    fn drain(&self) {
        self.0.try_iter().for_each(drop);
    }

    /// The next line within `limit`.
    fn next(&self, limit: Duration) -> Option<(Instant, String)> {
        self.0.recv_timeout(limit).ok()
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
