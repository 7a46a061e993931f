//! The observation memory of this process: made when the first connection wants a slot, shared by
//! whoever of the same user opens it, gone with the process.
//!
//! Owns the mapping, its descriptor, and which slot is free. Does not own what the slots say.
//! Invariants: the mapping stays for the life of the process, so that a slot may be written at any
//! time; after a fork the child never writes to the memory of its parent; a descriptor is closed
//! only if it still is the memory's.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use super::layout::{self, LEN, SLOT_WORDS, SLOTS, head};

/// The words of the whole memory.
const WORDS: usize = LEN / 8;

/// The mapping and the descriptor by which others find it.
struct Segment {
    words: &'static [AtomicU64],
    fd: RawFd,
    /// Device and inode, by which the descriptor is known again.
    identity: (u64, u64),
    /// Only this process's view: a fork has made it so.
    private: bool,
}

/// What there is, and what of it is free.
pub(super) struct Memory {
    segment: Option<Segment>,
    /// Ended slots, the oldest first.
    free: VecDeque<usize>,
    used: usize,
    next_id: u64,
    unobserved: u64,
}

/// Guards which slot is whose, and all words of slots but those of counters. Held for a few
/// instructions, and by a thread that forks.
static MEMORY: Mutex<Memory> = Mutex::new(Memory {
    segment: None,
    free: VecDeque::new(),
    used: 0,
    next_id: 0,
    unobserved: 0,
});

fn lock() -> MutexGuard<'static, Memory> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One slot, for its one user.
pub(super) struct Place {
    pub(super) index: usize,
    pub(super) id: u64,
    pub(super) words: &'static [AtomicU64],
}

/// A slot for a new connection, as `fill` has filled it; `None` if there is none.
pub(super) fn take(fill: impl FnOnce(&Place)) -> Option<Place> {
    let mut memory = lock();
    memory.prepare();
    let Some(words) = memory.segment.as_ref().map(|segment| segment.words) else {
        memory.unobserved += 1;
        return None;
    };
    let index = match memory.free.pop_front() {
        Some(index) => index,
        None if memory.used < SLOTS => {
            memory.used += 1;
            set(words, head::USED, memory.used as u64);
            memory.used - 1
        }
        None => {
            memory.unobserved += 1;
            set(words, head::UNOBSERVED, memory.unobserved);
            return None;
        }
    };
    memory.next_id += 1;
    let start = layout::HEAD_LEN / 8 + index * SLOT_WORDS;
    let place = Place {
        index,
        id: memory.next_id,
        words: words.get(start..start + SLOT_WORDS)?,
    };
    fill(&place);
    drop(memory);
    Some(place)
}

/// The slot's user is through with it: `last` is written before anybody else gets it.
pub(super) fn give_back(index: usize, last: impl FnOnce()) {
    let mut memory = lock();
    last();
    memory.free.push_back(index);
}

/// Changes words of slots that more than one thread may want to change.
pub(super) fn change(change: impl FnOnce()) {
    let mut memory = lock();
    memory.prepare();
    change();
}

/// The words of the head and the ring, once there are some.
pub(super) fn all() -> Option<&'static [AtomicU64]> {
    lock().segment.as_ref().map(|segment| segment.words)
}

/// The descriptor of the memory, if there is one: for those who have to keep it open.
#[must_use]
pub fn descriptor() -> Option<RawFd> {
    let memory = lock();
    let segment = memory.segment.as_ref()?;
    segment.owns_descriptor().then_some(segment.fd)
}

fn set(words: &[AtomicU64], index: usize, value: u64) {
    if let Some(word) = words.get(index) {
        word.store(value, Ordering::Relaxed);
    }
}

impl Memory {
    /// Makes what is missing. Without it nothing is observed, and nothing else happens.
    fn prepare(&mut self) {
        match &mut self.segment {
            None => match Segment::new() {
                Ok(segment) => {
                    watch_forks();
                    self.segment = Some(segment);
                }
                Err(error) => tracing::debug!(%error, "connections cannot be observed"),
            },
            Some(segment) if segment.private => {
                if let Err(error) = segment.renew(self.used) {
                    tracing::debug!(%error, "connections cannot be observed after a fork");
                }
            }
            Some(_) => {}
        }
    }
}

impl Segment {
    fn new() -> io::Result<Segment> {
        let file = file()?;
        let base = map(ptr::null_mut(), libc::MAP_SHARED, file.as_raw_fd())?;
        // A dump of the process is no larger for it. Refusal is no loss.
        // SAFETY: the whole of our own mapping; advice changes no content.
        unsafe { libc::madvise(base, LEN, libc::MADV_DONTDUMP) };
        // SAFETY: the mapping is LEN bytes long, page-aligned, zeroed and is never unmapped; its
        // words are only ever touched as atomics.
        let words = unsafe { slice::from_raw_parts(base.cast::<AtomicU64>().cast_const(), WORDS) };
        describe(words);
        let segment = Segment {
            words,
            identity: identity(&file)?,
            fd: keep(file),
            private: false,
        };
        Ok(segment)
    }

    /// In a child: what is written from now on is nobody else's. Only system calls.
    fn part(&mut self) {
        let private = match self.owns_descriptor() {
            true => map(self.base(), libc::MAP_PRIVATE | libc::MAP_FIXED, self.fd),
            false => Err(io::ErrorKind::NotFound.into()),
        };
        if private.is_err() {
            let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_ANONYMOUS;
            drop(map(self.base(), flags, -1));
        }
        self.private = true;
    }

