//! Hooks of fw: which changes they hear, with which environment, and that fw waits for none.

use std::fs;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use testkit::{isolated, kill_9, pids_where, wait_for, wait_until};

use crate::fw::{SOON, World, program};

/// Installs a hook that appends its variables to the file `heard`, in one line.
fn install(w: &World, name: &str, more: &str) {
    fs::create_dir_all(w.dir.join("hooks")).unwrap();
    let line = "$CHANGE if=$IF old=$OLD new=$NEW addresses=$ADDRESSES uplink=$UPLINK search=$SEARCH";
    let body = format!("echo \"${{0##*/}} {line}\" >>{}\n{more}", w.dir.join("heard").display());
    program(&w.dir.join("hooks").join(name), &body);
}

fn heard(w: &World) -> Vec<String> {
    fs::read_to_string(w.dir.join("heard")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The processes that run hooks.
fn runners() -> Vec<i32> {
    pids_where(|argv| {
        argv.first().is_some_and(|program| *program == "fw") && argv.last().is_some_and(|w| *w == "hooks")
    })
}

/// The hooks have heard this many lines, and no hook runs any more.
#[track_caller]
fn wait_heard(w: &World, count: usize) -> Vec<String> {
    wait_until(&format!("{count} lines"), SOON, || heard(w).len() >= count && runners().is_empty());
    let lines = heard(w);
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

#[test]
fn the_hook_for_dynamic_dns_tells_another_uplink_and_another_address() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        let page = include_str!("../../services/README").lines().map(str::trim);
        let lines = page.skip_while(|line| *line != "mkdir -p /var/service/fw/hooks").take(4);
        let wget = w.dir.join("wget");
        program(&wget, &format!("echo \"$*\" >>{}", w.dir.join("heard").display()));
        let script = lines.collect::<Vec<_>>().join("\n").replace("/var/service/fw", w.dir.to_str().unwrap());
        w.home.run(&["sh", "-ec", &script.replace("wget", wget.to_str().unwrap())]);
        let told = |count| wait_heard(&w, count).last().unwrap().rsplit_once("ip=").unwrap().1.to_owned();
        w.lease(0, 3600);
        w.apply();
        assert_eq!(told(2), "10.0.0.5", "by each of the two names");
        w.record("dyn/dhcp_eth0", "if=eth0 ipmask=10.0.0.6/24 gw=10.0.0.1");
        w.apply();
        assert_eq!(told(3), "10.0.0.6");
        w.lease(1, 3600);
        w.apply();
        w.health(0, "down");
        w.apply();
        assert_eq!(told(4), "10.1.0.5");
    });
}

#[test]
fn a_hook_hears_of_the_change_in_its_name_once_with_a_built_environment() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        install(&w, "uplink-ddns", "");
        install(&w, "address.10-wg", "");
        install(&w, "dns", "");
        install(&w, "prefix-radvd", "");
        program(&w.dir.join("hooks/uplink-env"), &format!("env | sort >{}", w.dir.join("env").display()));
        install(&w, ".uplink-hidden", "");
        fs::write(w.dir.join("hooks/README"), "no hook\n").unwrap();
        w.apply();
        let lan = "if=lan0 old= new=192.168.5.1/24 addresses=192.168.5.1 uplink= search=";
        let net = lan.replace("5.1/24", "5.0/24");
        assert_eq!(wait_heard(&w, 2), [format!("address.10-wg address {lan}"), format!("prefix-radvd prefix {net}")]);
        w.apply();
        wait_heard(&w, 2);

        w.lease(0, 3600);
        w.apply();
        let lines = wait_heard(&w, 6);
        assert_eq!(
            lines[2..],
            [
                "address.10-wg address if=eth0 old= new=10.0.0.5/24 addresses=10.0.0.5 uplink=eth0 search=",
                "dns dns if= old= new=192.0.2.0 addresses= uplink=eth0 search=",
                "prefix-radvd prefix if=eth0 old= new=10.0.0.0/24 addresses=10.0.0.5 uplink=eth0 search=",
                "uplink-ddns uplink if=eth0 old= new=eth0 addresses=10.0.0.5 uplink=eth0 search=",
            ]
        );
        let env = fs::read_to_string(w.dir.join("env")).unwrap();
        let names: Vec<&str> = env.lines().filter_map(|line| line.split('=').next()).collect();
        // A shell adds PWD, and some add more.
        let ours = |name: &&&str| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name);
        let expected =
            ["ADDRESSES", "CHANGE", "FW_DYNAMIC", "FW_ETC", "IF", "NEW", "OLD", "PATH", "SEARCH", "SVDIR", "UPLINK"];
        assert_eq!(names.iter().filter(ours).copied().collect::<Vec<_>>(), expected);

        // A failover: the addresses are as before.
        w.lease(1, 3600);
        w.apply();
        wait_heard(&w, 9);
        w.health(0, "down");
        w.apply();
        let lines = wait_heard(&w, 11);
        assert_eq!(
            lines[9],
            "dns dns if= old=192.0.2.0 192.0.2.1 new=192.0.2.1 192.0.2.0 addresses= uplink=eth1 search="
        );
        assert_eq!(lines[10], "uplink-ddns uplink if=eth1 old=eth0 new=eth1 addresses=10.1.0.5 uplink=eth1 search=");
        // A hook that comes later hears of what it finds.
        install(&w, "uplink-later", "exit 3");
        w.apply();
        wait_heard(&w, 12);
        w.apply();
        wait_heard(&w, 12);
        install(&w, "route", "");
        let (code, said) = w.fw("apply");
        assert!(code == 0 && said.contains("hooks/route: the name of a hook begins with one of"), "{said}");
    });
}

