//! The bench's world on the test kit's lab: `home` with two uplinks eth0 and eth1 to two providers,
//! each with a real dnsmasq, and one target that both providers reach.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use testkit::{Cable, Lab, Net, Proc, wait_until};

/// What both uplinks reach.
pub(crate) const TARGET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// The world in which the subjects run.
pub(crate) struct World {
    /// The namespace in which the subjects run.
    pub(crate) home: Net,
    /// The cables of eth0 and eth1.
    pub(crate) uplinks: [Cable; 2],
    _servers: Vec<Proc>,
    isp: Net,
}

impl World {
    /// Makes another world without a server: both uplinks end at one provider, 10.1.0.1 on `cust`.
    pub(crate) fn bare(lab: &Lab) -> World {
        let (home, isp) = (lab.net("bare_home"), lab.net("bare_isp"));
        let uplinks = [("eth0", "cust"), ("eth1", "other")].map(|(near, far)| lab.cable((&home, near), (&isp, far)));
        isp.address("cust", "10.1.0.1/24");
        World { home, uplinks, _servers: Vec::new(), isp }
    }

    /// The first provider.
    pub(crate) fn isp(&self) -> &Net {
        &self.isp
    }

    /// Builds the world inside the private namespaces of the process.
    pub(crate) fn build(lab: &Lab) -> World {
        lab.cover("/var/lib");
        let home = lab.net("home");
        let net = lab.net("net");
        net.address("lo", &format!("{TARGET}/32"));
        let (mut servers, mut isps) = (Vec::new(), Vec::new());
        let uplinks = [("isp_a", "eth0", 1), ("isp_b", "eth1", 2)].map(|(name, interface, n)| {
            let isp = lab.net(name);
            let cable = lab.cable((&home, interface), (&isp, "cust"));
            lab.cable((&isp, "wan"), (&net, name));
            let (near, far) = (format!("192.0.2.{}", n * 4 + 1), format!("192.0.2.{}", n * 4 + 2));
            isp.address("cust", &format!("10.{n}.0.1/24"));
            isp.address("wan", &format!("{near}/30"));
            net.address(name, &format!("{far}/30"));
            isp.ip(&["route", "add", "default", "via", &far]);
            net.ip(&["route", "add", &format!("10.{n}.0.0/24"), "via", &near]);
            isp.sysctl("net/ipv4/ip_forward", "1");
            let server = isp.spawn(&[
                "dnsmasq",
                "--no-daemon",
                "--conf-file=/dev/null",
                "--user=root",
                "--port=0",
                "--no-ping",
                "--interface=cust",
                "--bind-interfaces",
                "--dhcp-authoritative",
                &format!("--dhcp-range=10.{n}.0.100,10.{n}.0.250,255.255.255.0,1h"),
                &format!("--dhcp-option=3,10.{n}.0.1"),
                &format!("--dhcp-option=6,10.{n}.0.1"),
                &format!("--dhcp-leasefile=/run/leases.{n}"),
            ]);
            server.wait_log("DHCP, IP range", Duration::from_secs(5));
            servers.push(server);
            isps.push(isp);
            cable
        });
        World { home, uplinks, _servers: servers, isp: isps.swap_remove(0) }
    }

    /// Runs a shell command in `home` to its end. Returns its output, whatever its exit code.
    pub(crate) fn at_home(&self, command: &str) -> String {
        String::from_utf8_lossy(&self.home.try_run(&["sh", "-c", command]).stdout).into_owned()
    }

    /// Pids of all processes in `home`.
    pub(crate) fn pids(&self) -> Vec<u32> {
        sh(&format!("ip netns pids {}", self.home.name())).split_whitespace().filter_map(|p| p.parse().ok()).collect()
    }

