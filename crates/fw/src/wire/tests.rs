//! Golden bytes: payloads that Linux 6.18 sent in dumps, with `ip` from iproute2 6.1 having made
//! the objects.

use netd_core::wire::netlink::{Header, NLM_F_CREATE, NLM_F_REPLACE, messages};

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).unwrap() as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

const LEASED: &str = "0218000002000000080001000a010005080002000a010005080004000a0100ff0900030065746830000000\
    0005000b00d50000000800080000020000140006000f0e00000f0e00004583050045830500";
const LOOPBACK: &str = "020880fe01000000080001007f000001080002007f000001070003006c6f000008000800800000001400060\
    0ffffffffffffffff3483050034830500";
const LINK_LOCAL: &str = "0a40c0fd0200000014000100fe80000000000000380f0bfffe24838d14000600ffffffffffffffff45830500\
    4583050008000800c000000005000b0003000000";
const DEFAULT: &str = "02000000fed500010000000008000f00fe0000000800060064000000080007000a010005080005000a010001\
    0800040002000000";
const MULTIPATH: &str = "02100000fe0300010000000008000f00fe000000080001000a4d0000240009001000000002000000080005000a0100\
    011000000003000000080005000a020001";
const VIA_SIX: &str = "02100000fc0300010000000008000f00e8030000080001000a4e0000160012000a00fe800000000000000000000000\
    00000100000800040002000000";
const LOCAL: &str = "02080000ff02fe020000000008000f00ff000000080001007f000000080007007f0000010800040001000000";
const LINK: &str = "0000010002000000431001000000000009000300657468300000000008000d00e8030000050010000600000008000400\
    dc0500000800320044000000";
/// A bridge br0, and the port of it that is one end of a veth.
const BRIDGE: &str = "00000100020000004310010000000000080003006272300008000400dc0500000800320044000000100012000b000100\
    6272696467650000";
const PORT: &str = "00000100040000004310010000000000070003007030000008000400dc050000080032004400000008000a0002000000\
    1c0012000900010076657468000000000b00040062726964676500000800050003000000";

/// The same of a bridge that fw has made, with a port.
const OUR_BRIDGE: &str = "00000100084003000210000000000000080003006272300008000400dc050000080032004400000008003300ffff000008001b00d5\
    0000000a00010002000000000700001c0012000b00010062726964676500000c0002000c0010000000000018001a0014000a000800010000\
    0000000500080000000000";
const OUR_PORT: &str = "00000100030000000310000000000000090003006c616e300000000008000400dc050000080032004400000008003300ffff0000\
    08001b00d500000008000a00084003000a000100020000000008000010001200090001007665746800000000080005000200000018001a001400\
    0a0008000100000000000500080001000000";
const RULE_FROM: &str =
    "02002000fc0000010000000008000f000940030008000e000000000005001500d500000008000600fb7f0000080002000a010005";
const RULE_MARK: &str = "02000000fc0000010000000008000f000a40030008000e00ffffffff05001500d500000008000600fd7f000008000a0000000002\
    08001000000000ff";
const RULE_SIX: &str = "0a008000fc0000010000000008000f000940030008000e00ffffffff05001500d500000008000600fd7f00001400020020010db8\
    000000000000000000000005";
const RULE_ODD: &str = "022010004d0000010000000008000f004d00000008000e00ffffffff0500150000000000070003006c6f0000080006000900000008\
    0001000a080001080002000a090000";

const ADD_LEASED: &str = "540000001400050507000000000000000218000002000000080002000a010005080001000a01000508000400\
    0a0100ff140006000f0e00000f0e00000000000000000000080008000002000005000b00d5000000";
const DEL_LEASED: &str = "280000001500050007000000000000000218000002000000080002000a010005080001000a010005";
const ADD_SIX: &str = "640000001400050407000000000000000a4000fd0200000014000200fe80000000000000380f0bfffe24838d\
    14000100fe80000000000000380f0bfffe24838d14000600ffffffffffffffff000000000000000008000800\
    0000000005000b00d5000000";
