//! Seeds for `netd_core::rng`, from the kernel.

use std::hash::{BuildHasher, RandomState};

use netd_core::rng::Rng;

/// A sequence that cannot be guessed. std keys its hash tables with getrandom(2); a keyed hash of
/// eight different inputs gives eight words of them, without a file that a chroot may lack.
pub fn rng() -> Rng {
    let state = RandomState::new();
    let word = |n: u32| u32::try_from(state.hash_one(n) >> 32).unwrap_or_default();
    Rng::from_key([word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sequences_differ() {
        assert_ne!(rng().next_u32(), rng().next_u32());
    }
}
