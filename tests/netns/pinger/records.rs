//! Which record the pinger judges, and what fw.conf's word `metered` makes of its pace.

use super::*;

fn put(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(".new"), text).unwrap();
    fs::rename(dir.join(".new"), dir.join(name)).unwrap();
}

#[test]
fn a_static_uplink_is_judged_like_a_lease() {
    isolated(&["nft"], |lab| {
        let w = Small::new(lab);
        fs::remove_file(w.dynamic.join("dhcp_eth0.ipconf")).unwrap();
        let conf = lab.make_dir("conf");
        let pinger = w.start(&["--static", conf.to_str().unwrap(), "--no-restart"]);
        pinger.wait_log("no lease, nothing to judge", SOON);
        // A LAN of the same machine, and the uplink behind it in one file.
        let lan = "let cfg=cfg+1\nif[$cfg]='lan0'\nipmask[$cfg]='10.0.0.1/24'\n";
        let wan = "let cfg=cfg+1\nif[$cfg]='eth0'\nipmask[$cfg]='192.0.2.100/24'\ngw[$cfg]='192.0.2.1'\n";
        put(&conf, "wan.ipconf", &format!("{lan}{wan}"));
        w.wait(Some("up"));
        w.isp.silence("customer");
        w.wait(Some("down"));
        assert!(pinger.log().contains("uplink is bad: router 192.0.2.1 does not answer"), "{}", pinger.log());
        w.isp.speak();
        w.wait(Some("up"));
        // A lease with a router has the first word.
        w.lease("192.0.2.7");
        w.wait(Some("down"));
        assert_eq!(pinger.log().matches("nothing to judge").count(), 1, "{}", pinger.log());
    });
}

#[test]
fn a_record_of_another_program_is_judged_and_a_named_one_alone() {
    isolated(&[], |lab| {
        let w = Small::new(lab);
        fs::rename(w.dynamic.join("dhcp_eth0.ipconf"), w.dynamic.join("modem.ipconf")).unwrap();
        let pinger = w.start(&["--no-restart"]);
        w.wait(Some("up"));
        drop(pinger);
        let pinger = w.start(&["--record", "dhcp_eth0", "--no-restart"]);
        pinger.wait_log("no lease, nothing to judge", SOON);
        holds_for("nothing is judged", QUIET, || w.status()["state"] == "idle");
    });
}

#[test]
fn what_fw_calls_metered_is_asked_rarely_at_once() {
    isolated(&[], |lab| {
        let w = Small::new(lab);
        let dynamic = w.dynamic.to_str().unwrap();
        let every = ["--retry", "0.1", "--hold-down", "0.5", "--status-every", "0", "--no-restart"];
        let argv = ["pinger", "-v", "-i", "eth0", "--ipconf", dynamic, "--notify", "/nonexistent/fw"];
        put(&w.dynamic, ".metered", "eth1\n");
        let pinger = w.home.spawn(&[&argv[..], &every].concat());
        w.wait(Some("up"));
        w.wait_rounds(3);
        put(&w.dynamic, ".metered", "eth1 eth0\n");
        pinger.wait_log("metered: few packets", SOON);
        // One round may be on its way.
        let asked = || w.status()["targets"][0]["asked"].as_u64().unwrap();
        let begin = asked();
        holds_for("a round in half a minute", QUIET * 4, || asked() <= begin + 1);
        fs::remove_file(w.dynamic.join(".metered")).unwrap();
        pinger.wait_log("not metered", SOON);
        w.wait_rounds(3);
    });
}
