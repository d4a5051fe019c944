//! The Mersenne Twister MT19937, which both PyTorch's CPU generator and NumPy's legacy generator use.
//!
//! Does not depend on either: `split` and [`crate::numpy_random`] implement how they make floats, bounded integers and
//! permutations from its words.
//! Matsumoto and Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998); seeding as in their 2002 version.

const WORDS: usize = 624;
const SHIFT: usize = 397;

/// A generator of 32-bit words.
#[derive(Clone)]
pub(crate) struct MersenneTwister {
    state: [u32; WORDS],
    /// The next word of `state`.
    next: usize,
}

impl MersenneTwister {
    /// A generator in the state of `init_genrand(seed)`.
    pub(crate) fn new(seed: u32) -> Self {
        let mut state = [0; WORDS];
        let mut previous = seed;
        for (index, word) in (0_u32..).zip(&mut state) {
            if index > 0 {
                previous =
                    (previous ^ (previous >> 30)).wrapping_mul(1_812_433_253).wrapping_add(index);
            }
            *word = previous;
        }
        Self { state, next: WORDS }
    }

    /// The next word, uniform over all of `u32`.
    pub(crate) fn next_word(&mut self) -> u32 {
        if self.next == WORDS {
            self.refill();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn refill(&mut self) {
        for index in 0..WORDS {
            let high = self.state[index] & 0x8000_0000;
            let low = self.state[(index + 1) % WORDS] & 0x7fff_ffff;
            let mixed = high | low;
            let twist = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + SHIFT) % WORDS] ^ (mixed >> 1) ^ twist;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The C++ standard fixes the 10,000th word of mt19937 under its default seed ([rand.predef]).
    #[test]
    fn ten_thousandth_word_of_the_standard() {
        let mut generator = MersenneTwister::new(5489);
        let word = (0..10_000).map(|_| generator.next_word()).last();
        assert_eq!(word, Some(4_123_659_995));
    }

    #[test]
    fn first_words_differ_by_seed() {
        let first = |seed| MersenneTwister::new(seed).next_word();
        assert_eq!(first(5489), 3_499_211_612);
        assert_ne!(first(220), first(221));
    }
}
