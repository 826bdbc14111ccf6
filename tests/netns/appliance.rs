//! The whole suite at its main job. Our runsvdir runs services made from services/; there are two
//! providers, and a LAN host behind the appliance.
//!
//! Each daemon's own behaviour is tested in its own file. This file holds what needs the daemons
//! together: a lease becomes a route, a pulled cable moves the traffic, and a kill -9 of any one
//! process heals without a lost ping and without a second instance.

use std::path::Path;
use std::time::{Duration, Instant};

use testkit::appliance::{Appliance, FW_CONF, LAN_IPCONF};
use testkit::probe::Probe;
use testkit::uplinks::{TARGET, TwoUplinks};
use testkit::{Lab, isolated, kill_9, pids_where, poll_for, wait_for, wait_until};

use crate::ours;

const SERVICES: [&str; 5] = ["fw", "ifplugd_eth0", "ifplugd_eth1", "dhcp_eth0", "dhcp_eth1"];
/// The longest time that any single step may take, the hold-down of the link included.
const SOON: Duration = Duration::from_secs(25);

/// Starts the appliance; its uplinks are still unplugged.
fn boot(lab: &Lab) -> (TwoUplinks, Appliance) {
    ours(lab);
    let world = TwoUplinks::build(lab);
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("services");
    let mut appliance = Appliance::prepare(lab, &world.home, &sources, &SERVICES);
    appliance.write("fw/fw.conf", FW_CONF);
    appliance.write("fw/conf/lan.ipconf", LAN_IPCONF);
    appliance.start();
    (world, appliance)
}

/// Starts the appliance and leases both uplinks; eth0 is preferred.
fn online(lab: &Lab) -> (TwoUplinks, Appliance) {
    let (world, appliance) = boot(lab);
    world.isp_a.cable.plug();
    world.isp_b.cable.plug();
    wait_until("two good default routes, eth0 first", SOON, || both_good(&world));
    wait_until("the LAN host reaches the internet", SOON, || world.lan.pings(&TARGET.to_string()));
    wait_until("fw has run for the last time", SOON, || fw_is_done(&appliance));
    (world, appliance)
}

/// There are two default routes, eth0's first, and fw has demoted neither (fw.conf: demote_metric
/// is 20000).
fn both_good(world: &TwoUplinks) -> bool {
    let routes = world.home.default_routes();
    routes.len() == 2 && routes[0].0 == "eth0" && routes.iter().all(|(_, _, metric)| *metric < 10_000)
}

fn fw_is_done(appliance: &Appliance) -> bool {
    let status = appliance.run(&["sv", "status", "fw"]);
    status.starts_with("down: fw") && !status.contains("want up")
}

fn best_uplink(world: &TwoUplinks) -> Option<String> {
    world.home.default_routes().first().map(|(interface, _, _)| interface.clone())
}

/// Pings from the LAN host, through masquerading, and from the appliance.
struct Pings {
    lan: Probe,
    home: Probe,
    begun: Instant,
}

impl Pings {
    #[expect(clippy::disallowed_methods, reason = "the beginning of the window in which losses count")]
    fn start() -> Pings {
        let interval = Duration::from_millis(2);
        let lan = Probe::start(Some("lan"), TARGET, interval).unwrap();
        let home = Probe::start(Some("home"), TARGET, interval).unwrap();
        let pings = Pings { lan, home, begun: Instant::now() };
        wait_until("the first answers", SOON, || {
            pings.lan.first_answer(pings.begun).is_some() && pings.home.first_answer(pings.begun).is_some()
        });
        pings
    }

    /// How many pings the LAN host and the appliance have lost since the beginning, counted when
    /// the path is steady again.
    #[expect(clippy::disallowed_methods, reason = "the end of the window in which losses count")]
    fn lost(&self) -> (usize, usize) {
        let to = Instant::now();
        let answered = |probe: &Probe| probe.first_answer(to).is_some() && probe.recovered(to).is_some();
        wait_until("answers after the act", SOON, || answered(&self.lan) && answered(&self.home));
        (self.lan.loss(self.begun, to).lost, self.home.loss(self.begun, to).lost)
    }
}

/// How many daemons of this program serve eth0. At most one of each may exist.
fn instances(program: &str, word: &str) -> usize {
    pids_where(|argv| {
        let is_program = |arg: &str| Path::new(arg).file_name().is_some_and(|name| name == program);
        argv.iter().take(2).any(|arg| is_program(arg)) && argv.iter().skip(1).any(|arg| arg.ends_with(word))
    })
    .len()
}

