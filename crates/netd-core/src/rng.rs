//! A small seeded generator for transaction ids and jitter.
//!
//! ChaCha with 8 rounds: a transaction id tells nothing about the next one. (In the GCP dhclient
//! takeover of 2021 an attacker outside the network guessed the ids of a client.) A fixed seed
//! gives a fixed sequence, so tests replay. Each machine that needs one owns it. Not for keys.

use std::time::Duration;

/// The generator.
#[derive(Clone, Debug)]
pub struct Rng {
    key: [u32; 8],
    counter: u64,
    block: [u32; 16],
    used: usize,
}

/// "expand 32-byte k": RFC 8439 section 2.3.
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

impl Rng {
    /// The sequence of a seed.
    pub fn seeded(seed: u64) -> Rng {
        let [a, b, c, d, e, f, g, h] = seed.to_be_bytes().map(u32::from);
        Rng::from_key([a, b, c, d, e, f, g, h])
    }

    /// The sequence of a key.
    pub fn from_key(key: [u32; 8]) -> Rng {
        Rng { key, counter: 0, block: [0; 16], used: 16 }
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used >= self.block.len() {
            self.refill();
        }
        let word = self.block.get(self.used).copied().unwrap_or_default();
        self.used += 1;
        word
    }

    /// A number below `limit`; 0 for a limit of 0. The bias of the modulus is below 2^-32 per
    /// value.
    pub fn below(&mut self, limit: u64) -> u64 {
        let wide = u64::from(self.next_u32()) << 32 | u64::from(self.next_u32());
        wide.checked_rem(limit).unwrap_or(0)
    }

    /// A time in `from..to`, to the microsecond; `from` when the range is empty.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let spread = u64::try_from(to.saturating_sub(from).as_micros()).unwrap_or(u64::MAX);
        from + Duration::from_micros(self.below(spread))
    }

    fn refill(&mut self) {
        let [c0, c1, c2, c3] = CONSTANTS;
        let [k0, k1, k2, k3, k4, k5, k6, k7] = self.key;
        let (low, high) = (self.counter as u32, (self.counter >> 32) as u32);
        let start = [c0, c1, c2, c3, k0, k1, k2, k3, k4, k5, k6, k7, low, high, 0, 0];
        let [mut a0, mut a1, mut a2, mut a3, mut b0, mut b1, mut b2, mut b3, ..] = start;
        let [.., mut d0, mut d1, mut d2, mut d3] = start;
        let [mut e0, mut e1, mut e2, mut e3] = [k4, k5, k6, k7];
        for _ in 0..4 {
            quarter(&mut a0, &mut b0, &mut e0, &mut d0);
            quarter(&mut a1, &mut b1, &mut e1, &mut d1);
            quarter(&mut a2, &mut b2, &mut e2, &mut d2);
            quarter(&mut a3, &mut b3, &mut e3, &mut d3);
            quarter(&mut a0, &mut b1, &mut e2, &mut d3);
            quarter(&mut a1, &mut b2, &mut e3, &mut d0);
            quarter(&mut a2, &mut b3, &mut e0, &mut d1);
            quarter(&mut a3, &mut b0, &mut e1, &mut d2);
        }
        self.block = [a0, a1, a2, a3, b0, b1, b2, b3, e0, e1, e2, e3, d0, d1, d2, d3];
        for (word, first) in self.block.iter_mut().zip(start) {
            *word = word.wrapping_add(first);
        }
        self.counter = self.counter.wrapping_add(1);
        self.used = 0;
    }
}

/// RFC 8439 section 2.1.
fn quarter(a: &mut u32, b: &mut u32, c: &mut u32, d: &mut u32) {
    *a = a.wrapping_add(*b);
    *d = (*d ^ *a).rotate_left(16);
    *c = c.wrapping_add(*d);
    *b = (*b ^ *c).rotate_left(12);
    *a = a.wrapping_add(*b);
    *d = (*d ^ *a).rotate_left(8);
    *c = c.wrapping_add(*d);
    *b = (*b ^ *c).rotate_left(7);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quarter_round_of_rfc_8439_2_1_1() {
        let (mut a, mut b, mut c, mut d) = (0x1111_1111, 0x0102_0304, 0x9b8d_6f43, 0x0123_4567);
        quarter(&mut a, &mut b, &mut c, &mut d);
        assert_eq!([a, b, c, d], [0xea2a_92f4, 0xcb1c_f8ce, 0x4581_472e, 0x5881_c4bb]);
    }

    #[test]
    fn the_first_block_of_chacha8_with_a_zero_key() {
        // draft-strombergson-chacha-test-vectors-01, TC1 for 8 rounds.
        let mut rng = Rng::from_key([0; 8]);
        let bytes: Vec<u8> = (0..2).flat_map(|_| rng.next_u32().to_le_bytes()).collect();
        assert_eq!(bytes, [0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6]);
    }

    #[test]
    fn a_seed_replays_and_another_does_not() {
        let take = |seed| {
            let mut rng = Rng::seeded(seed);
            (0..40).map(|_| rng.next_u32()).collect::<Vec<_>>()
        };
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
    }

    #[test]
    fn times_stay_in_their_range() {
        let mut rng = Rng::seeded(1);
        let (from, to) = (Duration::from_millis(900), Duration::from_millis(1100));
        assert!((0..1000).map(|_| rng.between(from, to)).all(|t| (from..to).contains(&t)));
        assert_eq!(rng.between(to, from), to);
    }
}
