//! The cage around zcip, ifplugd and the pinger.

use super::*;
use crate::services::House;

const ZCIP_RECORD: &str = "/run/lab/dyn/zcip_eth0.ipconf";

#[test]
fn a_caged_zcip_follows_its_interface_and_gives_its_address_up() {
    isolated(&[], |lab| {
        let w = world(lab);
        let fw = Fw::new(lab);
        let _runsv = fw.supervise(&w.home);
        let published = || Path::new(ZCIP_RECORD).exists();
        let argv = ["zcip", "-v", "--state", "/run/lab/state", "-r", "169.254.7.7", "--ipconf", "/run/lab/dyn"];
        let zcip = w.home.spawn(&[&argv[..], &["--notify", fw.dir.to_str().unwrap(), "eth0"]].concat());
        wait_caged(zcip.pid(), NET_RAW | NET_ADMIN);
        wait_until("a record", SOON, published);
        assert!(!zcip.log().contains("cage:"), "everything is restricted here: {}", zcip.log());
        assert_eq!(pids_where(|argv| argv.first() == Some(&"zcip")), [zcip.pid()], "a single process");
        fw.wait_more(1);

        // The new interface has another index and another MAC, and is down. The daemon sets it up
        // from inside the cage.
        w.home.ip(&["link", "del", "eth0"]);
        wait_until("withdrawn", SOON, || !published());
        let before = fw.runs();
        w.home.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "other0"]);
        w.home.ip(&["link", "set", "other0", "up"]);
        wait_until("a record of the new interface", SOON, published);
        fw.wait_more(before);

        let before = fw.runs();
        assert!(zcip.stop().success());
        assert!(!published());
        fw.wait_more(before);
        assert!(Path::new("/run/lab/state/ipv4ll_eth0.ipconf").exists());
    });
}

#[test]
fn a_script_of_zcip_runs_outside() {
    isolated(&[], |lab| {
        let w = world(lab);
        let (script, out) = script(lab);
        let zcip = w.home.spawn(&["zcip", "-f", "-r", "169.254.7.7", "eth0", &script]);
        let said = |event: &str| fs::read_to_string(&out).unwrap_or_default().contains(event);
        wait_until("an address", SOON, || said("config"));
        wait_caged(zcip.pid(), NET_RAW);
        zcip.signal(Signal::SIGUSR2);
        wait_until("deconfig", SOON, || said("deconfig"));
        assert_outside(&fs::read_to_string(&out).unwrap());
        assert!(zcip.stop().success());
    });
}

#[test]
fn without_the_cage_zcip_gives_nothing_up() {
    isolated(&[], |lab| {
        let w = world(lab);
        let zcip = w.home.spawn(&["zcip", "-f", "--no-cage", "-r", "169.254.7.7", "--ipconf", "/run/lab/dyn", "eth0"]);
        wait_until("a record", SOON, || Path::new(ZCIP_RECORD).exists());
        assert_free(zcip.pid());
    });
}

/// A house with ifplugd or the pinger, with fw, and with the services of its interface.
fn house(lab: &Lab, w: &World, services: &[&str]) -> House {
    let mut house = House::new(lab, &w.home, "house");
    for service in services {
        house.add(service, "exec sleep 1000");
    }
    house.add_fw();
    house.start();
    house.wait_first_fw();
    house
}

/// Waits until fw has run and has ended. A letter that arrives while fw waits for its own `o` would
/// keep fw for ever.
fn wait_told(house: &House, before: usize) {
    wait_until("fw has run", SOON, || house.fw_runs() > before);
    house.wait_down("fw");
}

fn wait_health(house: &House, record: &str, health: &str) {
    let line = format!("health[$cfg]='{health}'");
    wait_until(&line, SOON, || house.record(record).is_some_and(|text| text.lines().any(|l| l == line)));
}

