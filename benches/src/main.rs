//! Side by side with the peers, in one run, as one table. Called by ./bench inside private namespaces.
//!
//! usage: bench APPLETS STATIC DYNAMIC [-n TIMES] [--quick]: the directory of our applets, and both binaries.

// A bench: it stops at the first thing that does not work, and says which.
#![allow(clippy::disallowed_methods, reason = "measures real time and starts the subjects")]
#![allow(clippy::expect_used, reason = "as the test kit: it stops loudly")]

mod dhcp;
mod failover;
mod table;
mod world;

use std::io;
use std::process::ExitCode;

use table::{OURS, Row, render};
use world::World;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [applets, static_binary, dynamic_binary, options @ ..] = args.as_slice() else {
        eprintln!("usage: bench APPLETS STATIC DYNAMIC [-n TIMES] [--quick]");
        return ExitCode::from(100);
    };
    let times = options.iter().skip_while(|o| *o != "-n").nth(1).and_then(|n| n.parse().ok()).unwrap_or(11);
    let quick = options.iter().any(|o| o == "--quick");
    match all(applets, static_binary, dynamic_binary, times, quick) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: fatal: {e}");
            ExitCode::from(111)
        }
    }
}

fn all(applets: &str, static_binary: &str, dynamic_binary: &str, times: usize, quick: bool) -> io::Result<()> {
    // Everything from here on is in namespaces that end with this process.
    testkit::isolated_main(&["dnsmasq", "runsv", "udhcpc", "dhcpcd", "dhclient", "ifplugd", "iptables", "nft"])
        .map_err(io::Error::other)?;
    let world = World::build(&testkit::Lab::new());
    eprintln!("bench: DHCP, {times} runs a client");
    let mut rows = dhcp::bench(&world, applets, times)?;
    eprintln!("bench: failover");
    rows.extend(failover::bench(&world, applets, !quick)?);
    rows.push(failover::supervisors(&world, applets, 20)?);
    let size = |path: &str| std::fs::metadata(path).ok().map(|m| m.len() as f64 / 1e6);
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(size);
    rows.push(Row::new("static binary, MB", vec![(OURS, size(static_binary))]));
    let all_applets = "busybox: Debian's, dynamic, all its applets";
    rows.push(
        Row::new("dynamic binary, MB", vec![("busybox", busybox), (OURS, size(dynamic_binary))]).note(all_applets),
    );
    println!("{}", render("netsv bench", &rows));
    Ok(())
}
