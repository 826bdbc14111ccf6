//! `fw apply --confirm`: an edit without a confirmation is rolled back, whatever happens meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]
#![expect(clippy::disallowed_methods, reason = "mounts, and measures a session")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::{Lab, Proc, isolated, poll_for, wait_until};

use crate::fw::{SOON, World, service_by};

/// Longer than the longest deadline of these tests.
const LATER: Duration = Duration::from_secs(12);

const OLD: &str = "extif=\"eth0\"\next_open_tcp=\"22\"\n";
const NEW: &str = "extif=\"eth0\"\next_open_tcp=\"22 80\"\n";

const OLD_RULES: &str = "chain before_input {\n\ttcp dport 2222 accept\n}\n";
const NEW_RULES: &str = "chain before_input {\n\ttcp dport 3333 accept\n}\n";

fn fw(w: &World, words: &[&str]) -> (i32, String) {
    let (last, first) = words.split_last().unwrap();
    let output = w.command(&[&["fw"], first].concat(), last).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// A world whose records were applied, and an edit that takes the LAN's address away.
fn edited(lab: &Lab) -> World {
    let w = World::new(lab);
    w.write("fw.conf", OLD);
    w.write("firewall.nft", OLD_RULES);
    w.apply();
    edit(&w);
    w
}

fn edit(w: &World) {
    w.record("conf/lan", "if=lan0 ipmask=192.168.77.1/24");
    w.record("conf/more", "if=eth1 ipmask=10.8.0.1/24");
    w.write("fw.conf", NEW);
    w.write("firewall.nft", NEW_RULES);
}

/// `fw apply --confirm SECS` without a supervisor: it stays.
fn attempt(w: &World, secs: &str) -> Proc {
    let fw = w.home.spawn_command("fw", w.command(&["fw", "apply", "--confirm"], secs));
    fw.wait_log("unless it is confirmed: fw confirm", SOON);
    assert_eq!(w.home.addresses("lan0"), ["192.168.77.1/24"]);
    fw
}

fn is_restored(w: &World) -> bool {
    w.home.addresses("lan0") == ["192.168.5.1/24"]
}

/// The old files are there and applied, and the edit is kept.
#[track_caller]
fn assert_rolled_back(w: &World) {
    assert!(is_restored(w));
    let file = |name: &str| fs::read_to_string(w.dir.join(name)).unwrap_or_default();
    assert!(file("conf/lan.ipconf").contains("192.168.5.1/24"));
    assert_eq!((file("fw.conf").as_str(), file("firewall.nft").as_str()), (OLD, OLD_RULES));
    assert!(w.nft().contains("dport 2222 ") && !w.nft().contains("dport 3333 "), "{}", w.nft());
    assert!(!w.dir.join("conf/more.ipconf").exists());
    assert!(w.nft().contains("dport 22 ") && !w.nft().contains("dport 80 "), "{}", w.nft());
    let kept: Vec<_> = fs::read_dir(w.dir.join("rejected")).unwrap().flatten().collect();
    let date = kept[0].file_name().into_string().unwrap();
    assert!(date.starts_with("20") && date.ends_with('Z') && kept.len() == 1, "{kept:?}");
    let rejected = |name: &str| file(&format!("rejected/{date}/{name}"));
    assert!(rejected("conf/lan.ipconf").contains("192.168.77.1/24"));
    assert!(rejected("conf/more.ipconf").contains("10.8.0.1/24"));
    assert_eq!((rejected("fw.conf").as_str(), rejected("firewall.nft").as_str()), (NEW, NEW_RULES));
    assert_settled(w);
    assert_eq!(w.fw("plan"), (0, String::new()));
}

#[track_caller]
fn assert_settled(w: &World) {
    for name in [".confirm", ".confirmed", "again"] {
        assert!(!w.dir.join(name).exists(), "{name}");
    }
}

/// Sends back what comes, as a shell does behind sshd.
fn echo(listener: TcpListener) {
    std::thread::spawn(move || {
        let (mut session, _) = listener.accept().unwrap();
        let mut bytes = [0; 64];
        while let Ok(n @ 1..) = session.read(&mut bytes) {
            session.write_all(&bytes[..n]).unwrap();
        }
    });
}

/// Whether bytes go there and back.
fn flows(session: &mut TcpStream) -> bool {
    session.write_all(b"x").is_ok() && session.read_exact(&mut [0]).is_ok()
}

#[test]
fn an_edit_that_cuts_the_administrator_off_comes_back_and_his_session_goes_on() {
    isolated(&["nft"], |lab| {
        let w = edited(lab);
        echo(w.home.within(|| TcpListener::bind("192.168.5.1:22").unwrap()));
        let mut session = w.lan.within(|| TcpStream::connect("192.168.5.1:22").unwrap());
        session.set_nodelay(true).unwrap();
        assert!(flows(&mut session));
        session.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut fw = attempt(&w, "3");
        // The terminal is lost with the session.
        fw.signal(Signal::SIGHUP);
        assert!(!flows(&mut session), "cut off");
        let status = fw.wait(LATER).unwrap();
        assert_eq!(status.code(), Some(1), "{}", fw.log());
        assert!(fw.log().contains("was not confirmed in time: rolled back: it is in "), "{}", fw.log());
        assert!(fw.log().contains("rolled back: the kernel has all of it again"), "{}", fw.log());
        // What was sent into the dark comes, too.
        session.set_read_timeout(Some(SOON)).unwrap();
        assert!(session.read_exact(&mut [0]).is_ok() && flows(&mut session));
        assert_rolled_back(&w);
    });
}

#[test]
fn an_edit_that_is_confirmed_stays() {
    isolated(&["nft"], |lab| {
        let w = edited(lab);
        assert_eq!(fw(&w, &["confirm"]), (1, "fw: error: no edit waits for its confirmation\n".into()));
        let mut waiting = attempt(&w, "60");
        assert_eq!(fw(&w, &["show"]).1.matches("fw confirm keeps the edit").count(), 1);
        let (code, text) = fw(&w, &["down", "--yes"]);
        assert!(code == 111 && text.contains("waits for its confirmation"), "{text}");
        // A trigger in between works as usual. The lease makes an uplink of a static interface.
        w.lease(1, 3600);
        let (code, text) = w.fw("apply");
        assert!(code == 0 && text.starts_with("fw: eth1 is outside now: "), "{code} {text}");
        assert_eq!(w.home.default_routes().len(), 1);
        assert_eq!(fw(&w, &["confirm"]), (0, String::new()));
        assert_eq!(waiting.wait(SOON).unwrap().code(), Some(0), "{}", waiting.log());
        w.apply();
        assert_eq!(w.home.addresses("lan0"), ["192.168.77.1/24"]);
        assert!(!w.dir.join("rejected").exists());
        assert_settled(&w);
    });
}

#[test]
fn after_a_kill_the_next_run_after_the_deadline_rolls_back() {
    isolated(&["nft"], |lab| {
        let w = edited(lab);
        attempt(&w, "1").signal(Signal::SIGKILL);
        let rolled = poll_for(LATER, || Some(w.fw("apply")).filter(|(code, _)| *code == 1));
        let (_, text) = rolled.expect("a run that rolls back");
        assert!(text.contains("was not confirmed in time: rolled back"), "{text}");
        assert_rolled_back(&w);
        let (code, text) = fw(&w, &["confirm"]);
        assert_eq!((code, text.contains("no edit waits")), (1, true), "{text}");
    });
}

#[test]
fn after_a_boot_the_first_run_rolls_back() {
    isolated(&["nft", "mount"], |lab| {
        let w = edited(lab);
        attempt(&w, "3600").signal(Signal::SIGKILL);
        // What a boot changes: its id, and everything in /run.
        fs::write("/run/lab/boot_id", "12345678-0000-4000-8000-000000000000\n").unwrap();
        let argv = ["--bind", "/run/lab/boot_id", "/proc/sys/kernel/random/boot_id"];
        assert!(Command::new("mount").args(argv).status().unwrap().success());
        fs::remove_dir_all(w.dir.join("dyn")).unwrap();
        w.home.ip(&["address", "flush", "dev", "lan0"]);
        w.home.run(&["nft", "flush ruleset"]);
        let (code, text) = w.fw("apply");
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("was not confirmed before the machine started again: rolled back"), "{text}");
        assert_rolled_back(&w);
    });
}

