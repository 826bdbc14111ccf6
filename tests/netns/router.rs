//! A home router as services/README describes it: two uplinks by DHCP, a LAN and a guest network
//! with dnsmasq, names by the servers of the uplink in use.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use testkit::appliance::{Appliance, LAN_IPCONF};
use testkit::uplinks::TwoUplinks;
use testkit::{Lab, Net, Proc, USER_NAMESPACE, isolated, wait_until};

use crate::ours;
use crate::services::script;

/// The longest time that any single step may take, the hold-down of the link included.
const SOON: Duration = Duration::from_secs(25);
/// Whether root is the only user.
fn alone() -> bool {
    std::env::var_os(USER_NAMESPACE).is_some()
}

/// The name server of a provider, which knows one name.
fn name_server(net: &Net, address: &str, answer: &str) -> Proc {
    let fixed = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--pid-file=", "--no-resolv", "--no-hosts"];
    let (listens, knows) = (format!("--listen-address={address}"), format!("--address=/www.test/{answer}"));
    let server = net.spawn(&[&fixed[..], &["--bind-interfaces", &listens, &knows]].concat());
    server.wait_log("started", SOON);
    server
}

struct Router {
    world: TwoUplinks,
    guest: Net,
    appliance: Appliance,
    _name_servers: [Proc; 2],
}

impl Router {
    fn boot(lab: &Lab, fw_conf: &str) -> Router {
        ours(lab);
        let world = TwoUplinks::build(lab);
        let guest = lab.net("guest");
        lab.cable((&world.home, "guest0"), (&guest, "eth0"));
        let servers = [
            name_server(&world.isp_a.net, "192.0.2.1", "203.0.113.10"),
            name_server(&world.isp_b.net, "198.51.100.1", "203.0.113.11"),
        ];
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("services");
        let names = ["fw", "ifplugd_eth0", "ifplugd_eth1", "dhcp_eth0", "dhcp_eth1", "dnsmasq"];
        let mut appliance = Appliance::prepare(lab, &world.home, &sources, &names);
        lab.cover("/var/lib/misc");
        appliance.write("fw/fw.conf", fw_conf);
        let guest_record = "let cfg=cfg+1\nif[$cfg]='guest0'\nipmask[$cfg]='10.0.2.1/24'\nzone[$cfg]='guest'\n";
        appliance.write("fw/conf/lan.ipconf", &format!("{LAN_IPCONF}{guest_record}"));
        // The guest network is the second word of each. Its hosts may only have addresses and names
        // of this machine.
        appliance.write("dnsmasq/env/DNSMASQ_IF", "lan0 guest0");
        appliance.write("dnsmasq/env/DNSMASQ_RANGE", "10.0.0.50,10.0.0.50,1h 10.0.2.50,10.0.2.50,1h");
        appliance.write("dnsmasq/env/DNSMASQ_USER", if alone() { "root" } else { "nobody" });
        appliance.write("dnsmasq/env/DNSMASQ_ARGS", if alone() { "--no-daemon --no-ping" } else { "--no-ping" });
        appliance.write("fw/hooks/uplink-say", "#!/bin/sh\necho \"the uplink is $NEW\"\n");
        let hook = appliance.services().join("fw/hooks/uplink-say");
        fs::set_permissions(hook, fs::Permissions::from_mode(0o755)).unwrap();
        appliance.start();
        world.isp_a.cable.plug();
        world.isp_b.cable.plug();
        Router { world, guest, appliance, _name_servers: servers }
    }

    fn etc(&self, name: &str) -> String {
        fs::read_to_string(Path::new("/run/lab/etc").join(name)).unwrap_or_default()
    }

    /// The values of the lines that begin so.
    fn lines(&self, file: &str, prefix: &str) -> Vec<String> {
        self.etc(file).lines().filter_map(|line| line.strip_prefix(prefix)).map(str::to_owned).collect()
    }
}

