//! A kernel without IPv6: no program tries to use it, IPv4 and the firewall work, and no run of fw
//! fails.

use testkit::vm::{Kit, SERVICES, Wire};

use crate::guest::{Guest, image, with_kit};

#[test]
fn a_kernel_without_ipv6_is_served_with_ipv4() {
    with_kit(|lab| {
        let kit = Kit::find().unwrap();
        let mut image = image(&kit, &SERVICES);
        image.file("/var/service/fw/conf/vpn.ipconf", "let cfg=cfg+1\nif[$cfg]=eth0\ngw[$cfg]=fe80::1\n");
        let kernel = ["-append", "quiet panic=-1 console=ttyS0 ipv6.disable=1"].map(str::to_owned);
        let mut guest = Guest::boot_at(lab, &kit, Wire::build(lab), image, "", &kernel);
        guest.wait("a default route", |guest| guest.good_uplinks() == ["eth0"]);
        guest.wait("the router answers", |guest| guest.router_answers("eth0"));
        guest.wait("the nft table", |guest| guest.run("nft list table inet netsv").contains("iifname \"eth0\""));
        assert_eq!(guest.run("ls /proc/net/if_inet6 2>/dev/null"), "", "the kernel has no IPv6");
        // One more run than those of the boot; each run says only what is new to it.
        let fw = "cd /var/service/fw && FW_ETC=/run/etc fw --dynamic /run/service/fw apply; echo ended $?";
        assert_eq!(guest.run(fw), "ended 0\n");
        for interface in ["lo", "eth0"] {
            let said = format!("IPv6 of {interface} left out: this kernel has none");
            assert_eq!(guest.logged("fw", &said), 1, "{interface}");
        }
        assert_eq!(guest.logged("fw", "error"), 0);
        guest.power_off();
    });
}
