//! Every file that a daemon writes. Where another user has put a file in its way, the daemon
//! replaces the file and never writes into it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::time::Duration;

use testkit::dhcpd::{Config, Dhcpd};
use testkit::{Signal, isolated, wait_until};

use crate::dhcp::{ROUTER, both, exit_code, script, world};
use crate::ours;

/// Longer than any step takes, also on a busy machine. A link-local address takes up to five
/// seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// The daemons, each with the files that it writes below DIR.
const DAEMONS: [(&str, &[&str]); 4] = [
    (
        "ifplugd -n -s -i eth0 --services --ipconf DIR --notify none --pidfile DIR/ifplugd.pid",
        &["ifplugd.pid", "link_eth0.ipconf"],
    ),
    ("pinger -i eth0 --ipconf DIR --notify none", &[".pinger_eth0"]),
    ("zcip -f --ipconf DIR --state DIR --notify none eth0", &["zcip_eth0.ipconf", "ipv4ll_eth0.ipconf"]),
    (
        "udhcpc -f --ipconf DIR --state DIR/state --notify none -p DIR/udhcpc.pid -i eth0",
        &["udhcpc.pid", "dhcp_eth0.ipconf", "state/lease_eth0.ipconf"],
    ),
];

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() > 0)
}

#[test]
fn a_link_in_the_way_of_a_file_is_replaced_and_not_followed() {
    isolated(&[], |lab| {
        ours(lab);
        let (home, isp) = (lab.net("home"), lab.net("isp"));
        lab.cable((&home, "eth0"), (&isp, "lan"));
        isp.address("lan", "192.0.2.1/24");
        let _server = Dhcpd::start(&isp, "lan", Config::for_router([192, 0, 2, 1].into())).unwrap();
        for (command, files) in DAEMONS {
            let name = command.split(' ').next().unwrap();
            let dir = lab.make_dir(&format!("of-{name}"));
            let passwd = lab.dir().join("passwd");
            fs::write(&passwd, "root").unwrap();
            for file in files {
                let path = dir.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let tmp = format!(".{}.tmp", path.file_name().unwrap().to_str().unwrap());
                for way in [path.with_file_name(tmp), path] {
                    symlink(&passwd, way).unwrap();
                }
            }
            let command = command.replace("DIR", dir.to_str().unwrap());
            let daemon = home.spawn(&command.split(' ').collect::<Vec<_>>());
            for file in files {
                wait_until(&format!("{file} of {name}"), PATIENCE, || is_file(&dir.join(file)));
            }
            drop(daemon);
            assert_eq!(fs::read_to_string(&passwd).unwrap(), "root", "{name}");
        }
    });
}

/// `-p /dev/null` says that no pidfile is wanted. A daemon of root could replace the device.
#[test]
fn a_device_in_the_place_of_a_file_is_left_alone() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let _server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let device = lab.dir().join("null");
        let null = device.to_str().unwrap();
        w.home.run(&["mknod", null, "c", "1", "3"]);
        let is_there = || device.symlink_metadata().is_ok_and(|found| found.file_type().is_char_device());
        for (client, name) in both(lab).iter().zip(["original", "ours"]) {
            let (script, _) = script(lab, name);
            let argv = [client, "-i", "eth0", "-s", &script, "-f", "-q", "-n", "-p", null];
            assert_eq!((exit_code(&w.home, &argv), is_there()), (0, true), "{name}");
        }
        let dir = lab.make_dir("records");
        for command in [
            "ifplugd -n -s -i eth0 --services --ipconf DIR --notify none --pidfile NULL",
            "pinger -i eth0 --ipconf DIR --notify none --status NULL",
        ] {
            let command = command.replace("DIR", dir.to_str().unwrap()).replace("NULL", null);
            let mut daemon = w.home.spawn(&command.split(' ').collect::<Vec<_>>());
            daemon.wait_log("a device is left alone", PATIENCE);
            daemon.signal(Signal::SIGTERM);
            assert!(daemon.wait(PATIENCE).is_some() && is_there(), "{command}");
        }
    });
}
