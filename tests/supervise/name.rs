//! RUNSV_NAME, by which a script learns the name of its service.

use std::os::unix::fs::symlink;

use crate::subject::{World, ours, with_runsv};

/// Each script writes its own kind and its RUNSV_NAME into a file beside the services.
fn tell(world: &World, script: &str, what: &str, then: &str) {
    let told = world.at("told");
    world.script(script, &format!("echo {what} $RUNSV_NAME >>{}\n{then}", told.display()));
}

fn told(world: &World, what: &str) -> Vec<String> {
    let words = |line: String| line.strip_prefix(what).map(|name| name.trim().to_owned());
    world.lines("told").into_iter().filter_map(words).collect()
}

#[test]
fn every_script_of_a_service_learns_the_name_that_it_was_called_by() {
    ours(|world| {
        tell(world, "template/run", "run", "exec sleep 1000");
        tell(world, "template/finish", "finish", "");
        tell(world, "template/check", "check", "");
        tell(world, "template/control/u", "control", "");
        tell(world, "template/log/run", "log", "exec cat >/dev/null");
        symlink("template", world.at("dhcp_eth0")).unwrap();
        let _runsv = world.runsv("dhcp_eth0");
        world.wait_stat("dhcp_eth0", "run");
        assert_eq!(world.sv("check dhcp_eth0").0, 0);
        world.control("dhcp_eth0", "d");
        world.wait_stat("dhcp_eth0", "down");
        for what in ["run", "finish", "check", "control", "log"] {
            world.wait(what, || told(world, what) == ["dhcp_eth0"]);
        }
    });
}

#[test]
fn a_path_gives_its_last_component_and_a_dot_the_directorys_own() {
    with_runsv(|world| {
        tell(world, "a/run", "run", "exec sleep 1000");
        for (count, path) in [(1, world.at("a/")), (2, ".".into())] {
            let mut command = world.command("runsv", &[path.to_str().unwrap()]);
            // runsv does not pass on a name that it finds in its own environment.
            command.current_dir(world.at("a")).env("RUNSV_NAME", "outer");
            let mut runsv = command.spawn().unwrap();
            world.wait("the name", || told(world, "run").len() == count);
            world.wait_stat("a", "run");
            world.control("a", "x");
            assert!(runsv.wait().unwrap().success());
        }
        assert_eq!(told(world, "run"), ["a", "a"]);
    });
}
