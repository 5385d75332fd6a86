//! What a power cut leaves: all, nothing, or some of the sectors, whole or torn.

use crate::env::random::Random;

/// What a disk writes as one, if it writes it at all.
pub(super) const SECTOR: usize = 512;

/// What even a torn sector keeps whole.
pub(super) const WORD: usize = 8;

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// Nothing, but for what was written back without being asked for.
    LoseUnsynced,
    /// Everything, as if the kernel had just written it.
    KeepAll,
    /// Any of the sectors and names.
    Sectors,
    /// Any of the pages and names.
    Pages,
    /// Any of the sectors and names; a sector may be a mix of old and new words.
    Torn,
    /// As `Torn`; and a sector without synced bytes may hold anything.
    Garbled,
}

impl PowerCut {
    /// All that there is, for loops.
    pub const ALL: [PowerCut; 6] = [
        PowerCut::LoseUnsynced,
        PowerCut::KeepAll,
        PowerCut::Sectors,
        PowerCut::Pages,
        PowerCut::Torn,
        PowerCut::Garbled,
    ];
}

/// How much of a file or directory a power cut keeps. A fair coin for every sector would hardly ever keep all of a batch, or
/// nothing.
pub(super) struct Bias(u64);

impl Bias {
    const ALL: u64 = 4;

    pub(super) fn new(how: PowerCut, random: &mut Random) -> Self {
        match how {
            PowerCut::LoseUnsynced => Bias(0),
            PowerCut::KeepAll => Bias(Bias::ALL),
            _ => Bias(random.below(Bias::ALL + 1)),
        }
    }

    pub(super) fn keeps(&self, random: &mut Random) -> bool {
        random.chance(self.0, Bias::ALL)
    }
}

/// A mix of old and new words: up to some word the one and then the other, or any.
pub(super) fn torn(old: &[u8; SECTOR], new: &[u8; SECTOR], random: &mut Random) -> [u8; SECTOR] {
    let (mut first, second) = if random.chance(1, 2) { (*old, new) } else { (*new, old) };
    if random.chance(1, 2) {
        let at = random.below((SECTOR / WORD) as u64) as usize * WORD;
        first[at..].copy_from_slice(&second[at..]);
    } else {
        for at in (0..SECTOR).step_by(WORD) {
            if random.chance(1, 2) {
                first[at..at + WORD].copy_from_slice(&second[at..at + WORD]);
            }
        }
    }
    first
}

/// Noise from the first word on that was stored to. What lies before it may be synced zeros, which look like nothing.
pub(super) fn garbled(old: &[u8; SECTOR], new: &[u8; SECTOR], random: &mut Random) -> [u8; SECTOR] {
    let mut left = *old;
    let same = old.chunks_exact(WORD).zip(new.chunks_exact(WORD)).take_while(|(old, new)| old == new).count();
    for word in left.chunks_exact_mut(WORD).skip(same) {
        word.copy_from_slice(&random.next().to_le_bytes());
    }
    left
}