#[test]
fn killed_anywhere_in_the_rollback_the_next_run_ends_it_and_no_word_of_the_edit_is_lost() {
    isolated(&["nft"], |lab| {
        let w = edited(lab);
        attempt(&w, "1").signal(Signal::SIGKILL);
        // The deadline has passed when the first file has changed.
        wait_until("a rollback that begins", LATER, || {
            let fw = w.home.spawn_command("fw", w.command(&["fw"], "apply"));
            let has_begun = poll_for(Duration::from_millis(40), || w.dir.join("rejected").exists().then_some(()));
            fw.signal(Signal::SIGKILL);
            has_begun.is_some()
        });
        let (_, text) = w.fw("apply");
        assert!(is_restored(&w), "{text}");
        let words = w.home.run(&["sh", "-c", &format!("cat {}/rejected/*/conf/*", w.dir.display())]);
        assert!(words.contains("192.168.77.1/24") && words.contains("10.8.0.1/24"), "{words}");
        assert_settled(&w);
    });
}

#[test]
fn a_second_attempt_begins_a_new_deadline_and_what_comes_back_is_what_was_confirmed() {
    isolated(&["nft"], |lab| {
        let w = edited(lab);
        let mut first = attempt(&w, "3600");
        w.record("conf/more", "if=eth1 ipmask=10.9.0.1/24");
        let second = attempt(&w, "60");
        assert_eq!(w.home.addresses("eth1"), ["10.9.0.1/24"]);
        // INT to the one that waits in the foreground: back at once.
        second.signal(Signal::SIGINT);
        let mut second = second;
        assert_eq!(second.wait(SOON).unwrap().code(), Some(1));
        assert!(second.log().contains("the edit was given up: rolled back"), "{}", second.log());
        assert!(first.wait(SOON).is_some(), "{}", first.log());
        assert!(is_restored(&w) && w.home.addresses("eth1").is_empty());
        assert_settled(&w);
    });
}