/// What a host hears when it asks this server for a name.
fn resolve(net: &Net, name: &str, server: &str) -> String {
    let said = net.try_run(&["busybox", "nslookup", "-type=a", name, server]).stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    let answer = said.rsplit("Name:").next().filter(|_| said.contains("Name:")).unwrap_or_default();
    answer.lines().filter_map(|line| line.strip_prefix("Address: ")).collect::<Vec<_>>().join(" ")
}

/// A host asks for an address, and says address, router and name server.
fn lease(lab: &Lab, net: &Net) -> String {
    let (handler, out) = (lab.dir().join("handler"), lab.dir().join("lease"));
    script(&handler, &format!("[ \"$1\" != bound ] || echo \"$ip $router $dns\" >{}\n", out.display()));
    let _ = fs::remove_file(&out);
    let argv = ["busybox", "udhcpc", "-q", "-n", "-t3", "-T1", "-i", "eth0", "-s", handler.to_str().unwrap()];
    let done = net.try_run(&argv).status.success();
    if done { fs::read_to_string(out).unwrap_or_default() } else { String::new() }
}

#[test]
fn lan_and_guests_get_addresses_and_names_and_both_follow_the_uplink() {
    isolated(&["nft", "dnsmasq", "busybox"], |lab| {
        let r = Router::boot(lab, "preferred_default_route_iface=\"eth0\"\nextif=\"eth0 eth1\"\ndns=\"self\"\n");
        wait_until("both uplinks' servers, the first one first", SOON, || {
            r.lines("dnsmasq_servers.conf", "server=") == ["192.0.2.1", "198.51.100.1"]
        });
        assert_eq!(r.lines("resolv.conf", "nameserver "), ["127.0.0.1"]);
        wait_until("the LAN's lease", SOON, || lease(lab, &r.world.lan) == "10.0.0.50 10.0.0.1 10.0.0.1\n");
        wait_until("the guest's lease", SOON, || lease(lab, &r.guest) == "10.0.2.50 10.0.2.1 10.0.2.1\n");
        r.guest.address("eth0", "10.0.2.50/24");
        // The router itself asks its dnsmasq.
        for (net, server) in [(&r.world.lan, "10.0.0.1"), (&r.guest, "10.0.2.1"), (&r.world.home, "127.0.0.1")] {
            wait_until("the name by the first uplink", SOON, || resolve(net, "www.test", server) == "203.0.113.10");
        }
        // The name of the router is its address in the network of the host that asks.
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        for (net, server) in [(&r.world.lan, "10.0.0.1"), (&r.guest, "10.0.2.1")] {
            assert_eq!(resolve(net, name.trim(), server), server);
        }
        let said = |uplink: &str| {
            let log = fs::read_to_string(r.appliance.log_file("fw")).unwrap_or_default();
            let last = log.lines().rfind(|line| line.contains("the uplink is "));
            last.is_some_and(|line| line.ends_with(&format!(" {uplink}")))
        };
        wait_until("the words of a hook in fw's log", SOON, || said("eth0"));
        r.world.isp_a.cable.pull();
        wait_until("the other uplink's server first", SOON, || {
            r.lines("dnsmasq_servers.conf", "server=").first().is_some_and(|first| first == "198.51.100.1")
        });
        for (net, server) in [(&r.world.lan, "10.0.0.1"), (&r.guest, "10.0.2.1"), (&r.world.home, "127.0.0.1")] {
            wait_until("the name by the other uplink", SOON, || resolve(net, "www.test", server) == "203.0.113.11");
        }
        assert_eq!(r.lines("resolv.conf", "nameserver "), ["127.0.0.1"]);
        wait_until("the hook", SOON, || said("eth1"));
        r.world.isp_a.cable.plug();
        wait_until("the first uplink's server first again", SOON, || {
            r.lines("dnsmasq_servers.conf", "server=") == ["192.0.2.1", "198.51.100.1"]
        });
        drop(r.appliance);
    });
}
