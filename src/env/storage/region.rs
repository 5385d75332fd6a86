//! Mapped memory. ALL `unsafe` of the library is in this file.
//!
//! A [`Region`] is the memory of one segment, and a [`Pen`] is the right to write to it. There is one pen to a
//! region. Everything that is `unsafe` below rests on four sentences:
//!
//! > 1. **Bytes below `written` never change.**
//! > 2. **Nobody but the one pen looks at, or stores to, a byte at or above `written`.**
//! > 3. **`written <= valid <= capacity`**: the memory from 0 to `capacity` is mapped for as long as the region
//! >    lives, and the file behind it reaches at least to `valid`, so that touching it cannot fault.
//! > 4. **The pen lends bytes out only for as long as it is itself borrowed**: while a `&mut [u8]` of
//! >    [`Pen::spare`] lives, the pen can do nothing else.
//!
//! `written` only grows; the pen stores it with release ordering after the bytes, readers load it with acquire
//! ordering before them.
//!
//! A file may have more than one region, if at most one of their pens writes and none of it goes below what another
//! region holds as written; the lock of the directory sees to the first, recovery to the second. So a region may
//! follow a file which *another process* writes: its memory is not writable and its pen only reads, it looks at
//! a batch only after having seen its length word set ([`Pen::word`], which is atomic on both sides), and the
//! writing process publishes that word last and never touches the batch again. What the contract cannot exclude
//! (reliability rule 27) is somebody who rewrites or shortens a file of the log while it is mapped.
//!
//! The simulated disk keeps its page cache in a `Heap`, which regions share. What a kernel may do, read memory while
//! somebody stores to it, Rust may not; so the pen of a heap says which bytes it has lent out, and the
//! disk leaves those alone.

#[cfg(any(test, feature = "sim"))]
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(any(test, feature = "sim"))]
use std::thread::{self, ThreadId};

use memmap2::{MmapMut, MmapOptions, MmapRaw};
#[cfg(any(test, feature = "sim"))]
use parking_lot::Mutex;

/// The smallest page of any system that the log runs on: whoever touches one byte in each of these has touched every
/// page.
pub(crate) const PAGE: u64 = 4096;

/// The bytes of a word, and its alignment: what the processor stores and the disk keeps as one.
const WORD: u64 = 8;

/// What the processor fetches from the memory at once.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const LINE: usize = 64;

/// So much of the place of the next batch is asked for ahead: of what is longer, the processor finds the rest itself.
const MOST_PREFETCHED: u64 = 256;

/// Bytes that are mapped for as long as this lives.
pub(crate) struct Memory {
    backing: Backing,
    writable: bool,
    /// Whether the file system may need room to store to bytes that are allocated.
    copies_on_write: bool,
}

enum Backing {
    /// A file, shared with everybody who maps it; or the copy of one, which is ours alone.
    File(MmapRaw),
    /// Anonymous memory that the simulated disk keeps too, as far as the capacity.
    #[cfg(any(test, feature = "sim"))]
    Heap(Arc<Heap>, u64),
}

impl Memory {
    /// Maps `capacity` bytes from the start of `file`, which may be shorter: what lies past its end may not be
    /// touched before the file has grown. The file must be open for writing if the memory is to be `writable`.
    ///
    /// # Errors
    ///
    /// What the system says: out of address space, of mappings, or the file cannot be mapped.
    pub(crate) fn map(file: &impl AsRawFd, capacity: u64, writable: bool) -> io::Result<Memory> {
        let bytes = usize::try_from(capacity).expect("a capacity fits the address space of a 64-bit system");
        let mut options = MmapOptions::new();
        options.len(bytes);
        let map =
            if writable { options.map_raw(file.as_raw_fd())? } else { options.map_raw_read_only(file.as_raw_fd())? };
        Ok(Memory { backing: Backing::File(map), writable, copies_on_write: false })
    }

    /// Memory of our own, `capacity` bytes long, which `fill` has filled.
    ///
    /// # Errors
    ///
    /// What the system says when there is no more, and what `fill` says.
    pub(crate) fn filled(capacity: u64, fill: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<Memory> {
        let bytes = usize::try_from(capacity).expect("a capacity fits the address space of a 64-bit system");
        let mut map = MmapMut::map_anon(bytes)?;
        fill(&mut map)?;
        Ok(Memory { backing: Backing::File(map.into()), writable: false, copies_on_write: false })
    }

    /// The same memory, of a file system that may copy a page before it is stored to.
    pub(crate) fn copied_on_write(mut self, copies_on_write: bool) -> Memory {
        self.copies_on_write = copies_on_write;
        self
    }

    /// The memory of a simulated file.
    #[cfg(test)]
    pub(crate) fn heap(heap: Arc<Heap>, writable: bool) -> Memory {
        let capacity = heap.capacity();
        Memory::heap_part(heap, capacity, writable)
    }

    /// The first `capacity` bytes of the memory of a simulated file.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn heap_part(heap: Arc<Heap>, capacity: u64, writable: bool) -> Memory {
        assert!(capacity <= heap.capacity(), "a heap of {} bytes has no {capacity}", heap.capacity());
        heap.state.lock().maps += 1;
        Memory { backing: Backing::Heap(heap, capacity), writable, copies_on_write: false }
    }

    /// How many bytes are mapped.
    pub(crate) fn capacity(&self) -> u64 {
        match &self.backing {
            Backing::File(map) => map.len() as u64,
            #[cfg(any(test, feature = "sim"))]
            Backing::Heap(_, capacity) => *capacity,
        }
    }