    /// Ends every process in `home`, removes its addresses, routes and rules, and plugs the cables.
    pub(crate) fn clean(&self) {
        wait_until("home is empty", Duration::from_secs(10), || {
            let pids = self.pids();
            for pid in &pids {
                sh(&format!("kill -9 {pid} 2>/dev/null || true"));
            }
            pids.is_empty()
        });
        self.at_home(
            "nft flush ruleset; for i in eth0 eth1; do ip addr flush dev $i; ip route flush dev $i; ip link set $i up; \
             echo 0 > /proc/sys/net/ipv4/conf/$i/ignore_routes_with_linkdown; done",
        );
        self.uplinks.iter().for_each(Cable::plug);
        wait_until("both uplinks have carrier", Duration::from_secs(5), || {
            self.at_home("cat /sys/class/net/eth?/carrier").matches('1').count() == 2
        });
    }
}

/// A shell that lives in `home` and starts the subjects, so that the bench does not measure the
/// entry into the namespace.
pub(crate) struct Starter {
    shell: Child,
    orders: ChildStdin,
    pids: BufReader<ChildStdout>,
}

impl Starter {
    /// Enters the namespace. /sys is read-only there, because otherwise networkd and dhcpcd would
    /// wait for udev.
    pub(crate) fn enter(world: &World) -> io::Result<Starter> {
        let mut shell = world.home.command(&["sh", "-c", "mount -o remount,ro /sys; exec sh"]);
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let missing = || io::Error::other("no pipe to the shell");
        let orders = shell.stdin.take().ok_or_else(missing)?;
        let pids = BufReader::new(shell.stdout.take().ok_or_else(missing)?);
        let mut starter = Starter { shell, orders, pids };
        starter.start("ready", "true")?;
        Ok(starter)
    }

    /// The shell's own pid, which is not part of the measurement.
    pub(crate) fn pid(&self) -> u32 {
        self.shell.id()
    }

    /// Starts a command; its output goes to /run/LOG.log. Returns its pid.
    pub(crate) fn start(&mut self, log: &str, command: &str) -> io::Result<u32> {
        writeln!(self.orders, "{command} > /run/{log}.log 2>&1 < /dev/null & echo $!")?;
        let mut line = String::new();
        self.pids.read_line(&mut line)?;
        line.trim().parse().map_err(|_| io::Error::other(format!("{command}: no pid but {line:?}")))
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

pub(crate) const NETWORKD: &str = "/lib/systemd/systemd-networkd";

/// Shell text that makes networkd's files: DHCP on these interfaces, with these metrics. It removes
/// the earlier files.
pub(crate) fn networkd_files(interfaces: &[(&str, u32)]) -> String {
    let mut text =
        "rm -rf /run/systemd/netif /run/systemd/network; mkdir -p /run/systemd/network /run/systemd/netif/links \
                    /run/systemd/netif/leases /run/systemd/netif/lldp; chown -R systemd-network: /run/systemd/netif"
            .to_owned();
    for (name, metric) in interfaces {
        text.push_str(&format!(
            "; printf '[Match]\\nName={name}\\n[Network]\\nDHCP=ipv4\\nLinkLocalAddressing=no\\nIPv6AcceptRA=no\\n[DHCPv4]\\n\
             RouteMetric={metric}\\n' > /run/systemd/network/{name}.network"
        ));
    }
    text
}

/// Runs a shell command outside the namespaces of the lab. A failure panics with the command's
/// output.
pub(crate) fn sh(command: &str) -> String {
    let out = Command::new("sh").args(["-ec", command]).stdin(Stdio::null()).output().expect("sh");
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Writes an executable file.
pub(crate) fn script(path: &str, text: &str) {
    fs::write(path, text).unwrap_or_else(|e| panic!("{path}: {e}"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap_or_else(|e| panic!("{path}: {e}"));
}

/// The private memory of the processes in kB: all of it (USS), and its dirty part.
pub(crate) fn private_kb(pids: &[u32]) -> (f64, f64) {
    let mut sums = (0.0, 0.0);
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or(0.0)
        };
        let dirty = field("Private_Dirty:");
        sums = (sums.0 + field("Private_Clean:") + dirty, sums.1 + dirty);
    }
    sums
}
