//! A machine of its own: Debian's kernel in qemu without acceleration, over a root file system made here, with a shell in
//! it to ask and qemu's monitor to pull its cables and cards.
//!
//! What it is made of is fetched by testkit/fetch-vm. The guest's second serial line is a shell ([`AGENT`]) that runs one
//! line at a time; its first is the kernel's console, kept in a file. Called by tests/vm and by bench.

#![expect(clippy::disallowed_methods, reason = "starts qemu, and bounds what it waits for")]

mod cpio;
mod image;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

pub use image::{APPLETS, Image};

use crate::lab::{Lab, Net};
use crate::proc::Proc;
use crate::wait::wait_for;

/// What testkit/fetch-vm has unpacked.
#[derive(Clone, Debug)]
pub struct Kit {
    root: PathBuf,
    modules: PathBuf,
}

/// For the guest's init: a shell on the second serial line. Each line that comes is run, and its exit code is the answer's end.
pub const AGENT: &str = "(stty raw -echo; echo '0 =END='; while read -r line; do eval \"$line\"; echo \"$? =END=\"; done) \
                         </dev/ttyS1 >/dev/ttyS1 2>&1 &";
/// Modules of a virtio network card.
pub const CARD: [&str; 2] = ["virtio_pci", "virtio_net"];
/// Modules of what fw's nft table consists of: without a modprobe the kernel cannot ask for them. The first one is asked
/// for by another's code, which modules.dep does not know.
pub const FIREWALL: [&str; 7] =
    ["crc32c_generic", "nf_tables", "nft_ct", "nft_chain_nat", "nft_masq", "nft_fib_inet", "nft_reject_inet"];
/// A guest that answers nothing for so long is dead, however busy the host is.
const PATIENCE: Duration = Duration::from_secs(60);

/// The far end of the guest's cable: a namespace with a DHCP server on the guest's tap device; or qemu's own network and
/// server where tap devices cannot be made.
#[derive(Debug)]
pub struct Wire {
    net: Net,
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
    /// 192.0.2.1 is the server, the router, and who answers pings; leases are 192.0.2.100 to 192.0.2.150.
    pub fn build(lab: &Lab) -> Wire {
        let net = lab.net("wire");
        if !net.try_run(&["ip", "tuntap", "add", "dev", "tap0", "mode", "tap"]).status.success() {
            eprintln!("vm: no tap device: qemu's own network and DHCP server");
            return Wire { net, server: None };
        }
        net.address("tap0", "192.0.2.1/24");
        net.ip(&["link", "set", "tap0", "up"]);
        let server = net.spawn(&[
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
        Wire { net, server: Some(server) }
    }

    fn netdev(&self) -> &'static str {
        match self.server {
            Some(_) => "tap,id=n0,ifname=tap0,script=no,downscript=no",
            None => "user,id=n0",
        }
    }
}

impl Machine {
    /// Boots the image over the wire; returns when the guest's shell answers.
    pub fn boot(lab: &Lab, kit: &Kit, wire: &Wire, image: Image, megabytes: u32) -> io::Result<Machine> {
        let path = lab.dir().join("image");
        image.write(&path);
        let console = lab.dir().join("console.log");
        let sockets = ["shell", "monitor"].map(|name| lab.dir().join(name));
        sockets.iter().for_each(|socket| drop(std::fs::remove_file(socket)));
        let shown = |path: &PathBuf| path.display().to_string();
        let qemu = kit.program("qemu-system-x86_64");
        let line = format!(
            // No kvm, also where it seems to be there: it may open and then crash the kernel.
            "{} -accel tcg -m {megabytes} -smp 1 -nodefaults -no-user-config -display none -no-reboot -L {} -L {} \
             -kernel {} -initrd {} -append quiet\u{a0}panic=-1\u{a0}console=ttyS0 -serial file:{} -serial unix:{},server=on,wait=off \
             -monitor unix:{},server=on,wait=off -netdev {} -device virtio-net-pci,netdev=n0,id=card,mac=02:00:00:00:07:01,romfile=",
            shown(&qemu),
            shown(&kit.file("usr/share/qemu")),
            shown(&kit.file("usr/share/seabios")),
            shown(&kit.root.join("vmlinux")),
            shown(&path),
            shown(&console),
            shown(&sockets[0]),
            shown(&sockets[1]),
            wire.netdev(),
        );
        let argv: Vec<String> = line.split(' ').map(|word| word.replace('\u{a0}', " ")).collect();
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
        let [shell, monitor] = [connect(&sockets[0]), connect(&sockets[1])];
        let mut machine = Machine { qemu, shell, monitor, console };
        machine.read_until(Channel::Monitor, "(qemu) ")?;
        machine.read_until(Channel::Shell, "=END=\n")?;
        Ok(machine)
    }

    /// Runs a line in the guest's shell to its end; what it said, whatever its exit code.
    pub fn run(&mut self, line: &str) -> String {
        self.try_run(line).unwrap_or_else(|e| panic!("{line}: {e}; the console:\n{}", self.console()))
    }

    /// As [`Machine::run`], where the machine may be gone.
    pub fn try_run(&mut self, line: &str) -> io::Result<String> {
        assert!(!line.contains('\n'), "one line: {line}");
        writeln!(self.shell, "{line}")?;
        let said = self.read_until(Channel::Shell, "=END=\n")?;
        let end = said.trim_end().rfind('\n').map_or(0, |at| at + 1);
        Ok(said[..end].to_owned())
    }

    /// Tells qemu's monitor something, as `set_link card off`.
    pub fn monitor(&mut self, command: &str) -> String {
        writeln!(self.monitor, "{command}").unwrap_or_else(|e| panic!("qemu's monitor: {e}"));
        self.read_until(Channel::Monitor, "(qemu) ").unwrap_or_else(|e| panic!("{command}: {e}"))
    }

    /// What the kernel and init have said.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// How qemu ended, if it does so in time: the machine is off.
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
            // The terminal makes a carriage return of its own.
            let text = String::from_utf8_lossy(&said).replace('\r', "");
            if text.ends_with(end) {
                return Ok(text);
            }
        }
    }
}

/// Which of the guest's lines.
#[derive(Clone, Copy)]
enum Channel {
    Shell,
    Monitor,
}
