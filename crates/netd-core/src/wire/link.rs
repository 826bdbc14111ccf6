//! Interfaces: what the kernel says about one, what we ask it, and what we make of it.
//!
//! [`link`] reads only the handful of attributes that a watcher needs and skips every other one, so
//! that a newer kernel cannot make a message unreadable. netlink-packet-route's LinkMessage would
//! read all of them, for 286 kB more. Headers and attributes are netlink.rs's. Called by netd's
//! link.rs; the names are used by fw's wire.rs, too. Layouts: rtnetlink(7), linux/if_link.h; all
//! integers are in host byte order.

use crate::net::{AddrGen, Mac, VlanId};
use crate::wire::netlink::{
    self, DEL_LINK, DUMP, GET_LINK, NEW_LINK, NLM_F_CREATE, NLM_F_EXCL, NLMSG_ERROR, REQUEST, SET_LINK, attributes,
    errno, ifinfomsg, u32_at,
};

// linux/if_link.h: attributes.
/// The Ethernet address.
pub const IFLA_ADDRESS: u16 = 1;
/// The name, with a NUL at its end.
pub const IFLA_IFNAME: u16 = 3;
/// The longest packet, u32.
pub const IFLA_MTU: u16 = 4;
/// The index of the interface that carries this one, u32.
pub const IFLA_LINK: u16 = 5;
/// The index of the bridge, bond or VRF of which this is a part, u32.
pub const IFLA_MASTER: u16 = 10;
/// There when [`IFLA_LINK`] is a number of another network namespace, i32.
pub const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKMODE: u16 = 17;
/// About interfaces of a kind: attributes of its own, IFLA_INFO_KIND among them.
pub const IFLA_LINKINFO: u16 = 18;
/// The kind, in [`IFLA_LINKINFO`].
pub const IFLA_INFO_KIND: u16 = 1;
/// Attributes of the kind, in [`IFLA_LINKINFO`].
pub const IFLA_INFO_DATA: u16 = 2;
/// The kind of interfaces that a bridge joins.
pub const BRIDGE: &str = "bridge";
/// The kind of a VLAN (IEEE 802.1Q).
pub const VLAN: &str = "vlan";
/// The number of a VLAN, u16, in the data of [`VLAN`].
pub const IFLA_VLAN_ID: u16 = 1;
/// What becomes the priority in a frame's tag, a list of [`IFLA_VLAN_QOS_MAPPING`].
const IFLA_VLAN_EGRESS_QOS: u16 = 3;
const IFLA_VLAN_QOS_MAPPING: u16 = 1;
/// IEEE 802.1Q 9.6: the priority has three bits.
const VLAN_PRIORITY_MAX: u32 = 7;
/// How long a port listens and learns, u32 in clock_t, in the data of [`BRIDGE`].
const IFLA_BR_FORWARD_DELAY: u16 = 1;
/// Whether the spanning tree protocol runs, u32, in the data of [`BRIDGE`].
const IFLA_BR_STP_STATE: u16 = 5;
/// Attributes of each family, each in an attribute with the family's number.
pub const IFLA_AF_SPEC: u16 = 26;
/// How IPv6 addresses are made (IN6_ADDR_GEN_MODE_*), u8, in the attributes of AF_INET6.
pub const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
/// The group of ip-link(8), a number without a meaning to the kernel, u32.
pub const IFLA_GROUP: u16 = 27;
/// What an answer may leave out, u32: [`SKIP_STATS`].
pub const IFLA_EXT_MASK: u16 = 29;
/// The smallest MTU that the driver takes, u32.
pub const IFLA_MIN_MTU: u16 = 50;
/// The largest, u32; 0: it does not say.
pub const IFLA_MAX_MTU: u16 = 51;
const IFLA_CARRIER_UP_COUNT: u16 = 47;
const IFLA_CARRIER_DOWN_COUNT: u16 = 48;

// linux/if.h: RFC 2863 operational states.
const IF_OPER_UNKNOWN: u8 = 0;
const IF_OPER_DOWN: u8 = 2;
const IF_OPER_UP: u8 = 6;

