//! svlogd and chpst against the originals: every case runs with runit's program first and then with
//! ours.
//!
//! A case that is only about ours says so, and why. `cargo test --test tools`; the originals come
//! from `$NETSV_ORIGINALS` (a tree of unpacked packages, made by ./test) or from PATH. Where an
//! original is missing the test prints a notice and only ours runs; with `CI` set that is a
//! failure.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod chpst;
mod subject;
mod svlogd;
