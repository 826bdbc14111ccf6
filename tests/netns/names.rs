//! Names of interfaces. A name that the kernel accepts is the same word in every program, record
//! and file. An impossible name is refused at the start.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use std::fs;
use std::time::Duration;

use testkit::{isolated, wait_until};

use crate::{dnsmasq_argv, ours};

/// Longer than any step takes, also on a busy machine.
const SOON: Duration = Duration::from_secs(15);
/// Odd names that every program of the suite must accept.
const ODD: [&str; 2] = ["a+b=c", "@x.-y"];

#[test]
fn a_name_that_the_kernel_takes_is_the_same_word_everywhere() {
    isolated(&["dnsmasq", "nft", "bash"], |lab| {
        ours(lab);
        for (n, name) in ODD.into_iter().enumerate() {
            let (home, isp) = (lab.net(&format!("home{n}")), lab.net(&format!("isp{n}")));
            lab.cable((&home, name), (&isp, "lan"));
            isp.address("lan", "192.0.2.1/24");
            let server = isp.spawn(&dnsmasq_argv("lan", &["--dhcp-range=192.0.2.10,192.0.2.20,1h"]));
            server.wait_log("DHCP, IP range", SOON);
            let dir = lab.make_dir(&format!("dynamic{n}"));
            let dynamic = dir.to_str().unwrap();
            let native = ["--ipconf", dynamic, "--notify", "/nonexistent/fw"];
            let start = |argv: &[&str]| home.spawn(&[argv, &native[..]].concat());
            let client = start(&["udhcpc", "-f", "-i", name]);
            let zcip = home.spawn(&[&["zcip", "-f"], &native[..], &["--", name]].concat());
            let ifplugd = start(&["ifplugd", "-n", "-s", "--services", "-i", name, "--pidfile", ""]);
            let record = |kind: &str| dir.join(format!("{kind}_{name}.ipconf"));
            for kind in ["dhcp", "zcip", "link"] {
                wait_until(&format!("{kind}_{name}"), SOON, || record(kind).exists());
            }
            let mut paths = Vec::new();
            for option in ["--static", "--config", "--etc"] {
                paths.extend([option.to_owned(), lab.dir().join(format!("{n}{option}")).display().to_string()]);
            }
            let argv: Vec<&str> =
                ["fw", "--dynamic", dynamic].into_iter().chain(paths.iter().map(String::as_str)).collect();
            home.run(&[&argv[..], &["apply"]].concat());
            let addresses = home.addresses(name);
            assert!(addresses.iter().any(|a| a.starts_with("192.0.2.")), "{addresses:?}");
            assert!(addresses.iter().any(|a| a.starts_with("169.254.")), "{addresses:?}");
            assert_eq!(home.default_routes()[0].0, name);
            assert!(home.run(&["nft", "list", "ruleset"]).contains(&format!("\"{name}\"")));
            let pinger = start(&["pinger", "-i", name, "--interval", "0.1"]);
            wait_until("a verdict", SOON, || {
                fs::read_to_string(record("health")).is_ok_and(|text| text.contains("health[$cfg]='up'"))
            });
            for shown in [&["udhcpc", "--show", "-i", name][..], &["pinger", "--show", name]] {
                let shown = home.run(&[shown, &["--ipconf", dynamic]].concat());
                assert!(shown.starts_with(name), "{shown}");
            }
            // The seed's scripts source a record.
            let shell =
                "set -eu; cfg=0; . \"$1\"; echo \"${if[cfg]} ${ipmask[cfg]} ${gw[cfg]} ${lease_end_boottime[cfg]}\"";
            let sourced = home.run(&["bash", "-c", shell, "-", record("dhcp").to_str().unwrap()]);
            let words: Vec<&str> = sourced.split_whitespace().collect();
            assert_eq!((words[0], words[2], words.len()), (name, "192.0.2.1", 4), "{sourced}");
            assert!(addresses.contains(&words[1].to_owned()), "{sourced}");
            for daemon in [&client, &zcip, &ifplugd, &pinger] {
                assert!(!daemon.log().contains("unable to write"), "{}", daemon.log());
            }
        }
    });
}

#[test]
fn a_name_that_cannot_be_is_refused_at_the_start_and_named() {
    isolated(&[], |lab| {
        ours(lab);
        let home = lab.net("home");
        // The kernel makes the first of them.
        home.ip(&["link", "add", "a'b,c", "type", "veth", "peer", "name", "peer"]);
        let dir = lab.make_dir("dynamic");
        let dynamic = dir.to_str().unwrap();
        for name in ["a'b,c", "a b", "a/b", "all", "sixteen-letters-"] {
            for (argv, code) in [
                (&["udhcpc", "-f", "-i", name, "--ipconf", dynamic][..], 1),
                (&["udhcpc", "--show", "-i", name, "--ipconf", dynamic], 1),
                (&["zcip", "-f", "--ipconf", dynamic, name], 1),
                (&["ifplugd", "-n", "--services", "--ipconf", dynamic, "-i", name], 100),
                (&["pinger", "--ipconf", dynamic, "-i", name], 100),
                (&["fw", "--dynamic", dynamic, "publish", "x", &format!("if={name}")], 111),
            ] {
                let said = home.try_run(&[&["timeout", "5"], argv].concat());
                let text = String::from_utf8_lossy(&said.stderr);
                assert_eq!(said.status.code(), Some(code), "{argv:?}: {text}");
                let named = text.contains(name) || text.contains(&name.escape_debug().to_string());
                assert!(named, "{argv:?}: {text}");
            }
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    });
}
