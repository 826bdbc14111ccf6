//! What ifplugd does on links that flap and on links that rest.

use super::*;

/// The manual page promises about 30 runs a minute at the most.
const MOST_RUNS: usize = 31;

/// Between 50 and 900 ms, the same in every run of the test.
fn gap(n: u64) -> Duration {
    Duration::from_millis(50 + n * 7919 % 851)
}

#[test]
fn a_link_that_flaps_for_20_s_is_damped_and_the_last_word_is_right() {
    isolated(&["ifplugd"], |lab| {
        let world = World::new(lab);
        let second = lab.cable((&world.home, "eth1"), (&world.isp, "lan1"));
        let told = |name: &str| lab.dir().join(format!("told.{name}"));
        let last = |name: &str| fs::read_to_string(told(name)).unwrap().lines().last().map(str::to_owned);
        let start = |name: &str, argv: &[&str]| {
            let handler = lab.dir().join(format!("handler.{name}"));
            program(&handler, &format!("echo \"$*\" >>{}", told(name).display()));
            fs::write(told(name), "").unwrap();
            world.home.spawn(&[argv, &["-n", "-s", "-u0", "-d0", "-r", handler.to_str().unwrap()]].concat())
        };
        let original = original("ifplugd").unwrap();
        let _theirs = start("theirs", &[original.to_str().unwrap(), "-i", "eth0", "-t1"]);
        let ours = start("eth0", &["ifplugd", "-i", "eth0", "--damp", "3", "--pidfile", ""]);
        let _ours1 = start("eth1", &["ifplugd", "-i", "eth1", "--damp", "3", "--pidfile", ""]);
        for (name, iface) in [("theirs", "eth0"), ("eth0", "eth0"), ("eth1", "eth1")] {
            wait_until("up at the start", PATIENCE, || last(name) == Some(format!("{iface} up")));
        }

        // eth0 ends up, eth1 down.
        let (mut flapped, mut n) = (Duration::ZERO, 0);
        while flapped < Duration::from_secs(20) || n % 2 == 1 {
            if n % 2 == 0 {
                world.cable.pull();
                second.plug();
            } else {
                world.cable.plug();
                second.pull();
            }
            // A pause between two pulls, not a wait for an event.
            assert_eq!(poll_for(gap(n), || None::<()>), None);
            flapped += gap(n);
            n += 1;
        }
        for (name, end) in [("theirs", "eth0 up"), ("eth0", "eth0 up"), ("eth1", "eth1 down")] {
            wait_until(&format!("the last word to {name}: {:?}", last(name)), PATIENCE, || {
                last(name).as_deref() == Some(end)
            });
        }
        ours.wait_log("link is steady again, it is up", PATIENCE);
        for name in ["eth0", "eth1"] {
            let runs = fs::read_to_string(told(name)).unwrap().lines().count();
            assert!(runs <= MOST_RUNS, "{name}: {runs} runs");
        }
        assert_eq!(last("eth0").as_deref(), Some("eth0 up"));
        let count = |what| ours.log().matches(what).count();
        assert_eq!(count("link is flapping"), count("link is steady again"), "{}", ours.log());
        assert!(count("link is flapping") > 0, "{}", ours.log());
    });
}

#[test]
fn without_damping_each_change_is_told() {
    isolated(&[], |lab| {
        let world = World::new(lab);
        let _daemon = world.start("ifplugd", &["-u0", "-d0", "--damp", "0"]);
        let mut want = vec!["eth0 up disabled up"];
        world.wait_told(&want);
        for _ in 0..8 {
            world.cable.pull();
            want.push("eth0 down up down");
            world.wait_told(&want);
            world.cable.plug();
            want.push("eth0 up down up");
            world.wait_told(&want);
        }
    });
}

#[test]
fn while_nothing_happens_it_does_not_wake_up() {
    isolated(&[], |lab| {
        let world = World::new(lab);
        let args = ["-u0", "-d0", "--services", "-r", world.handler.to_str().unwrap(), "-M"];
        let daemon = world.start("ifplugd", &args);
        world.wait_told(&["eth0 up disabled up"]);
        let asleep = |what: &str| {
            wait_asleep(&daemon);
            let before = switches(&daemon);
            holds_for(what, 3 * QUIET, || switches(&daemon) == before);
        };
        asleep("it sleeps while the link is up");
        world.cable.pull();
        world.wait_told(&["eth0 up disabled up", "eth0 down up down"]);
        asleep("and while it is down");
        world.home.ip(&["link", "del", "dev", "eth0"]);
        daemon.wait_log("interface eth0 is gone, waiting for it", PATIENCE);
        asleep("and while there is none");
    });
}
