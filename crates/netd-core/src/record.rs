//! Records: how the daemons tell fw what they know.

pub mod text;
