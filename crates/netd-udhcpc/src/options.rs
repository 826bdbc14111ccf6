//! The table of DHCP options: code, the name that scripts and `-O`/`-x` know, and the shape of the
//! value.
//!
//! Pure. One table serves the environment (env.rs), the command line (cli.rs) and the request list.
//! Names and shapes are those of busybox 1.37 udhcpc; an option that is not here is exported as
//! `optN=hex`.

use std::net::Ipv4Addr;

use applet::name::Name;

/// How the bytes of an option are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One address; more are printed too.
    Ip,
    /// Several addresses.
    IpList,
    /// Pairs of addresses, printed `A/B`.
    IpPairs,
    /// Text as it is.
    Text,
    /// A host or domain name: anything else becomes `bad`.
    HostText,
    /// 8-bit number.
    U8,
    /// 16-bit number.
    U16,
    /// 32-bit number.
    U32,
    /// RFC 3442 routes.
    Routes,
    /// RFC 3397 compressed names.
    Names,
    /// RFC 3361: a type byte, then addresses or names.
    Sip,
    /// RFC 5969.
    SixRd,
    /// Bytes, in hexadecimal or as a quoted string.
    Raw,
}

/// One known option.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its code.
    pub code: u8,
    name: Name,
    /// Shape of its value.
    pub shape: Shape,
}

const fn known(code: u8, name: &str, shape: Shape) -> Known {
    Known { code, name: Name::new(name), shape }
}

impl Known {
    /// Name of its variable.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }
}

/// All of them by code.
pub const KNOWN: &[Known] = &[
    known(SUBNET, "subnet", Shape::Ip),
    known(2, "timezone", Shape::U32),
    known(ROUTER, "router", Shape::IpList),
    known(DNS, "dns", Shape::IpList),
    known(9, "lprsrv", Shape::IpList),
    known(HOSTNAME, "hostname", Shape::HostText),
    known(13, "bootsize", Shape::U16),
    known(DOMAIN, "domain", Shape::HostText),
    known(16, "swapsrv", Shape::Ip),
    known(17, "rootpath", Shape::Text),
    known(23, "ipttl", Shape::U8),
    known(MTU, "mtu", Shape::U16),
    known(BROADCAST, "broadcast", Shape::Ip),
    known(HOST_ROUTES, "routes", Shape::IpPairs),
    known(40, "nisdomain", Shape::HostText),
    known(41, "nissrv", Shape::IpList),
    known(NTP, "ntpsrv", Shape::IpList),
    known(44, "wins", Shape::IpList),
    known(LEASE, "lease", Shape::U32),
    known(SERVER_ID, "serverid", Shape::Ip),
    known(MESSAGE, "message", Shape::Text),
    known(VENDOR_CLASS, "vendor", Shape::Text),
    known(66, "tftp", Shape::HostText),
    known(67, "bootfile", Shape::Text),
    known(100, "tzstr", Shape::Text),
    known(101, "tzdbstr", Shape::Text),
    known(SEARCH, "search", Shape::Names),
    known(120, "sipsrv", Shape::Sip),
    known(STATIC_ROUTES, "staticroutes", Shape::Routes),
    known(132, "vlanid", Shape::U16),
    known(133, "vlanpriority", Shape::U8),
    known(209, "pxeconffile", Shape::Text),
    known(210, "pxepathprefix", Shape::Text),
    known(211, "reboottime", Shape::U32),
    known(212, "ip6rd", Shape::SixRd),
    known(MS_STATIC_ROUTES, "msstaticroutes", Shape::Routes),
    known(252, "wpad", Shape::Text),
];

/// Options that can be asked for and sent by name; scripts get them as `optN=hex`, as from udhcpc.
const ONLY_NAMED: &[Known] = &[
    known(43, "vendorinfo", Shape::Raw),
    known(77, "userclass", Shape::Raw),
    known(IPV6_ONLY_PREFERRED, "ipv6only", Shape::U32),
    known(CAPTIVE_PORTAL, "captiveportal", Shape::Text),
    known(124, "vivendorclass", Shape::Raw),
    known(125, "vivendorinfo", Shape::Raw),
];

