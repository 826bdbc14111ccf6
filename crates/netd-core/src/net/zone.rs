//! The name of a zone of fw.

use std::fmt;
use std::ops::Deref;

/// The networks behind the interfaces that share this name share a policy.
///
/// Lower-case letters, digits and `_`, at most 15 of them: the name stands in the names of
/// variables (`zone_NAME_to` of fw.conf) and in nft's text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneName(String);

/// As long as the name of an interface.
const MAX: usize = 15;

impl ZoneName {
    /// Reads a name.
    pub fn parse(text: &str) -> Option<ZoneName> {
        let takes = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        ((1..=MAX).contains(&text.len()) && text.bytes().all(takes)).then(|| ZoneName(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for ZoneName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_a_word_that_fits_into_the_name_of_a_variable() {
        for good in ["lan", "guest_2", "7", "_", "fifteen_letters"] {
            assert_eq!(ZoneName::parse(good).as_deref(), Some(good));
        }
        for bad in ["", "LAN", "my-lan", "a b", "lan.1", "sixteen_letters_", "b\u{fc}ro", "a\"b", "*"] {
            assert_eq!(ZoneName::parse(bad), None, "{bad}");
        }
    }
}
