//! The administrator's own rules in firewall.nft: what they can open and close, and what becomes of
//! a file with an error.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use testkit::talk::{Over, answer, ask};
use testkit::{Lab, Net, find_program, isolated, wait_until};

use crate::fw::{SOON, World, fw_path, program};

/// Behind both providers.
const FAR: &str = "198.51.100.1";
/// For "no answer comes".
const SILENCE: Duration = Duration::from_millis(400);

/// What the provider of eth0 gets from there, over TCP.
fn from_outside(w: &World, to: &str) -> Option<String> {
    ask(&w.isp[0], Over::Tcp, Some(FAR), to, SILENCE)
}

#[track_caller]
fn opens(w: &World, to: &str) {
    wait_until(to, SOON, || from_outside(w, to).is_some());
}

/// A world with a lease on each uplink, with servers on some ports, and with a provider that knows
/// the LAN.
fn served(lab: &Lab) -> World {
    let w = World::leased(lab);
    for port in [8022, 8023, 8024] {
        answer(&w.home, &format!("10.0.0.5:{port}"), "router");
        answer(&w.lan, &format!("192.168.5.2:{port}"), "lan");
    }
    w.isp[0].ip(&["route", "add", "192.168.5.0/24", "via", "10.0.0.5"]);
    w
}

/// Counts the processes of nft that fw starts.
fn count_nft(lab: &Lab) -> impl Fn() -> usize {
    let (nft, counted) = (find_program("nft").unwrap(), lab.dir().join("nft.runs"));
    program(&lab.dir().join("bin/nft"), &format!("echo >>{}\nexec {} \"$@\"", counted.display(), nft.display()));
    move || fs::read_to_string(&counted).unwrap_or_default().lines().count()
}

#[test]
fn an_accept_in_a_chain_of_the_administrators_is_final() {
    isolated(&["nft"], |lab| {
        let w = served(lab);
        assert_eq!((from_outside(&w, "10.0.0.5:8022"), from_outside(&w, "192.168.5.2:8022")), (None, None));
        w.write(
            "firewall.nft",
            "# Mine.\n\
             define ssh = 8022\n\
             set friends { type ipv4_addr; elements = { 198.51.100.1, 203.0.113.9 }; }\n\
             chain before_input { iifname $uplinks ip saddr @friends tcp dport $ssh accept; }\n\
             chain after_input { iifname $uplinks jump mine; }\n\
             chain mine {\n\ttcp dport 8023 accept\n}\n\
             chain before_forward { oifname $zone_lan ip daddr $zone_lan_net tcp dport 8022 accept; }\n\
             chain after_forward { tcp dport 8023 accept; }\n",
        );
        w.apply();
        for to in ["10.0.0.5:8022", "10.0.0.5:8023", "192.168.5.2:8022", "192.168.5.2:8023"] {
            opens(&w, to);
        }
        assert_eq!((from_outside(&w, "10.0.0.5:8024"), from_outside(&w, "192.168.5.2:8024")), (None, None));
        assert_eq!(w.fw("plan"), (0, String::new()));
        let runs = count_nft(lab);
        w.apply();
        assert_eq!(runs(), 0, "an unchanged file starts no process");
        w.remove("firewall.nft");
        w.apply();
        assert_eq!((from_outside(&w, "10.0.0.5:8022"), from_outside(&w, "192.168.5.2:8023")), (None, None));
        assert!(!w.nft().contains("friends"), "{}", w.nft());
    });
}

#[test]
fn chains_of_the_administrators_can_close_redirect_and_keep_addresses() {
    isolated(&["nft"], |lab| {
        let w = served(lab);
        answer(&w.isp[0], "198.51.100.1:7000", "far");
        answer(&w.isp[0], "198.51.100.1:7001", "far");
        let goes = |port| ask(&w.lan, Over::Tcp, None, &format!("{FAR}:{port}"), SILENCE).is_some();
        wait_until("the way out", SOON, || goes(7000) && goes(7001));
        w.write(
            "firewall.nft",
            "chain before_forward { ip saddr 192.168.5.0/24 tcp dport 7001 drop; }\n\
             chain before_postrouting { ip daddr 198.51.100.1 tcp dport 7000 accept; }\n\
             chain before_prerouting { iifname \"eth0\" tcp dport 4444 dnat ip to 192.168.5.2:8024; }\n",
        );
        w.apply();
        let count =
            "table ip count { chain c { type filter hook prerouting priority -300; ip saddr 192.168.5.2 counter; }; }";
        w.isp[0].run(&["nft", count]);
        assert!(!goes(7001), "dropped");
        wait_until("with its own address", SOON, || goes(7000));
        let counted = w.isp[0].run(&["nft", "list", "table", "ip", "count"]);
        assert!(!counted.contains("packets 0 "), "{counted}");
        opens(&w, "10.0.0.5:4444");
    });
}