const ADD_ROUTE: &str = "440000001800050408000000000000000200000000d500010400000008000f00094003000800060064000000\
    080007000a010005080005000a0100010800040002000000";
const DEL_ROUTE_BYTES: &str = "440000001900050008000000000000000200000000d500010400000008000f00094003000800060064000000\
    080007000a010005080005000a0100010800040002000000";
const ADD_RULE_FROM: &str = "44000000200005040900000000000000020020000000000100000000080002000a01000508000600fb7f0000\
    08000f000940030005001500d500000008000e0000000000";
const ADD_RULE_MARK: &str = "4400000020000504090000000000000002000000000000010000000008000600fd7f000008000f000a400300\
    05001500d500000008000a000000000208001000000000ff";
const ADD_RULE_SIX: &str = "480000002000050409000000000000000a00800000000001000000001400020020010db80000000000000000\
    0000000508000600fd7f000008000f000940030005001500d5000000";
const DUMP_LINKS: &str = "280000001200010301000000000000000000000000000000000000000000000008001d0008000000";
const DUMP_ADDRESSES: &str = "180000001600010301000000000000000000000000000000";
const DUMP_ROUTES: &str = "1c0000001a0001030100000000000000020000000000000000000000";
const DUMP_RULES: &str = "1c000000220001030100000000000000000000000000000000000000";

fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).unwrap()
}

#[test]
fn addresses_of_a_real_kernel() {
    let leased = decode_address(&bytes(LEASED)).unwrap();
    let want = Address {
        index: 2,
        address: prefix("10.1.0.5/24"),
        broadcast: Some(Ipv4Addr::new(10, 1, 0, 255)),
        scope: Scope::Global,
        lifetime: Some(Duration::from_secs(3599)),
        kernel_prefix_route: false,
        no_dad: false,
        metric: 0,
        protocol: PROTOCOL,
        autoconf: false,
    };
    assert_eq!(leased, want);
    let loopback = decode_address(&bytes(LOOPBACK)).unwrap();
    assert_eq!((loopback.lifetime, loopback.scope, loopback.protocol), (None, Scope::Host, 0));
    assert!(loopback.kernel_prefix_route);
    let six = decode_address(&bytes(LINK_LOCAL)).unwrap();
    assert_eq!((six.address, six.scope, six.protocol), (prefix("fe80::380f:bff:fe24:838d/64"), Scope::Link, 3));
}

#[test]
fn routes_of_a_real_kernel() {
    let route = decode_route(&bytes(DEFAULT)).unwrap();
    assert_eq!((route.destination, route.gateway), (prefix("0/0"), "10.1.0.1".parse().ok()));
    assert_eq!((route.metric, route.table, route.protocol, route.index), (100, 254, PROTOCOL, 2));
    assert_eq!(route.source, "10.1.0.5".parse().ok());
    let multipath = decode_route(&bytes(MULTIPATH)).unwrap();
    assert_eq!((multipath.destination, multipath.index, multipath.gateway), (prefix("10.77.0.0/16"), 0, None));
    assert_eq!((multipath.next_hops, &route.next_hops), (vec![2, 3], &Vec::new()));
    let via = decode_route(&bytes(VIA_SIX)).unwrap();
    assert_eq!((via.table, via.gateway), (1000, "fe80::1".parse().ok()));
    assert_eq!(decode_route(&bytes(LOCAL)), None, "the kernel's own table");
}

#[test]
fn links_of_a_real_kernel() {
    let link = decode_link(&bytes(LINK)).unwrap();
    assert_eq!((link.name.as_str(), link.index, link.mtu, link.min_mtu), ("eth0", 2, 1500, 68));
    assert!(link.up && !link.loopback);
    assert_eq!((link.kind, link.parent, link.master, link.group, link.vlan), (None, 0, 0, 0, None));
    let bridge = decode_link(&bytes(BRIDGE)).unwrap();
    assert_eq!((bridge.kind.as_deref(), bridge.index, bridge.master), (Some("bridge"), 2, 0));
    let port = decode_link(&bytes(PORT)).unwrap();
    assert_eq!((port.kind.as_deref(), port.parent, port.master), (Some("veth"), 3, 2));
    assert!(!port.parent_is_elsewhere);
}