// linux/if.h: flags.
/// The administrator wants it up.
pub const IFF_UP: u32 = 0x1;
/// It is a loopback interface.
pub const IFF_LOOPBACK: u32 = 0x8;
const IFF_NOARP: u32 = 0x80;
/// It has carrier.
pub const IFF_LOWER_UP: u32 = 0x1_0000;
const IFF_DORMANT: u32 = 0x2_0000;
/// In the other mode, IF_LINK_MODE_DORMANT, a supplicant says when the link is up.
const LINK_MODE_DEFAULT: u8 = 0;
/// RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: without the counters of packets, which are most of
/// an answer's bytes.
pub const SKIP_STATS: u32 = 8;
/// AF_UNSPEC.
const AF_UNSPEC: u8 = 0;

/// Length of `struct ifinfomsg`, in front of the attributes.
pub const IFINFOMSG_LEN: usize = 16;

/// What the kernel says about one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index: stable as long as the interface lives, whatever it is called.
    pub ifindex: u32,
    /// Its name now.
    pub name: String,
    /// Ethernet address; `None` for a link without one of 6 bytes.
    pub mac: Option<[u8; 6]>,
    /// Its stations have addresses of some kind. Without: raw-ip modems, PPP, tun.
    pub addressed: bool,
    /// IFF_UP: the administrator wants it up.
    pub admin_up: bool,
    /// Stations are found by ARP: not IFF_NOARP.
    pub arp: bool,
    /// Longest packet in bytes; 0 when not told.
    pub mtu: u32,
    /// Packets can flow: IFF_UP, carrier, and an operstate of up, or unknown for drivers that keep
    /// none. A port that waits for a WPA or 802.1X handshake has carrier but is dormant: not
    /// running. One that has carrier when it is set up is running at once: the kernel looks at its
    /// operstate up to a second later (net/core/link_watch.c).
    pub running: bool,
    /// How often the carrier was lost since the interface was made (kernel 4.16); `None` when not
    /// told.
    pub down_count: Option<u32>,
    /// How often the carrier came.
    pub up_count: Option<u32>,
}

/// One message of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// An interface is there, or changed, or is the answer to a question.
    New(Link),
    /// An interface has gone.
    Deleted {
        /// Its index.
        ifindex: u32,
    },
    /// The outcome of the request `seq`: 0, or a positive errno.
    Outcome {
        /// Sequence number of the request.
        seq: u32,
        /// 0: done.
        errno: i32,
    },
}

/// The messages of one datagram that mean something to a watcher. A malformed rest is dropped.
pub fn decode(datagram: &[u8]) -> Vec<Message> {
    netlink::messages(datagram)
        .filter_map(|(header, payload)| match header.kind {
            NEW_LINK => link(payload).map(Message::New),
            DEL_LINK => fixed(payload).map(|(ifindex, _)| Message::Deleted { ifindex }),
            NLMSG_ERROR => payload.get(..4).map(|_| Message::Outcome { seq: header.sequence, errno: errno(payload) }),
            _ => None,
        })
        .collect()
}

/// Index and flags of the fixed part (index at 4, flags at 8), of messages about the interface
/// itself: a bridge tells about its ports in the same messages under AF_BRIDGE, and a port that
/// leaves the bridge is "deleted" there while the interface lives on.
pub fn fixed(payload: &[u8]) -> Option<(u32, u32)> {
    let body = payload.get(..IFINFOMSG_LEN)?;
    (*body.first()? == AF_UNSPEC).then_some((u32_at(body, 4)?, u32_at(body, 8)?))
}

