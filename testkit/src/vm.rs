//! A machine of its own: Debian's kernel in qemu without acceleration, over a root file system made
//! here. It has a shell for questions, and qemu's monitor pulls its cables and cards.
//!
//! testkit/fetch-vm fetches its parts. The guest's second serial line is a shell ([`AGENT`]) that
//! runs one line at a time. The first serial line is the kernel's console, which a file keeps.
//! tests/vm and bench use it.

#![expect(clippy::disallowed_methods, reason = "starts qemu, and bounds what it waits for")]

mod cpio;
mod image;
pub mod trunk;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

pub use image::{APPLETS, Image};

use crate::lab::{Lab, Net};
use crate::proc::Proc;
use crate::wait::wait_for;

/// The parts that testkit/fetch-vm has unpacked.
#[derive(Clone, Debug)]
pub struct Kit {
    root: PathBuf,
    modules: PathBuf,
}

/// A command for the guest's init: a shell on the second serial line. It runs each line that
/// arrives, and ends its answer with the exit code.
pub const AGENT: &str = "(stty raw -echo; echo '0 =END='; while read -r line; do eval \"$line\"; echo \"$? =END=\"; done) \
                         </dev/ttyS1 >/dev/ttyS1 2>&1 &";
/// The card, for `device_add`. From the start its name for `set_link` and `device_del` is `card`.
pub const CARD_DEVICE: &str = "virtio-net-pci,netdev=n0,mac=02:00:00:00:07:01,romfile=";
/// The services of the whole suite for that card: the directory in services/, and the name.
pub const SERVICES: [(&str, &str); 5] = [
    ("fw", "fw"),
    ("dhcp_if", "dhcp_eth0"),
    ("ifplugd_if", "ifplugd_eth0"),
    ("zcip_if", "zcip_eth0"),
    ("dhcp_if_pinger", "dhcp_eth0_pinger"),
];
/// The modules of a virtio network card.
pub const CARD: [&str; 2] = ["virtio_pci", "virtio_net"];
/// The modules for fw's nft table, since without a modprobe the kernel cannot request them. Other
/// code requests the first one, so modules.dep does not list it.
pub const FIREWALL: [&str; 7] =
    ["crc32c_generic", "nf_tables", "nft_ct", "nft_chain_nat", "nft_masq", "nft_fib_inet", "nft_reject_inet"];
/// A guest without an answer for so long is dead, however busy the host is.
const PATIENCE: Duration = Duration::from_secs(60);

/// The far end of the guest's cable: a namespace with a DHCP server on the guest's tap device, or
/// qemu's own network and server where tap devices cannot be made.
#[derive(Debug)]
pub struct Wire {
    net: Net,
    tap: bool,
    server: Option<Proc>,
}

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    qemu: Proc,
    shell: UnixStream,
    monitor: UnixStream,
    console: PathBuf,
}

impl Wire {
    /// 192.0.2.1 is the server and the router, and answers pings. Leases are 192.0.2.100 to
    /// 192.0.2.150.
    pub fn build(lab: &Lab) -> Wire {
        let mut wire = Wire::without_server(lab);
        if !wire.tap {
            eprintln!("vm: no tap device: qemu's own network and DHCP server");
            return wire;
        }
        let server = wire.net.spawn(&[
            "dnsmasq",
            "--no-daemon",
            "--conf-file=/dev/null",
            "--user=root",
            "--port=0",
            "--no-ping",
            "--interface=tap0",
            "--bind-dynamic",
            "--dhcp-authoritative",
            "--dhcp-leasefile=/run/lab/leases",
            "--dhcp-range=192.0.2.100,192.0.2.150,255.255.255.0,1h",
            "--dhcp-option=3,192.0.2.1",
        ]);
        server.wait_log("DHCP, IP range", Duration::from_secs(20));
        wire.server = Some(server);
        wire
    }

    /// The same for a server of the caller's own, on tap0 in [`Wire::net`].
    pub fn without_server(lab: &Lab) -> Wire {
        let net = lab.net("wire");
        let tap = net.try_run(&["ip", "tuntap", "add", "dev", "tap0", "mode", "tap"]).status.success();
        if tap {
            net.address("tap0", "192.0.2.1/24");
            net.ip(&["link", "set", "tap0", "up"]);
        }
        Wire { net, tap, server: None }
    }

    /// Whether a tap device can be made (tun.c forbids it in a network namespace of a user other
    /// than root).
    pub fn possible() -> Result<(), String> {
        if nix::unistd::geteuid().is_root() { Ok(()) } else { Err("a tap device needs root".to_owned()) }
    }

    /// The namespace at the far end.
    pub fn net(&self) -> &Net {
        &self.net
    }

    fn netdev(&self) -> &'static str {
        match self.tap {
            true => "tap,id=n0,ifname=tap0,script=no,downscript=no",
            false => "user,id=n0",
        }
    }
}