    fn start(&self) -> *mut u8 {
        match &self.backing {
            Backing::File(map) => map.as_mut_ptr(),
            #[cfg(any(test, feature = "sim"))]
            Backing::Heap(heap, _) => heap.start(),
        }
    }

    #[cfg(any(test, feature = "sim"))]
    fn shared_heap(&self) -> Option<&Heap> {
        match &self.backing {
            Backing::File(_) => None,
            Backing::Heap(heap, _) => Some(heap),
        }
    }

    /// Advises the kernel on the pages of `range`, which lies below the capacity: the advice is one that changes no byte of
    /// a file, and asks nobody who touches the pages to wait for more than their bytes. A kernel that does not know the
    /// advice (populating: before Linux 5.14) is taken to agree.
    #[cfg(target_os = "linux")]
    fn advise(&self, range: Range<u64>, advice: rustix::mm::Advice) -> io::Result<()> {
        /// The largest page of any system that the log runs on.
        const ANY_PAGE: u64 = 64 << 10;
        #[cfg(any(test, feature = "sim"))]
        if self.shared_heap().is_some() {
            return Ok(());
        }
        assert!(range.end <= self.capacity(), "bytes {range:?} of {} that are mapped", self.capacity());
        let start = range.start / ANY_PAGE * ANY_PAGE;
        if start >= range.end {
            return Ok(());
        }
        // SAFETY: `start` lies inside of the mapped memory, as asserted above.
        let from = unsafe { self.start().add(start as usize) };
        // SAFETY: the range is mapped for as long as `self` lives, as asserted above. Populating and forgetting the pages of
        // a shared mapping change no byte, for those are the file's; nor does the wish for large pages.
        let done = unsafe { rustix::mm::madvise(from.cast(), (range.end - start) as usize, advice) };
        match done {
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => Ok(()),
            done => Ok(done?),
        }
    }

    /// Says that the pen has got back what it had lent out, or it could not be storing.
    #[inline]
    fn settle(&self) {
        #[cfg(any(test, feature = "sim"))]
        if let Some(heap) = self.shared_heap() {
            heap.state.lock().settle();
        }
    }
}

#[cfg(any(test, feature = "sim"))]
impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(heap) = self.shared_heap() {
            heap.state.lock().maps -= 1;
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("capacity", &self.capacity()).field("writable", &self.writable).finish()
    }
}

/// The memory of one segment, for those who read it. See the head of this file.
pub(crate) struct Region {
    /// The first byte of `memory`.
    start: *mut u8,
    valid: AtomicU64,
    written: AtomicU64,
    memory: Memory,
}

// SAFETY: `start` points into `memory`, which goes where the region goes and is not bound to a thread: a mapping of the
// process, or an allocation that any thread may free.
unsafe impl Send for Region {}

// SAFETY: what `&Region` gives away are bytes below `written`, which never change (sentence 1), and atomic words;
// storing takes the pen, of which there is one (sentence 2).
unsafe impl Sync for Region {}

impl Region {
    /// A region over `memory`, of which nothing is written yet and the first `valid` bytes may be touched, and its pen.
    pub(crate) fn new(memory: Memory, valid: u64) -> (Arc<Region>, Pen) {
        let start = memory.start();
        assert!(valid <= memory.capacity(), "{valid} bytes are valid of {}", memory.capacity());
        assert!(start.cast::<AtomicU64>().is_aligned(), "mapped memory starts at a page");
        #[cfg(any(test, feature = "sim"))]
        if let Some(heap) = memory.shared_heap()
            && memory.writable
        {
            heap.take_pen();
        }
        let region = Arc::new(Region { start, valid: AtomicU64::new(valid), written: AtomicU64::new(0), memory });
        let pen = Pen { region: Arc::clone(&region) };
        (region, pen)
    }

    /// How many bytes are mapped: the most that can become valid.
    #[inline]
    pub(crate) fn capacity(&self) -> u64 {
        self.memory.capacity()
    }

    /// How many bytes the file has behind it: the most that can become written.
    #[inline]
    pub(crate) fn valid(&self) -> u64 {
        self.valid.load(Ordering::Acquire)
    }

