//! The words of a network: the names of interfaces, zones, hosts and domains, a MAC address, a
//! prefix, the number of a VLAN.
//!
//! Each has one type and one validator, so that all programs agree about a word: a name that one of
//! them takes stands in the records, the file names and the rules of all others.

use std::net::{IpAddr, Ipv4Addr};

mod addr_gen;
mod ifname;
mod mac;
mod name;
mod prefix;
mod scope;
mod vlan;
mod zone;

pub use addr_gen::AddrGen;
pub use ifname::IfName;
pub use mac::Mac;
pub use name::{DomainName, HostName};
pub use prefix::Prefix;
pub use scope::Scope;
pub use vlan::VlanId;
pub use zone::ZoneName;

/// Bits of an address of this family.
pub fn bits(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// Whether one station on a link can own `ip`: RFC 1122 3.2.1.3 keeps 0/8 and 127/8; 224/3 holds
/// multicast, the reserved addresses and the broadcast address.
pub fn is_host(ip: Ipv4Addr) -> bool {
    let [first, ..] = ip.octets();
    !matches!(first, 0 | 127 | 224..)
}

/// A decimal number without sign or blanks, unlike `str::parse`, which takes `+1`.
pub fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_owns_neither_multicast_nor_loopback() {
        for good in ["10.0.0.1", "1.0.0.1", "223.255.255.254", "169.254.1.1"] {
            assert!(is_host(good.parse().unwrap()), "{good}");
        }
        for bad in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
            assert!(!is_host(bad.parse().unwrap()), "{bad}");
        }
    }

    #[test]
    fn a_number_has_digits_alone() {
        assert_eq!(decimal("0012"), Some(12u8));
        for bad in ["", "+1", "-1", " 1", "256", "1e1"] {
            assert_eq!(decimal::<u8>(bad), None, "{bad:?}");
        }
    }
}
