//! The switches of one interface, as every answer about a link carries them: the same numbers as
//! the files of /proc/sys/net/ipv4/conf/IF and of its twin for IPv6, without a system call for
//! each.
//!
//! The order of the arrays is that of linux/ip.h (IPV4_DEVCONF_*, which counts from 1) and of
//! linux/ipv6.h (DEVCONF_*, from 0). A newer kernel only appends. Called by fw's wire.rs.

use super::netlink::{AF_INET, AF_INET6, attribute, u32_at};

/// The switches of IPv4, an array of u32, in the attributes of AF_INET.
const IFLA_INET_CONF: u16 = 1;
/// The switches of IPv6, an array of i32, in the attributes of AF_INET6.
const IFLA_INET6_CONF: u16 = 2;

/// The name of a switch and its place in the array.
type Place = (&'static str, usize);

const V4: [Place; 6] = [
    ("forwarding", 0),
    ("rp_filter", 7),
    ("arp_announce", 17),
    ("arp_ignore", 18),
    ("promote_secondaries", 19),
    ("ignore_routes_with_linkdown", 28),
];

const V6: [Place; 4] = [("forwarding", 0), ("accept_ra", 3), ("disable_ipv6", 26), ("ignore_routes_with_linkdown", 39)];

/// What the kernel says of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DevConf {
    v4: Vec<u32>,
    v6: Vec<u32>,
}

impl DevConf {
    /// Of the attributes in IFLA_AF_SPEC. A family that the kernel or the interface has not is
    /// empty.
    pub fn decode(families: &[u8]) -> DevConf {
        let array = |family: u8, conf: u16| {
            let bytes = attribute(families, family.into()).and_then(|own| attribute(own, conf)).unwrap_or_default();
            bytes.chunks_exact(4).filter_map(|number| u32_at(number, 0)).collect()
        };
        DevConf { v4: array(AF_INET, IFLA_INET_CONF), v6: array(AF_INET6, IFLA_INET6_CONF) }
    }

    /// The value of a switch, as its file shows it. `None`: it is not among those that are known
    /// here, or the kernel does not tell it.
    pub fn get(&self, v4: bool, name: &str) -> Option<i32> {
        let (places, values) = if v4 { (&V4[..], &self.v4) } else { (&V6[..], &self.v6) };
        let (_, place) = places.iter().find(|(known, _)| *known == name)?;
        values.get(*place).map(|value| value.cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::netlink::Message;

    /// Attributes without the header of a message.
    fn bare(message: Message) -> Vec<u8> {
        message.finish(0).split_off(16)
    }

    #[test]
    fn a_switch_is_read_at_its_place_and_what_is_not_told_is_not_known() {
        let numbers = |count: u32| (0..count).flat_map(|n| (n + 100).to_ne_bytes()).collect::<Vec<u8>>();
        let empty = || Message::new(0, 0, &[]);
        let four = empty().with(IFLA_INET_CONF, &numbers(20));
        let six = empty().with(IFLA_INET6_CONF, &(-1i32).to_ne_bytes());
        let conf = DevConf::decode(&bare(empty().with_nested(AF_INET.into(), four).with_nested(AF_INET6.into(), six)));
        assert_eq!(conf.get(true, "promote_secondaries"), Some(119));
        assert_eq!(conf.get(true, "ignore_routes_with_linkdown"), None, "an older kernel");
        assert_eq!(conf.get(true, "log_martians"), None);
        assert_eq!((conf.get(false, "forwarding"), conf.get(false, "accept_ra")), (Some(-1), None));
        assert_eq!(DevConf::decode(b"\x03"), DevConf::default());
    }
}