    /// How many bytes are written: they never change again.
    #[inline]
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Everything written so far.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        let written = self.written() as usize;
        // SAFETY: `written` bytes are mapped and can be touched for as long as `self` lives (sentence 3) and never
        // change (sentence 1); the acquire load of `written` makes them visible. A file of this length fits `isize`,
        // or it could not have been mapped.
        unsafe { slice::from_raw_parts(self.start, written) }
    }

    /// Whether the disk gives the bytes of `range`, which is written. What was given may still be taken away again before
    /// it is read, if the disk fails and memory is short: then the kernel ends the process.
    ///
    /// # Errors
    ///
    /// What touching them would have met.
    pub(crate) fn check_readable(&self, range: Range<u64>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            use rustix::io::Errno;
            let asked = self.memory.advise(range, rustix::mm::Advice::LinuxPopulateRead);
            // A bad address is how the kernel says that the bytes cannot be read.
            let bad = Some(Errno::FAULT.raw_os_error());
            asked.map_err(|error| if error.raw_os_error() == bad { Errno::IO.into() } else { error })
        }
        #[cfg(not(target_os = "linux"))]
        {
            drop(range);
            Ok(())
        }
    }

    /// Makes the pages of `range` ahead of whoever stores to them, so that storing costs no page fault. Changes no byte,
    /// and may be done while others read and store. It is a help and no promise: what fails here is met again by whoever
    /// stores.
    pub(crate) fn populate(&self, range: Range<u64>) {
        assert!(range.end <= self.valid(), "bytes {range:?} of {} that may be touched", self.valid());
        #[cfg(target_os = "linux")]
        self.memory.advise(range, rustix::mm::Advice::LinuxPopulateWrite).ok();
    }

    /// Takes the pages of `range` out of the memory that counts as this process's. Their bytes stay in the file, and
    /// whoever touches them again has them again. Not for the copy of a file, whose bytes are nowhere else.
    pub(crate) fn let_go(&self, range: Range<u64>) {
        #[cfg(target_os = "linux")]
        self.memory.advise(range, rustix::mm::Advice::LinuxDontNeed).ok();
        #[cfg(not(target_os = "linux"))]
        drop(range);
    }

    /// Asks for large pages in `range`, where there are some for files: for bytes that are stored to one after the other
    /// and not synced one by one, because a large page is written to the disk as a whole.
    pub(crate) fn prefer_large_pages(&self, range: Range<u64>) {
        #[cfg(target_os = "linux")]
        self.memory.advise(range, rustix::mm::Advice::LinuxHugepage).ok();
        #[cfg(not(target_os = "linux"))]
        drop(range);
    }

    /// Written bytes.
    ///
    /// # Panics
    ///
    /// Panics if `range` is not written.
    #[inline]
    pub(crate) fn slice(&self, range: Range<u64>) -> &[u8] {
        let bytes = self.bytes();
        assert!(
            range.start <= range.end && range.end <= bytes.len() as u64,
            "bytes {range:?} of a region of which {} are written",
            bytes.len()
        );
        &bytes[range.start as usize..range.end as usize]
    }

    /// The little-endian word at `at`; what was stored before it was published is visible to who has seen it.
    ///
    /// In memory that is not writable this reaches up to `valid`, so that a region can follow a file which another
    /// process writes. In one that is, words that are not written belong to the pen: ask [`Pen::word`].
    ///
    /// # Panics
    ///
    /// Panics if `at` is not aligned, or too far up.
    #[cfg(test)]
    pub(crate) fn word(&self, at: u64) -> u64 {
        let limit = if self.memory.writable { self.written() } else { self.valid() };
        self.load(at, limit)
    }

    /// The word at `at`, which must lie below `limit`. Whoever calls this knows that nobody stores to it but atomically.
    #[inline]
    fn load(&self, at: u64, limit: u64) -> u64 {
        assert!(
            at.is_multiple_of(WORD) && limit >= WORD && at <= limit - WORD,
            "a word at {at} of a region that may be read up to {limit}"
        );
        #[cfg(any(test, feature = "sim"))]
        let guard = self.memory.shared_heap().map(|heap| heap.state.lock());
        #[cfg(any(test, feature = "sim"))]
        if guard.as_ref().is_some_and(|state| state.is_lent_elsewhere(at..at + WORD)) {
            // Another region's pen, the writing one, is about to fill these bytes: nothing was published here yet.
            return 0;
        }
        // SAFETY: the word lies below `limit`, which is at most `valid`, so the sum stays inside of the mapped memory
        // (sentence 3).
        let word = unsafe { self.start.add(at as usize) }.cast::<u64>();
        // SAFETY: the word is mapped for as long as `self` lives (sentence 3) and aligned, as `start` and `at` both are.
        // Nobody stores to it but atomically: it is written (sentence 1), or the pen is asking, which has nothing lent
        // out (sentence 4), or the region follows a file whose words are published by an atomic store.
        let word = unsafe { AtomicU64::from_ptr(word) };
        // Relaxed and a fence, instead of acquire, because the memory may be mapped for reading only, and of the atomic
        // loads only a relaxed one is promised never to store.
        let value = word.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        u64::from_le(value)
    }
}

/// Asks the processor for these bytes, all at once, for who is going to look at a few of them one after the other: each look
/// would wait for the memory by itself.
#[inline]
pub(crate) fn prefetch(bytes: &[u8]) {
    ask_for(bytes.as_ptr(), bytes.len());
}

/// Asks the processor for so many bytes from `start` on, whether anything is there or not.
#[inline]
fn ask_for(start: *const u8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for at in (0..bytes).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: it is a hint that reads nothing, changes nothing and faults nowhere, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (start, bytes);
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("written", &self.written())
            .field("valid", &self.valid())
            .field("memory", &self.memory)
            .finish()
    }
}

/// The right to write to a region: there is one to each. See the head of this file.
pub(crate) struct Pen {
    region: Arc<Region>,
}

impl Pen {
    /// What this writes to.
    #[inline]
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// The file has grown: bytes below `valid` may be touched from now on.
    ///
    /// # Panics
    ///
    /// Panics if that is less than before, or more than is mapped.
    pub(crate) fn extend(&mut self, valid: u64) {
        let region = &*self.region;
        let capacity = region.capacity();
        assert!(
            region.valid() <= valid && valid <= capacity,
            "{} valid bytes of {capacity} cannot become {valid}",
            region.valid()
        );
        region.valid.store(valid, Ordering::Release);
    }

    /// See [`Region::check_readable`].
    pub(crate) fn check_readable(&self, range: Range<u64>) -> io::Result<()> {
        self.region.check_readable(range)
    }

    /// Whether bytes must be prepared before they are stored to.
    pub(crate) fn needs_preparing(&self) -> bool {
        self.region.memory.copies_on_write
    }