#[test]
fn a_caged_ifplugd_tells_fw_and_services_and_sets_its_interface_up() {
    isolated(&[], |lab| {
        let w = world(lab);
        let house = house(lab, &w, &["dhcp_eth0"]);
        house.wait_pid("dhcp_eth0");
        let argv = ["ifplugd", "-nsi", "eth0", "--verbose", "--services", "-d0", "-t0", "--pidfile", "/run/lab/pid"];
        let dynamic = house.path("dynamic");
        let argv = [&argv[..], &["--ipconf", dynamic.to_str().unwrap()]].concat();
        let watcher = house.spawn(&argv);
        wait_health(&house, "link_eth0", "up");
        wait_caged(watcher.pid(), NET_ADMIN);
        assert!(!watcher.log().contains("cage:"), "everything is restricted here: {}", watcher.log());
        assert_eq!(pids_where(|argv| argv.first() == Some(&"ifplugd")), [watcher.pid()], "a single process");
        wait_told(&house, 1);

        let before = house.fw_runs();
        w.cable.pull();
        wait_health(&house, "link_eth0", "down");
        house.wait_down("dhcp_eth0");
        wait_told(&house, before);
        w.cable.plug();
        wait_health(&house, "link_eth0", "up");
        house.wait_pid("dhcp_eth0");
        w.home.ip(&["link", "set", "eth0", "down"]);
        watcher.wait_log("upping interface\nifplugd: eth0: link is up", SOON);

        assert!(watcher.stop().success());
        assert!(house.record("link_eth0").is_none() && !Path::new("/run/lab/pid").exists());

        // A watcher that sets nothing up needs no capability.
        let watcher = house.spawn(&[&argv[..], &["-a", "-A"]].concat());
        wait_health(&house, "link_eth0", "up");
        wait_caged(watcher.pid(), 0);
    });
}

#[test]
fn a_service_that_is_installed_later_is_steered_by_a_new_ifplugd() {
    isolated(&[], |lab| {
        let w = world(lab);
        let mut house = House::new(lab, &w.home, "house");
        house.add_fw();
        house.copy("ifplugd_if", "ifplugd_eth0");
        fs::create_dir(house.service("ifplugd_eth0/env")).unwrap();
        fs::write(house.service("ifplugd_eth0/env/IFPLUGD_DOWN"), "0").unwrap();
        house.start();
        wait_health(&house, "link_eth0", "up");
        let watcher = house.wait_pid("ifplugd_eth0");
        wait_caged(watcher, NET_ADMIN);
        house.add("dhcp_eth0", "exec sleep 1000");
        house.wait_pid("dhcp_eth0");

        w.cable.pull();
        house.wait_down("dhcp_eth0");
        assert_ne!(house.wait_pid("ifplugd_eth0"), watcher);
        let said = house.log("ifplugd_eth0");
        assert!(said.contains("dhcp_eth0 was not there at the start: to be started again"), "{said}");
        // The next watcher knows the record, and the link stays.
        let watcher = house.wait_pid("ifplugd_eth0");
        w.cable.plug();
        house.wait_pid("dhcp_eth0");
        w.cable.pull();
        house.wait_down("dhcp_eth0");
        assert_eq!(house.pid("ifplugd_eth0"), Some(watcher));
    });
}

#[test]
fn the_program_of_ifplugd_runs_outside() {
    isolated(&[], |lab| {
        let w = world(lab);
        let (script, out) = script(lab);
        let runs = || fs::read_to_string(&out).unwrap_or_default().lines().count();
        let base = ["ifplugd", "-i", "eth0", "-d0", "--pidfile", "/run/lab/pid", "-r", &script];
        let mut watcher = w.home.spawn(&[&base[..], &["-ns"]].concat());
        wait_until("a run", SOON, || runs() == 1);
        wait_caged(watcher.pid(), NET_ADMIN);
        w.cable.pull();
        wait_until("a run", SOON, || runs() == 2);
        assert_outside(&fs::read_to_string(&out).unwrap());
        // Without its runner the watcher could tell no service.
        let runner =
            *pids_where(|argv| argv.first() == Some(&"ifplugd")).iter().find(|p| **p != watcher.pid()).unwrap();
        kill_9(runner);
        assert_eq!(watcher.wait(SOON).expect("it ends").code(), Some(111));
        assert!(watcher.log().contains("the script runner was killed"), "{}", watcher.log());

        // With -w a caller that waits for the output does not wait for the daemon or for the
        // runner.
        let status = w.home.try_run(&[&base[..], &["-w"]].concat()).status;
        assert_eq!(status.code(), Some(3), "the link is down");
        let pid = fs::read_to_string("/run/lab/pid").unwrap().trim().parse().unwrap();
        wait_caged(pid, NET_ADMIN);
        w.cable.plug();
        wait_until("a run", SOON, || runs() == 3);
        for pid in pids_where(|argv| argv.first() == Some(&"ifplugd")) {
            for fd in 0..3 {
                assert_eq!(
                    fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap(),
                    Path::new("/dev/null"),
                    "{pid} {fd}"
                );
            }
        }
        assert!(w.home.try_run(&["ifplugd", "-k", "-W", "--pidfile", "/run/lab/pid"]).status.success());
        assert_eq!(runs(), 4, "it was up");
    });
}

