//! Numbers that look random and are the same for the same seed: a failing run names its seed and can be had again.

/// A linear congruential generator with Knuth's constants for MMIX, its upper bits used. For tests only.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides`.
    ///
    /// # Panics
    /// When `sides` is 0.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// A place in something of this length.
    ///
    /// # Panics
    /// When it is empty.
    pub fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.roll(len as u64)).expect("below a usize")
    }
}
