//! The world of one test: network namespaces, cables between them, processes in them.
//!
//! [`crate::isolated`] makes it (or a program after [`crate::isolated_main`]). Everything is inside
//! namespaces that die with the process, so this code does not clean up the kernel. A set-up that
//! fails panics with the command and its output, because this is a test kit. tests/netns, demo and
//! bench use it.

#![expect(clippy::disallowed_methods, reason = "starts processes")]

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::kernel;
use crate::proc::{LogDir, Proc};

/// One test's world.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    logs: LogDir,
    cables: Cell<u32>,
}

/// One end of a cable.
#[derive(Clone, Debug)]
pub struct End {
    /// The name of the namespace.
    pub net: String,
    /// The name of the interface in it.
    pub interface: String,
}

impl End {
    fn plug(&self, mac: [u8; 6]) -> kernel::Plug<'_> {
        kernel::Plug { net: &self.net, interface: &self.interface, mac }
    }
}

/// A veth pair. `near` is the appliance's end. A pull sets the `far` end down, so the appliance
/// sees the same as on a real wire: its interface stays up and loses its carrier.
#[derive(Clone, Debug)]
pub struct Cable {
    /// The end whose carrier [`Cable::pull`] takes away.
    pub near: End,
    /// The other end.
    pub far: End,
}

/// A network namespace of the lab.
#[derive(Clone, Debug)]
pub struct Net {
    name: String,
    logs: LogDir,
    bin: PathBuf,
}

impl Lab {
    /// Works only inside a private world, because it writes below /run.
    pub fn new() -> Lab {
        let dir = PathBuf::from("/run/lab");
        for sub in ["bin", "log"] {
            fs::create_dir_all(dir.join(sub)).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        }
        Lab { logs: LogDir::new(dir.join("log")), dir, cables: Cell::new(0) }
    }

    /// A private directory (a tmpfs) for the test's files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a directory below [`Lab::dir`].
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// Covers `path` with an empty tmpfs, for a program with a built-in state directory
    /// (/var/lib/...).
    pub fn cover(&self, path: &str) {
        run("mount", &["-t", "tmpfs", "netsv-lab", path]);
    }

    /// The same with space for one page of 4096 bytes, for a disk that is soon full.
    pub fn cover_with_little(&self, path: &str) {
        run("mount", &["-t", "tmpfs", "-o", "size=4k", "netsv-lab", path]);
    }

    /// Links every applet of the netsv under test into a directory that comes first in the PATH of
    /// all commands in the lab's namespaces. Without this call they find the system's own programs.
    pub fn use_netsv(&self, netsv: &Path) {
        let said = run(&netsv.to_string_lossy(), &["--list"]);
        for applet in said.lines() {
            let link = self.dir.join("bin").join(applet);
            let _ = fs::remove_file(&link);
            symlink(netsv, &link).unwrap_or_else(|e| panic!("{}: {e}", link.display()));
        }
    }

    /// Makes a named network namespace with loopback up.
    pub fn net(&self, name: &str) -> Net {
        kernel::add_net(name);
        Net { name: name.to_owned(), logs: self.logs.clone(), bin: self.dir.join("bin") }
    }

    /// Runs many `ip` commands, one per line, in one process in the lab's outer namespace. For
    /// crowds.
    pub fn ip_batch(&self, lines: &str) {
        let file = self.dir.join("batch");
        fs::write(&file, lines).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        run("ip", &["-batch", &file.to_string_lossy()]);
    }

    /// Plugs a cable between an interface in `near` and one in `far`. Both ends are up; the caller
    /// adds addresses.
    pub fn cable(&self, near: (&Net, &str), far: (&Net, &str)) -> Cable {
        self.cables.set(self.cables.get() + 1);
        let ends = [near, far].map(|(net, interface)| End { net: net.name.clone(), interface: interface.to_owned() });
        let [near, far] = ends;
        // The addresses are locally administered and the same in every run: the same machine gets
        // the same leases.
        let cable = u8::try_from(self.cables.get()).unwrap_or_else(|_| panic!("more than 255 cables"));
        let mac = |last| [2, 0, 0, 0, cable, last];
        kernel::add_cable(&near.plug(mac(1)), &far.plug(mac(2)));
        Cable { near, far }
    }

    /// `ip -j ARGS` in the lab's outer namespace.
    pub fn ip_json(&self, args: &[&str]) -> Value {
        parse_json(&run("ip", &[&["-j"], args].concat()))
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.logs.print_all();
        }
    }
}

impl Cable {
    /// Takes the carrier away from the near end.
    pub fn pull(&self) {
        kernel::set_up(&self.far.net, &self.far.interface, false);
    }

    /// Gives the carrier back.
    pub fn plug(&self) {
        kernel::set_up(&self.far.net, &self.far.interface, true);
    }
}

impl Net {
    /// Its name for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's file, for setns(2).
    pub fn path(&self) -> PathBuf {
        kernel::path(&self.name)
    }

