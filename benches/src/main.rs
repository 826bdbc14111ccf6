//! Side by side with the peers, in one run, as tables. ./bench calls it inside private namespaces.
//!
//! usage: bench APPLETS STATIC DYNAMIC [-n TIMES] [--quick] [--only PART]. APPLETS is the directory
//! of our applets, STATIC and DYNAMIC are the two binaries; ./bench explains the options.

// A bench stops at the first step that fails, and names it.
#![allow(clippy::disallowed_methods, reason = "measures real time and starts the subjects")]
#![allow(clippy::expect_used, reason = "as the test kit: it stops loudly")]

mod dhcp;
mod failover;
mod links;
mod supervise;
mod table;
mod targets;
mod vm;
mod world;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use table::{OURS, Row, render};
use world::World;

/// A whole run takes about a quarter of an hour, so a longer one hangs.
const LIMIT: Duration = Duration::from_secs(25 * 60);

/// The parts that can run alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Supervise,
    Dhcp,
    Failover,
    Links,
    Vm,
}

/// The options of this run.
struct Options {
    times: usize,
    quick: bool,
    only: Option<Part>,
}

impl Options {
    fn parse(words: &[String]) -> Option<Options> {
        let mut options = Options { times: 11, quick: false, only: None };
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            match word {
                "-n" => options.times = words.next()?.parse().ok().filter(|n| *n > 0)?,
                "--quick" => options.quick = true,
                "--only" => {
                    options.only = Some(match words.next()? {
                        "supervise" => Part::Supervise,
                        "dhcp" => Part::Dhcp,
                        "failover" => Part::Failover,
                        "links" => Part::Links,
                        "vm" => Part::Vm,
                        _ => return None,
                    });
                }
                _ => return None,
            }
        }
        Some(options)
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match args.as_slice() {
        [applets, static_binary, dynamic_binary, words @ ..] => {
            Options::parse(words).map(|options| (applets, [static_binary, dynamic_binary], options))
        }
        _ => None,
    };
    let Some((applets, binaries, options)) = parsed else {
        eprintln!("usage: ./bench [-n TIMES] [--quick] [--only supervise|dhcp|failover|links|vm]");
        return ExitCode::from(100);
    };
    match all(applets, binaries, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: fatal: {e}");
            ExitCode::from(111)
        }
    }
}

fn all(applets: &str, binaries: [&String; 2], options: &Options) -> io::Result<()> {
    // From here on everything is in namespaces that end with this process.
    testkit::isolated_main(&[
        "dnsmasq",
        "runsv",
        "udhcpc",
        "dhcpcd",
        "dhclient",
        "ifplugd",
        "iptables",
        "nft",
        "avahi-autoipd",
        "strace",
    ])
    .map_err(io::Error::other)?;
    std::thread::spawn(|| {
        std::thread::sleep(LIMIT);
        eprintln!("bench: fatal: not done after {} minutes", LIMIT.as_secs() / 60);
        std::process::exit(111);
    });
    if options.wants(Part::Supervise) {
        eprintln!("bench: supervision");
        let rows = supervise::bench(applets, options.quick)?;
        println!("{}\n{}", render("netsv bench: supervision", &rows), targets::judge(&rows));
    }
    let lab = testkit::Lab::new();
    let mut rows = Vec::new();
    if [Part::Dhcp, Part::Failover, Part::Links].into_iter().any(|part| options.wants(part)) {
        rows = network(&lab, applets, options)?;
    }
    if options.wants(Part::Vm) {
        eprintln!("bench: a whole machine");
        rows.extend(vm::bench(&lab, binaries[0], options.quick)?);
    }
    if options.only.is_none() {
        rows.extend(sizes(binaries));
    }
    if !rows.is_empty() {
        println!("{}\n{}", render("netsv bench: network", &rows), targets::judge(&rows));
    }
    Ok(())
}

fn network(lab: &testkit::Lab, applets: &str, options: &Options) -> io::Result<Vec<Row>> {
    let world = World::build(lab);
    let mut rows = Vec::new();
    if options.wants(Part::Dhcp) {
        eprintln!("bench: DHCP, {} runs a client", options.times);
        rows = dhcp::bench(&world, applets, options.times)?;
        eprintln!("bench: DHCP, the hard cases");
        rows.extend(dhcp::hard_cases(lab, applets, options.times, options.quick)?);
    }
    if options.wants(Part::Failover) {
        eprintln!("bench: failover");
        rows.extend(failover::bench(&world, applets, !options.quick)?);
    }
    if options.wants(Part::Links) {
        eprintln!("bench: links, link-local addresses, fw");
        rows.extend(links::bench(lab, &world, applets, options.quick)?);
    }
    Ok(rows)
}

fn sizes([static_binary, dynamic_binary]: [&String; 2]) -> Vec<Row> {
    let size = |path: &str| std::fs::metadata(path).ok().map(|m| m.len() as f64 / 1e6);
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(size);
    vec![
        Row::new("static binary, MB", vec![(OURS, size(static_binary))]),
        Row::new("dynamic binary, MB", vec![("busybox", busybox), (OURS, size(dynamic_binary))])
            .note("busybox: Debian's, dynamic, all its applets"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_in_any_order_and_nothing_else_is() {
        let parse = |text: &str| Options::parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let options = parse("--only dhcp --quick -n 3").unwrap();
        assert_eq!((options.times, options.quick), (3, true));
        assert!(options.wants(Part::Dhcp) && !options.wants(Part::Supervise));
        for wrong in ["-n", "-n 0", "-n x", "--only", "--only dns", "-q"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
