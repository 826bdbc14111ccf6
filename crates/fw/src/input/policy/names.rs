//! The words of fw.conf about name service.
//!
//! Pure. Called by policy.rs; etc/servers.rs acts on them.

use super::{Word, bad};

/// Whom this machine asks for names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Its own dnsmasq, which asks the servers of the uplinks.
    pub asks_itself: bool,
}

/// The table.
pub(super) const WORDS: &[Word] = &[Word {
    name: "dns",
    means: "where the programs of this machine ask for names: uplinks, self",
    read: |p, given| {
        p.names.asks_itself = match given.value {
            "self" => true,
            "" | "uplinks" => false,
            other => return Err(bad(other)),
        };
        Ok(())
    },
}];

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn dns_is_self_or_uplinks() {
        let asks = |text: &str| parse(text.as_bytes()).0.names.asks_itself;
        assert!(asks("dns=\"self\"\n"));
        assert!(!asks("") && !asks("dns=\"uplinks\"\n") && !asks("dns=\"self\"\ndns=\"\"\n"));
        let (_, errors) = parse(b"dns=\"dnsmasq\"\n");
        assert_eq!(errors[0].what, "dns: bad value: dnsmasq");
    }
}
