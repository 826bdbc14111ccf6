//! How the kernel makes the lower half of its own IPv6 addresses.

use std::fmt;

/// The modes of ip-link(8)'s `addrgenmode`; the numbers are those of linux/if_link.h
/// (IN6_ADDR_GEN_MODE_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddrGen {
    /// 0: from the Ethernet address (RFC 4291 appendix A).
    Eui64,
    /// 1: no address of its own.
    None,
    /// 2: from the secret of the interface or of the machine (RFC 7217).
    StablePrivacy,
    /// 3: the same with a random secret.
    Random,
}

impl AddrGen {
    const ALL: [(AddrGen, &str); 4] = [
        (AddrGen::Eui64, "eui64"),
        (AddrGen::None, "none"),
        (AddrGen::StablePrivacy, "stable-privacy"),
        (AddrGen::Random, "random"),
    ];

    /// Reads ip-link(8)'s word.
    pub fn parse(text: &str) -> Option<AddrGen> {
        AddrGen::ALL.into_iter().find(|(_, word)| *word == text).map(|(mode, _)| mode)
    }

    /// The kernel's number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// From the kernel's number.
    pub fn from_number(number: u8) -> Option<AddrGen> {
        AddrGen::ALL.into_iter().map(|(mode, _)| mode).find(|mode| mode.number() == number)
    }
}

impl fmt::Display for AddrGen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(AddrGen::ALL.into_iter().find(|(mode, _)| mode == self).map_or("", |(_, word)| word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_ip_link_and_numbers_of_the_kernel() {
        for (number, word) in ["eui64", "none", "stable-privacy", "random"].into_iter().enumerate() {
            let mode = AddrGen::parse(word).unwrap();
            assert_eq!((usize::from(mode.number()), mode.to_string().as_str()), (number, word));
            assert_eq!(AddrGen::from_number(mode.number()), Some(mode));
        }
        assert_eq!((AddrGen::parse("stable_secret"), AddrGen::parse(""), AddrGen::from_number(4)), (None, None, None));
    }
}