#[test]
fn a_hook_hears_of_a_bridge_in_the_run_that_makes_it() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        install(&w, "address", "");
        w.record("conf/lan", "if=br0 bridge=lan0 ipmask=192.168.5.1/24");
        w.apply();
        let lines = wait_heard(&w, 1);
        assert_eq!(lines, ["address address if=br0 old= new=192.168.5.1/24 addresses=192.168.5.1 uplink= search="]);
        w.apply();
        wait_heard(&w, 1);
    });
}

#[test]
fn without_hooks_nothing_is_kept_and_no_process_is_started() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        assert!(!w.dir.join("dyn/.hooks").exists());
    });
}

/// Makes the fifo at which a hook waits.
fn gate(w: &World) -> String {
    let gate = w.dir.join("gate");
    mkfifo(&gate, Mode::S_IRWXU).unwrap();
    format!("read -r word <{}", gate.display())
}

fn open(w: &World) {
    fs::write(w.dir.join("gate"), "go\n").unwrap();
}

#[test]
fn fw_waits_for_no_hook_and_changes_meanwhile_are_heard_together() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.apply();
        let wait = gate(&w);
        install(&w, "uplink-slow", &wait);
        w.lease(0, 3600);
        w.apply();
        wait_until("the hook", SOON, || heard(&w).len() == 1);
        // Its run is over, and the next ones are not delayed either.
        for (lease, gone) in [(1, 0), (0, 1), (1, 0)] {
            w.lease(lease, 3600);
            w.remove(&format!("dyn/dhcp_eth{gone}.ipconf"));
            w.apply();
        }
        wait_until("one process runs hooks", SOON, || runners().len() == 1);
        assert_eq!(heard(&w).len(), 1);
        open(&w);
        wait_until("the hook once more", SOON, || heard(&w).len() == 2);
        assert!(heard(&w)[1].contains("old=eth0 new=eth1"), "{:?}", heard(&w));
        open(&w);
        wait_heard(&w, 2);
    });
}

#[test]
fn a_hook_that_is_killed_half_way_hears_the_change_again() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.apply();
        let wait = gate(&w);
        install(&w, "uplink", &wait);
        w.lease(0, 3600);
        w.apply();
        wait_until("the hook", SOON, || heard(&w).len() == 1);
        let hook = w.dir.join("hooks/uplink");
        let is_hook = |argv: &[&str]| argv.iter().any(|word| Path::new(word) == hook);
        let old = wait_for("its process", SOON, || pids_where(is_hook).first().copied());
        let runner = wait_for("the runner", SOON, || runners().first().copied());
        kill_9(runner);
        kill_9(old);
        wait_until("the end of both", SOON, || pids_where(is_hook).is_empty() && runners().is_empty());
        w.apply();
        wait_until("the hook again", SOON, || heard(&w).len() == 2);
        open(&w);
        assert_eq!(wait_heard(&w, 2)[0], heard(&w)[1]);
        w.apply();
        wait_heard(&w, 2);
    });
}

#[test]
fn a_hook_that_hangs_is_killed_with_its_children_and_the_next_one_runs() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.apply();
        install(&w, "uplink-a", "sleep 1000 & sleep 1000");
        install(&w, "uplink-b", "");
        w.lease(0, 3600);
        let log = w.dir.join("log");
        let output = fs::File::create(&log).unwrap();
        // A file is kept for the words of hooks, a pipe is not.
        let status = w.command(&["fw"], "apply").env("FW_HOOK_SECS", "1").stderr(output).status().unwrap();
        assert!(status.success());
        wait_heard(&w, 2);
        let said = fs::read_to_string(&log).unwrap();
        assert_eq!(said, "fw: hook uplink-a: killed: it ran for 1 seconds\n");
        assert!(pids_where(|argv| argv == ["sleep", "1000"]).is_empty());
        w.apply();
        wait_heard(&w, 2);
    });
}

#[test]
fn a_run_that_is_killed_at_any_moment_loses_no_change_for_its_hooks() {
    isolated(&["nft", "timeout"], |lab| {
        let w = World::new(lab);
        install(&w, "uplink", "");
        w.apply();
        for n in 1..=20 {
            w.lease(n % 2, 3600);
            let _ = fs::remove_file(w.dir.join(format!("dyn/dhcp_eth{}.ipconf", (n + 1) % 2)));
            let limit = format!("0.{:03}", n * 4);
            let _ = w.command(&["timeout", "-s", "KILL", &limit, "fw"], "apply").output().unwrap();
        }
        let (code, said) = w.fw("apply");
        assert_eq!(code, 0, "{said}");
        assert_eq!(w.home.default_routes()[0].0, "eth0");
        wait_until("the last change", SOON, || {
            runners().is_empty() && heard(&w).last().is_some_and(|line| line.contains(" new=eth0 "))
        });
        let lines = heard(&w);
        // Each hook hears the change from the state that the one before has heard.
        let value = |line: &str, name: &str| {
            line.split(' ').find_map(|word| word.strip_prefix(name).map(str::to_owned)).unwrap()
        };
        for pair in lines.windows(2) {
            assert_eq!(value(&pair[0], "new="), value(&pair[1], "old="), "{lines:?}");
        }
        w.apply();
        wait_heard(&w, lines.len());
    });
}