#[test]
fn a_bridge_and_its_port_as_the_kernel_shows_them() {
    let bridge = decode_link(&bytes(OUR_BRIDGE)).unwrap();
    assert_eq!((bridge.name.as_str(), bridge.index, bridge.group), ("br0", 213_000, 213));
    assert_eq!((bridge.kind.as_deref(), bridge.mac), (Some("bridge"), Mac::parse("02:00:00:00:00:07")));
    assert_eq!((bridge.mtu, bridge.max_mtu, bridge.addr_gen), (1500, 65_535, Some(AddrGen::Eui64)));
    let port = decode_link(&bytes(OUR_PORT)).unwrap();
    assert_eq!((port.kind.as_deref(), port.master, port.group, port.parent), (Some("veth"), 213_000, 213, 2));
    assert_eq!((port.addr_gen, port.up, port.carrier), (Some(AddrGen::None), true, false));
}

#[test]
fn links_that_are_made_decode_to_the_same() {
    use netd_core::net::VlanId;
    use netd_core::wire::link::{self, NewKind, NewLink};
    let id = VlanId::new(7).unwrap();
    let new =
        NewLink { ifindex: 213_001, name: "wan0.7", group: 213, mac: None, kind: NewKind::Vlan { parent: 2, id } };
    let sent = link::make(&new).finish(1);
    let made = decode_link(messages(&sent).next().unwrap().1).unwrap();
    assert_eq!((made.name.as_str(), made.index, made.group, made.parent), ("wan0.7", 213_001, 213, 2));
    assert_eq!((made.kind.as_deref(), made.vlan, made.mac), (Some("vlan"), Some(7), None));
    let mac = Mac::parse("02:00:00:00:00:07");
    let sent = link::make(&NewLink { mac, kind: NewKind::Bridge, ..new }).finish(1);
    let made = decode_link(messages(&sent).next().unwrap().1).unwrap();
    assert_eq!((made.kind.as_deref(), made.vlan, made.mac), (Some("bridge"), None, mac));
}

#[test]
fn what_is_encoded_decodes_to_the_same() {
    let address = decode_address(&bytes(LEASED)).unwrap();
    let sent = encode_address(&address, NLM_F_CREATE).finish(7);
    let (header, payload) = messages(&sent).next().unwrap();
    assert_eq!(header, Header { kind: NEW_ADDRESS, flags: REQUEST | NLM_F_CREATE, sequence: 7 });
    assert_eq!(decode_address(payload).unwrap(), address);
    let route = Route { onlink: true, table: 1000, ..decode_route(&bytes(DEFAULT)).unwrap() };
    let sent = encode_route(&route, NLM_F_CREATE | NLM_F_REPLACE).finish(8);
    assert_eq!(decode_route(messages(&sent).next().unwrap().1).unwrap(), route);
    let sent = delete_route(&route).finish(9);
    assert_eq!(messages(&sent).next().unwrap().0, Header { kind: DEL_ROUTE, flags: REQUEST, sequence: 9 });
}