    /// In a child: what it has goes on in memory of its own. Slots that nobody has used are not even
    /// looked at: that would make pages of them, in the parent's memory, too.
    fn renew(&mut self, used: usize) -> io::Result<()> {
        let file = file()?;
        describe(self.words);
        // SAFETY: the mapping is LEN bytes long. The kernel reads it as anybody else does who has
        // mapped it: a counter that changes meanwhile is told again by its next change.
        let bytes = unsafe { slice::from_raw_parts(self.base().cast::<u8>(), LEN) };
        let slots = layout::HEAD_LEN + used * layout::SLOT_LEN;
        write_sparsely(&file, bytes, 0..slots)?;
        let traced = self.words.get(head::RING_HEAD);
        if traced.is_some_and(|head| head.load(Ordering::Relaxed) != 0) {
            write_sparsely(&file, bytes, layout::RING_AT..LEN)?;
        }
        map(
            self.base(),
            libc::MAP_SHARED | libc::MAP_FIXED,
            file.as_raw_fd(),
        )?;
        if self.owns_descriptor() {
            // SAFETY: the descriptor is the one that `keep` let go of; it is closed once.
            drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
        }
        self.identity = identity(&file)?;
        self.fd = keep(file);
        self.private = false;
        Ok(())
    }

    fn base(&self) -> *mut libc::c_void {
        self.words.as_ptr().cast_mut().cast()
    }

    /// Whether the number still stands for the memory: programs close what they do not know.
    fn owns_descriptor(&self) -> bool {
        let mut about = std::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the pointer is to a whole stat of this frame; any number may be asked for.
        let code = unsafe { libc::fstat(self.fd, about.as_mut_ptr()) };
        // SAFETY: plain numbers, zero or filled in.
        let about = unsafe { about.assume_init() };
        code == 0 && (about.st_dev, about.st_ino) == self.identity
    }
}

/// Writes the pages of a part that are not empty; the others need not exist.
fn write_sparsely(file: &File, bytes: &[u8], part: Range<usize>) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    for at in part.clone().step_by(PAGE) {
        let page = bytes.get(at..part.end.min(at + PAGE)).unwrap_or_default();
        if page.iter().any(|byte| *byte != 0) {
            file.write_all_at(page, at as u64)?;
        }
    }
    Ok(())
}

/// Bytes that are looked at together.
const PAGE: usize = 4096;

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let about = file.metadata()?;
    Ok((about.dev(), about.ino()))
}

/// New memory of a size that nobody can change.
fn file() -> io::Result<File> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a whole rlimit of this frame.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    if limit.rlim_cur < LEN as u64 {
        // It would not fail, it would kill.
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    let name = std::ffi::CString::new(layout::NAME)?;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a live string that ends in zero.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just handed out this descriptor, nobody else knows it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.set_len(LEN as u64)?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: an open descriptor and plain numbers.
    if unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, seals) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// The number under which the memory stays open: a high one, so that the numbers an application
/// gets are those it would get without us.
fn keep(file: File) -> RawFd {
    let high = crate::sys::descriptor_limit().min(1024).saturating_sub(24);
    let low = libc::c_int::try_from(high).unwrap_or(0);
    // SAFETY: an open descriptor and plain numbers.
    let moved = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, low) };
    if moved < 0 {
        return std::os::fd::IntoRawFd::into_raw_fd(file);
    }
    moved
}

fn map(
    at: *mut libc::c_void,
    flags: libc::c_int,
    fd: libc::c_int,
) -> io::Result<*mut libc::c_void> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a mapping of the kernel's choice, or, by the callers' MAP_FIXED, one in place of the
    // memory's own, which has the same length.
    let base = unsafe { libc::mmap(at, LEN, protection, flags | libc::MAP_NORESERVE, fd, 0) };
    match base {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        base => Ok(base),
    }
}

/// Fills in the head. The magic comes last: before it nobody looks at the rest.
fn describe(words: &[AtomicU64]) {
    let fixed = [
        (head::VERSION, layout::VERSION),
        (head::PID, u64::from(std::process::id())),
        (head::SLOTS_AT, layout::HEAD_LEN as u64),
        (head::SLOT_LEN, layout::SLOT_LEN as u64),
        (head::SLOTS, SLOTS as u64),
        (head::RING_AT, layout::RING_AT as u64),
        (head::ENTRY_LEN, layout::ENTRY_LEN as u64),
        (head::ENTRIES, layout::ENTRIES as u64),
    ];
    for (index, value) in fixed {
        set(words, index, value);
    }
    if let Some(magic) = words.get(head::MAGIC) {
        magic.store(layout::MAGIC, Ordering::Release);
    }
}

thread_local! {
    /// What a forking thread holds over the fork, so that the child finds no lock of a thread it
    /// does not have.
    static FORKING: std::cell::Cell<Option<MutexGuard<'static, Memory>>> =
        const { std::cell::Cell::new(None) };
}

extern "C" fn before_fork() {
    // A thread at its very end holds nothing over its fork.
    FORKING.try_with(|held| held.set(Some(lock()))).ok();
}

extern "C" fn after_fork_in_parent() {
    drop(FORKING.try_with(std::cell::Cell::take));
}

extern "C" fn after_fork_in_child() {
    let held = FORKING.try_with(std::cell::Cell::take).ok().flatten();
    if let Some(mut memory) = held
        && let Some(segment) = &mut memory.segment
    {
        segment.part();
    }
}

fn watch_forks() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        // SAFETY: three functions of this library, which stays; the child's does system calls only.
        unsafe {
            libc::pthread_atfork(
                Some(before_fork),
                Some(after_fork_in_parent),
                Some(after_fork_in_child),
            )
        };
    });
}