    /// Takes care that the bytes of `range` can be stored to, where the file system copies a page before it is: it may
    /// have no room for the copy.
    ///
    /// # Errors
    ///
    /// There is no room. Nothing was stored.
    pub(crate) fn prepare(&mut self, range: Range<u64>) -> io::Result<()> {
        if !self.needs_preparing() {
            return Ok(());
        }
        #[cfg(target_os = "linux")]
        {
            use rustix::io::Errno;
            let asked = self.region.memory.advise(range, rustix::mm::Advice::LinuxPopulateWrite);
            // A bad address is how the kernel says that there is no page to store to.
            let bad = Some(Errno::FAULT.raw_os_error());
            asked.map_err(|error| if error.raw_os_error() == bad { Errno::NOSPC.into() } else { error })
        }
        #[cfg(not(target_os = "linux"))]
        {
            drop(range);
            Ok(())
        }
    }

    /// Bytes to fill that nobody reads yet.
    ///
    /// On a simulated disk they count as stored from the pen's next call on, or when the same thread calls the disk.
    ///
    /// # Panics
    ///
    /// Panics if `range` is not free, or the memory is not writable.
    #[inline]
    pub(crate) fn spare(&mut self, range: Range<u64>) -> &mut [u8] {
        let region = &*self.region;
        assert!(region.memory.writable, "storing to a region that is mapped for reading");
        let start = self.unwritten(&range);
        #[cfg(any(test, feature = "sim"))]
        if let Some(heap) = region.memory.shared_heap() {
            heap.lend(range.clone());
        }
        let length = (range.end - range.start) as usize;
        // SAFETY: `unwritten` has checked that the range lies below `valid`, so it is mapped and can be touched for as
        // long as the region lives (sentence 3), which the pen keeps alive; and that it lies above `written`, so nobody
        // else looks at it (sentence 2). It stays so while the slice lives, for that borrows the pen (sentence 4).
        unsafe { slice::from_raw_parts_mut(start, length) }
    }

    /// Bytes that are not written but may be touched: what recovery finds in the file.
    ///
    /// # Panics
    ///
    /// Panics if `range` is written, or not valid.
    #[inline]
    pub(crate) fn unread(&self, range: Range<u64>) -> &[u8] {
        let start = self.unwritten(&range);
        let length = (range.end - range.start) as usize;
        // SAFETY: `unwritten` has checked that the range lies below `valid`, so it is mapped and can be touched for as
        // long as the region lives (sentence 3). It lies above `written`, where nobody but this pen stores (sentence
        // 2), and the pen does not while the slice borrows it (sentence 4). Who follows another process looks only at
        // what that has published and never touches again, as the head of this file demands.
        unsafe { slice::from_raw_parts(start, length) }
    }

    /// The little-endian word at `at`, written or not.
    ///
    /// # Panics
    ///
    /// Panics if `at` is not aligned, or not valid.
    #[inline]
    pub(crate) fn word(&self, at: u64) -> u64 {
        self.region.load(at, self.region.valid())
    }

    /// Stores `word` at `at`, in little-endian order, and makes everything below `end` written: the moment at which a
    /// batch comes into being, for the readers of this process and, by the word, for those of other ones.
    ///
    /// # Panics
    ///
    /// Panics if `at` is written or not aligned, if the word does not lie below `end`, or if that is not valid.
    #[inline]
    pub(crate) fn publish(&mut self, at: u64, word: u64, end: u64) {
        let region = &*self.region;
        assert!(region.memory.writable, "storing to a region that is mapped for reading");
        assert!(
            at.is_multiple_of(WORD) && end >= WORD && at <= end - WORD,
            "a word at {at} of a batch that ends at {end}"
        );
        let place = self.unwritten(&(at..end)).cast::<u64>();
        #[cfg(any(test, feature = "sim"))]
        let mut guard = region.memory.shared_heap().map(|heap| heap.state.lock());
        // SAFETY: the word is mapped for as long as the region lives: it lies below `end`, which `unwritten` has
        // checked to be valid (sentence 3). It is aligned, as `start` and `at` both are. No reference to it lives: it is
        // above `written` (sentence 2) and the pen has nothing lent out (sentence 4).
        let place = unsafe { AtomicU64::from_ptr(place) };
        place.store(word.to_le(), Ordering::Release);
        region.written.store(end, Ordering::Release);
        // The next batch is often as long as this one, and may be stored long after this: in a log of many partitions its
        // place would have to come from the memory then.
        let next = (end - at).min(MOST_PREFETCHED);
        let room = region.valid.load(Ordering::Relaxed) - end;
        ask_for(region.start.wrapping_add(end as usize), next.min(room) as usize);
        #[cfg(any(test, feature = "sim"))]
        if let Some(state) = &mut guard {
            state.settle();
            state.touch(at..at + WORD);
        }
    }

    /// Makes everything below `end` written, as it stands.
    ///
    /// # Panics
    ///
    /// Panics if `end` is below what is written, or not valid.
    pub(crate) fn adopt(&mut self, end: u64) {
        let region = &*self.region;
        self.unwritten(&(region.written()..end));
        region.memory.settle();
        region.written.store(end, Ordering::Release);
    }

