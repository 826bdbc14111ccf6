//! All that fw reads before it asks the kernel: records, fw.conf, what it remembers, the clocks.

pub mod files;
pub mod lease;
pub mod memory;
pub mod policy;