#[test]
fn a_lease_becomes_a_route_and_packets_flow() {
    isolated(&["nft"], |lab| {
        let (world, appliance) = boot(lab);
        wait_until("the static address of the LAN", SOON, || world.home.addresses("lan0") == ["10.0.0.1/24"]);
        assert_eq!(world.home.default_routes(), []);
        world.isp_a.cable.plug();
        wait_until("a default route", SOON, || best_uplink(&world).as_deref() == Some("eth0"));
        assert_eq!(world.home.default_routes()[0].1, world.isp_a.router.to_string());
        assert_eq!(world.home.addresses("eth0"), ["192.0.2.100/24"]);
        assert!(Path::new("/run/service/fw/dhcp_eth0.ipconf").is_file());
        wait_until("the LAN host reaches the internet", SOON, || world.lan.pings(&TARGET.to_string()));
        // The kernel removes the address at the end of the lease, whichever process is dead by
        // then.
        let infos = world.home.ip_json(&["-4", "address", "show", "dev", "eth0"]);
        let valid = infos[0]["addr_info"][0]["valid_life_time"].as_u64().unwrap();
        assert!((3000..=3600).contains(&valid), "{infos}");
        let resolv = std::fs::read_to_string("/run/lab/etc/resolv.conf").unwrap();
        assert!(resolv.contains("nameserver 192.0.2.1"), "{resolv}");
        drop(appliance);
    });
}

#[test]
fn a_pulled_cable_moves_the_traffic_and_the_plugged_one_gets_it_back() {
    isolated(&["nft"], |lab| {
        let (world, _appliance) = online(lab);
        let pings = Pings::start();
        world.isp_a.cable.pull();
        wait_until("eth1 is the best uplink", SOON, || best_uplink(&world).as_deref() == Some("eth1"));
        let (lan, home) = pings.lost();
        // This is not a measurement (the demo and the bench measure). It shows that the traffic has
        // not waited for the debounce of 5 s, which is 2500 pings.
        assert!(lan < 1000 && home < 1000, "lost on the cut: LAN host {lan}, appliance {home}");

        let pings = Pings::start();
        world.isp_a.cable.plug();
        wait_until("eth0 is the best uplink again", SOON, || both_good(&world));
        let (lan, home) = pings.lost();
        assert_eq!(home, 0, "lost by the appliance on the way back");
        assert!(lan <= 1, "lost by the LAN host on the way back: {lan}");
    });
}

#[test]
fn a_killed_dhcp_client_comes_back_with_its_lease() {
    isolated(&["nft"], |lab| {
        let (world, appliance) = online(lab);
        let pings = Pings::start();
        for service in ["dhcp_eth0", "dhcp_eth1"] {
            let old = appliance.service_pid(service).unwrap();
            kill_9(old);
            appliance.wait_new_pid(service, old, SOON);
        }
        wait_until("both clients have asked for their old address", SOON, || {
            [&world.isp_a, &world.isp_b].iter().all(|isp| isp.dhcpd.count(testkit::dhcpd::MessageType::Request) >= 2)
        });
        assert_eq!(pings.lost(), (0, 0));
        for interface in ["eth0", "eth1"] {
            wait_until("one client", SOON, || instances("udhcpc", interface) == 1);
        }
        assert!(both_good(&world), "{:?}", world.home.default_routes());
    });
}

#[test]
fn a_killed_link_watcher_comes_back_and_still_sees_the_cable() {
    isolated(&["nft"], |lab| {
        let (world, appliance) = online(lab);
        let pings = Pings::start();
        let old = appliance.service_pid("ifplugd_eth0").unwrap();
        kill_9(old);
        appliance.wait_new_pid("ifplugd_eth0", old, SOON);
        wait_until("one link watcher", SOON, || instances("ifplugd", "eth0") == 1);
        assert_eq!(pings.lost(), (0, 0));
        world.isp_a.cable.pull();
        wait_until("eth1 is the best uplink", SOON, || best_uplink(&world).as_deref() == Some("eth1"));
        wait_until("the link's record says down", SOON, || {
            std::fs::read_to_string("/run/service/fw/link_eth0.ipconf").is_ok_and(|text| text.contains("'down'"))
        });
    });
}

#[test]
fn fw_killed_in_its_run_leaves_nothing_half_done() {
    isolated(&["nft"], |lab| {
        let (world, appliance) = online(lab);
        let pings = Pings::start();
        let caught = (0..20).any(|_| {
            appliance.run(&["sv", "up", "fw"]);
            let pid = poll_for(Duration::from_millis(100), || appliance.service_pid("fw"));
            pid.is_some_and(kill_9)
        });
        assert!(caught, "fw could not be caught running");
        wait_until("fw has run for the last time", SOON, || fw_is_done(&appliance));
        assert_eq!(pings.lost(), (0, 0));
        assert!(both_good(&world), "{:?}", world.home.default_routes());
        assert!(world.home.run(&["nft", "list", "ruleset"]).contains("masquerade"));
    });
}