    /// Makes every page that `range` touches dirty again, without changing a byte: after a lost write-back the kernel
    /// takes pages for clean that the disk does not have, and only a store makes the next sync write them.
    ///
    /// # Panics
    ///
    /// Panics if `range` is not free, or the memory is not writable.
    pub(crate) fn redirty(&mut self, range: Range<u64>) {
        let region = &*self.region;
        assert!(region.memory.writable, "storing to a region that is mapped for reading");
        self.unwritten(&range);
        region.memory.settle();
        #[cfg(any(test, feature = "sim"))]
        let mut guard = region.memory.shared_heap().map(|heap| heap.state.lock());
        let mut at = range.start;
        while at < range.end {
            // SAFETY: `at` lies inside of the range, which `unwritten` has checked to be valid: the sum stays inside of
            // the mapped memory (sentence 3).
            let byte = unsafe { region.start.add(at as usize) };
            // SAFETY: the byte is mapped and can be touched (sentence 3), and nobody stores to it but the pen, which is
            // here (sentence 2).
            let value = unsafe { ptr::read_volatile(byte) };
            // SAFETY: as for the read; and nobody reads it either, because it lies above `written` (sentence 2) and the
            // pen has nothing lent out (sentence 4). The memory is writable, as asserted above.
            unsafe { ptr::write_volatile(byte, value) };
            #[cfg(any(test, feature = "sim"))]
            if let Some(state) = &mut guard {
                state.touched.insert(at / PAGE);
            }
            at = (at / PAGE + 1) * PAGE;
        }
    }

    /// Asserts that `range` lies between `written` and `valid`, and points to its start.
    #[inline]
    fn unwritten(&self, range: &Range<u64>) -> *mut u8 {
        let region = &*self.region;
        let (written, valid) = (region.written.load(Ordering::Relaxed), region.valid.load(Ordering::Relaxed));
        assert!(
            written <= range.start && range.start <= range.end && range.end <= valid,
            "bytes {range:?} of a region of which {written} are written and {valid} valid"
        );
        // SAFETY: the start of the range is at most `valid`, as just asserted, so the sum stays inside of the mapped
        // memory or points to its end (sentence 3).
        unsafe { region.start.add(range.start as usize) }
    }
}

#[cfg(any(test, feature = "sim"))]
impl Drop for Pen {
    fn drop(&mut self) {
        if let Some(heap) = self.region.memory.shared_heap()
            && self.region.memory.writable
        {
            let mut state = heap.state.lock();
            state.settle();
            state.has_pen = false;
        }
    }
}

impl fmt::Debug for Pen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pen").field(&self.region).finish()
    }
}

/// The page cache of one simulated file: zeroed memory with the alignment of a page, shared by the simulated disk and
/// the regions of the file.
///
/// The disk copies bytes out at any time, except for those that a pen has lent to another thread, and copies bytes in
/// only while no region lives. Both, and every store of a pen, happen under the lock of `state`; a reader
/// needs no lock, because what it reads never changes.
#[cfg(any(test, feature = "sim"))]
pub(crate) struct Heap {
    /// Until it is given back.
    allocation: Option<Allocation>,
    state: Mutex<HeapState>,
}

/// Anonymous memory, which costs nothing before it is touched: segments are mapped as long as they may become.
#[cfg(any(test, feature = "sim"))]
struct Allocation {
    /// The first byte of `_map`.
    start: *mut u8,
    _map: MmapRaw,
    capacity: u64,
}

// SAFETY: the memory is not bound to a thread; `start` points into the map, which goes where the allocation goes, and each
// region that points to it holds an `Arc` of the heap that has the allocation.
#[cfg(any(test, feature = "sim"))]
unsafe impl Send for Allocation {}

/// So many allocations are kept for the next heaps: a simulation makes and drops the same few thousands of times.
#[cfg(any(test, feature = "sim"))]
const MAX_SPARES: usize = 256;

/// What more was stored to than this is given back to the kernel, which is faster at finding zeros then.
#[cfg(any(test, feature = "sim"))]
const MAX_ZEROED: u64 = 1 << 20;

/// Allocations that were given back, all zero.
#[cfg(any(test, feature = "sim"))]
static SPARES: Mutex<Vec<Allocation>> = Mutex::new(Vec::new());

#[cfg(any(test, feature = "sim"))]
impl Allocation {
    fn new(capacity: u64) -> Self {
        let size = usize::try_from(capacity.max(1)).expect("a capacity fits the address space of a 64-bit system");
        let map = MmapRaw::from(MmapMut::map_anon(size).expect("the simulated disk has memory for its files"));
        Allocation { start: map.as_mut_ptr(), _map: map, capacity }
    }
}

#[cfg(any(test, feature = "sim"))]
#[derive(Default)]
struct HeapState {
    /// How many [`Memory`]s there are of this heap.
    maps: usize,
    /// Whether one of their pens may write.
    has_pen: bool,
    /// The bytes that the pen has lent out, and to which thread.
    lent: Option<(Range<u64>, ThreadId)>,
    /// The pages that were stored to since the disk last asked.
    touched: BTreeSet<u64>,
    /// Every byte from here on is zero.
    extent: u64,
}

#[cfg(any(test, feature = "sim"))]
impl HeapState {
    fn settle(&mut self) {
        self.lent = None;
    }

    fn touch(&mut self, range: Range<u64>) {
        self.extent = self.extent.max(range.end);
        self.touched.extend(range.start / PAGE..range.end.div_ceil(PAGE));
    }

    /// The bytes that another thread may be storing to.
    fn lent_elsewhere(&self) -> Range<u64> {
        match &self.lent {
            Some((range, thread)) if *thread != thread::current().id() => range.clone(),
            _ => 0..0,
        }
    }

