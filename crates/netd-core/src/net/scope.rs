//! How far an address or a route reaches.

/// rt_scope_t of linux/rtnetlink.h; the kernel ignores it for IPv6 routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// 0: beyond a router.
    Global,
    /// 253: on the link.
    Link,
    /// 254: this host.
    Host,
    /// Any other number.
    Other(u8),
}

impl Scope {
    /// The kernel's number.
    pub fn number(self) -> u8 {
        match self {
            Scope::Global => 0,
            Scope::Link => 253,
            Scope::Host => 254,
            Scope::Other(n) => n,
        }
    }

    /// From the kernel's number.
    pub fn from_number(n: u8) -> Scope {
        match n {
            0 => Scope::Global,
            253 => Scope::Link,
            254 => Scope::Host,
            n => Scope::Other(n),
        }
    }
}
