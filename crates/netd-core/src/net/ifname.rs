//! The name of a network interface.

use std::fmt;
use std::ops::Deref;

/// A name that the kernel gives to an interface, and that needs no quoting anywhere.
///
/// The kernel's rule (dev_valid_name of net/core/dev.c): 1 to 15 bytes, neither `.` nor `..`,
/// without slash, colon and blank; `all` and `default` name directories of /proc/sys. Of what is
/// left, letters, digits and `._@+=-` are taken: the name stands in a shell's text, in nft's, in
/// lists and in the names of files. A program refuses any other name when it starts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

/// linux/if.h: IFNAMSIZ, without the final NUL.
const MAX: usize = 15;

impl IfName {
    /// What the name may consist of, for an error message.
    pub const RULE: &str = "1 to 15 letters, digits and ._@+=- are taken";

    /// Whether `byte` may stand in a name.
    pub(crate) fn takes(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || b"._@+=-".contains(&byte)
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Option<IfName> {
        let good = (1..=MAX).contains(&text.len())
            && !matches!(text, "." | ".." | "all" | "default")
            && text.bytes().all(IfName::takes);
        good.then(|| IfName(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The loopback interface, which every machine has.
impl Default for IfName {
    fn default() -> IfName {
        IfName("lo".to_owned())
    }
}

impl Deref for IfName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_kernel_is_taken_and_one_that_could_mean_something_else_is_not() {
        for good in ["eth0", "eth0.5", "wlx00c0ca-1", "br_lan", "a+b", "x=y", "veth@if3", "-", ".x", "fifteen-letters"]
        {
            assert_eq!(IfName::parse(good).as_deref(), Some(good));
        }
        for bad in [
            "",
            ".",
            "..",
            "all",
            "default",
            "eth0/..",
            "a b",
            "eth*",
            "\"x\"",
            "sixteen-letters-",
            "a:b",
            "a'b",
            "a,b",
            "a;b",
            "a$b",
            "a\nb",
            "b\u{fc}ro0",
            "a%d",
            "a\\b",
            "{a}",
            "a#b",
        ] {
            assert_eq!(IfName::parse(bad), None, "{bad}");
        }
    }
}
