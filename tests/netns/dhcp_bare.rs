//! A link without Ethernet, made of two tun devices. A modem in raw-ip mode has such a link
//! (qmi_wwan).

use testkit::dhcpd::{Config, Dhcpd, MessageType};
use testkit::{Net, Proc, Signal, isolated, wait_until};

use crate::dhcp::{ROUTER, SOON, both, exit_code};
use crate::ours;

/// Makes the tun device NAME and carries its packets to and from another such process. ioctl
/// TUNSETIFF, IFF_TUN and IFF_NO_PI: linux/if_tun.h.
const TUN: &str = r#"
use Socket; my ($name, $mine, $peer) = @ARGV; my ($r, $p);
open(my $t, "+<", "/dev/net/tun") or die "no tun: $!"; ioctl($t, 0x400454ca, pack("a16 S x22", $name, 0x1001)) or die "no tun: $!";
socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die $!; bind($s, sockaddr_un($mine)) or die $!;
system("ip", "link", "set", $name, "up"); print STDERR "$name is up\n";
while (1) {
    $r = ""; vec($r, fileno($t), 1) = vec($r, fileno($s), 1) = 1; select($r, undef, undef, undef);
    if (vec($r, fileno($t), 1)) { sysread($t, $p, 65536); send($s, $p, 0, sockaddr_un($peer)); }
    if (vec($r, fileno($s), 1)) { recv($s, $p, 65536, 0); syswrite($t, $p); }
}"#;

/// Opens one end. Where the kernel has no tun or does not allow it, the result is `None` and the
/// test prints a notice.
fn end(net: &Net, name: &str, mine: &str, peer: &str) -> Option<Proc> {
    let process = net.spawn(&["perl", "-e", TUN, name, mine, peer]);
    wait_until("a device", SOON, || ["is up", "no tun"].iter().any(|word| process.log().contains(word)));
    if process.log().contains("no tun") {
        assert!(std::env::var_os("CI").is_none(), "{}", process.log());
        eprintln!("SKIPPED a link without Ethernet: {}", process.log());
        return None;
    }
    Some(process)
}

#[test]
fn a_modem_that_carries_ip_alone_gets_a_lease() {
    isolated(&["udhcpc", "perl"], |lab| {
        ours(lab);
        let (home, isp) = (lab.net("home"), lab.net("isp"));
        let [near, far] = ["near", "far"].map(|name| lab.dir().join(name).to_str().unwrap().to_owned());
        let Some(_near) = end(&home, "wwan0", &near, &far) else { return };
        let Some(_far) = end(&isp, "lan", &far, &near) else { return };
        isp.address("lan", "192.0.2.1/24");
        let server = Dhcpd::start(&isp, "lan", Config::for_router(ROUTER)).unwrap();
        for client in &both(lab) {
            assert_eq!(exit_code(&home, &[client, "-i", "wwan0", "-s", "/bin/true", "-f", "-q", "-n"]), 0, "{client}");
        }
        // No station has an Ethernet address here, so there are no answers by ARP.
        let seen = server.seen();
        assert!(seen.iter().all(|seen| seen.message.chaddr() == [0; 6]), "{seen:?}");
        let argv = ["udhcpc", "-f", "-v", "-i", "wwan0", "--ipconf", "/run/lab/dyn", "--acd", "fast"];
        let client = home.spawn(&argv);
        let leases = || client.log().matches("lease of 192.0.2.100 obtained from 192.0.2.1").count();
        wait_until("a lease", SOON, || leases() == 1);
        assert!(client.log().contains("no ARP on this interface"), "{}", client.log());
        home.address("wwan0", "192.0.2.100/32");
        home.ip(&["route", "add", "192.0.2.1", "dev", "wwan0"]);
        client.signal(Signal::SIGUSR1);
        wait_until("a renewal", SOON, || leases() == 2);
        assert_eq!(server.count(MessageType::Decline), 0);
        // A program that needs ARP says so; it does not say that the interface is missing.
        let output = home.try_run(&["zcip", "-f", "wwan0", "/bin/true"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.as_str()), (Some(1), "zcip: wwan0: interface wwan0 is not Ethernet\n"));
    });
}