/// Padding.
pub const PAD: u8 = 0;
/// Subnet mask.
pub const SUBNET: u8 = 1;
/// Routers.
pub const ROUTER: u8 = 3;
/// Name servers.
pub const DNS: u8 = 6;
/// Our name.
pub const HOSTNAME: u8 = 12;
/// Domain name.
pub const DOMAIN: u8 = 15;
/// Interface MTU.
pub const MTU: u8 = 26;
/// Broadcast address.
pub const BROADCAST: u8 = 28;
/// Routes to hosts, as pairs of addresses.
pub const HOST_ROUTES: u8 = 33;
/// NTP servers.
pub const NTP: u8 = 42;
/// Requested address.
pub const REQUESTED_IP: u8 = 50;
/// Lease time in seconds.
pub const LEASE: u8 = 51;
/// Options continue in the `file` and `sname` fields.
pub const OVERLOAD: u8 = 52;
/// Message type.
pub const MESSAGE_TYPE: u8 = 53;
/// Server identifier.
pub const SERVER_ID: u8 = 54;
/// Parameter request list.
pub const PARAMETERS: u8 = 55;
/// A server's words.
pub const MESSAGE: u8 = 56;
/// Largest message that we take.
pub const MAX_SIZE: u8 = 57;
/// T1 in seconds.
pub const RENEWAL: u8 = 58;
/// T2 in seconds.
pub const REBINDING: u8 = 59;
/// Vendor class.
pub const VENDOR_CLASS: u8 = 60;
/// Client identifier.
pub const CLIENT_ID: u8 = 61;
/// Rapid commit (RFC 4039): always empty.
pub const RAPID_COMMIT: u8 = 80;
/// Client FQDN.
pub const FQDN: u8 = 81;
/// IPv6 is enough here, and for how many seconds (RFC 8925).
pub const IPV6_ONLY_PREFERRED: u8 = 108;
/// Where a captive portal has its API (RFC 8910).
pub const CAPTIVE_PORTAL: u8 = 114;
/// Domain search list.
pub const SEARCH: u8 = 119;
/// Classless static routes.
pub const STATIC_ROUTES: u8 = 121;
/// The same by a private number, as Microsoft's clients had it before RFC 3442.
pub const MS_STATIC_ROUTES: u8 = 249;
/// End of options.
pub const END: u8 = 255;

/// What udhcpc asks for without `-o`.
pub const DEFAULT_PARAMETERS: [u8; 7] = [SUBNET, ROUTER, DNS, HOSTNAME, DOMAIN, BROADCAST, NTP];
/// What a record has a place for.
pub const NATIVE_PARAMETERS: [u8; 13] = [
    SUBNET,
    ROUTER,
    DNS,
    HOSTNAME,
    DOMAIN,
    MTU,
    BROADCAST,
    HOST_ROUTES,
    NTP,
    CAPTIVE_PORTAL,
    SEARCH,
    STATIC_ROUTES,
    MS_STATIC_ROUTES,
];
/// What a connection cannot do without.
pub const ANONYMOUS_PARAMETERS: [u8; 4] = [SUBNET, ROUTER, DNS, STATIC_ROUTES];

/// The table's row of a code.
pub fn by_code(code: u8) -> Option<&'static Known> {
    KNOWN.iter().find(|k| k.code == code)
}

fn by_name(name: &str) -> Option<&'static Known> {
    KNOWN.iter().chain(ONLY_NAMED).find(|k| k.name() == name)
}

/// The notation of a named option.
pub fn shape_of_name(name: &str) -> Option<Shape> {
    by_name(name).map(|k| k.shape)
}

/// An option's name or number (decimal or 0x..), 1 to 254.
pub fn parse_code(text: &str) -> Option<u8> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u8::from_str_radix(hex, 16).ok(),
        None => text.parse::<u8>().ok(),
    };
    match number {
        Some(PAD | END) => None,
        Some(code) => Some(code),
        None => by_name(text).map(|k| k.code),
    }
}

/// All known names, as an error message lists them.
pub fn names() -> String {
    KNOWN.iter().chain(ONLY_NAMED).flat_map(|k| [k.name(), " "]).collect()
}

/// The bytes of `-x NAME:VALUE` for a named option; `None` when the text does not fit the shape.
pub fn encode_value(shape: Shape, text: &str) -> Option<Vec<u8>> {
    let words = || text.split([' ', '\t', ',']).filter(|w| !w.is_empty());
    let ip = |w: &str| w.parse::<Ipv4Addr>().ok().map(|a| a.octets());
    match shape {
        Shape::Ip => ip(text.trim()).map(|o| o.to_vec()),
        Shape::IpList => words().map(ip).collect::<Option<Vec<_>>>().map(|v| v.concat()).filter(|v| !v.is_empty()),
        Shape::IpPairs => {
            let addresses: Option<Vec<_>> =
                text.split([' ', '\t', ',', '/']).filter(|w| !w.is_empty()).map(ip).collect();
            addresses.filter(|a| !a.is_empty() && a.len().is_multiple_of(2)).map(|a| a.concat())
        }
        Shape::Text | Shape::HostText => Some(text.bytes().take(254).collect()),
        Shape::U8 => parse_number(text).and_then(|n| u8::try_from(n).ok()).map(|n| vec![n]),
        Shape::U16 => parse_number(text).and_then(|n| u16::try_from(n).ok()).map(|n| n.to_be_bytes().to_vec()),
        Shape::U32 => parse_number(text).and_then(|n| u32::try_from(n).ok()).map(|n| n.to_be_bytes().to_vec()),
        Shape::Routes => encode_routes(text),
        Shape::Names => encode_names(text),
        Shape::Sip | Shape::SixRd | Shape::Raw => parse_hex(text),
    }
}

fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `NET/LEN GW [NET/LEN GW ...]` in the bytes of RFC 3442.
fn encode_routes(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut words = text.split([' ', '\t', ',']).filter(|w| !w.is_empty());
    while let Some(net) = words.next() {
        let (net, len) = net.split_once('/')?;
        let len: u8 = len.parse().ok().filter(|l| *l <= 32)?;
        out.push(len);
        out.extend(net.parse::<Ipv4Addr>().ok()?.octets().iter().take(usize::from(len.div_ceil(8))));
        out.extend(words.next()?.parse::<Ipv4Addr>().ok()?.octets());
    }
    Some(out).filter(|o| !o.is_empty())
}

/// Names in the wire format of RFC 1035, without compression.
fn encode_names(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for name in text.split([' ', '\t', ',']).filter(|w| !w.is_empty()) {
        for label in name.trim_end_matches('.').split('.') {
            let len = u8::try_from(label.len()).ok().filter(|l| (1..=63).contains(l))?;
            out.push(len);
            out.extend(label.bytes());
        }
        out.push(0);
    }
    Some(out).filter(|o| !o.is_empty() && o.len() <= 255)
}

/// Hexadecimal digits, with optional `:` or blanks between the bytes.
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> =
        text.chars().filter(|c| !matches!(c, ':' | ' ' | '\t')).map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    if digits.is_empty() || !digits.len().is_multiple_of(2) || digits.len() > 510 {
        return None;
    }
    digits.chunks_exact(2).map(|pair| u8::try_from(pair.iter().fold(0, |n, d| n * 16 + d)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_page_lists_every_variable_of_a_script_and_every_other_name() {
        let man = include_str!("../../../man/udhcpc.8");
        let list = man.split_once("a variable for each option that the server sent:\n").unwrap().1;
        let words = list.split_once("\nand\n").unwrap().0.split_ascii_whitespace();
        let listed: Vec<&str> = words.filter(|word| ![".Ev", ","].contains(word)).collect();
        assert_eq!(listed, KNOWN.iter().map(Known::name).collect::<Vec<_>>());
        for option in ONLY_NAMED {
            let named = format!("{} ({})", option.name(), option.code);
            assert!(man.contains(&named), "{named}");
        }
    }

    #[test]
    fn the_table_is_sorted_and_has_no_duplicate() {
        for table in [KNOWN, ONLY_NAMED] {
            assert!(table.windows(2).all(|w| w[0].code < w[1].code));
        }
        let all = || KNOWN.iter().chain(ONLY_NAMED);
        assert!(all().all(|k| all().filter(|o| o.name == k.name || o.code == k.code).count() == 1));
    }

    #[test]
    fn codes_by_name_and_number() {
        let table = [
            ("router", Some(3)),
            ("121", Some(121)),
            ("0x3d", Some(61)),
            ("254", Some(254)),
            ("255", None),
            ("0", None),
            ("256", None),
            ("userclass", Some(77)),
            ("captiveportal", Some(114)),
            ("bogus", None),
            ("-1", None),
        ];
        for (text, want) in table {
            assert_eq!(parse_code(text), want, "{text}");
        }
    }

    #[test]
    fn values_by_shape() {
        let table: &[(Shape, &str, Option<&[u8]>)] = &[
            (Shape::U32, "7200", Some(&[0, 0, 0x1c, 0x20])),
            (Shape::U8, "256", None),
            (Shape::U16, "1500", Some(&[5, 0xdc])),
            (Shape::Ip, "1.2.3.4", Some(&[1, 2, 3, 4])),
            (Shape::IpList, "1.2.3.4,5.6.7.8", Some(&[1, 2, 3, 4, 5, 6, 7, 8])),
            (Shape::IpList, "", None),
            (Shape::IpPairs, "1.2.3.4/5.6.7.8", Some(&[1, 2, 3, 4, 5, 6, 7, 8])),
            (Shape::IpPairs, "1.2.3.4", None),
            (Shape::Routes, "10.20.0.0/16 10.9.0.9", Some(&[16, 10, 20, 10, 9, 0, 9])),
            (Shape::Routes, "10.20.0.0/33 10.9.0.9", None),
            (Shape::Names, "a.bc", Some(&[1, b'a', 2, b'b', b'c', 0])),
            (Shape::Names, "a..b", None),
            (Shape::HostText, "bbox", Some(b"bbox")),
            (Shape::Sip, "01:02", Some(&[1, 2])),
            (Shape::SixRd, "zz", None),
        ];
        for (shape, text, want) in table {
            assert_eq!(encode_value(*shape, text).as_deref(), *want, "{shape:?} {text}");
        }
        assert_eq!(encode_value(Shape::Text, &"x".repeat(300)).unwrap().len(), 254);
    }

    #[test]
    fn hex_digits() {
        assert_eq!(parse_hex("0100BEEFC0FFEE"), Some(vec![1, 0, 0xbe, 0xef, 0xc0, 0xff, 0xee]));
        assert_eq!(parse_hex("01:02 03"), Some(vec![1, 2, 3]));
        assert_eq!(parse_hex("012"), None);
        assert_eq!(parse_hex(""), None);
    }
}
