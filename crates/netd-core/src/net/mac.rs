//! A station's address on an Ethernet.

use std::fmt;

/// The bit of the first byte that a group's address has (IEEE 802).
const GROUP: u8 = 1;

/// Six bytes, written `02:00:00:00:00:01`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Reads six bytes of two hexadecimal digits each, with colons between them.
    pub fn parse(text: &str) -> Option<Mac> {
        let mut out = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut out {
            let pair = pairs.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        pairs.next().is_none().then_some(Mac(out))
    }

    /// Whether one station can have it: no group's address, and not all zeros
    /// (is_valid_ether_addr of linux/etherdevice.h).
    pub fn is_station(self) -> bool {
        let [first, ..] = self.0;
        first & GROUP == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl From<[u8; 6]> for Mac {
    fn from(bytes: [u8; 6]) -> Mac {
        Mac(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written() {
        let mac = Mac([0x02, 0, 0xab, 0, 0, 0x0f]);
        assert_eq!(mac.to_string(), "02:00:ab:00:00:0f");
        assert_eq!(Mac::parse("02:00:AB:00:00:0f"), Some(mac));
        for bad in
            ["", "02:00:ab:00:00", "02:00:ab:00:00:0f:00", "2:0:ab:0:0:f", "02-00-ab-00-00-0f", "02:00:ab:00:00:+f"]
        {
            assert_eq!(Mac::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_group_and_zeros_are_no_station() {
        for (text, is_station) in [
            ("02:00:00:00:00:01", true),
            ("00:00:00:00:00:01", true),
            ("00:00:00:00:00:00", false),
            ("01:80:c2:00:00:00", false),
            ("ff:ff:ff:ff:ff:ff", false),
        ] {
            assert_eq!(Mac::parse(text).unwrap().is_station(), is_station, "{text}");
        }
    }
}
