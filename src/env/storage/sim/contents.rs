//! The bytes of a file: those that everybody sees, those on the platter, and what lies between the two.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::sync::Arc;

use crate::env::random::Random;
use crate::env::storage::are_zero;
use crate::env::storage::region::{Heap, PAGE};
use crate::env::storage::sim::faults::SyncFailure;
use crate::env::storage::sim::power_cut::{Bias, PowerCut, SECTOR, garbled, torn};

/// How many bytes are compared at once: whole sectors.
const COMPARED: usize = 8 * SECTOR;

/// How many bytes a file can be mapped for without moving: a mapping cannot move while somebody uses it, and who
/// maps a short file first may be followed by somebody who maps all that it will become.
pub(super) const MAPPED_AT_LEAST: u64 = 64 * 1024;

/// What is on the platter takes as much memory as most files of a short run need.
const GROWN_AT_LEAST: usize = 2 * SECTOR;

/// A file: what everybody sees, and what is on the platter.
pub(super) struct Contents {
    /// The page cache, zero from `len` on; none until somebody maps the file.
    pub(super) cache: Option<Arc<Heap>>,
    /// While there is no cache: what everybody sees, if that is not what is on the platter. The process that had mapped the
    /// file has died.
    image: Option<Vec<u8>>,
    pub(super) len: u64,
    /// Up to here there is room on the disk: nobody may store behind it.
    pub(super) held: u64,
    /// Zeros follow.
    pub(super) platter: Vec<u8>,
    platter_len: u64,
    /// The lengths since the last sync, any of which a power cut may leave.
    lengths: Vec<u64>,
    /// By sector, whether a sync has stored more than zeros in it.
    synced: Vec<bool>,
    /// The pages that a failed sync has lost, which pass for clean for as long as they look like this.
    lost: BTreeMap<u64, Vec<u8>>,
    /// Whether that happened in the background: the next sync says so, once.
    pub(super) unreported: bool,
}

impl Default for Contents {
    fn default() -> Self {
        Contents::durable(Vec::new(), 0)
    }
}

impl Contents {
    /// A file of this length that a power cut leaves as it is: these bytes, and zeros.
    pub(super) fn durable(mut bytes: Vec<u8>, len: u64) -> Self {
        trim(&mut bytes);
        let mut contents = Contents {
            cache: None,
            image: None,
            len,
            held: len,
            platter: bytes,
            platter_len: len,
            lengths: Vec::new(),
            synced: Vec::new(),
            lost: BTreeMap::new(),
            unreported: false,
        };
        contents.mark_synced();
        contents
    }

