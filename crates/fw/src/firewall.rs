//! The firewall: what our table should be (text), and how the kernel gets it (load).

pub mod load;
pub mod text;
