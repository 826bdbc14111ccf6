//! svlogd and chpst, held against the originals: every case runs with runit's program first and
//! with ours then.
//!
//! A case that is only about ours says so, and why. `cargo test --test tools`; the originals come
//! from `$NETSV_ORIGINALS` (a tree of unpacked packages, made by ./test) or from PATH. A missing
//! original is said aloud and only ours runs; with `CI` set that is a failure.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod chpst;
mod subject;
mod svlogd;
