//! The examples of share/examples/, each applied as it is: the plan and the nft table of each are
//! as the golden files in policies/ say, and a second run has nothing to do. With
//! NETSV_GOLDEN=write in the environment the files are written anew; read the difference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use std::fs;
use std::path::{Path, PathBuf};

use testkit::{Lab, isolated};

use crate::ours;

/// An example: its cards, and what its daemons have published.
struct Example {
    name: &'static str,
    cards: &'static [&'static str],
    records: &'static [(&'static str, &'static str)],
}

const LEASE_0: (&str, &str) = ("dhcp_eth0", "if=eth0 ipmask=198.51.100.7/24 gw=198.51.100.1");

const EXAMPLES: [Example; 7] = [
    Example {
        name: "laptop",
        cards: &["eth0", "wlan0"],
        records: &[LEASE_0, ("dhcp_wlan0", "if=wlan0 ipmask=10.9.0.10/24 gw=10.9.0.1")],
    },
    Example { name: "home-router", cards: &["eth0", "lan0", "lan1", "lan2"], records: &[LEASE_0] },
    Example { name: "guest-network", cards: &["eth0", "lan0", "guest0"], records: &[LEASE_0] },
    Example {
        name: "two-uplinks",
        cards: &["eth0", "eth1", "wwan0", "lan0"],
        records: &[LEASE_0, ("dhcp_eth1", "if=eth1 ipmask=203.0.113.7/24 gw=203.0.113.1")],
    },
    Example {
        name: "pppoe",
        cards: &["eth0", "dsl0", "lan0"],
        records: &[("ppp_dsl0", "if=dsl0 ipmask=203.0.113.7/32 gw=203.0.113.1")],
    },
    Example {
        name: "vpn",
        cards: &["eth0", "lan0", "wg0"],
        records: &[LEASE_0, ("wg_wg0", "if=wg0 ipmask=10.8.0.2/24 net=10.20.0.0/16 gw=10.8.0.1")],
    },
    Example { name: "ci-namespace", cards: &["eth0"], records: &[] },
];

fn tree(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(below)
}

/// What fw said of the example: the plan, and the table that it has loaded.
fn applied(lab: &Lab, example: &Example) -> (String, String) {
    ours(lab);
    let home = lab.net("home");
    for card in example.cards {
        let far = lab.net(&format!("at_{card}"));
        lab.cable((&home, card), (&far, "far"));
    }
    let service = lab.make_dir("service");
    let example_dir = tree("share/examples").join(example.name);
    let [conf, config] = ["conf", "fw.conf"].map(|name| example_dir.join(name).to_str().unwrap().to_owned());
    home.run(&["cp", "-R", &conf, &config, service.to_str().unwrap()]);
    let dynamic = lab.make_dir("dynamic");
    lab.make_dir("etc");
    for (name, fields) in example.records {
        let text: String = fields.split(' ').map(|f| format!("{}\n", f.replacen('=', "[$cfg]=", 1))).collect();
        fs::write(dynamic.join(format!("{name}.ipconf")), format!("let cfg=cfg+1\n{text}")).unwrap();
    }
    let fw = |word: &str| {
        let mut command = home.command(&["fw", word]);
        command.current_dir(&service).env("FW_DYNAMIC", &dynamic).env("FW_ETC", lab.dir().join("etc"));
        command.env("SVDIR", "/nonexistent");
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    assert_eq!(fw("check"), (Some(0), String::new()), "{}", example.name);
    let (code, plan) = fw("plan");
    assert_eq!(code, Some(2), "{plan}");
    let (code, said) = fw("apply");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fw("plan"), (Some(0), String::new()), "{}", example.name);
    let table = fs::read_to_string(dynamic.join(".nft")).unwrap();
    let plan = plan.replace(lab.dir().to_str().unwrap(), "");
    (format!("{plan}--- apply said:\n{said}"), table.split_once('\n').unwrap().1.to_owned())
}

#[track_caller]
fn is_as_golden(lab: &Lab, name: &str) {
    let example = EXAMPLES.iter().find(|e| e.name == name).unwrap();
    let (plan, table) = applied(lab, example);
    for (kind, text) in [("plan", plan), ("nft", table)] {
        let path = tree("tests/netns/policies").join(format!("{name}.{kind}"));
        if std::env::var_os("NETSV_GOLDEN").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        assert!(text == golden, "{} should be\n{text}", path.display());
    }
}

#[test]
fn every_example_has_a_test() {
    let mut names: Vec<String> = fs::read_dir(tree("share/examples"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut tested = EXAMPLES.map(|e| e.name.to_owned()).to_vec();
    tested.sort();
    assert_eq!(names, tested);
}

#[test]
fn a_laptop() {
    isolated(&["nft"], |lab| is_as_golden(lab, "laptop"));
}

#[test]
fn a_home_router() {
    isolated(&["nft"], |lab| is_as_golden(lab, "home-router"));
}

#[test]
fn a_guest_network() {
    isolated(&["nft"], |lab| is_as_golden(lab, "guest-network"));
}

#[test]
fn two_uplinks() {
    isolated(&["nft"], |lab| is_as_golden(lab, "two-uplinks"));
}

#[test]
fn pppoe() {
    isolated(&["nft"], |lab| is_as_golden(lab, "pppoe"));
}

#[test]
fn a_vpn() {
    isolated(&["nft"], |lab| is_as_golden(lab, "vpn"));
}

#[test]
fn a_namespace_for_ci() {
    isolated(&["nft"], |lab| is_as_golden(lab, "ci-namespace"));
}
