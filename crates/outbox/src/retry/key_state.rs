//! The state of a parked key.

/// Why the later messages of a key wait. A key without a state is not parked: its messages are handled as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyState {
    /// Its head travels through the retry topics. Set by whoever gets a retry verdict, or by a replay; ended by the
    /// verdict about the head.
    Retrying {
        /// The tier whose topic the head is on, from 1. When it is due is in the row and in the head's headers.
        tier: u8,
    },
    /// Its head is done (or given up), and the held messages are handled in order. Ended when none is left.
    Draining,
    /// Its head is a dead letter. Ended by an operator's replay or discard.
    Blocked,
}

impl KeyState {
    /// How the row names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Retrying { .. } => "retrying",
            Self::Draining => "draining",
            Self::Blocked => "blocked",
        }
    }

    /// How the row numbers its tier: 0 when it has none.
    #[must_use]
    pub fn tier(self) -> u8 {
        match self {
            Self::Retrying { tier } => tier,
            Self::Draining | Self::Blocked => 0,
        }
    }

    /// Reads what [`KeyState::name`] and [`KeyState::tier`] wrote.
    #[must_use]
    pub fn read(name: &str, tier: i16) -> Option<Self> {
        match name {
            "retrying" => Some(Self::Retrying { tier: u8::try_from(tier).ok()? }),
            "draining" => Some(Self::Draining),
            "blocked" => Some(Self::Blocked),
            _ => None,
        }
    }
}
