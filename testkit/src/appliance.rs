//! The appliance under test: service directories copied from services/, a runsvdir over them, and
//! its status.
//!
//! The names of the services come from their directories, as on a real machine: services/dhcp_if
//! becomes dhcp_eth0. All state is in the lab's private directories. demo and
//! tests/netns/appliance.rs use it.

#![expect(clippy::disallowed_methods, reason = "starts processes")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::lab::{Lab, Net};
use crate::proc::{Proc, is_running};
use crate::wait::{poll_for, wait_for};

/// The configuration that the demo and the tests use: eth0 is preferred, lan0 has its static
/// address.
pub const FW_CONF: &str = "# The uplink that is used when both work.\npreferred_default_route_iface=\"eth0\"\n\
                           # What is masqueraded behind, and closed but for established connections.\nextif=\"eth0 eth1\"\n";
/// The static record of the LAN side.
pub const LAN_IPCONF: &str = "let cfg=cfg+1\nif[$cfg]='lan0'\nip[$cfg]='10.0.0.1'\nipmask[$cfg]='10.0.0.1/24'\n";

/// A running appliance.
#[derive(Debug)]
pub struct Appliance {
    net: Net,
    services: PathBuf,
    init: Option<Proc>,
}

impl Appliance {
    /// Copies the services that `names` lists from `sources` (the repository's services/) into a
    /// new service directory: `dhcp_eth0` from `dhcp_if` and so on. The dynamic directory is the
    /// default one, in the lab's private /run.
    pub fn prepare(lab: &Lab, net: &Net, sources: &Path, names: &[&str]) -> Appliance {
        lab.cover("/var/log");
        lab.make_dir("etc");
        let services = lab.make_dir("service");
        for name in names {
            let (kind, end) = name.strip_suffix("_pinger").map_or((*name, ""), |rest| (rest, "_pinger"));
            let model = match sources.join(name).is_dir() {
                true => (*name).to_owned(),
                false => kind.rsplit_once('_').map_or(kind.to_owned(), |(kind, _)| format!("{kind}_if{end}")),
            };
            copy(&sources.join(model), &services.join(name));
        }
        Appliance { net: net.clone(), services, init: None }
    }

    /// The service directories.
    pub fn services(&self) -> &Path {
        &self.services
    }

    /// Writes a file of a service (`fw/conf/lan.ipconf`), with its directories.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.services.join(file);
        let parent = path.parent().unwrap_or(&self.services);
        fs::create_dir_all(parent).and_then(|()| fs::write(&path, text)).unwrap_or_else(|e| panic!("{file}: {e}"));
    }

    /// A command in the appliance's namespace with the appliance's environment.
    pub fn command(&self, argv: &[&str]) -> Command {
        let mut command = self.net.command(argv);
        command.env("SVDIR", &self.services).env("FW_ETC", "/run/lab/etc").env("RUST_BACKTRACE", "0");
        command
    }

    /// Runs a command to its end and returns its output, whatever the exit status.
    pub fn run(&self, argv: &[&str]) -> String {
        let output = self.command(argv).output().unwrap_or_else(|e| panic!("{argv:?}: {e}"));
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// Starts runsvdir as init does. It can be called again after a kill.
    pub fn start(&mut self) {
        let dir = self.services.to_string_lossy().into_owned();
        self.init = Some(self.net.spawn_command("runsvdir", self.command(&["runsvdir", "-P", &dir])));
    }

    /// The process id of runsvdir.
    pub fn init_pid(&self) -> Option<i32> {
        self.init.as_ref().map(Proc::pid)
    }

    /// The output of runsvdir and of the services without a log of their own.
    pub fn init_log(&self) -> Option<PathBuf> {
        self.init.as_ref().map(|init| init.log_path().to_owned())
    }

    /// The process id of a service's ./run while it is up. supervise/pid also shows that of
    /// ./finish, which does not count.
    pub fn service_pid(&self, service: &str) -> Option<i32> {
        let supervise = self.services.join(service).join("supervise");
        let pid = fs::read_to_string(supervise.join("pid")).ok()?;
        fs::read_to_string(supervise.join("stat")).ok().filter(|stat| stat.starts_with("run"))?;
        pid.trim().parse().ok().filter(|pid| is_running(*pid))
    }

    /// The process id of a service's runsv: the running process `runsv SERVICE`.
    pub fn runsv_pid(&self, service: &str) -> Option<i32> {
        let is_it = |argv: &[&str]| match argv {
            [.., program, name] => program.ends_with("runsv") && Path::new(name).ends_with(service),
            _ => false,
        };
        crate::proc::pids_where(is_it).first().copied()
    }

    /// Waits until the service runs with a process other than `old`.
    #[track_caller]
    pub fn wait_new_pid(&self, service: &str, old: i32, timeout: Duration) -> i32 {
        wait_for(&format!("a new process of {service}"), timeout, || {
            self.service_pid(service).filter(|pid| *pid != old)
        })
    }

    /// Like [`Appliance::wait_new_pid`], without a panic.
    pub fn poll_new_pid(&self, service: &str, old: i32, timeout: Duration) -> Option<i32> {
        poll_for(timeout, || self.service_pid(service).filter(|pid| *pid != old))
    }

    /// The log of a service, as services/*/log/run writes it.
    pub fn log_file(&self, service: &str) -> PathBuf {
        Path::new("/var/log/service").join(service).join("current")
    }

    /// The logs of the services, for a failed test.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(&self.services).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let log = fs::read_to_string(self.log_file(&name)).unwrap_or_default();
            text.push_str(&format!("--- {name}\n{log}"));
        }
        text
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg("--no-preserve=ownership").arg(from).arg(to).status();
    assert!(status.is_ok_and(|s| s.success()), "cp -a {} {}", from.display(), to.display());
}
