//! The scripts of services/, and how ifplugd keeps the services of a link, under Debian's runit
//! first and then under ours.

#![expect(clippy::disallowed_methods, reason = "copies service directories with cp -a")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::{Lab, Net, Proc, find_program, holds_for, is_running, isolated, kill_9, poll_for, wait_for, wait_until};

use crate::ours;

/// Longer than any step takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// For "nothing happens".
const QUIET: Duration = Duration::from_millis(700);
/// Debian's supervisor.
pub(crate) const RUNIT: [&str; 5] = ["runsvdir", "runsv", "sv", "svlogd", "chpst"];

/// Service directories under a supervisor, with their own records and logs.
pub(crate) struct House {
    net: Net,
    dir: PathBuf,
    init: Option<Proc>,
}

impl House {
    /// Makes a house that is not started yet. `bin` comes first in PATH.
    pub(crate) fn new(lab: &Lab, net: &Net, name: &str) -> House {
        let dir = lab.make_dir(name);
        for sub in ["service", "dynamic", "log"] {
            fs::create_dir(dir.join(sub)).unwrap();
        }
        House { net: net.clone(), dir, init: None }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.join(below)
    }

    pub(crate) fn service(&self, below: &str) -> PathBuf {
        self.path("service").join(below)
    }

    pub(crate) fn command(&self, argv: &[&str]) -> Command {
        let mut command = self.net.command(argv);
        command.env("SVDIR", self.path("service")).env("FW_DYNAMIC", self.path("dynamic"));
        command.env("LOG_DIR", self.path("log"));
        command
    }

    pub(crate) fn start(&mut self) {
        self.start_under(&[]);
    }

    /// Starts the supervisor with this option.
    pub(crate) fn start_with(&mut self, option: &str) {
        let command = self.command(&["runsvdir", option, self.path("service").to_str().unwrap()]);
        self.init = Some(self.net.spawn_command("runsvdir", command));
    }

    /// Starts the supervisor through another program, such as setpriv(1).
    pub(crate) fn start_under(&mut self, other: &[&str]) {
        let service = self.path("service");
        let command = self.command(&[other, &["runsvdir", service.to_str().unwrap()]].concat());
        self.init = Some(self.net.spawn_command("runsvdir", command));
    }

    pub(crate) fn spawn(&self, argv: &[&str]) -> Proc {
        self.net.spawn_command(argv[0], self.command(argv))
    }

    #[track_caller]
    pub(crate) fn sv(&self, argv: &[&str]) {
        let output = self.command(&[&["sv"], argv].concat()).output().unwrap();
        assert!(output.status.success(), "sv {argv:?}: {output:?}");
    }

    /// Adds a service whose ./run is this shell script.
    pub(crate) fn add(&self, name: &str, body: &str) {
        fs::create_dir(self.service(name)).unwrap();
        script(&self.service(name).join("run"), body);
    }

    /// Adds a stand-in for fw that counts its runs. It ends only when runsv has read its `o`: runit
    /// looks for ended children before it reads the fifo, and would otherwise start fw once more.
    pub(crate) fn add_fw(&self) {
        fs::create_dir(self.service("fw")).unwrap();
        self.add_fw_to("fw");
    }

    /// Puts the same ./run into a service that is there.
    pub(crate) fn add_fw_to(&self, name: &str) {
        let body = "sv o .\nuntil grep -q 'want down' supervise/stat; do sleep 0.01; done\necho run >>";
        script(&self.service(name).join("run"), &format!("{body}{}", self.path("fw.runs").display()));
    }

    pub(crate) fn fw_runs(&self) -> usize {
        fs::read_to_string(self.path("fw.runs")).unwrap_or_default().lines().count()
    }

    /// At the start runsv runs fw once by itself.
    #[track_caller]
    pub(crate) fn wait_first_fw(&self) {
        wait_until("the first run of fw", PATIENCE, || self.fw_runs() == 1);
        self.wait_down("fw");
    }

    /// Copies a directory of services/, as services/README says.
    pub(crate) fn copy(&self, model: &str, name: &str) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("services").join(model);
        let done = Command::new("cp")
            .args(["-a", "--no-preserve=ownership"])
            .arg(from)
            .arg(self.service(name))
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Sets a knob for one service.
    pub(crate) fn knob(&self, name: &str, knob: &str, value: &str) {
        let env = self.service(name).join("env");
        fs::create_dir_all(&env).unwrap();
        fs::write(env.join(knob), value).unwrap();
    }