#[test]
fn a_file_with_an_error_is_named_with_its_line_and_its_last_good_content_stays() {
    isolated(&["nft"], |lab| {
        let w = served(lab);
        w.write("firewall.nft", "chain before_input { tcp dport 8022 accept; }\n");
        w.apply();
        opens(&w, "10.0.0.5:8022");
        let runs = count_nft(lab);
        let path = w.dir.join("firewall.nft").display().to_string();
        // nft refuses the word; the kernel refuses the jump; the lexer refuses the brace.
        for (text, place) in [
            ("# two\nchain before_input {\n\ttcp dport 8024 acept\n}\n", ":3:"),
            ("chain before_input {\n\ttcp dport 8024 accept\n\tjump nowhere\n}\n", ":3:"),
            ("chain before_input { type filter hook input priority 0; tcp dport 8024 accept; }\n", ":"),
            ("chain before_input { tcp dport 8024 accept; }\n}\n", ":2: "),
        ] {
            w.write("firewall.nft", text);
            let (code, said) = w.fw("check");
            assert!(code == 1 && said.contains(&format!("error: {path}{place}")), "{said}");
            // All else applies.
            w.write("fw.conf", "ext_open_tcp=\"8023\"\n");
            let (code, said) = w.fw("apply");
            let is_named = said.contains(&format!("{path}{place}")) && said.contains("its last good content is kept");
            assert!(code == 1 && is_named, "{text}: {said}");
            opens(&w, "10.0.0.5:8022");
            opens(&w, "10.0.0.5:8023");
            assert_eq!(from_outside(&w, "10.0.0.5:8024"), None, "{text}");
            // It stays so, is said in each run, and starts no process.
            let (table, before) = (w.nft(), runs());
            assert_eq!(w.fw("apply"), (1, said), "{text}");
            assert_eq!((runs(), w.nft()), (before, table), "{text}");
            w.write("fw.conf", "");
            assert_eq!(w.fw("apply").0, 1);
            assert_eq!(from_outside(&w, "10.0.0.5:8023"), None);
        }
        w.write("firewall.nft", "chain before_input { tcp dport 8024 accept; }\n");
        w.apply();
        opens(&w, "10.0.0.5:8024");
        assert_eq!(from_outside(&w, "10.0.0.5:8022"), None);
        // The next boot: no last good content is there.
        w.write("firewall.nft", "chain before_input { tcp dport 8024 acept; }\n");
        fs::remove_dir_all(w.dir.join("dyn")).unwrap();
        fs::create_dir(w.dir.join("dyn")).unwrap();
        w.lease(0, 3600);
        let (code, said) = w.fw("apply");
        assert!(code == 1 && said.contains(&format!("{path}:1:")) && said.contains("left out"), "{said}");
        assert_eq!((from_outside(&w, "10.0.0.5:8022"), from_outside(&w, "10.0.0.5:8024")), (None, None));
        assert!(w.lan.pings(FAR), "and forwards");
    });
}

#[test]
fn what_packets_change_in_counters_and_sets_is_no_change_of_the_table() {
    isolated(&["nft"], |lab| {
        let w = served(lab);
        w.write(
            "firewall.nft",
            "set seen { type ipv4_addr; flags dynamic; size 64; }\n\
             chain before_input { tcp dport 8022 counter quota 1 mbytes add @seen { ip saddr } accept; }\n",
        );
        w.apply();
        let table = || w.home.run(&["nft", "list", "table", "inet", "netsv"]);
        opens(&w, "10.0.0.5:8022");
        let runs = count_nft(lab);
        let before = table();
        assert!(before.contains("elements = { 198.51.100.1 }") && !before.contains("counter packets 0"), "{before}");
        let listed = runs();
        w.apply();
        assert_eq!((runs(), w.fw("plan")), (listed, (0, String::new())), "no process was started");
        assert!(table().contains("elements = { 198.51.100.1 }"));
        for edit in ["add rule inet netsv before_input drop", "add set inet netsv more { type ipv4_addr; }"] {
            w.home.run(&["nft", edit]);
            assert_eq!(w.fw("plan").0, 2, "{edit}");
            w.apply();
        }
    });
}

