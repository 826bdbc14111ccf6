//! Neighbours: which station has which IP address on an interface.
//!
//! Only what it takes to tell one interface what another one knows. Layout: `struct ndmsg` of
//! linux/neighbour.h: family u8, pad u8, pad u16, interface i32 at 4, state u16 at 8, flags u8,
//! type u8. Called by fw's kernel.rs.

use std::net::IpAddr;

use crate::net::Mac;
use crate::wire::netlink::{
    self, DUMP, GET_NEIGHBOUR, Message, NEW_NEIGHBOUR, NLM_F_CREATE, REQUEST, attribute, u32_at,
};

/// The address of the neighbour.
const NDA_DST: u16 = 1;
/// Its Ethernet address.
const NDA_LLADDR: u16 = 2;
/// The interface whose neighbours are asked for, u32.
const NDA_IFINDEX: u16 = 8;
/// Length of `struct ndmsg`.
const NDMSG_LEN: usize = 12;

// linux/neighbour.h: states.
const NUD_REACHABLE: u16 = 0x02;
/// Known, and asked again when it is used.
const NUD_STALE: u16 = 0x04;
const NUD_DELAY: u16 = 0x08;
const NUD_PROBE: u16 = 0x10;

/// A station that the kernel has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the interface.
    pub ifindex: u32,
    /// Its IP address.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
}

/// Asks for the neighbours of an interface. Kernels before 4.20 tell those of all.
pub fn dump(ifindex: u32) -> Message {
    Message::new(GET_NEIGHBOUR, DUMP, &[0; NDMSG_LEN]).with(NDA_IFINDEX, &ifindex.to_ne_bytes())
}

/// The neighbour in a message. `None` for one that was not found, and for one that an administrator
/// has set.
pub fn decode(payload: &[u8]) -> Option<Neighbour> {
    let state = payload.get(8..10)?.try_into().ok().map(u16::from_ne_bytes)?;
    let attributes = payload.get(NDMSG_LEN..)?;
    let is_found = state & (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE) != 0;
    let mac = attribute(attributes, NDA_LLADDR)?.try_into().ok().map(Mac)?;
    let ip = netlink::ip(attribute(attributes, NDA_DST)?)?;
    is_found.then_some(Neighbour { ifindex: u32_at(payload, 4)?, ip, mac })
}

/// RTM_NEWNEIGH for a neighbour whose answer is not awaited before it is used.
pub fn add(neighbour: &Neighbour) -> Message {
    let fixed = [
        &[netlink::family(neighbour.ip), 0, 0, 0][..],
        &neighbour.ifindex.to_ne_bytes(),
        &NUD_STALE.to_ne_bytes(),
        &[0, 0],
    ];
    let message = Message::new(NEW_NEIGHBOUR, REQUEST | NLM_F_CREATE, &fixed.concat());
    let message = match neighbour.ip {
        IpAddr::V4(ip) => message.with(NDA_DST, &ip.octets()),
        IpAddr::V6(ip) => message.with(NDA_DST, &ip.octets()),
    };
    message.with(NDA_LLADDR, &neighbour.mac.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::netlink::messages;

    #[test]
    fn a_neighbour_that_is_added_decodes_to_the_same() {
        for ip in ["192.168.5.2", "fe80::1"] {
            let neighbour = Neighbour { ifindex: 213_000, ip: ip.parse().unwrap(), mac: Mac([2, 0, 0, 0, 0, 7]) };
            let sent = add(&neighbour).finish(1);
            let (header, payload) = messages(&sent).next().unwrap();
            assert_eq!((header.kind, decode(payload)), (NEW_NEIGHBOUR, Some(neighbour)));
            // The state is at 8: NUD_FAILED, NUD_INCOMPLETE, NUD_PERMANENT, NUD_NOARP.
            for state in [0x20, 0x01, 0x80, 0x40] {
                let mut other = payload.to_vec();
                other[8] = state;
                assert_eq!(decode(&other), None, "{state}");
            }
            // The last two bytes only fill the message up to a multiple of four.
            assert!((0..payload.len() - 2).all(|end| decode(&payload[..end]).is_none()), "a part is none");
        }
    }
}