    /// Runs `work` on a thread in this namespace: a socket that it opens belongs to the namespace
    /// wherever it is used.
    #[track_caller]
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let work = || {
            kernel::enter(&self.name);
            work()
        };
        std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|_| panic!("a thread in {}", self.name))
    }

    /// A command in this namespace. Its PATH begins with the applets of [`Lab::use_netsv`]. Its pid
    /// is the program's own, because `ip netns exec` execs.
    pub fn command<S: AsRef<OsStr>>(&self, argv: &[S]) -> Command {
        let mut command = Command::new("ip");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.bin.display()));
        command.args(["netns", "exec", &self.name]).args(argv).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end and returns its output; a failure panics.
    #[track_caller]
    pub fn run(&self, argv: &[&str]) -> String {
        let output = self.try_run(argv);
        assert_success(&argv.join(" "), &output)
    }

    /// Runs a command to its end, whatever its exit status.
    #[track_caller]
    pub fn try_run(&self, argv: &[&str]) -> Output {
        self.command(argv).output().unwrap_or_else(|e| panic!("ip netns exec {} {argv:?}: {e}", self.name))
    }

    /// Starts a long-running program. Its output goes to a log, which is printed when the test
    /// fails. Dropping the [`Proc`] kills it.
    #[track_caller]
    pub fn spawn(&self, argv: &[&str]) -> Proc {
        self.spawn_command(argv.first().copied().unwrap_or("empty"), self.command(argv))
    }

    /// Like [`Net::spawn`], for a command from [`Net::command`] with its own environment or
    /// directory.
    #[track_caller]
    pub fn spawn_command(&self, name: &str, command: Command) -> Proc {
        Proc::spawn(&self.logs, &format!("{}.{name}", self.name), command)
    }

    /// `ip ARGS` in this namespace; a failure panics.
    #[track_caller]
    pub fn ip(&self, args: &[&str]) -> String {
        ip_in(&self.name, args)
    }

    /// Runs `ip -j ARGS` in this namespace and parses the output. `ip -j` prints nothing for an
    /// empty list; the result is then `[]`.
    #[track_caller]
    pub fn ip_json(&self, args: &[&str]) -> Value {
        parse_json(&ip_in(&self.name, &[&["-j"], args].concat()))
    }

    /// Makes a bridge and sets it up.
    #[track_caller]
    pub fn bridge(&self, bridge: &str) {
        kernel::add_bridge(&self.name, bridge);
    }

    /// Makes an interface a port of a bridge.
    #[track_caller]
    pub fn port(&self, bridge: &str, port: &str) {
        kernel::add_port(&self.name, bridge, port);
    }

    /// Adds an address (ADDR/LEN) to an interface.
    #[track_caller]
    pub fn address(&self, interface: &str, address: &str) {
        kernel::add_address(&self.name, interface, address);
    }

    /// The interface's IPv4 addresses as ADDR/LEN.
    #[track_caller]
    pub fn addresses(&self, interface: &str) -> Vec<String> {
        let links = self.ip_json(&["-4", "address", "show", "dev", interface]);
        let infos = links.as_array().into_iter().flatten().flat_map(|link| link["addr_info"].as_array()).flatten();
        infos.filter_map(|info| Some(format!("{}/{}", info["local"].as_str()?, info["prefixlen"].as_u64()?))).collect()
    }

    /// The IPv4 default routes that the kernel would use, as (interface, gateway, metric), the best
    /// first. Routes with the flag `dead` (no carrier, ignore_routes_with_linkdown) are left out.
    #[track_caller]
    pub fn default_routes(&self) -> Vec<(String, String, u64)> {
        let routes = self.ip_json(&["-4", "route", "show", "default"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut found: Vec<_> = (routes.as_array().into_iter().flatten())
            .filter(|r| !r["flags"].as_array().into_iter().flatten().any(|flag| flag == "dead"))
            .map(|r| (text(&r["dev"]), text(&r["gateway"]), r["metric"].as_u64().unwrap_or(0)))
            .collect();
        found.sort_by_key(|(_, _, metric)| *metric);
        found
    }

    /// The interface that the kernel would use for `target` now; `None` when it is unreachable.
    #[track_caller]
    pub fn route_to(&self, target: &str) -> Option<String> {
        let output =
            Command::new("nsenter").args(enter_ip(&self.name)).args(["-j", "route", "get", target]).output().ok()?;
        let routes: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(routes[0]["dev"].as_str()?.to_owned())
    }

    /// Writes a sysctl of this namespace. Its name is the path below /proc/sys
    /// (`net/ipv4/ip_forward`).
    #[track_caller]
    pub fn sysctl(&self, name: &str, value: &str) {
        self.run(&["sh", "-c", &format!("echo {value} >/proc/sys/{name}")]);
    }

    /// Makes the station behind `interface` silent: it answers neither ARP nor IP, and its carrier
    /// stays.
    pub fn silence(&self, interface: &str) {
        self.run(&["nft", "add table netdev silence"]);
        let hook = format!("type filter hook ingress device \"{interface}\" priority 0; policy drop;");
        self.run(&["nft", &format!("add chain netdev silence deaf {{ {hook} }}")]);
    }

    /// Ends [`Net::silence`].
    pub fn speak(&self) {
        self.run(&["nft", "delete table netdev silence"]);
    }

    /// Whether one ping is answered within a second.
    pub fn pings(&self, target: &str) -> bool {
        self.try_run(&["ping", "-n", "-c1", "-W1", target]).status.success()
    }
}

/// A program in PATH or in the sbin directories.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Runs `ip ARGS` in the namespace `net`. `ip -n` would make a mount namespace, and each umount in
/// it waits for the whole kernel (RCU), which takes seconds on a machine under load.
#[track_caller]
fn ip_in(net: &str, args: &[&str]) -> String {
    let enter = enter_ip(net);
    run("nsenter", &[&enter.each_ref().map(String::as_str)[..], args].concat())
}

/// The arguments of nsenter(1) that run `ip` in the namespace `net`.
fn enter_ip(net: &str) -> [String; 2] {
    [format!("--net=/run/netns/{net}"), "ip".to_owned()]
}

#[track_caller]
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert_success(&format!("{program} {}", args.join(" ")), &output)
}

#[track_caller]
fn assert_success(what: &str, output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what}: {}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr));
    stdout
}

#[track_caller]
fn parse_json(text: &str) -> Value {
    if text.trim().is_empty() {
        return Value::Array(Vec::new());
    }
    serde_json::from_str(text).unwrap_or_else(|e| panic!("not JSON: {e}: {text}"))
}