#[test]
fn a_killed_runsv_is_replaced_and_its_daemon_does_not_run_twice() {
    isolated(&["nft"], |lab| {
        let (world, appliance) = online(lab);
        let pings = Pings::start();
        for (service, program, word) in
            [("dhcp_eth0", "udhcpc", "eth0"), ("ifplugd_eth1", "ifplugd", "eth1"), ("dhcp_eth1", "udhcpc", "eth1")]
        {
            let old = appliance.runsv_pid(service).unwrap();
            kill_9(old);
            wait_for(&format!("another runsv {service}"), SOON, || {
                appliance.runsv_pid(service).filter(|pid| *pid != old)
            });
            wait_for(&format!("{service} runs"), SOON, || appliance.service_pid(service));
            wait_until(&format!("one {program} of {word}"), SOON, || instances(program, word) == 1);
            wait_until("what runs is what is supervised", SOON, || {
                let status = appliance.run(&["sv", "status", service]);
                appliance.service_pid(service).is_some_and(|pid| status.contains(&format!("(pid {pid})")))
            });
        }
        assert_eq!(pings.lost(), (0, 0));
        assert!(both_good(&world), "{:?}", world.home.default_routes());
    });
}

#[test]
fn a_killed_logger_comes_back_and_goes_on_writing() {
    isolated(&["nft"], |lab| {
        let (_world, appliance) = online(lab);
        let pings = Pings::start();
        let log = appliance.log_file("dhcp_eth0");
        let logger = || {
            pids_where(|argv| {
                argv.iter().any(|a| a.ends_with("svlogd"))
                    && argv.last().is_some_and(|a| a.trim_end_matches('/').ends_with("/dhcp_eth0"))
            })
            .first()
            .copied()
        };
        let old = wait_for("the logger of dhcp_eth0", SOON, logger);
        kill_9(old);
        wait_for("another logger", SOON, || logger().filter(|pid| *pid != old));
        kill_9(appliance.service_pid("dhcp_eth0").unwrap());
        // Old lines are kept, in `current` or in the file @...u that a killed logger leaves behind.
        wait_until("the start of both clients in the log", SOON, || {
            let files = std::fs::read_dir(log.parent().unwrap()).unwrap().flatten();
            let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
            texts.map(|text| text.matches("eth0: started").count()).sum::<usize>() == 2
        });
        assert_eq!(pings.lost(), (0, 0));
    });
}

#[test]
fn a_killed_runsvdir_started_again_by_init_takes_over_without_a_second_daemon() {
    isolated(&["nft"], |lab| {
        let (world, mut appliance) = online(lab);
        let pings = Pings::start();
        kill_9(appliance.init_pid().unwrap());
        appliance.start();
        wait_until("everything runs once", SOON, || {
            ["eth0", "eth1"].iter().all(|i| instances("udhcpc", i) == 1 && instances("ifplugd", i) == 1)
                && SERVICES.iter().all(|service| instances("runsv", service) == 1)
        });
        let status = appliance.run(&["sv", "status", "dhcp_eth0"]);
        assert!(status.starts_with("run: "), "{status}");
        assert_eq!(pings.lost(), (0, 0));
        // runsvdir is in charge: it starts a killed service again.
        let old = appliance.service_pid("dhcp_eth0").unwrap();
        kill_9(old);
        appliance.wait_new_pid("dhcp_eth0", old, SOON);
        assert!(both_good(&world), "{:?}", world.home.default_routes());
    });
}

#[test]
fn a_malformed_record_is_named_and_skipped_and_all_else_is_applied() {
    isolated(&["nft"], |lab| {
        let (world, appliance) = online(lab);
        let pings = Pings::start();
        let bad = "let cfg=cfg+1\nif[$cfg]=lan0\nipmask[$cfg]=$(reboot)\n";
        appliance.write("fw/conf/vpn.ipconf", bad);
        appliance.write("fw/conf/second.ipconf", "let cfg=cfg+1\nif[$cfg]=lan0\nipmask[$cfg]=10.0.1.1/24\n");
        // services/fw/run calls fw in the same way: in the service's directory.
        let output = appliance.command(&["fw", "apply"]).current_dir(appliance.services().join("fw")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        assert!(said.contains("vpn.ipconf:3"), "file and line are named: {said}");
        assert_eq!(world.home.addresses("lan0"), ["10.0.0.1/24", "10.0.1.1/24"]);
        assert!(both_good(&world), "{:?}", world.home.default_routes());
        assert_eq!(pings.lost(), (0, 0));
    });
}
