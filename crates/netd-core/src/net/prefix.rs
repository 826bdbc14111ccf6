//! A network, or an address together with its network's length.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{bits, decimal};

/// An address and the number of leading bits that name its network. The host bits may be set: an
/// interface's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address.
    pub ip: IpAddr,
    /// Leading bits, 0..=32 or 0..=128.
    pub len: u8,
}

impl Prefix {
    /// `None` when `len` is too large for the family.
    pub fn new(ip: IpAddr, len: u8) -> Option<Prefix> {
        (len <= bits(ip)).then_some(Prefix { ip, len })
    }

    /// This address alone.
    pub fn host(ip: IpAddr) -> Prefix {
        Prefix { ip, len: bits(ip) }
    }

    /// Every destination of `ip`'s family.
    pub fn default_of(ip: IpAddr) -> Prefix {
        let ip = match ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Prefix { ip, len: 0 }
    }

    /// `A/LEN`, or `A` alone as one host. In IPv4 trailing zero bytes may be left out, as in `0/0`
    /// and `172.16/12`.
    pub fn parse(text: &str) -> Option<Prefix> {
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(decimal(len)?)),
            None => (text, None),
        };
        let ip = if address.contains(':') {
            IpAddr::V6(address.parse().ok()?)
        } else if len.is_some() {
            IpAddr::V4(short_v4(address)?)
        } else {
            IpAddr::V4(address.parse().ok()?)
        };
        Prefix::new(ip, len.unwrap_or_else(|| bits(ip)))
    }

    /// The same with the host bits cleared.
    pub fn network(self) -> Prefix {
        let shift = u32::from(self.len);
        let ip = match self.ip {
            IpAddr::V4(a) => {
                let mask = u32::MAX.checked_shl(32 - shift.min(32)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(a) & mask))
            }
            IpAddr::V6(a) => {
                let mask = u128::MAX.checked_shl(128 - shift.min(128)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(a) & mask))
            }
        };
        Prefix { ip, len: self.len }
    }

    /// Whether `ip` is in the network.
    pub fn contains(self, ip: IpAddr) -> bool {
        // Of equal addresses no bit is left; a length of 0 leaves none of any, which is no shift.
        let host = u32::from(bits(self.ip).saturating_sub(self.len));
        match (self.ip, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).checked_shr(host).unwrap_or(0) == 0,
            (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).checked_shr(host).unwrap_or(0) == 0,
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether it is every destination of its family.
    pub fn is_default(self) -> bool {
        self.len == 0
    }

    /// Whether it is a single host.
    pub fn is_host(self) -> bool {
        self.len == bits(self.ip)
    }

    /// The last address of an IPv4 network that has a broadcast address (RFC 3021: a /31 has none).
    pub fn broadcast(self) -> Option<Ipv4Addr> {
        match self.ip {
            IpAddr::V4(a) if self.len < 31 => {
                let host = u32::MAX.checked_shr(u32::from(self.len)).unwrap_or(0);
                Some(Ipv4Addr::from(u32::from(a) | host))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.len)
    }
}

fn short_v4(text: &str) -> Option<Ipv4Addr> {
    let missing = 3usize.checked_sub(text.bytes().filter(|b| *b == b'.').count())?;
    format!("{text}{}", ".0".repeat(missing)).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Prefix {
        Prefix::parse(text).unwrap()
    }

    #[test]
    fn prefixes_in_all_their_forms() {
        let table = [
            ("0/0", "0.0.0.0/0"),
            ("10/8", "10.0.0.0/8"),
            ("172.16/12", "172.16.0.0/12"),
            ("192.168.1.5/24", "192.168.1.5/24"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("::/0", "::/0"),
            ("2001:db8::1/64", "2001:db8::1/64"),
            ("fe80::1", "fe80::1/128"),
        ];
        for (text, want) in table {
            assert_eq!(p(text).to_string(), want);
        }
        for bad in
            ["", "/", "10", "1.2.3.4/33", "1.2.3.4/+8", "1.2.3.4.5/8", "a/8", "::1/129", "1.2.3.4/", ":/0", "10./8"]
        {
            assert_eq!(Prefix::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn networks_and_broadcasts() {
        assert_eq!(p("192.168.1.5/24").network(), p("192.168.1.0/24"));
        assert_eq!(p("1.2.3.4/0").network(), p("0/0"));
        assert_eq!(p("1.2.3.4/32").network(), p("1.2.3.4/32"));
        assert_eq!(p("2001:db8:1::5/48").network(), p("2001:db8:1::/48"));
        assert!(p("10/8").contains("10.255.0.1".parse().unwrap()));
        assert!(!p("10/8").contains("11.0.0.1".parse().unwrap()));
        assert!(!p("0/0").contains("::1".parse().unwrap()));
        assert_eq!(p("192.168.1.5/24").broadcast(), Some(Ipv4Addr::new(192, 168, 1, 255)));
        assert_eq!(p("192.168.1.5/31").broadcast(), None);
        assert_eq!(p("1.2.3.4/0").broadcast(), Some(Ipv4Addr::BROADCAST));
    }
}
