//! The number of a VLAN.

use std::fmt;

use super::decimal;

/// IEEE 802.1Q 9.6: 12 bits, of which 0 tells a priority alone and 4095 is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanId(u16);

impl VlanId {
    /// The last one.
    const MAX: u16 = 4094;

    /// Reads a number.
    pub fn parse(text: &str) -> Option<VlanId> {
        decimal(text).and_then(VlanId::new)
    }

    /// `None` when no VLAN has this number.
    pub fn new(number: u16) -> Option<VlanId> {
        (1..=VlanId::MAX).contains(&number).then_some(VlanId(number))
    }

    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_vlans() {
        for (text, number) in [("1", 1), ("7", 7), ("4094", 4094)] {
            assert_eq!(VlanId::parse(text).map(VlanId::number), Some(number));
        }
        for bad in ["", "0", "4095", "65543", "-1", "+7", "7.1", "lan"] {
            assert_eq!(VlanId::parse(bad), None, "{bad}");
        }
    }
}