#[test]
fn without_a_place_for_the_mark_nothing_is_applied() {
    isolated(&["nft", "mount"], |lab| {
        let w = edited(lab);
        let dir = w.dir.to_str().unwrap();
        for argv in [&["--bind", dir, dir][..], &["-o", "remount,bind,ro", dir]] {
            assert!(Command::new("mount").args(argv).status().unwrap().success());
        }
        let dynamic = lab.make_dir("dynamic");
        let mut command = w.command(&["fw", "apply", "--confirm"], "60");
        let output = command.env("FW_DYNAMIC", dynamic).output().unwrap();
        assert_eq!(output.status.code(), Some(111), "{output:?}");
        assert!(is_restored(&w));
    });
}

/// services/fw under our runsv, with the old content applied and the edit in place.
fn supervised(lab: &Lab) -> (World, Proc, impl Fn(&[&str]) -> Output) {
    let w = World::new(lab);
    w.write("fw.conf", OLD);
    let (runsv, run) = service_by(&w, lab, &|_| env!("CARGO_BIN_EXE_netsv").into());
    wait_until("the first run", SOON, || is_restored(&w));
    let home = World { dir: lab.dir().join("service/fw"), ..w };
    home.write("fw.conf", OLD);
    home.write("firewall.nft", OLD_RULES);
    assert!(run(&["sv", "up", "fw"]).status.success());
    wait_until("the policy", SOON, || home.nft().contains("dport 22 "));
    edit(&home);
    (home, runsv, run)
}

#[test]
fn under_the_supervisor_it_returns_at_once_and_comes_back_though_everything_is_killed() {
    isolated(&["nft"], |lab| {
        let (w, runsv, run) = supervised(lab);
        let by_hand = |words: &str| run(&["sh", "-c", &format!("cd /run/lab/service/fw && fw {words}")]);
        let output = by_hand("apply --confirm 4");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && text.contains("unless it is confirmed"), "{text}");
        assert_eq!(w.home.addresses("lan0"), ["192.168.77.1/24"]);
        // A trigger in between leaves it as it is, and so do the deaths of runsv and of fw.
        assert!(run(&["fw", "publish", "dhcp_eth1", "if=eth1", "ipmask=10.1.0.5/24"]).status.success());
        wait_until("the lease", SOON, || w.home.addresses("eth1").contains(&"10.1.0.5/24".to_owned()));
        assert_eq!(w.home.addresses("lan0"), ["192.168.77.1/24"]);
        runsv.signal(Signal::SIGKILL);
        drop(runsv);
        let _next = w.home.spawn_command("runsv", {
            let mut command =
                w.home.command(&["env", "PATH=/run/lab/only:/usr/bin:/bin:/usr/sbin", "runsv", "/run/lab/service/fw"]);
            let dynamic = lab.dir().join("fw/dyn");
            command
                .env("FW_DYNAMIC", dynamic)
                .env("FW_ETC", lab.dir().join("fw/etc"))
                .env("LOG_DIR", lab.dir().join("fw/log"));
            command
        });
        wait_until("the old content", LATER, || is_restored(&w) && !w.dir.join(".confirm").exists());
        wait_until("its end", SOON, || !w.dir.join("again").exists());
        let kept = w.home.run(&["sh", "-c", "cat /run/lab/service/fw/rejected/*/conf/lan.ipconf"]);
        assert!(kept.contains("192.168.77.1/24"), "{kept}");
        assert_eq!(w.home.addresses("eth1"), ["10.1.0.5/24"], "a lease is no edit");
    });
}

#[test]
fn under_the_supervisor_a_confirmed_edit_stays_and_nothing_runs_at_the_deadline() {
    isolated(&["nft"], |lab| {
        let (w, _runsv, run) = supervised(lab);
        let by_hand = |words: &str| run(&["sh", "-c", &format!("cd /run/lab/service/fw && fw {words}")]);
        assert!(by_hand("apply --confirm 3600").status.success());
        assert!(
            fs::read_to_string(w.dir.join("again"))
                .unwrap()
                .ends_with(&fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap())
        );
        let output = by_hand("confirm");
        assert!(output.status.success(), "{output:?}");
        assert_settled(&w);
        assert!(run(&["sv", "up", "fw"]).status.success());
        wait_until("a run", SOON, || {
            String::from_utf8_lossy(&run(&["sv", "status", "fw"]).stdout).starts_with("down: ")
        });
        assert_eq!(w.home.addresses("lan0"), ["192.168.77.1/24"]);
    });
}
