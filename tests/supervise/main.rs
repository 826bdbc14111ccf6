//! `cargo test --test supervise`: runit's behaviour, shown first on Debian's runit, then on ours,
//! then with the parts of both mixed (Debian's sv with our runsv, our runsvdir with Debian's runsv
//! ...).
//!
//! How to add one: a `#[test]` in the file of its room, with [`subject::both`] or one of its
//! sisters around a closure that takes the [`subject::World`]. Files are looked at by hand, never
//! by our own code; everything waits for what it needs, with a bound, and never sleeps for a fixed
//! time. What only we promise uses [`subject::ours`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests fail loudly")]
#![allow(clippy::disallowed_methods, reason = "tests start processes and poll")]

mod again;
mod copy;
mod later;
mod links;
mod name;
mod one_process;
mod runsv;
mod runsvdir;
mod settings;
mod shortage;
mod status;
mod storm;
mod subject;
mod sv;
mod takeover;
mod words;