    fn is_lent_elsewhere(&self, range: Range<u64>) -> bool {
        let lent = self.lent_elsewhere();
        lent.start < range.end && range.start < lent.end
    }
}

// SAFETY: the methods of `&Heap` copy bytes in and out under the lock of `state`, and not those that somebody may be
// using at that time, as the documentation of the type says.
#[cfg(any(test, feature = "sim"))]
unsafe impl Sync for Heap {}

#[cfg(any(test, feature = "sim"))]
impl Heap {
    /// `capacity` zero bytes: from those that were given back, if there are as many in one piece.
    ///
    /// # Panics
    ///
    /// Panics if there is no more memory.
    pub(crate) fn new(capacity: u64) -> Arc<Heap> {
        let given_back = {
            let mut spares = SPARES.lock();
            let found = spares.iter().rposition(|spare| spare.capacity == capacity);
            found.map(|at| spares.swap_remove(at))
        };
        let allocation = given_back.unwrap_or_else(|| Allocation::new(capacity));
        Arc::new(Heap { allocation: Some(allocation), state: Mutex::default() })
    }

    /// How many bytes there are.
    pub(crate) fn capacity(&self) -> u64 {
        self.allocation().capacity
    }

    /// Every byte from here on is zero.
    pub(crate) fn extent(&self) -> u64 {
        self.state.lock().extent
    }

    fn start(&self) -> *mut u8 {
        self.allocation().start
    }

    fn allocation(&self) -> &Allocation {
        self.allocation.as_ref().expect("it is given back when the heap is dropped")
    }

    /// Whether there is a [`Memory`] of this.
    pub(crate) fn is_mapped(&self) -> bool {
        self.state.lock().maps != 0
    }

    /// Copies the bytes from `at` into `bytes`, except for those that another thread may be storing to right now: there
    /// `bytes` keeps what it has.
    ///
    /// # Panics
    ///
    /// Panics if there are not so many.
    pub(crate) fn read(&self, at: u64, bytes: &mut [u8]) {
        let end = at + bytes.len() as u64;
        assert!(end <= self.capacity(), "bytes {at}..{end} of a heap of {}", self.capacity());
        let state = self.state.lock();
        let lent = state.lent_elsewhere();
        let (lent_start, lent_end) = (lent.start.clamp(at, end), lent.end.clamp(at, end));
        for part in [at..lent_start, lent_end.max(lent_start)..end] {
            let into = &mut bytes[(part.start - at) as usize..(part.end - at) as usize];
            // SAFETY: the part ends inside of the heap, as asserted above.
            let from = unsafe { self.start().add(part.start as usize) };
            // SAFETY: `from` has as many bytes as the part, which is as long as `into`. Nobody stores to them: a pen lends
            // and stores only under the lock, which is held, and what it has lent to another thread was left out; what it
            // has lent to this thread is not in use, because the thread is here. `into` is the caller's own memory.
            unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
        }
    }

    /// Replaces the bytes from `at`.
    ///
    /// # Panics
    ///
    /// Panics if there are not so many, or somebody has them mapped.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        assert!(end <= self.capacity(), "bytes {at}..{end} of a heap of {}", self.capacity());
        let mut state = self.state.lock();
        state.extent = state.extent.max(end);
        assert!(state.maps == 0, "a file was shortened or rewritten while it was mapped");
        // SAFETY: the bytes end inside of the heap, as asserted above.
        let into = unsafe { self.start().add(at as usize) };
        // SAFETY: `into` has as many bytes as `bytes`, as asserted above. Nobody else uses them: there is no `Memory` of
        // this heap, so no region, and none comes into being while the lock is held.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), into, bytes.len()) };
    }

    /// The pages that were stored to since this was last called, whether their bytes have changed or not.
    pub(crate) fn take_touched(&self) -> BTreeSet<u64> {
        std::mem::take(&mut self.state.lock().touched)
    }

    /// Whether nothing was stored to since [`take_touched`](Self::take_touched) was last called, and nobody has borrowed
    /// bytes to store to.
    pub(crate) fn is_untouched(&self) -> bool {
        let state = self.state.lock();
        state.touched.is_empty() && state.lent.is_none()
    }

    fn take_pen(&self) {
        let mut state = self.state.lock();
        assert!(!state.has_pen, "two pens write to one file");
        state.has_pen = true;
    }

    fn lend(&self, range: Range<u64>) {
        let mut state = self.state.lock();
        state.touch(range.clone());
        state.lent = Some((range, thread::current().id()));
    }
}

#[cfg(any(test, feature = "sim"))]
impl Drop for Heap {
    fn drop(&mut self) {
        let extent = self.state.get_mut().extent;
        if extent > MAX_ZEROED {
            return;
        }
        let Some(allocation) = self.allocation.take() else { return };
        // SAFETY: the bytes lie inside of the allocation, for nothing was ever stored outside of it, and nobody else uses
        // them: there is no region of a heap that is dropped.
        unsafe { ptr::write_bytes(allocation.start, 0, extent as usize) };
        let mut spares = SPARES.lock();
        if spares.len() < MAX_SPARES {
            spares.push(allocation);
        }
    }
}

#[cfg(any(test, feature = "sim"))]
impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

/// A page that holds a byte in the process that made it, and zeros in its children.
#[cfg(target_os = "linux")]
pub(crate) struct WipedOnFork {
    page: MmapMut,
}

