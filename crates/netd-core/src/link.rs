//! One interface, followed by its name.

pub mod tracker;