impl Machine {
    /// Boots the image over the wire, and returns when the guest's shell answers. `more` are
    /// options for qemu.
    pub fn boot(
        lab: &Lab,
        kit: &Kit,
        wire: &Wire,
        image: Image,
        megabytes: u32,
        more: &[String],
    ) -> io::Result<Machine> {
        let files = ["image", "console.log", "shell", "monitor"].map(|name| lab.dir().join(name));
        let [path, console, shell, monitor] = &files;
        image.write(path);
        // The sockets of an earlier machine.
        [shell, monitor].into_iter().for_each(|socket| drop(std::fs::remove_file(socket)));
        let mut argv = argv(kit, wire, megabytes, &files);
        argv.extend_from_slice(more);
        let mut command = wire.net.command(&argv);
        command.env("LD_LIBRARY_PATH", kit.libraries());
        let mut qemu = wire.net.spawn_command("qemu", command);
        let mut connect = |path: &PathBuf| {
            wait_for(&format!("qemu at {}", path.display()), PATIENCE, || {
                if let Some(status) = qemu.wait(Duration::ZERO) {
                    panic!("qemu: {status}: {}", qemu.log());
                }
                UnixStream::connect(path).ok()
            })
        };
        let [shell, monitor] = [connect(shell), connect(monitor)];
        let mut machine = Machine { qemu, shell, monitor, console: console.clone() };
        machine.read_until(Channel::Monitor, "(qemu) ")?;
        machine.read_until(Channel::Shell, "=END=\n")?;
        Ok(machine)
    }

    /// Runs a line in the guest's shell to its end. Returns its output, whatever the exit code.
    pub fn run(&mut self, line: &str) -> String {
        self.try_run(line).unwrap_or_else(|e| panic!("{line}: {e}; the console:\n{}", self.console()))
    }

    /// Like [`Machine::run`], when the machine may be gone.
    pub fn try_run(&mut self, line: &str) -> io::Result<String> {
        assert!(!line.contains('\n'), "one line: {line}");
        writeln!(self.shell, "{line}")?;
        let said = self.read_until(Channel::Shell, "=END=\n")?;
        let end = said.trim_end().rfind('\n').map_or(0, |at| at + 1);
        Ok(said[..end].to_owned())
    }

    /// Sends a command to qemu's monitor, such as `set_link card off`.
    pub fn monitor(&mut self, command: &str) -> String {
        writeln!(self.monitor, "{command}").unwrap_or_else(|e| panic!("qemu's monitor: {e}"));
        self.read_until(Channel::Monitor, "(qemu) ").unwrap_or_else(|e| panic!("{command}: {e}"))
    }

    /// The output of the kernel and init.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Waits until qemu ends, which means that the machine is off. Returns its exit status.
    pub fn wait_off(&mut self, timeout: Duration) -> Option<ExitStatus> {
        self.qemu.wait(timeout)
    }

    fn read_until(&mut self, channel: Channel, end: &str) -> io::Result<String> {
        let stream = match channel {
            Channel::Shell => &mut self.shell,
            Channel::Monitor => &mut self.monitor,
        };
        let deadline = Instant::now() + PATIENCE;
        let (mut said, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = String::from_utf8_lossy(&said).into_owned();
                return Err(io::Error::other(format!("no end after {PATIENCE:?} of {text:?}")));
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => said.extend_from_slice(&piece[..count]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            // The terminal adds carriage returns.
            let text = String::from_utf8_lossy(&said).replace('\r', "");
            if text.ends_with(end) {
                return Ok(text);
            }
        }
    }
}

/// qemu's command line; `files` are the image, the console's log, the sockets of shell and monitor.
fn argv(kit: &Kit, wire: &Wire, megabytes: u32, files: &[PathBuf; 4]) -> Vec<String> {
    let shown = |path: PathBuf| path.display().to_string();
    let [image, console, shell, monitor] = files.clone().map(shown);
    let mut argv = vec![shown(kit.program("qemu-system-x86_64"))];
    // kvm is not used even where it seems to be there: it may open and then crash the kernel.
    let plain = "-accel tcg -smp 1 -nodefaults -no-user-config -display none -no-reboot";
    argv.extend(plain.split(' ').map(str::to_owned));
    let socket = |path: &str| format!("unix:{path},server=on,wait=off");
    let pairs = [
        ("-m", megabytes.to_string()),
        ("-L", shown(kit.file("usr/share/qemu"))),
        ("-L", shown(kit.file("usr/share/seabios"))),
        ("-kernel", shown(kit.root.join("vmlinux"))),
        ("-initrd", image),
        ("-append", "quiet panic=-1 console=ttyS0".to_owned()),
        ("-serial", format!("file:{console}")),
        ("-serial", socket(&shell)),
        ("-monitor", socket(&monitor)),
        ("-netdev", wire.netdev().to_owned()),
        ("-device", format!("{CARD_DEVICE},id=card")),
    ];
    argv.extend(pairs.into_iter().flat_map(|(option, value)| [option.to_owned(), value]));
    argv
}

/// One of the guest's serial lines.
#[derive(Clone, Copy)]
enum Channel {
    Shell,
    Monitor,
}