    /// The output of the supervisor and of the services without a log.
    pub(crate) fn said(&self) -> String {
        self.init.as_ref().map(Proc::log).unwrap_or_default()
    }

    /// The process id of a service's ./run while it runs.
    pub(crate) fn pid(&self, name: &str) -> Option<i32> {
        let stat = fs::read_to_string(self.service(name).join("supervise/stat")).unwrap_or_default();
        let pid = fs::read_to_string(self.service(name).join("supervise/pid")).ok()?.trim().parse().ok()?;
        (stat.starts_with("run") && is_running(pid)).then_some(pid)
    }

    #[track_caller]
    pub(crate) fn wait_pid(&self, name: &str) -> i32 {
        wait_for(&format!("{name} is up"), PATIENCE, || self.pid(name))
    }

    #[track_caller]
    pub(crate) fn wait_down(&self, name: &str) {
        wait_until(&format!("{name} is down"), PATIENCE, || {
            fs::read_to_string(self.service(name).join("supervise/stat")).is_ok_and(|s| s.starts_with("down"))
        });
    }

    /// The content of supervise/stat.
    pub(crate) fn stat(&self, name: &str) -> String {
        fs::read_to_string(self.service(name).join("supervise/stat")).unwrap_or_default()
    }

    /// What the service has logged.
    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path("log").join(name).join("current")).unwrap_or_default()
    }

    pub(crate) fn record(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path("dynamic").join(format!("{name}.ipconf"))).ok()
    }

    fn health(&self) -> Option<&'static str> {
        let text = self.record("link_eth0")?;
        ["up", "down"].into_iter().find(|h| text.lines().any(|l| l == format!("health[$cfg]='{h}'")))
    }

    #[track_caller]
    fn wait_health(&self, health: Option<&str>) {
        wait_until(&format!("health {health:?}"), PATIENCE, || self.health() == health);
    }
}

impl Drop for House {
    /// HUP makes runsvdir end its services (runit(8)). Otherwise they would outlive their part of
    /// the test.
    fn drop(&mut self) {
        if let Some(init) = &mut self.init {
            init.signal(Signal::SIGHUP);
            init.wait(PATIENCE);
        }
    }
}

