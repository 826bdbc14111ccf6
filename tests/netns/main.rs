//! `cargo test --test netns`: one behaviour per `#[test]`, each in network namespaces of its own,
//! on real servers.
//!
//! How to add one:
//! 1. Write `#[test] fn what_it_shows() { testkit::isolated(&["TOOL"], |lab| { ... }) }` in the
//!    file of its room (dhcp.rs, fw.rs, ifplugd.rs, zcip.rs, appliance.rs; a new file needs a `mod`
//!    line here). The list names every program it needs beside iproute2 and util-linux: a missing
//!    one skips the test loudly, and fails it when CI is set.
//! 2. Inside, `lab.net("home")` makes a namespace, `lab.cable((&home, "eth0"), (&isp, "lan"))` a
//!    wire (`.pull()` and `.plug()` change the carrier of eth0), `net.spawn(&["prog", "arg"])` a
//!    process with a log that is shown on failure. [`ours`] puts the applets of this build first
//!    into PATH: `home.spawn(&["udhcpc", "-f", ...])` is then ours.
//! 3. Check with `net.ip_json(..)`, `net.run(&["nft", "-j", ..])`, `net.pings(..)`, never with our
//!    own code; wait with `wait_for`, never with a sleep. /run is private and empty; the name of a
//!    file is below `lab.dir()`.
//!
//! Run one: `cargo test --test netns -- dhcp::name_of_it`. It needs no root where user namespaces
//! are allowed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests fail loudly")]

mod appliance;
mod background;
mod cage;
mod callers;
mod capture;
mod crowd;
mod dhcp;
mod dhcp_bare;
mod dhcp_gate;
mod dhcp_hook;
mod dhcp_lists;
mod dhcp_odd;
mod dhcp_options;
mod docs;
mod examples;
mod files;
mod floods;
mod follow;
mod fw;
mod fw_acts;
mod fw_admin;
mod fw_beside;
mod fw_confirm;
mod fw_doors;
mod fw_faults;
mod fw_follow;
mod fw_hooks;
mod fw_judged;
mod fw_left_out;
mod fw_links;
mod fw_model;
mod fw_names;
mod fw_packets;
mod fw_storm;
mod fw_strangers;
mod fw_uplinks;
mod fw_ways;
mod fw_zone_model;
mod fw_zones;
mod hostile;
mod ifplugd;
mod lines;
mod names;
mod pinger;
mod policies;
mod records;
mod roaming;
mod router;
mod servers;
mod services;
mod wire;
mod zcip;

use std::path::PathBuf;
use std::time::Duration;

use testkit::{Lab, isolated, wait_until};

/// Puts the applets of this build, or of `$NETSV_BIN`, first into PATH inside the lab's namespaces.
fn ours(lab: &Lab) {
    let other = std::env::var_os("NETSV_BIN").map(PathBuf::from);
    lab.use_netsv(&other.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_netsv"))));
}

/// dnsmasq as a DHCP server on `interface`, 192.0.2.10 to 192.0.2.20 unless `more` says otherwise.
fn dnsmasq_argv<'a>(interface: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let base = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--no-ping", "--log-dhcp"];
    let user = ["--user=root", "--group=root", "--dhcp-leasefile=/run/lab/leases", "--bind-dynamic", "--interface"];
    [&base[..], &user[..], &[interface], more].concat()
}

#[test]
fn a_real_client_gets_a_real_lease_over_a_lab_cable() {
    isolated(&["dnsmasq", "udhcpc"], |lab| {
        let home = lab.net("home");
        let isp = lab.net("isp");
        let cable = lab.cable((&home, "eth0"), (&isp, "lan"));
        isp.address("lan", "192.0.2.1/24");
        let server = isp.spawn(&dnsmasq_argv("lan", &["--dhcp-range=192.0.2.10,192.0.2.20,1h"]));
        server.wait_log("DHCP, IP range", Duration::from_secs(5));

        let script = lab.dir().join("handler");
        let text = "#!/bin/sh\n[ \"$1\" = bound ] && ip addr add $ip/$mask dev $interface && ip route add default via $router\nexit 0\n";
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let _client = home.spawn(&["udhcpc", "-f", "-i", "eth0", "-s", script.to_str().unwrap()]);

        wait_until("a default route", Duration::from_secs(10), || !home.default_routes().is_empty());
        assert!(home.addresses("eth0")[0].starts_with("192.0.2.1"), "{:?}", home.addresses("eth0"));
        assert_eq!(home.default_routes()[0].1, "192.0.2.1");
        assert!(home.pings("192.0.2.1"));

        cable.pull();
        wait_until("no carrier", Duration::from_secs(3), || {
            home.ip_json(&["link", "show", "dev", "eth0"])[0]["operstate"] == "DOWN"
        });
        cable.plug();
        wait_until("a ping after the plug", Duration::from_secs(5), || home.pings("192.0.2.1"));
    });
}
