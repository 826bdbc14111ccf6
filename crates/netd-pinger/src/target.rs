//! What is asked behind the router, as the command line names it. PURE.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use netd_core::net::DomainName;

use crate::lease::host;

/// RFC 1035 4.2.1
const PORT_DNS: u16 = 53;

/// One target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `icmp:IP`: answers an echo request.
    Icmp(Ipv4Addr),
    /// `tcp:IP:PORT`: takes a connection.
    Tcp(SocketAddrV4),
    /// `dns:IP[/NAME]`: answers a question; without a name, for the root's servers.
    Dns(Ipv4Addr, String),
}

impl Target {
    /// Reads one; `None` when it is none.
    pub(crate) fn parse(text: &str) -> Option<Target> {
        match text.split_once(':')? {
            ("icmp", ip) => Some(Target::Icmp(host(ip)?)),
            ("tcp", address) => {
                let address: SocketAddrV4 = address.parse().ok()?;
                host(&address.ip().to_string()).filter(|_| address.port() != 0).map(|_| Target::Tcp(address))
            }
            ("dns", rest) => {
                let (ip, name) = rest.split_once('/').unwrap_or((rest, ""));
                // The empty name is the root's.
                let name = if name.is_empty() { String::new() } else { DomainName::parse(name)?.to_string() };
                Some(Target::Dns(host(ip)?, name))
            }
            _ => None,
        }
    }

    /// Where a DNS question goes.
    pub(crate) fn dns_server(ip: Ipv4Addr) -> SocketAddrV4 {
        SocketAddrV4::new(ip, PORT_DNS)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Icmp(ip) => write!(f, "icmp:{ip}"),
            Target::Tcp(address) => write!(f, "tcp:{address}"),
            Target::Dns(ip, name) if name.is_empty() => write!(f, "dns:{ip}"),
            Target::Dns(ip, name) => write!(f, "dns:{ip}/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_shown_the_same() {
        for text in ["icmp:1.1.1.1", "tcp:192.0.2.1:443", "dns:9.9.9.9", "dns:9.9.9.9/example.org"] {
            assert_eq!(Target::parse(text).map(|t| t.to_string()).as_deref(), Some(text));
        }
        for text in [
            "",
            "1.1.1.1",
            "icmp:",
            "icmp:a.b",
            "icmp:0.0.0.0",
            "icmp:::1",
            "tcp:1.1.1.1",
            "tcp:1.1.1.1:0",
            "tcp:255.1.1.1:9",
            "dns:1.1.1.1/a b",
            "dns:1.1.1.1/-",
            "dns:1.1.1.1/a..b",
            "http:1.1.1.1",
        ] {
            assert_eq!(Target::parse(text), None, "{text}");
        }
    }
}