fn lease(house: &House) {
    let text = "let cfg=cfg+1\nif[$cfg]='eth0'\nipmask[$cfg]='192.0.2.100/24'\ngw[$cfg]='192.0.2.1'\n";
    fs::write(house.path("dynamic/.tmp"), text).unwrap();
    fs::rename(house.path("dynamic/.tmp"), house.path("dynamic/dhcp_eth0.ipconf")).unwrap();
}

const QUICK: [&str; 6] = ["--interval", "0.1", "--retry", "0.1", "--hold-down", "0.2"];

#[test]
fn a_caged_pinger_asks_tells_fw_and_restarts() {
    isolated(&[], |lab| {
        let w = world(lab);
        w.home.address("eth0", "192.0.2.100/24");
        let house = house(lab, &w, &["dhcp_eth0"]);
        let client = house.wait_pid("dhcp_eth0");
        lease(&house);
        let dynamic = house.path("dynamic");
        let more = ["-v", "--restart", "0", "--status", "/run/lab/status/eth0", "--ipconf", dynamic.to_str().unwrap()];
        let pinger = house.spawn(&[&["pinger", "-i", "eth0"], &QUICK[..], &more].concat());
        wait_health(&house, "health_eth0", "up");
        wait_caged(pinger.pid(), NET_RAW);
        assert!(!pinger.log().contains("cage:"), "everything is restricted here: {}", pinger.log());
        assert_eq!(pids_where(|argv| argv.first() == Some(&"pinger")), [pinger.pid()], "a single process");
        wait_told(&house, 1);

        let before = house.fw_runs();
        w.isp.silence("lan");
        wait_health(&house, "health_eth0", "down");
        wait_told(&house, before);
        wait_until("a restart", SOON, || house.pid("dhcp_eth0").is_some_and(|pid| pid != client));
        w.isp.speak();
        wait_health(&house, "health_eth0", "up");
        assert!(Path::new("/run/lab/status/eth0").exists());
        assert!(pinger.stop().success());
        assert!(house.record("health_eth0").is_none() && !Path::new("/run/lab/status/eth0").exists());
    });
}

#[test]
fn what_a_pinger_does_not_find_is_found_by_the_next_one() {
    isolated(&[], |lab| {
        let w = world(lab);
        w.home.address("eth0", "192.0.2.100/24");
        let mut house = House::new(lab, &w.home, "house");
        house.add_fw();
        lease(&house);
        house.copy("dhcp_if_pinger", "dhcp_eth0_pinger");
        fs::create_dir(house.service("dhcp_eth0_pinger/env")).unwrap();
        let args = format!("--restart 0.3 {}", QUICK.join(" "));
        fs::write(house.service("dhcp_eth0_pinger/env/PINGER_ARGS"), args).unwrap();
        house.start();
        wait_health(&house, "health_eth0", "up");
        let first = house.wait_pid("dhcp_eth0_pinger");
        wait_caged(first, NET_RAW);

        // A service that the user installs later.
        house.add("supplicant_eth0", "exec sleep 1000");
        let old = house.wait_pid("supplicant_eth0");
        w.isp.silence("lan");
        wait_until("a restart", SOON, || house.pid("supplicant_eth0").is_some_and(|pid| pid != old));
        let said = house.log("dhcp_eth0_pinger");
        assert!(said.contains("supplicant_eth0 was not there at the start: to be started again"), "{said}");
        w.isp.speak();
        wait_health(&house, "health_eth0", "up");

        // The records are removed together with their directory.
        let second = house.wait_pid("dhcp_eth0_pinger");
        assert_ne!(second, first);
        // The pinger may be writing there at this moment.
        wait_until("removed", SOON, || fs::remove_dir_all(house.path("dynamic")).is_ok());
        wait_until("another pinger", SOON, || house.pid("dhcp_eth0_pinger").is_some_and(|pid| pid != second));
        wait_until("a directory", SOON, || house.path("dynamic").is_dir());
        lease(&house);
        wait_health(&house, "health_eth0", "up");
    });
}

#[test]
fn without_the_cage_ifplugd_and_pinger_give_nothing_up() {
    isolated(&[], |lab| {
        let w = world(lab);
        let watcher = w.home.spawn(&["ifplugd", "-nsi", "eth0", "--no-cage", "-M", "-p", "--pidfile", ""]);
        watcher.wait_log("link is up", SOON);
        assert_free(watcher.pid());
        let pinger = w.home.spawn(&["pinger", "-v", "-i", "eth0", "--no-cage", "--ipconf", "/run/lab/dyn"]);
        wait_until("a status", SOON, || Path::new("/run/lab/dyn/.pinger_eth0").exists());
        assert_free(pinger.pid());
    });
}
