//! Names of hosts and of domains.

use std::fmt;
use std::ops::Deref;

/// RFC 1035 2.3.4
const MAX_LABEL: usize = 63;
/// RFC 1035 3.1: 255 bytes on the wire, of which one is the first length and one the root.
const MAX_NAME: usize = 253;

/// A domain as resolv.conf, hosts and a DNS question can carry it: labels of letters, digits, `-`
/// and `_`, none of which begins with a dash. One dot at its end is read and left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);

/// The name of a host, with its domain or without it: the same rule as for a domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

impl DomainName {
    /// Reads a name.
    pub fn parse(text: &str) -> Option<DomainName> {
        name(text).map(|name| DomainName(name.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HostName {
    /// Reads a name.
    pub fn parse(text: &str) -> Option<HostName> {
        name(text).map(|name| HostName(name.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for DomainName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Deref for HostName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The one validator of names.
fn name(text: &str) -> Option<&str> {
    let label = |l: &str| {
        (1..=MAX_LABEL).contains(&l.len())
            && !l.starts_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    (name.len() <= MAX_NAME && name.split('.').all(label)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_make_a_name() {
        let (label, long) = ("a".repeat(63), format!("{}a", "a.".repeat(126)));
        for good in ["lan", "example.org", "_x.my-box-", "1.2.3.4", &label, &long] {
            assert_eq!(DomainName::parse(good).as_deref(), Some(good), "{good}");
            assert_eq!(HostName::parse(&format!("{good}.")).as_deref(), Some(good), "{good}");
        }
        let (label, long) = ("a".repeat(64), format!("{}ab", "a.".repeat(126)));
        for bad in
            ["", ".", "..", "corp..example", ".lan", "-x", "a.-b", "a b", "a/b", "a;b", "b\u{fc}ro", &label, &long]
        {
            assert_eq!(DomainName::parse(bad), None, "{bad}");
            assert_eq!(HostName::parse(bad), None, "{bad}");
        }
    }
}