pub(crate) fn script(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs `test` with Debian's programs, then with ours, each in its own directory.
pub(crate) fn under_both(lab: &Lab, net: &Net, test: impl Fn(&mut House)) {
    for name in ["runit", "ours"] {
        ours(lab);
        if name == "runit" {
            for program in RUNIT {
                let link = lab.dir().join("bin").join(program);
                fs::remove_file(&link).unwrap();
                symlink(find_program(program).unwrap(), &link).unwrap();
            }
        }
        test(&mut House::new(lab, net, name));
    }
}

#[test]
fn a_lost_link_is_told_to_fw_at_once_and_to_its_services_after_the_delay() {
    isolated(&RUNIT, |lab| {
        let (home, isp) = (lab.net("home"), lab.net("isp"));
        let cable = lab.cable((&home, "eth0"), (&isp, "lan"));
        under_both(lab, &home, |house| {
            house.add("dhcp_eth0", "exec sleep 1000");
            house.add_fw();
            house.start();
            let client = house.wait_pid("dhcp_eth0");
            house.wait_first_fw();
            let dynamic = house.path("dynamic");
            let argv = ["ifplugd", "-nsi", "eth0", "--services", "-u0.6", "-d0.6", "--pidfile", ""];
            let argv = [&argv[..], &["--ipconf", dynamic.to_str().unwrap()]].concat();

            // At the start ifplugd leaves correct services alone.
            let before = house.fw_runs();
            let watcher = house.spawn(&argv);
            house.wait_health(Some("up"));
            wait_until("fw has run", PATIENCE, || house.fw_runs() > before);
            assert_eq!(house.pid("dhcp_eth0"), Some(client));
            assert!(!watcher.log().contains("zcip"), "a service that is not installed is not missed");

            // Pulled: fw is told at once, the services go down after the delay.
            let before = house.fw_runs();
            cable.pull();
            house.wait_health(Some("down"));
            assert_eq!(house.pid("dhcp_eth0"), Some(client), "the lease still stands");
            wait_until("fw has run", PATIENCE, || house.fw_runs() > before);
            house.wait_down("dhcp_eth0");

            // Plugged: the hold-down, then both.
            let before = house.fw_runs();
            cable.plug();
            watcher.wait_log("link is up\nifplugd: eth0: link is down\nifplugd: eth0: link is up", PATIENCE);
            assert_eq!(house.health(), Some("down"), "not before the delay");
            house.wait_health(Some("up"));
            wait_until("fw has run", PATIENCE, || house.fw_runs() > before);
            let client = house.wait_pid("dhcp_eth0");

            // A short loss of the link: fw demotes and restores it, and the client does not notice.
            cable.pull();
            house.wait_health(Some("down"));
            cable.plug();
            house.wait_health(Some("up"));
            assert_eq!(house.pid("dhcp_eth0"), Some(client));

            // A killed ifplugd leaves its record. The next one sees what happened in the meantime.
            watcher.signal(Signal::SIGKILL);
            drop(watcher);
            assert_eq!(house.health(), Some("up"));
            let watcher = house.spawn(&argv);
            watcher.wait_log("link is up", PATIENCE);
            holds_for("the client is not bounced", QUIET, || house.pid("dhcp_eth0") == Some(client));
            watcher.signal(Signal::SIGKILL);
            drop(watcher);
            cable.pull();
            let watcher = house.spawn(&argv);
            house.wait_health(Some("down"));
            house.wait_down("dhcp_eth0");

            // A stopped ifplugd removes its record and leaves the services as they are.
            cable.plug();
            house.wait_health(Some("up"));
            let client = house.wait_pid("dhcp_eth0");
            assert_eq!(watcher.stop().code(), Some(0));
            assert_eq!(house.health(), None);
            holds_for("the client goes on", QUIET, || house.pid("dhcp_eth0") == Some(client));
        });
    });
}

#[test]
fn services_of_an_interface_that_does_not_exist_yet() {
    isolated(&RUNIT, |lab| {
        let (home, isp) = (lab.net("home"), lab.net("isp"));
        under_both(lab, &home, |house| {
            house.add("dhcp_eth0", "exec sleep 1000");
            house.copy("ifplugd_if", "ifplugd_eth0");
            fs::create_dir(house.service("ifplugd_eth0/env")).unwrap();
            for (name, value) in [("IFPLUGD_UP", "0"), ("IFPLUGD_DOWN", "0.2")] {
                fs::write(house.service("ifplugd_eth0/env").join(name), value).unwrap();
            }
            house.start();
            house.wait_health(Some("down"));
            house.wait_down("dhcp_eth0");
            let watcher = house.wait_pid("ifplugd_eth0");
            lab.cable((&home, "eth0"), (&isp, "lan"));
            house.wait_health(Some("up"));
            house.wait_pid("dhcp_eth0");
            home.ip(&["link", "del", "dev", "eth0"]);
            house.wait_health(Some("down"));
            house.wait_down("dhcp_eth0");
            assert_eq!(house.pid("ifplugd_eth0"), Some(watcher), "one watcher saw it all");
            let log = fs::read_to_string(house.path("log/ifplugd_eth0/current")).unwrap();
            assert!(log.contains("no such interface: eth0, waiting for it"), "{log}");

            // ifplugd is killed while it should go down: ./finish removes the record in its place.
            house.sv(&["-w10", "force-stop", "ifplugd_eth0"]);
            house.wait_health(None);
            // ifplugd is killed by accident: the record stays, and the next ifplugd looks again.
            house.sv(&["up", "ifplugd_eth0"]);
            house.wait_health(Some("down"));
            let watcher = house.wait_pid("ifplugd_eth0");
            kill(Pid::from_raw(watcher), Signal::SIGKILL).unwrap();
            wait_until("another watcher", PATIENCE, || house.pid("ifplugd_eth0").is_some_and(|p| p != watcher));
            assert_eq!(house.health(), Some("down"));
        });
    });
}

#[test]
fn a_watcher_that_is_killed_at_any_moment_heals() {
    isolated(&RUNIT, |lab| {
        let (home, isp) = (lab.net("home"), lab.net("isp"));
        let cable = lab.cable((&home, "eth0"), (&isp, "lan"));
        under_both(lab, &home, |house| {
            house.add("dhcp_eth0", "exec sleep 1000");
            house.copy("ifplugd_if", "ifplugd_eth0");
            fs::create_dir(house.service("ifplugd_eth0/env")).unwrap();
            for (name, value) in [("IFPLUGD_UP", "50ms"), ("IFPLUGD_DOWN", "50ms")] {
                fs::write(house.service("ifplugd_eth0/env").join(name), value).unwrap();
            }
            house.start();
            house.wait_health(Some("up"));
            // The kills hit the start, before and after the first look, the delay, and the moment
            // between record and services.
            let mut killed = 0;
            for round in 0..7 {
                let next = || house.pid("ifplugd_eth0").filter(|pid| *pid != killed);
                wait_for("a watcher", PATIENCE, next);
                if round % 2 == 0 {
                    cable.pull()
                } else {
                    cable.plug()
                }
                // A random moment of ifplugd's life, not a wait for an event.
                assert_eq!(poll_for(Duration::from_millis(round * 37 % 110), || None::<()>), None);
                // `kill_9` says whether the process was there: a pid may be read just before the
                // process ends.
                killed = wait_for("one to kill", PATIENCE, || next().filter(|pid| kill_9(*pid)));
                let (health, up) = if round % 2 == 0 { ("down", false) } else { ("up", true) };
                if round % 3 == 0 {
                    house.wait_health(Some(health));
                    wait_until("the client follows", PATIENCE, || house.pid("dhcp_eth0").is_some() == up);
                }
            }
            cable.pull();
            house.wait_health(Some("down"));
            house.wait_down("dhcp_eth0");
            cable.plug();
            house.wait_health(Some("up"));
            house.wait_pid("dhcp_eth0");
        });
    });
}

/// A client that writes down its command line, publishes a record, and does not withdraw it.
fn fake_client(house: &House) -> PathBuf {
    let path = house.path("client");
    let body = format!(
        "echo \"$*\" >>{calls}; echo hello from the client; touch $FW_DYNAMIC/dhcp_my_lan0.ipconf; exec sleep 1000",
        calls = house.path("calls").display()
    );
    script(&path, &body);
    path
}

#[test]
fn dhcp_if_takes_its_interface_from_its_name_and_withdraws_only_when_taken_down() {
    isolated(&RUNIT, |lab| {
        let home = lab.net("home");
        under_both(lab, &home, |house| {
            let client = fake_client(house);
            house.add_fw();
            house.copy("dhcp_if", "dhcp_my_lan0");
            fs::create_dir(house.service("dhcp_my_lan0/env")).unwrap();
            let set = |name, value: &str| fs::write(house.service("dhcp_my_lan0/env").join(name), value).unwrap();
            set("UDHCPC", client.to_str().unwrap());
            // The shell must not expand the `*`: ./run would match it.
            set("UDHCPC_ARGS", "-x hostname:bbox --env r*");
            house.start();
            house.wait_first_fw();
            let pid = house.wait_pid("dhcp_my_lan0");
            let calls = || fs::read_to_string(house.path("calls")).unwrap_or_default();
            let line =
                format!("-f -i my_lan0 --ipconf {} -x hostname:bbox --env r*\n", house.path("dynamic").display());
            wait_until("the call", PATIENCE, || calls() == line);
            let log = house.path("log/dhcp_my_lan0/current");
            wait_until("the log", PATIENCE, || fs::read_to_string(&log).is_ok_and(|t| t.contains("hello from")));

            // After a crash the lease's record stays.
            let record = || house.record("dhcp_my_lan0").is_some();
            wait_until("the record", PATIENCE, record);
            let runs = house.fw_runs();
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            wait_until("started again", PATIENCE, || {
                assert!(record(), "kept");
                calls() == line.repeat(2)
            });
            assert_eq!(house.fw_runs(), runs);

            // When the client is taken down the record goes, and fw is told.
            house.sv(&["-w10", "down", "dhcp_my_lan0"]);
            wait_until("withdrawn", PATIENCE, || !record());
            wait_until("fw has run", PATIENCE, || house.fw_runs() > runs);

            // With a handler of the user's own.
            script(&house.service("dhcp_my_lan0/dhcp_handler"), "");
            fs::remove_file(house.path("calls")).unwrap();
            house.sv(&["up", "dhcp_my_lan0"]);
            wait_until("the call", PATIENCE, || {
                calls() == "-f -i my_lan0 -s ./dhcp_handler -x hostname:bbox --env r*\n"
            });
        });
    });
}

/// The template dhcp_if in `models`, with a fake client. The `house` itself is empty.
fn template(house: &House) -> PathBuf {
    let client = fake_client(house);
    let models = house.path("models");
    fs::create_dir(&models).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/dhcp_if");
    let mut copy = Command::new("cp");
    copy.args(["-a", "--no-preserve=ownership"]).arg(from).arg(&models);
    assert!(copy.status().unwrap().success());
    fs::create_dir(models.join("dhcp_if/env")).unwrap();
    fs::write(models.join("dhcp_if/env/UDHCPC"), client.to_str().unwrap()).unwrap();
    models.join("dhcp_if")
}

/// ./run, log/run and ./finish of dhcp_my_lan0 know that their interface is my_lan0.
fn serves_my_lan0(house: &House) {
    let calls = || fs::read_to_string(house.path("calls")).unwrap_or_default();
    wait_until("the call", PATIENCE, || calls().starts_with("-f -i my_lan0 "));
    wait_until("the log", PATIENCE, || house.log("dhcp_my_lan0").contains("hello from"));
    wait_until("the record", PATIENCE, || house.record("dhcp_my_lan0").is_some());
    house.sv(&["-w10", "down", "dhcp_my_lan0"]);
    wait_until("withdrawn", PATIENCE, || house.record("dhcp_my_lan0").is_none());
}

#[test]
fn a_directory_of_links_to_the_scripts_serves_the_interface_of_its_name() {
    isolated(&RUNIT, |lab| {
        let home = lab.net("home");
        under_both(lab, &home, |house| {
            let template = template(house);
            fs::create_dir_all(house.service("dhcp_my_lan0/log")).unwrap();
            for part in ["run", "finish", "env", "log/run"] {
                symlink(template.join(part), house.service("dhcp_my_lan0").join(part)).unwrap();
            }
            house.start();
            serves_my_lan0(house);
        });
    });
}

/// runit's runsv does not tell a script the name under which it was called.
#[test]
fn one_symlinked_template_serves_the_interface_of_the_links_name() {
    isolated(&RUNIT, |lab| {
        ours(lab);
        let home = lab.net("home");
        for how in ["-P", "-1"] {
            let mut house = House::new(lab, &home, how);
            symlink(template(&house), house.service("dhcp_my_lan0")).unwrap();
            house.start_with(how);
            serves_my_lan0(&house);
        }
    });
}

#[test]
fn no_script_asks_another_process_who_it_is() {
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("services");
    let found = Command::new("grep").args(["-rl", "PPID"]).arg(services).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[test]
fn every_service_has_the_same_logger_and_it_falls_back() {
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("services");
    let names = fs::read_dir(&services).unwrap().map(|entry| entry.unwrap().path());
    let logged: Vec<PathBuf> = names.filter(|dir| dir.join("log").exists()).collect();
    assert!(logged.len() >= 11, "{logged:?}");
    // std_service_logger is the source of all copies.
    let mut differ = Vec::new();
    for (model, copy) in [("run", "log/run"), ("p_log", "p_log"), ("w_log", "w_log")] {
        let source = services.join("std_service_logger").join(model);
        let what = |path: &Path| (fs::read(path).ok(), fs::metadata(path).map(|found| found.permissions().mode()).ok());
        let copies = logged.iter().map(|dir| dir.join(copy)).filter(|copy| what(copy) != what(&source));
        differ.extend(copies.map(|copy| format!("cp -p {} {}", source.display(), copy.display())));
    }
    assert!(differ.is_empty(), "the logger is another than that of std_service_logger:\n{}", differ.join("\n"));
    isolated(&RUNIT, |lab| {
        let home = lab.net("home");
        under_both(lab, &home, |house| {
            house.add("talker_x0", "echo some words; exec sleep 1000");
            fs::create_dir(house.service("talker_x0/log")).unwrap();
            let logger = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/std_service_logger/run");
            symlink(logger, house.service("talker_x0/log/run")).unwrap();
            // A file in place of the directory: not even root can write below it.
            fs::remove_dir(house.path("log")).unwrap();
            fs::write(house.path("log"), "").unwrap();
            house.start();
            let log = Path::new("/run/log/service/talker_x0");
            wait_until("the log in /run", PATIENCE, || {
                fs::read_to_string(log.join("current")).is_ok_and(|t| t.contains("some words"))
            });
            assert!(log.join("config").exists(), "little memory");
            fs::remove_dir_all(log).unwrap();
        });
    });
}

#[test]
fn the_stamps_of_the_logs_are_a_knob() {
    isolated(&RUNIT, |lab| {
        let home = lab.net("home");
        under_both(lab, &home, |house| {
            let is_ours = house.path("").ends_with("ours");
            let names = [("default", None), ("tai", Some("-t")), ("none", Some("")), ("local", Some("-T"))];
            for (name, stamp) in names.into_iter().filter(|(name, _)| is_ours || *name != "local") {
                house.add(name, "echo some words; exec sleep 1000");
                let logger = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/std_service_logger/run");
                fs::create_dir(house.service(name).join("log")).unwrap();
                symlink(logger, house.service(name).join("log/run")).unwrap();
                if let Some(stamp) = stamp {
                    // chpst(8): an empty file unsets the variable; an empty line is a value.
                    house.knob(name, "LOG_STAMP", &format!("{stamp}\n"));
                }
            }
            house.start();
            let begins = |name: &str, begin: &str| {
                wait_until(name, PATIENCE, || house.log(name).ends_with("some words\n"));
                assert!(house.log(name).starts_with(begin), "{name}: {}", house.log(name));
            };
            begins("default", "20");
            begins("tai", "@4");
            begins("none", "some words");
            if is_ours {
                begins("local", "20");
            }
        });
    });
}

/// A firmware image: only /run can be written, and its shell is a busybox that runs its own applets
/// whatever PATH says.
#[test]
fn on_a_read_only_root_and_under_a_busybox_shell_the_scripts_work_and_complain_of_nothing() {
    isolated(&["busybox-static", "mount"], |lab| {
        ours(lab);
        let home = lab.net("home");
        let mut house = House::new(lab, &home, "house");
        let mount = |args: &[&str]| {
            let status = Command::new("mount").args(args).status().unwrap();
            assert!(status.success(), "{args:?}");
        };
        mount(&["--bind", find_program("busybox-static").unwrap().to_str().unwrap(), "/bin/sh"]);
        let which = Command::new("/bin/sh").args(["-c", "command -v udhcpc"]).output().unwrap();
        assert_eq!(which.stdout, b"udhcpc\n", "an applet, not a path");

        let client = lab.dir().join("bin/udhcpc");
        fs::remove_file(&client).unwrap();
        script(&client, "echo hello from the client; touch $FW_DYNAMIC/dhcp_x0.ipconf; exec sleep 1000");
        house.copy("dhcp_if", "dhcp_x0");
        house.add("fw", &format!("sv o .; echo run >>{}", house.path("fw.runs").display()));
        // The image comes from a machine that has run once.
        fs::create_dir(house.path("log/dhcp_x0")).unwrap();
        for dir in [house.path("service"), house.path("log")] {
            let dir = dir.to_str().unwrap();
            mount(&["--bind", dir, dir]);
            mount(&["-o", "remount,ro,bind", dir]);
        }
        house.start();
        let record = || house.record("dhcp_x0").is_some();
        wait_until("the record", PATIENCE, record);
        wait_until("fw has run", PATIENCE, || house.fw_runs() > 0);
        let runs = house.fw_runs();
        house.sv(&["-w10", "down", "dhcp_x0"]);
        wait_until("withdrawn", PATIENCE, || !record());
        wait_until("fw has run", PATIENCE, || house.fw_runs() > runs);
        let log = Path::new("/run/log/service/dhcp_x0/current");
        let words = || fs::read_to_string(log).unwrap_or_default();
        wait_until("the log in /run", PATIENCE, || words().contains("hello"));
        assert!(words().lines().all(|line| line.ends_with(" hello from the client")), "{}", words());
        assert_eq!(house.said(), "");
    });
}