#[test]
fn rules_that_are_refused_beside_ours_are_left_out_and_the_firewall_is_there() {
    isolated(&["nft"], |lab| {
        let w = served(lab);
        // This nft takes the rules alone, and refuses them in the table.
        let nft = find_program("nft").unwrap().display().to_string();
        let body = format!(
            "text=$(cat)\ncase $text in *netsv_probe*) ;; *before_input*) echo 'Error: together' >&2; exit 1 ;; esac\n\
             printf '%s\\n' \"$text\" | {nft} \"$@\""
        );
        program(&lab.make_dir("only").join("nft"), &body);
        w.write("firewall.nft", "chain before_input { tcp dport 8022 accept; }\n");
        w.write("fw.conf", "ext_open=\"tcp/8023\"\n");
        let argv = ["env", "PATH=/run/lab/only:/usr/bin:/bin", &fw_path(lab)];
        let output = w.command(&argv, "apply").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let is_named =
            said.contains("firewall.nft: refused together with the rules of fw: nft: Error: together: left out");
        assert!(output.status.code() == Some(1) && is_named, "{said}");
        opens(&w, "10.0.0.5:8023");
        assert_eq!((from_outside(&w, "10.0.0.5:8022"), from_outside(&w, "192.168.5.2:8022")), (None, None));
        assert!(w.lan.pings(FAR), "and forwards");
        w.apply();
        opens(&w, "10.0.0.5:8022");
    });
}

#[test]
fn nothing_in_the_file_reaches_other_tables() {
    isolated(&["nft"], |lab| {
        let w = served(lab);
        w.home.run(&["nft", "table ip mine { chain c { tcp dport 1 drop; }; }"]);
        fs::write(lab.dir().join("more.nft"), "flush ruleset\n").unwrap();
        let before = w.nft();
        for text in [
            "flush ruleset\n",
            "}\nflush ruleset\ntable inet netsv {\n",
            "} ; delete table ip mine ; table inet netsv {\n",
            "include \"/run/lab/more.nft\"\n",
            "chain a {\n}\n}\ntable ip mine { chain d { }\n",
            "chain a { include \"/run/lab/more.nft\"\n}\n",
            "flags dormant\n",
            "chain input { accept; }\n",
            "chain external_input { accept; }\n",
        ] {
            w.write("firewall.nft", text);
            let (code, said) = w.fw("apply");
            assert!(code == 1 && said.contains("firewall.nft:"), "{text}: {said}");
            assert_eq!(w.nft(), before, "{text}");
        }
    });
}

#[test]
fn only_a_regular_file_of_64_kib_is_read() {
    isolated(&["nft", "mkfifo"], |lab| {
        let w = served(lab);
        let path = w.dir.join("firewall.nft");
        w.write("firewall.nft", "chain before_input { tcp dport 8022 accept; }\n");
        w.apply();
        let before = w.nft();
        let fails = |net: &Net| {
            let (code, said) = w.fw("apply");
            assert!(code == 1 && said.contains("firewall.nft"), "{} {said}", net.name());
            assert_eq!(w.nft(), before, "{said}");
        };
        w.write("firewall.nft", &format!("{}\nchain before_input {{ drop; }}\n", "#".repeat(65536)));
        fails(&w.home);
        w.remove("firewall.nft");
        w.home.run(&["mkfifo", path.to_str().unwrap()]);
        fails(&w.home);
        w.remove("firewall.nft");
        symlink("nowhere", &path).unwrap();
        fails(&w.home);
        w.remove("firewall.nft");
        fs::create_dir(&path).unwrap();
        fails(&w.home);
        fs::remove_dir(&path).unwrap();
        // A large file that is good, with rules enough to fill nft's pipe.
        let rules: String =
            (1..1270).map(|port| format!("\ttcp dport {port} counter comment \"a rule of mine\"\n")).collect();
        assert!(rules.len() > 59_000 && rules.len() < 65_000, "{}", rules.len());
        w.write("firewall.nft", &format!("chain mine {{\n{rules}}}\n"));
        w.write(
            "fw.conf",
            &format!("port_forward=\"{}\"\n", (1..300).map(|p| format!("tcp/{p}>192.168.5.2 ")).collect::<String>()),
        );
        w.apply();
        assert!(w.nft().contains("tcp dport 1269 counter"));
    });
}