    pub(super) fn is_mapped(&self) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.is_mapped())
    }

    /// The same in memory of its own.
    pub(super) fn copy(&mut self) -> Self {
        Contents {
            cache: None,
            image: self.unsynced(),
            len: self.len,
            held: self.held,
            platter: self.platter.clone(),
            platter_len: self.platter_len,
            lengths: self.lengths.clone(),
            synced: self.synced.clone(),
            lost: self.lost.clone(),
            unreported: self.unreported,
        }
    }

    /// [`copy`](Self::copy) of a file that nobody can look at any more, though somebody may still store to its memory.
    pub(super) fn survive(mut self) -> Self {
        let image = self.unsynced();
        Contents { cache: None, image, ..self }
    }

    /// What everybody sees, if it is not what is on the platter.
    fn unsynced(&mut self) -> Option<Vec<u8>> {
        if self.cache.is_none() {
            return self.image.clone();
        }
        let cached = self.cached();
        self.find_again(&cached);
        (cached != self.platter).then_some(cached)
    }

    /// Every byte that everybody sees from here on is zero.
    pub(super) fn extent(&self) -> u64 {
        match (&self.cache, &self.image) {
            (Some(cache), _) => self.len.min(cache.extent()),
            (None, Some(image)) => image.len() as u64,
            (None, None) => self.platter.len() as u64,
        }
    }

    /// What everybody sees, up to the last byte that was ever stored; where another thread is storing at this moment,
    /// what is on the platter.
    pub(super) fn cached(&self) -> Vec<u8> {
        let (end, seen) = (self.extent() as usize, self.image.as_ref().unwrap_or(&self.platter));
        let mut bytes = Vec::with_capacity(end);
        bytes.extend_from_slice(&seen[..seen.len().min(end)]);
        bytes.resize(end, 0);
        if let Some(cache) = &self.cache {
            cache.read(0, &mut bytes);
        }
        self.assert_held(&bytes);
        bytes
    }

    /// The beginning of what everybody sees; zeros behind it are left out, and `bytes` has them already.
    pub(super) fn read(&self, bytes: &mut [u8]) {
        let there = bytes.len().min(self.extent() as usize);
        let seen = self.image.as_ref().unwrap_or(&self.platter);
        let known = there.min(seen.len());
        bytes[..known].copy_from_slice(&seen[..known]);
        if let Some(cache) = &self.cache {
            cache.read(0, &mut bytes[..there]);
        }
    }

    fn assert_held(&self, bytes: &[u8]) {
        let behind = bytes.get(self.held as usize..).unwrap_or_default();
        assert!(are_zero(behind), "bytes are stored where there is no room: a real disk may be full");
    }

    /// Takes care that `capacity` bytes can be mapped.
    pub(super) fn reserve(&mut self, capacity: u64) -> io::Result<()> {
        self.check_reach(capacity)?;
        if self.cache.as_ref().is_some_and(|cache| capacity <= cache.capacity()) {
            return Ok(());
        }
        let cached = self.cached();
        self.find_again(&cached);
        let cache = Heap::new(capacity.max(self.len).max(MAPPED_AT_LEAST));
        cache.write(0, &cached);
        self.cache = Some(cache);
        self.image = None;
        Ok(())
    }

    /// A mapping cannot move while somebody uses it.
    fn check_reach(&self, capacity: u64) -> io::Result<()> {
        match &self.cache {
            Some(cache) if capacity > cache.capacity() && cache.is_mapped() => {
                let reason = format!(
                    "a simulated file that was mapped for {} bytes cannot reach {capacity} before it is unmapped",
                    cache.capacity()
                );
                Err(io::Error::new(io::ErrorKind::Unsupported, reason))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn grow(&mut self, to: u64) -> io::Result<()> {
        self.check_reach(to)?;
        self.len = to;
        self.held = to;
        self.lengths.push(to);
        Ok(())
    }

    pub(super) fn release(&mut self, from: u64) {
        let bytes = self.cached();
        let zeros = bytes.get(from as usize..).unwrap_or_default();
        assert!(are_zero(zeros), "room is given back that holds something");
        self.held = self.held.min(from);
    }

    /// Forgets of the lost pages those that were stored to since: they are dirty again.
    fn find_again(&mut self, cached: &[u8]) {
        let Some(cache) = &self.cache else { return };
        for page in cache.take_touched() {
            self.lost.remove(&page);
        }
        self.lost.retain(|number, bytes| page(cached, *number) == *bytes);
    }

    /// The sectors that are not on the platter as everybody sees them, and not taken for clean.
    fn dirty(&mut self, cached: &[u8]) -> Vec<usize> {
        self.find_again(cached);
        let end = cached.len().max(self.platter.len()).div_ceil(SECTOR);
        let is_lost = |number: &usize| self.lost.contains_key(&page_of(*number));
        let differs = |number: &usize| sector(cached, *number) != sector(&self.platter, *number);
        // Most of a file is as it was, and comparing it in one piece is much faster.
        let whole = cached.len().min(self.platter.len()) / SECTOR;
        let same =
            cached.chunks(COMPARED).zip(self.platter.chunks(COMPARED)).take_while(|(new, old)| new == old).count();
        let from = (same * COMPARED / SECTOR).min(whole);
        (from..end).filter(|number| differs(number) && !is_lost(number)).collect()
    }

    /// Stores a sector.
    fn store(&mut self, number: usize, bytes: [u8; SECTOR]) {
        let (start, end) = (number * SECTOR, (number + 1) * SECTOR);
        if self.platter.len() < end {
            self.platter.resize(end, 0);
        }
        self.platter[start..end].copy_from_slice(&bytes);
    }

    pub(super) fn sync(&mut self) {
        if self.lost.is_empty() {
            self.store_all();
        } else {
            let cached = self.cached();
            for number in self.dirty(&cached) {
                self.store(number, sector(&cached, number));
            }
        }
        self.store_length();
        self.mark_synced();
    }

    /// Stores everything that differs: nothing of it passes for clean.
    fn store_all(&mut self) {
        let end = self.extent() as usize;
        if let Some(image) = self.image.take() {
            self.platter = image;
        }
        if let Some(cache) = &self.cache {
            if self.platter.len() < end {
                // It is going to grow again.
                self.platter.reserve(GROWN_AT_LEAST.saturating_sub(self.platter.len()));
                self.platter.resize(end.next_multiple_of(SECTOR), 0);
            }
            cache.read(0, &mut self.platter[..end]);
            self.assert_held(&self.platter);
        }
    }

    fn store_length(&mut self) {
        self.platter_len = self.len;
        self.lengths.clear();
    }

    fn mark_synced(&mut self) {
        self.synced.clear();
        self.synced.extend(self.platter.chunks(SECTOR).map(|sector| !are_zero(sector)));
    }

    /// Stores any of the dirty sectors, and perhaps the length.
    pub(super) fn write_back(&mut self, random: &mut Random) {
        let cached = self.cached();
        let bias = Bias::new(PowerCut::Sectors, random);
        for number in self.dirty(&cached) {
            if bias.keeps(random) {
                self.store(number, sector(&cached, number));
            }
        }
        if bias.keeps(random) {
            self.store_length();
        }
    }

    /// Takes one of the dirty pages for clean without having stored it. Returns whether there was one.
    pub(super) fn lose_in_background(&mut self, random: &mut Random) -> bool {
        let cached = self.cached();
        let dirty = self.dirty(&cached);
        if dirty.is_empty() {
            return false;
        }
        let victim = page_of(dirty[random.below(dirty.len() as u64) as usize]);
        self.lost.insert(victim, page(&cached, victim));
        self.unreported = true;
        true
    }

    /// Stores some of the dirty sectors, but not all; what becomes of the others, `pages` says.
    pub(super) fn fail_to_sync(&mut self, pages: SyncFailure, random: &mut Random) {
        let cached = self.cached();
        let dirty = self.dirty(&cached);
        if dirty.is_empty() {
            return;
        }
        let bias = Bias::new(PowerCut::Sectors, random);
        let victim = page_of(dirty[random.below(dirty.len() as u64) as usize]);
        for number in dirty {
            if page_of(number) != victim && bias.keeps(random) {
                self.store(number, sector(&cached, number));
            } else if pages == SyncFailure::Lost {
                self.lost.insert(page_of(number), page(&cached, page_of(number)));
            }
        }
    }

    /// Leaves what a power cut leaves.
    pub(super) fn cut(&mut self, how: PowerCut, random: &mut Random) {
        let cached = self.cached();
        let bias = Bias::new(how, random);
        let len = match how {
            PowerCut::LoseUnsynced => self.platter_len,
            PowerCut::KeepAll => self.len,
            _ => match random.below(self.lengths.len() as u64 + 1) as usize {
                0 => self.platter_len,
                chosen => self.lengths[chosen - 1],
            },
        };
        let mut pages = BTreeMap::new();
        for number in self.dirty(&cached) {
            let (old, new) = (sector(&self.platter, number), sector(&cached, number));
            let holds_synced_bytes = self.synced.get(number).is_some_and(|synced| *synced);
            let kept = match how {
                PowerCut::Pages => *pages.entry(page_of(number)).or_insert_with(|| bias.keeps(random)),
                _ => bias.keeps(random),
            };
            let left = match how {
                PowerCut::Garbled if !holds_synced_bytes && random.chance(1, 3) => garbled(&old, &new, random),
                PowerCut::Torn | PowerCut::Garbled if random.chance(1, 2) => torn(&old, &new, random),
                _ if kept => new,
                _ => old,
            };
            self.store(number, left);
        }
        let mut bytes = mem::take(&mut self.platter);
        bytes.truncate(len as usize);
        *self = Contents::durable(bytes, len);
    }
}

/// Most of a file is room that nothing was written to yet, which nobody need copy and compare.
fn trim(bytes: &mut Vec<u8>) {
    while let Some(last) = bytes.chunks(PAGE as usize).next_back().filter(|page| are_zero(page)) {
        bytes.truncate(bytes.len() - last.len());
    }
}

/// The page in which a sector lies.
fn page_of(sector: usize) -> u64 {
    (sector * SECTOR) as u64 / PAGE
}

/// A sector of `bytes`, which zeros follow.
fn sector(bytes: &[u8], number: usize) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    let rest = bytes.get(number * SECTOR..).unwrap_or_default();
    let len = rest.len().min(SECTOR);
    sector[..len].copy_from_slice(&rest[..len]);
    sector
}

/// A page of `bytes`, which zeros follow.
fn page(bytes: &[u8], number: u64) -> Vec<u8> {
    let rest = bytes.get((number * PAGE) as usize..).unwrap_or_default();
    let mut page = rest[..rest.len().min(PAGE as usize)].to_vec();
    page.resize(PAGE as usize, 0);
    page
}