/// The interface in a message. `None` too for a message without a name or an operstate: wireless
/// events are such parts.
pub fn link(payload: &[u8]) -> Option<Link> {
    let (ifindex, flags) = fixed(payload)?;
    let (mut name, mut operstate, mut mode) = (None, None, None);
    let (mut mac, mut mtu, mut up_count, mut down_count) = (None, None, None, None);
    let mut addressed = false;
    for (kind, value) in attributes(payload.get(IFINFOMSG_LEN..)?) {
        match kind {
            IFLA_IFNAME => name = Some(text(value)),
            IFLA_OPERSTATE => operstate = value.first().copied(),
            IFLA_LINKMODE => mode = value.first().copied(),
            IFLA_ADDRESS => (mac, addressed) = (value.try_into().ok(), !value.is_empty()),
            IFLA_MTU => mtu = u32_at(value, 0),
            IFLA_CARRIER_UP_COUNT => up_count = u32_at(value, 0),
            IFLA_CARRIER_DOWN_COUNT => down_count = u32_at(value, 0),
            _ => {}
        }
    }
    let admin_up = flags & IFF_UP != 0;
    let carrier = flags & IFF_LOWER_UP != 0;
    let waits = flags & IFF_DORMANT != 0 || mode.is_some_and(|mode| mode != LINK_MODE_DEFAULT);
    let operates = match operstate? {
        IF_OPER_UNKNOWN | IF_OPER_UP => true,
        // With carrier that is what it was.
        IF_OPER_DOWN => !waits,
        _ => false,
    };
    Some(Link {
        ifindex,
        name: name?,
        mac,
        addressed,
        admin_up,
        arp: flags & IFF_NOARP == 0,
        mtu: mtu.unwrap_or(0),
        running: admin_up && carrier && operates,
        down_count,
        up_count,
    })
}

/// A string attribute, without its terminating NUL.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// RTM_GETLINK for one interface by name: answered by [`Message::New`] and an outcome, or an
/// outcome of ENODEV.
pub fn get_by_name(name: &str) -> netlink::Message {
    let name = [name.as_bytes(), &[0]].concat();
    netlink::Message::new(GET_LINK, REQUEST, &ifinfomsg(0, 0))
        .with(IFLA_IFNAME, &name)
        .with(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes())
}

/// RTM_GETLINK for every interface.
pub fn dump() -> netlink::Message {
    netlink::Message::new(GET_LINK, DUMP, &ifinfomsg(0, 0)).with(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes())
}

/// RTM_SETLINK that sets IFF_UP and touches no other flag: answered by an outcome.
pub fn set_up(ifindex: u32) -> netlink::Message {
    netlink::Message::new(SET_LINK, REQUEST, &ifinfomsg(ifindex, IFF_UP))
}

/// RTM_SETLINK that takes IFF_UP away and touches no other flag.
pub fn set_down(ifindex: u32) -> netlink::Message {
    let fixed = [[0; 4], ifindex.to_ne_bytes(), [0; 4], IFF_UP.to_ne_bytes()].concat();
    netlink::Message::new(SET_LINK, REQUEST, &fixed)
}

/// A link that the kernel makes at once and whole: with its index, name, group and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewLink<'a> {
    /// The index, which no link has.
    pub ifindex: u32,
    /// Its name.
    pub name: &'a str,
    /// Its group.
    pub group: u32,
    /// Its Ethernet address, which does not change by itself. `None`: the kernel's choice.
    pub mac: Option<Mac>,
    /// What it is.
    pub kind: NewKind,
}

/// The kinds that are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewKind {
    /// A bridge without the spanning tree protocol: a port forwards at once.
    Bridge,
    /// A VLAN. The priority of a packet (SO_PRIORITY) becomes the priority in its tag: 0 to 7.
    Vlan {
        /// Index of the interface that carries it.
        parent: u32,
        /// Its number.
        id: VlanId,
    },
}

/// RTM_NEWLINK that makes a link: answered by an outcome.
pub fn make(new: &NewLink) -> netlink::Message {
    let name = [new.name.as_bytes(), &[0]].concat();
    let flags = REQUEST | NLM_F_CREATE | NLM_F_EXCL;
    let mut message = netlink::Message::new(NEW_LINK, flags, &ifinfomsg(new.ifindex, 0))
        .with(IFLA_IFNAME, &name)
        .with(IFLA_GROUP, &new.group.to_ne_bytes());
    if let Some(Mac(mac)) = new.mac {
        message = message.with(IFLA_ADDRESS, &mac);
    }
    let list = || netlink::Message::new(0, 0, &[]);
    let (kind, data) = match new.kind {
        NewKind::Bridge => {
            let none = 0_u32.to_ne_bytes();
            (BRIDGE, list().with(IFLA_BR_STP_STATE, &none).with(IFLA_BR_FORWARD_DELAY, &none))
        }
        NewKind::Vlan { parent, id } => {
            message = message.with(IFLA_LINK, &parent.to_ne_bytes());
            // struct ifla_vlan_qos_mapping: from u32, to u32.
            let map = |list: netlink::Message, priority: u32| {
                list.with(IFLA_VLAN_QOS_MAPPING, &[priority.to_ne_bytes(), priority.to_ne_bytes()].concat())
            };
            let egress = (0..=VLAN_PRIORITY_MAX).fold(list(), map);
            (VLAN, list().with(IFLA_VLAN_ID, &id.number().to_ne_bytes()).with_nested(IFLA_VLAN_EGRESS_QOS, egress))
        }
    };
    message.with_nested(IFLA_LINKINFO, list().with(IFLA_INFO_KIND, kind.as_bytes()).with_nested(IFLA_INFO_DATA, data))
}

