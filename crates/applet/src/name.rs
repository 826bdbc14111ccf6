//! A short name that stands inside its row of a table.
//!
//! A `&'static str` is a pointer, and the dynamic linker writes the pointers of a program anew at
//! each start: every page of a table of them is private memory of every process. Called by tables
//! of options, here and in the DHCP client.

/// Room for the name. The longest is --ignore-fail-positive.
const ROOM: usize = 23;

/// At most 23 bytes of UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    len: u8,
    bytes: [u8; ROOM],
}

impl Name {
    /// For a constant: a longer name does not compile there.
    #[expect(clippy::indexing_slicing, reason = "const fn: both indices are below `len`, which is at most ROOM")]
    pub const fn new(text: &str) -> Name {
        assert!(text.len() <= ROOM, "a name has at most 23 bytes");
        let mut name = Name { len: text.len() as u8, bytes: [0; ROOM] };
        let mut at = 0;
        while at < text.len() {
            name.bytes[at] = text.as_bytes()[at];
            at += 1;
        }
        name
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_as_it_is() {
        for name in ["", "json", "ignore-fail-positive", "12345678901234567890123", "\u{e4}\u{f6}"] {
            assert_eq!(Name::new(name).as_str(), name);
        }
    }
}