#[cfg(target_os = "linux")]
impl WipedOnFork {
    /// What the page holds in the process that made it.
    const MINE: u8 = 1;

    /// # Errors
    ///
    /// The kernel has no such pages (before Linux 4.14), or no memory.
    pub(crate) fn new() -> io::Result<Self> {
        let mut page = MmapMut::map_anon(PAGE as usize)?;
        // SAFETY: the page is private and anonymous, and belongs to the map for as long as that lives. The advice changes
        // nothing in this process; in a child the bytes become zeros before anything of the child runs, so nobody sees
        // them change.
        unsafe { rustix::mm::madvise(page.as_mut_ptr().cast(), page.len(), rustix::mm::Advice::LinuxWipeOnFork) }?;
        page[0] = Self::MINE;
        Ok(WipedOnFork { page })
    }

    /// Whether this process is a child of the one that made the page.
    #[inline]
    pub(crate) fn is_wiped(&self) -> bool {
        self.page.first() != Some(&Self::MINE)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn region(capacity: u64, valid: u64) -> (Arc<Heap>, Arc<Region>, Pen) {
        let heap = Heap::new(capacity);
        let (region, pen) = Region::new(Memory::heap(Arc::clone(&heap), true), valid);
        (heap, region, pen)
    }

    fn refuses<T>(work: impl FnOnce() -> T) -> bool {
        catch_unwind(AssertUnwindSafe(work)).is_err()
    }

    #[test]
    fn what_was_published_is_what_readers_see() {
        let (_heap, region, mut pen) = region(8192, 4096);
        assert_eq!((region.capacity(), region.valid(), region.written()), (8192, 4096, 0));
        assert!(region.bytes().is_empty());

        pen.spare(8..24).copy_from_slice(b"sixteen bytes ok");
        assert_eq!(region.written(), 0);
        pen.publish(0, 24, 24);

        assert_eq!(region.written(), 24);
        assert_eq!(region.word(0), 24);
        assert_eq!(region.slice(0..8), 24u64.to_le_bytes());
        assert_eq!(region.slice(8..24), b"sixteen bytes ok");
        assert_eq!(region.bytes().len(), 24);
        assert_eq!(region.slice(24..24), b"");
    }

    #[test]
    fn nobody_reads_what_is_not_written() {
        let (_heap, region, mut pen) = region(8192, 4096);
        pen.publish(0, 1, 64);

        assert!(refuses(|| region.slice(0..65)));
        assert!(refuses(|| region.slice(65..65)));
        assert!(refuses(|| region.slice(Range { start: 9, end: 8 })));
        assert!(refuses(|| region.word(64)));
        assert!(refuses(|| region.word(60)));
        assert!(refuses(|| region.word(u64::MAX - 7)));
        assert_eq!(region.word(56), 0);
    }

    #[test]
    fn the_pen_stays_between_written_and_valid() {
        let (_heap, _region, mut pen) = region(8192, 4096);
        pen.publish(0, 1, 64);

        assert!(refuses(|| pen.spare(63..70).len()));
        assert!(refuses(|| pen.spare(64..4097).len()));
        assert!(refuses(|| pen.spare(Range { start: 72, end: 71 }).len()));
        assert!(refuses(|| pen.unread(63..64).len()));
        assert!(refuses(|| pen.unread(64..4097).len()));
        assert!(refuses(|| pen.publish(56, 1, 128)));
        assert!(refuses(|| pen.publish(68, 1, 128)));
        assert!(refuses(|| pen.publish(64, 1, 71)));
        assert!(refuses(|| pen.publish(64, 1, 0)));
        assert!(refuses(|| pen.publish(4088, 1, 4097)));
        assert!(refuses(|| pen.adopt(63)));
        assert!(refuses(|| pen.adopt(4097)));
        assert!(refuses(|| pen.redirty(0..64)));
        assert!(refuses(|| pen.redirty(64..4097)));
        assert!(refuses(|| pen.word(4096)));
        assert!(refuses(|| pen.extend(4095)));
        assert!(refuses(|| pen.extend(8193)));

        assert_eq!(pen.region().written(), 64);
        pen.publish(64, 2, 4096);
        assert_eq!(pen.region().written(), 4096);
    }

    #[test]
    fn a_file_that_has_grown_has_more_room() {
        let (_heap, region, mut pen) = region(8192, 0);
        assert!(refuses(|| pen.spare(0..1).len()));

        pen.extend(8192);
        pen.spare(0..8192).fill(7);
        pen.adopt(8192);

        assert_eq!(region.bytes(), vec![7; 8192]);
    }

    #[test]
    fn recovery_reads_what_it_then_adopts() {
        let heap = Heap::new(4096);
        heap.write(0, &[3; 100]);
        let (region, mut pen) = Region::new(Memory::heap(heap, true), 4096);

        assert_eq!(pen.unread(0..101)[98..], [3, 3, 0]);
        assert_eq!(pen.word(96), 0x0303_0303);
        pen.spare(90..100).fill(0);
        pen.adopt(90);

        assert_eq!(region.bytes(), [3; 90]);
        assert_eq!(pen.unread(90..4096), vec![0; 4096 - 90]);
    }

    #[test]
    fn memory_that_is_not_writable_is_not_written() {
        let heap = Heap::new(4096);
        let (_region, mut pen) = Region::new(Memory::heap(heap, false), 4096);

        assert!(refuses(|| pen.spare(0..1).len()));
        assert!(refuses(|| pen.publish(0, 1, 8)));
        assert!(refuses(|| pen.redirty(0..1)));
        assert_eq!(pen.unread(0..2), [0, 0]);
    }

    #[test]
    fn redirty_touches_every_page_of_its_range_and_changes_nothing() {
        let (heap, _region, mut pen) = region(8 * PAGE, 8 * PAGE);
        pen.spare(0..8 * PAGE).iter_mut().enumerate().for_each(|(n, byte)| *byte = n as u8);
        let before = pen.unread(0..8 * PAGE).to_vec();
        heap.take_touched();

        pen.redirty(PAGE + 1..4 * PAGE + 1);

        assert_eq!(heap.take_touched(), BTreeSet::from([1, 2, 3, 4]));
        assert_eq!(pen.unread(0..8 * PAGE), before);
        pen.redirty(5 * PAGE..5 * PAGE);
        assert_eq!(heap.take_touched(), BTreeSet::new());
    }

    #[test]
    fn a_heap_has_one_writing_pen_and_is_rewritten_only_while_nobody_maps_it() {
        let (heap, first, pen) = region(4096, 4096);
        assert!(refuses(|| Region::new(Memory::heap(Arc::clone(&heap), true), 0)));
        let follower = Region::new(Memory::heap(Arc::clone(&heap), false), 0);
        drop(pen);

        let second = Region::new(Memory::heap(Arc::clone(&heap), true), 0);
        assert!(refuses(|| heap.write(0, b"x")));
        drop((first, follower, second));

        assert!(!heap.is_mapped());
        heap.write(0, b"x");
    }

    #[test]
    fn the_disk_leaves_alone_what_the_pen_has_lent_to_another_thread() {
        let (heap, _region, mut pen) = region(4096, 4096);
        let mut seen = [9; 12];

        thread::scope(|scope| {
            scope.spawn(|| pen.spare(4..8).fill(1)).join().unwrap();
        });
        heap.read(0, &mut seen);
        assert_eq!(seen, [0, 0, 0, 0, 9, 9, 9, 9, 0, 0, 0, 0]);
        heap.read(5, &mut seen[..2]);
        assert_eq!(seen[..2], [0, 0]);

        pen.adopt(0);
        heap.read(0, &mut seen);
        assert_eq!(seen, [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]);
    }

    /// Batches of `[length word, n, n, ..]`, as many as the memory holds.
    fn write_batches(mut pen: Pen) -> u64 {
        let mut at = 0;
        for n in 0.. {
            let length = 8 + n % 5 * 8;
            if at + length > pen.region().valid() {
                break;
            }
            pen.spare(at + 8..at + length).fill(n as u8);
            pen.publish(at, length, at + length);
            at += length;
        }
        at
    }

    #[test]
    fn readers_see_whole_batches_while_the_writer_goes_on() {
        let capacity = if cfg!(miri) { 2048 } else { 1 << 20 };
        let (heap, region, pen) = region(capacity, capacity);

        thread::scope(|scope| {
            let writer = scope.spawn(|| write_batches(pen));
            let disk = scope.spawn(|| {
                let mut copy = vec![0; capacity as usize];
                while region.written() + 64 < capacity {
                    heap.read(0, &mut copy);
                    thread::yield_now();
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    let (mut at, mut n) = (0, 0u64);
                    while at + 64 < capacity {
                        let bytes = region.bytes();
                        while at < bytes.len() as u64 {
                            let length = region.word(at);
                            assert_eq!(length, 8 + n % 5 * 8);
                            assert!(region.slice(at + 8..at + length).iter().all(|byte| *byte == n as u8));
                            (at, n) = (at + length, n + 1);
                        }
                        thread::yield_now();
                    }
                });
            }
            disk.join().unwrap();
            assert_eq!(writer.join().unwrap(), region.written());
        });
    }

    #[test]
    fn a_region_that_follows_sees_a_batch_once_its_word_is_set() {
        let capacity = if cfg!(miri) { 1024 } else { 1 << 18 };
        let (heap, _region, pen) = region(capacity, capacity);
        let (following, mut follower) = Region::new(Memory::heap(heap, false), capacity);

        thread::scope(|scope| {
            scope.spawn(|| write_batches(pen));
            let mut n = 0u64;
            while following.written() + 64 < capacity {
                let at = following.written();
                let length = following.word(at);
                if length == 0 {
                    thread::yield_now();
                    continue;
                }
                assert!(follower.unread(at + 8..at + length).iter().all(|byte| *byte == n as u8));
                follower.adopt(at + length);
                n += 1;
            }
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn what_is_published_in_a_mapped_file_is_in_the_file() {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let (region, mut pen) = Region::new(Memory::map(&file, 1 << 20, true).unwrap(), 4096);
        let (following, _) = Region::new(Memory::map(&file, 8192, false).unwrap(), 4096);
        assert_eq!((region.capacity(), following.capacity()), (1 << 20, 8192));

        pen.spare(8..16).fill(5);
        pen.publish(0, 16, 16);

        let mut bytes = [0; 16];
        file.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [16, 0, 0, 0, 0, 0, 0, 0, 5, 5, 5, 5, 5, 5, 5, 5]);
        assert_eq!(following.word(0), 16);

        file.set_len(1 << 20).unwrap();
        pen.extend(1 << 20);
        pen.spare((1 << 20) - 1..1 << 20).fill(6);
        file.seek(SeekFrom::Start((1 << 20) - 1)).unwrap();
        file.read_exact(&mut bytes[..1]).unwrap();
        assert_eq!(bytes[0], 6);
    }
}
