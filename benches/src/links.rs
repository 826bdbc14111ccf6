//! What makes a link live: the link watcher, link-local addresses, the pinger, fw, and the whole
//! suite that keeps two uplinks.

mod cable;
mod carrier;
mod link_local;
mod one_shot;
mod whole;

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use testkit::Lab;

use crate::table::Row;
use crate::world::{World, sh};

pub(crate) const FIFO: &str = "/run/links.fifo";

/// All rows. `quick` leaves out what takes the peers long: the seed's delays, and waiting for what
/// never comes.
pub(crate) fn bench(lab: &Lab, world: &World, applets: &str, quick: bool) -> io::Result<Vec<Row>> {
    let said = Said::open()?;
    eprintln!("  links: cables");
    let mut rows = cable::bench(world, applets, quick, &said)?;
    eprintln!("  links: link-local addresses");
    rows.extend(link_local::bench(lab, applets, quick, &said)?);
    eprintln!("  links: one run of fw");
    rows.extend(one_shot::bench(lab, applets, quick)?);
    rows.extend(whole::bench(world, applets, quick)?);
    Ok(rows)
}

/// What the handlers say, a line each, over one fifo: a builtin of their shell, no fork.
struct Said(Receiver<(Instant, String)>);

impl Said {
    fn open() -> io::Result<Said> {
        sh(&format!("rm -f {FIFO}; mkfifo {FIFO}"));
        // For both: nobody waits in open, and there is no end of file.
        let fifo = OpenOptions::new().read(true).write(true).open(FIFO)?;
        let (tx, rx) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(fifo).lines().map_while(Result::ok) {
                let _ = tx.send((Instant::now(), line));
            }
        });
        Ok(Said(rx))
    }

    /// Forgets what came.
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