/// RTM_DELLINK: answered by an outcome.
pub fn delete(ifindex: u32) -> netlink::Message {
    netlink::Message::new(DEL_LINK, REQUEST, &ifinfomsg(ifindex, 0))
}

/// RTM_SETLINK that makes the link a part of `master`, 0: of none, and sets its group, if any.
pub fn set_master(ifindex: u32, master: u32, group: Option<u32>) -> netlink::Message {
    let message = netlink::Message::new(SET_LINK, REQUEST, &ifinfomsg(ifindex, 0));
    let message = message.with(IFLA_MASTER, &master.to_ne_bytes());
    match group {
        Some(group) => message.with(IFLA_GROUP, &group.to_ne_bytes()),
        None => message,
    }
}

/// RTM_SETLINK that sets the Ethernet address: answered by an outcome. Many drivers refuse it while
/// the link is up (EBUSY).
pub fn set_mac(ifindex: u32, Mac(mac): Mac) -> netlink::Message {
    netlink::Message::new(SET_LINK, REQUEST, &ifinfomsg(ifindex, 0)).with(IFLA_ADDRESS, &mac)
}

/// RTM_SETLINK that sets how IPv6 addresses are made: answered by an outcome. The kernel makes them
/// when the link is set up.
pub fn set_addr_gen(ifindex: u32, mode: AddrGen) -> netlink::Message {
    let list = || netlink::Message::new(0, 0, &[]);
    let six = list().with(IFLA_INET6_ADDR_GEN_MODE, &[mode.number()]);
    netlink::Message::new(SET_LINK, REQUEST, &ifinfomsg(ifindex, 0))
        .with_nested(IFLA_AF_SPEC, list().with_nested(netlink::AF_INET6.into(), six))
}