#[test]
fn rules_of_a_real_kernel() {
    let rule = |hex: &str| decode_rule(&bytes(hex)).unwrap();
    let from = rule(RULE_FROM);
    let want = Rule {
        priority: 32_763,
        v4: true,
        source: Prefix::parse("10.1.0.5"),
        mark: 0,
        table: 213_001,
        specific: true,
        protocol: PROTOCOL,
        plain: true,
    };
    assert_eq!(from, want);
    let marked = rule(RULE_MARK);
    let want = Rule { priority: 32_765, source: None, mark: 2 << 24, table: 213_002, specific: false, ..want };
    assert_eq!(marked, want);
    let six = rule(RULE_SIX);
    assert!(six.plain && !six.v4 && six.source == Prefix::parse("2001:db8::5"), "{six:?}");
    assert!(!rule(RULE_ODD).plain, "from a network, to an address, in by an interface");
    for rule in [from, marked, six] {
        let sent = encode_rule(&rule, NLM_F_CREATE).finish(1);
        assert_eq!(decode_rule(messages(&sent).next().unwrap().1).unwrap(), rule);
        let sent = delete_rule(&rule).finish(1);
        assert_eq!(decode_rule(messages(&sent).next().unwrap().1).unwrap(), rule);
    }
    // Kernels before 4.17 do not say who made a rule (FRA_PROTOCOL). ipmr has rules, too.
    assert_eq!(decode_rule(&bytes(&RULE_FROM.replace("05001500d5000000", ""))), None);
    assert_eq!(decode_rule(&bytes(&RULE_MARK.replacen("02", "80", 1))), None);
}

/// Every prefix of a payload and every single-byte change of it: no panic, no endless walk.
#[test]
fn foreign_bytes_do_no_harm() {
    for good in [
        LEASED, LOOPBACK, LINK_LOCAL, DEFAULT, MULTIPATH, VIA_SIX, LOCAL, LINK, BRIDGE, PORT, OUR_BRIDGE, OUR_PORT,
        RULE_ODD,
    ]
    .map(bytes)
    {
        for cut in 0..=good.len() {
            let mut bytes = good[..cut].to_vec();
            let _ = (decode_address(&bytes), decode_route(&bytes), decode_link(&bytes), decode_rule(&bytes));
            for at in 0..cut {
                for value in [0, 1, 0x7f, 0xff] {
                    let kept = std::mem::replace(&mut bytes[at], value);
                    let _ = (decode_address(&bytes), decode_route(&bytes), decode_link(&bytes), decode_rule(&bytes));
                    assert!(messages(&bytes).count() <= cut && attributes(&bytes).count() <= cut);
                    bytes[at] = kept;
                }
            }
        }
    }
}

/// What fw sent before netlink-packet-route wrote it, when each byte was written by hand.
#[test]
fn requests_are_the_same_bytes_as_ever() {
    let leased = decode_address(&bytes(LEASED)).unwrap();
    let six = decode_address(&bytes(LINK_LOCAL)).unwrap();
    let route = Route { onlink: true, table: 213_001, ..decode_route(&bytes(DEFAULT)).unwrap() };
    let rule = |hex: &str| encode_rule(&decode_rule(&bytes(hex)).unwrap(), NLM_F_CREATE).finish(9);
    let replace = NLM_F_CREATE | NLM_F_REPLACE;
    for (sent, want) in [
        (encode_address(&leased, replace).finish(7), ADD_LEASED),
        (delete_address(&leased).finish(7), DEL_LEASED),
        (encode_address(&six, NLM_F_CREATE).finish(7), ADD_SIX),
        (encode_route(&route, NLM_F_CREATE).finish(8), ADD_ROUTE),
        (delete_route(&route).finish(8), DEL_ROUTE_BYTES),
        (rule(RULE_FROM), ADD_RULE_FROM),
        (rule(RULE_MARK), ADD_RULE_MARK),
        (rule(RULE_SIX), ADD_RULE_SIX),
        (dump_links().finish(1), DUMP_LINKS),
        (dump_addresses().finish(1), DUMP_ADDRESSES),
        (dump_routes(AddressFamily::Inet).finish(1), DUMP_ROUTES),
        (dump_rules().finish(1), DUMP_RULES),
    ] {
        assert_eq!(sent, bytes(want));
    }
}

/// By hand it was RTA_GATEWAY with 16 bytes, of which the kernel took the first 4.
#[test]
fn a_router_of_the_other_family_is_written_as_it_was_read() {
    let route = decode_route(&bytes(VIA_SIX)).unwrap();
    let sent = delete_route(&route).finish(1);
    assert_eq!(decode_route(messages(&sent).next().unwrap().1).unwrap(), route);
}