/// RTM_SETLINK that sets the MTU: answered by an outcome.
pub fn set_mtu(ifindex: u32, mtu: u32) -> netlink::Message {
    netlink::Message::new(SET_LINK, REQUEST, &ifinfomsg(ifindex, 0)).with(IFLA_MTU, &mtu.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Captured from Linux 6.x: a veth pair lnka/lnkb whose peer is set up and down, in and out of a
    // bridge, removed.
    const VETH_UP: &[u8] = include_bytes!("../../testdata/veth_up.netlink");
    const VETH_DOWN: &[u8] = include_bytes!("../../testdata/veth_down.netlink");
    const BRIDGE_PORT_REMOVED: &[u8] = include_bytes!("../../testdata/bridge_port_removed.netlink");
    const VETH_REMOVED: &[u8] = include_bytes!("../../testdata/veth_removed.netlink");

    fn only_link(datagram: &[u8]) -> Link {
        match decode(datagram).as_slice() {
            [Message::New(link)] => link.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// VETH_UP with the value of one attribute replaced.
    fn with(mut bytes: Vec<u8>, kind: u16, value: u8) -> Vec<u8> {
        let mut at = 16 + IFINFOMSG_LEN;
        loop {
            let len = usize::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]));
            if u16::from_ne_bytes([bytes[at + 2], bytes[at + 3]]) == kind {
                bytes[at + 4] = value;
                return bytes;
            }
            at += len.next_multiple_of(4);
        }
    }

    fn with_operstate(operstate: u8) -> Vec<u8> {
        with(VETH_UP.to_vec(), IFLA_OPERSTATE, operstate)
    }

    #[test]
    fn captured_messages_say_what_happened() {
        let up = only_link(VETH_UP);
        assert_eq!((up.ifindex, up.name.as_str(), up.admin_up, up.running), (3, "lnka", true, true));
        assert!(up.mac.is_some());
        assert_eq!(up.mtu, 1500);
        let down = only_link(VETH_DOWN);
        assert_eq!((down.ifindex, down.admin_up, down.running), (3, true, false));
        assert_eq!(down.down_count, up.down_count.map(|n| n + 1));
        assert_eq!(decode(VETH_REMOVED), [Message::Deleted { ifindex: 3 }]);
    }

    #[test]
    fn a_port_that_leaves_its_bridge_is_not_a_link_that_has_gone() {
        assert_eq!(decode(BRIDGE_PORT_REMOVED), []);
    }

    #[test]
    fn an_operstate_of_up_unknown_or_late_with_carrier_is_running() {
        // RFC 2863: unknown, not present, down, lower layer down, testing, dormant (WPA handshake),
        // up.
        let table = [(0, true), (1, false), (2, true), (3, false), (4, false), (5, false), (6, true), (7, false)];
        for (operstate, running) in table {
            assert_eq!(only_link(&with_operstate(operstate)).running, running, "{operstate}");
        }
    }

    #[test]
    fn down_with_carrier_is_an_operstate_that_is_late_unless_a_handshake_will_decide() {
        // As captured at `ip link set up` of a card that had carrier before: the operstate follows
        // up to a second later.
        let late = with_operstate(IF_OPER_DOWN);
        assert!(only_link(&late).running);
        assert!(!only_link(&with(late.clone(), IFLA_LINKMODE, 1)).running, "a supplicant decides");
        let flags = |mut bytes: Vec<u8>, set: u32, clear: u32| {
            let at = 16 + 8;
            let old = u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
            bytes[at..at + 4].copy_from_slice(&((old | set) & !clear).to_ne_bytes());
            only_link(&bytes).running
        };
        assert!(!flags(late.clone(), IFF_DORMANT, 0));
        assert!(!flags(late.clone(), 0, IFF_LOWER_UP));
        assert!(!flags(late, 0, IFF_UP));
    }

    #[test]
    fn several_messages_in_one_datagram() {
        let both = [VETH_DOWN, VETH_REMOVED].concat();
        let messages = decode(&both);
        assert!(matches!(messages.as_slice(), [Message::New(_), Message::Deleted { .. }]), "{messages:?}");
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_panics_or_hangs() {
        for end in 0..VETH_UP.len() {
            decode(&VETH_UP[..end]);
        }
        for at in 0..VETH_UP.len() {
            for flip in [0xff, 0x01, 0x80] {
                let mut bytes = VETH_UP.to_vec();
                bytes[at] ^= flip;
                decode(&bytes);
            }
        }
        assert_eq!(decode(&[]), []);
        assert_eq!(decode(&[0; 64]), []);
    }

    #[test]
    fn an_outcome_carries_its_request_and_a_positive_errno() {
        let mut bytes = vec![36, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend((-19_i32).to_ne_bytes());
        bytes.extend([0; 16]);
        assert_eq!(decode(&bytes), [Message::Outcome { seq: 7, errno: 19 }]);
    }

    #[test]
    fn requests_have_the_layout_of_rtnetlink() {
        let request = set_up(5).finish(9);
        // nlmsghdr: length 32, RTM_SETLINK, REQUEST | ACK, seq; ifinfomsg: index 5, flags and mask
        // IFF_UP.
        assert_eq!(request.len(), 32);
        assert_eq!(request[4..6], 19_u16.to_ne_bytes());
        assert_eq!(request[6..8], 5_u16.to_ne_bytes());
        assert_eq!(request[8..12], 9_u32.to_ne_bytes());
        assert_eq!(request[20..24], 5_u32.to_ne_bytes());
        assert_eq!(request[24..28], 1_u32.to_ne_bytes());
        assert_eq!(request[28..32], 1_u32.to_ne_bytes());
        let request = get_by_name("eth0").finish(1);
        assert_eq!(request[4..6], 18_u16.to_ne_bytes());
        assert!(request.windows(5).any(|w| w == b"eth0\0"));
        // What netlink-packet-route 0.34 made of the same request.
        let golden = [
            &[52, 0, 0, 0, 18, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0][..],
            &[0; 16],
            &[9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0],
            &[8, 0, 29, 0, 8, 0, 0, 0],
        ];
        assert_eq!(request, golden.concat());
    }
}
