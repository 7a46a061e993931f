//! What we know of each descriptor number.
//!
//! Owns the map from numbers to connections. A number that we know nothing of costs two loads. A
//! connection is kept once for each open file description, as a [`Descriptor`], and dup shares it.
//!
//! Invariants: looking up takes no lock and allocates nothing, so that it may happen in a handler of
//! a signal; what was found stays until [`Held`] is dropped, whatever happens to the number
//! meanwhile; a number is taken out before the kernel is asked to close it, so that nobody finds
//! the old connection under a number that the kernel has given out again.

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use wsd_switch::companion::{Companion, Jump};

use crate::sets::Notes;
use crate::{file, guard, sets};

/// Numbers in one page of the map.
const PAGE: usize = 1024;
/// Pages: a higher number than these hold is never looked after.
const PAGES: usize = 1024;

/// What is known of a number apart from connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    /// Nothing, or nothing that concerns us.
    None,
    /// A TCP socket without a connection of ours: it may get one, or be a listener.
    Stream,
    /// A socket that can have no connection of ours.
    Other,
    /// A poll set of the program: [`sets::get`] knows it.
    Set,
    /// A descriptor of our own code, which the program must not close.
    Private,
    /// A connection: [`get`] gives it.
    Connection,
}

/// What a slot holds: one of the marks below, or a [`Descriptor`], which it has a share of.
type Word = AtomicPtr<Descriptor>;

const NOTHING: usize = 0;
const STREAM: usize = 1;
const PRIVATE: usize = 2;
const OTHER: usize = 3;
/// The low bits of a set's word; its name is in the others.
const SET: usize = 4;
/// The bits that are zero in an address, and not all of them in a mark.
const LOW: usize = align_of::<Descriptor>() - 1;
const _: () = assert!(SET <= LOW);

/// Whether a word is a descriptor.
#[inline]
fn is_descriptor(word: *const Descriptor) -> bool {
    word.addr() & LOW == 0 && !word.is_null()
}

/// One number.
struct Slot {
    word: Word,
    /// Who looks at the descriptor now; the slot's share is not given up meanwhile.
    pins: AtomicUsize,
}

/// The share of a slot that was given up while somebody looked.
struct Node {
    _share: Arc<Descriptor>,
    slot: &'static Slot,
    next: *mut Node,
}

/// One open file description.
#[derive(Debug)]
pub(crate) struct Descriptor {
    companion: Arc<Companion>,
    /// Numbers of this process that stand for it.
    numbers: AtomicUsize,
    /// Calls that did not go to the kernel.
    calls: AtomicUsize,
    /// Which file it is: a number that leads to another file was closed without our knowledge. Asked
    /// when the SAN is first sought, before which nothing depends on it.
    identity: OnceLock<Option<file::Identity>>,
    notes: Notes,
}

impl Descriptor {
    pub(crate) fn new(companion: Arc<Companion>, fd: RawFd) -> Arc<Descriptor> {
        let is_new = companion.announce();
        let made = Descriptor {
            companion,
            numbers: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            identity: OnceLock::new(),
            notes: Notes::default(),
        };
        if !is_new {
            made.wake(fd);
        }
        Arc::new(made)
    }

    /// The SAN is about to be sought: what was not worth while for a short connection is done now.
    /// False: another thread is in the middle of something.
    pub(crate) fn wake(&self, fd: RawFd) -> bool {
        self.identity.get_or_init(|| file::identity(fd));
        self.notes.settle(&self.companion)
    }

    /// In which sets of the program it is, as long as that is nobody's business but the kernel's.
    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    pub(crate) fn companion(&self) -> &Arc<Companion> {
        &self.companion
    }

    /// Whether it is time to ask [`Descriptor::is_elsewhere`], where nothing else gives cause to: at the
    /// first call and at some of those after it.
    pub(crate) fn is_to_be_looked_at(&self) -> bool {
        self.calls
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(64)
    }

    /// Whether the number still leads to the file that it led to. A system call: not for each byte.
    pub(crate) fn is_behind(&self, fd: RawFd) -> bool {
        let known = self.identity.get().copied().flatten();
        known.is_some() && file::identity(fd) == known
    }

    /// Whether the number leads elsewhere by now. Not if the SAN was never sought: whatever the number
    /// leads to, the kernel's calls are right for it.
    pub(crate) fn is_elsewhere(&self, fd: RawFd) -> bool {
        self.identity.get().is_some() && !self.is_behind(fd)
    }
}

/// A connection that was found; it stays while this lives, on the thread that has found it.
pub(crate) struct Held {
    slot: &'static Slot,
    /// The slot's share, which is not ours.
    descriptor: ManuallyDrop<Arc<Descriptor>>,
    own: guard::Own,
    /// The thread knows what it holds.
    of_thread: PhantomData<*const ()>,
}

impl Held {
    pub(crate) fn descriptor(&self) -> &Arc<Descriptor> {
        &self.descriptor
    }
}

impl Deref for Held {
    type Target = Companion;

    fn deref(&self) -> &Companion {
        &self.descriptor.companion
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.slot.unpin(self.own);
    }
}

impl Slot {
    fn name(&self) -> usize {
        ptr::from_ref(self).expose_provenance()
    }

    fn pin(&self) -> guard::Own {
        guard::hold(self.name(), || {
            self.pins.fetch_add(1, Ordering::SeqCst);
        })
    }

    fn unpin(&self, own: guard::Own) {
        guard::let_go(self.name(), own, || {
            self.pins.fetch_sub(1, Ordering::Release);
        });
    }
}

/// The thread is about to jump out of calls, and will not give back itself what they held.
pub(crate) fn jump(jump: Jump) {
    guard::jump(jump, |name| {
        let slot = ptr::with_exposed_provenance::<Slot>(name);
        // SAFETY: the name is a slot's address, told by `pin`; slots stay.
        unsafe { &*slot }.pins.fetch_sub(1, Ordering::Release);
    });
}

/// The map. Pages come with the first entry and stay.
static MAP: [AtomicPtr<[Slot; PAGE]>; PAGES] = [const { AtomicPtr::new(ptr::null_mut()) }; PAGES];

/// Whether any connection was ever entered.
static USED: AtomicBool = AtomicBool::new(false);

/// Whether any connection was ever entered.
pub(crate) fn was_used() -> bool {
    USED.load(Ordering::Relaxed)
}

#[inline]
fn slot(fd: RawFd) -> Option<&'static Slot> {
    let number = usize::try_from(fd).ok()?;
    let page = MAP.get(number / PAGE)?.load(Ordering::Acquire);
    // SAFETY: a page is whole before it is published and is never taken back.
    unsafe { page.as_ref() }?.get(number % PAGE)
}

/// The slot, in a page that is made if it is not there. None for a number out of range.
fn slot_made(fd: RawFd) -> Option<&'static Slot> {
    let number = usize::try_from(fd).ok()?;
    let place = MAP.get(number / PAGE)?;
    if place.load(Ordering::Acquire).is_null() {
        let page: *mut [Slot; PAGE] = file::zeroed_pages(size_of::<[Slot; PAGE]>())?.cast();
        let lost = place
            .compare_exchange(ptr::null_mut(), page, Ordering::AcqRel, Ordering::Acquire)
            .is_err();
        if lost {
            file::give_pages_back(page.cast(), size_of::<[Slot; PAGE]>());
        }
    }
    slot(fd)
}

/// The connection of a number.
#[inline]
pub(crate) fn get(fd: RawFd) -> Option<Held> {
    let slot = slot(fd)?;
    if !is_descriptor(slot.word.load(Ordering::Relaxed)) {
        return None;
    }
    hold(slot)
}

#[inline(never)]
fn hold(slot: &'static Slot) -> Option<Held> {
    let own = slot.pin();
    let word = slot.word.load(Ordering::SeqCst);
    if !is_descriptor(word) {
        slot.unpin(own);
        return None;
    }
    // SAFETY: a word that is no mark came from `Arc::into_raw`; it was in the slot after the pin was
    // set, and who takes it out gives its share up only when he sees no pin afterwards.
    let descriptor = ManuallyDrop::new(unsafe { Arc::from_raw(word) });
    Some(Held {
        slot,
        descriptor,
        own,
        of_thread: PhantomData,
    })
}

/// What is known of a number.
#[inline]
pub(crate) fn mark(fd: RawFd) -> Mark {
    match slot(fd).map_or(NOTHING, |s| s.word.load(Ordering::Relaxed).addr()) {
        NOTHING => Mark::None,
        STREAM => Mark::Stream,
        PRIVATE => Mark::Private,
        OTHER => Mark::Other,
        word if word & LOW == SET => Mark::Set,
        _ => Mark::Connection,
    }
}

/// Notes a mark for a number that stands for no connection.
fn set(fd: RawFd, word: usize) {
    let Some(slot) = slot_made(fd) else {
        return;
    };
    let old = slot
        .word
        .swap(ptr::without_provenance_mut(word), Ordering::SeqCst);
    drop(given_up(fd, slot, old));
}

/// The number is a TCP socket. What its file of before was registered for is nothing to this one.
pub(crate) fn set_stream(fd: RawFd) {
    drop(sets::take_early(fd));
    set(fd, STREAM);
}

/// The number is a socket that is to have no connection of ours.
pub(crate) fn set_other(fd: RawFd) {
    set(fd, OTHER);
}

/// The number is a poll set of the program, with this name.
pub(crate) fn set_poll_set(fd: RawFd, name: usize) {
    set(fd, name * (LOW + 1) + SET);
}

/// The name of the poll set under this number.
pub(crate) fn name_of_set(fd: RawFd) -> Option<usize> {
    let word = slot(fd)?.word.load(Ordering::Relaxed).addr();
    (word & LOW == SET).then_some(word / (LOW + 1))
}

/// The number is a descriptor of our own.
pub(crate) fn set_private(fd: RawFd) {
    set(fd, PRIVATE);
}

/// Enters a connection under a number; what was there, if that was a connection.
pub(crate) fn insert(fd: RawFd, descriptor: Arc<Descriptor>) -> Option<Taken> {
    let slot = slot_made(fd)?;
    USED.store(true, Ordering::Relaxed);
    descriptor.numbers.fetch_add(1, Ordering::Relaxed);
    let word = Arc::into_raw(descriptor).cast_mut();
    let old = slot.word.swap(word, Ordering::SeqCst);
    if old.addr() == STREAM {
        // Where the socket is registered concerns the connection that it is now.
        return None;
    }
    given_up(fd, slot, old)
}

/// What was taken out under a number.
pub(crate) struct Taken {
    pub(crate) descriptor: Arc<Descriptor>,
    /// Whether no number stands for it any more.
    pub(crate) last: bool,
}

/// Forgets a number.
pub(crate) fn take(fd: RawFd) -> Option<Taken> {
    let slot = slot(fd)?;
    if slot.word.load(Ordering::Relaxed).addr() == NOTHING {
        return None;
    }
    given_up(fd, slot, slot.word.swap(ptr::null_mut(), Ordering::SeqCst))
}

/// Forgets a number if it still stands for this connection.
pub(crate) fn take_if(fd: RawFd, descriptor: &Arc<Descriptor>) -> Option<Taken> {
    let held = get(fd)?;
    if !Arc::ptr_eq(held.descriptor(), descriptor) {
        return None;
    }
    let slot = held.slot;
    let word = Arc::as_ptr(descriptor).cast_mut();
    drop(held);
    let taken =
        slot.word
            .compare_exchange(word, ptr::null_mut(), Ordering::SeqCst, Ordering::SeqCst);
    retire(slot, taken.ok()?)
}

/// Calls `work` with each number that is in use and what is known of it.
pub(crate) fn each(mut work: impl FnMut(RawFd, Mark)) {
    for page in 0..PAGES {
        let empty = MAP
            .get(page)
            .is_none_or(|p| p.load(Ordering::Acquire).is_null());
        if empty {
            continue;
        }
        for number in page * PAGE..(page + 1) * PAGE {
            let Ok(fd) = RawFd::try_from(number) else {
                return;
            };
            let known = mark(fd);
            if known != Mark::None {
                work(fd, known);
            }
        }
    }
}

/// In the child of a fork, whose only thread is the caller: those who looked in the parent are not
/// here, and will never stop looking.
pub(crate) fn after_fork_in_child() {
    for page in &MAP {
        // SAFETY: a page is whole before it is published and is never taken back.
        let Some(page) = (unsafe { page.load(Ordering::Acquire).as_ref() }) else {
            continue;
        };
        for slot in page {
            if slot.pins.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let Some(own) = guard::holds_of(slot.name()) else {
                return;
            };
            slot.pins.store(own, Ordering::SeqCst);
        }
    }
}

/// Nodes that were taken out while somebody looked at them.
static RETIRED: AtomicPtr<Node> = AtomicPtr::new(ptr::null_mut());

/// The number does not stand for this word any more.
fn given_up(fd: RawFd, slot: &'static Slot, word: *mut Descriptor) -> Option<Taken> {
    match word.addr() {
        STREAM => sets::forget_early(fd),
        word if word & LOW == SET => sets::closed(fd),
        _ => {}
    }
    retire(slot, word)
}

/// Gives up a word that is in its slot no more. What it stood for, if that was a connection.
fn retire(slot: &'static Slot, word: *mut Descriptor) -> Option<Taken> {
    if !is_descriptor(word) {
        return None;
    }
    // SAFETY: the word came from `Arc::into_raw`, and only who took it out comes here with it.
    let descriptor = unsafe { Arc::from_raw(word) };
    let last = descriptor.numbers.fetch_sub(1, Ordering::AcqRel) == 1;
    if slot.pins.load(Ordering::SeqCst) != 0 {
        let _inside = guard::enter();
        keep(Box::into_raw(Box::new(Node {
            _share: Arc::clone(&descriptor),
            slot,
            next: ptr::null_mut(),
        })));
    }
    // Relaxed: somebody's next time will do.
    if !RETIRED.load(Ordering::Relaxed).is_null() {
        sweep();
    }
    Some(Taken { descriptor, last })
}

/// Puts a node on the list of those to be freed.
fn keep(node: *mut Node) {
    let mut first = RETIRED.load(Ordering::Relaxed);
    loop {
        // SAFETY: the node is the caller's alone until it is on the list.
        unsafe { (*node).next = first };
        match RETIRED.compare_exchange_weak(first, node, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => first = now,
        }
    }
}

/// Frees the nodes that nobody looks at.
fn sweep() {
    let _inside = guard::enter();
    let mut next = RETIRED.swap(ptr::null_mut(), Ordering::AcqRel);
    while !next.is_null() {
        let node = next;
        // SAFETY: the whole list was taken by this thread; its nodes are alive until freed here.
        next = unsafe { (*node).next };
        // SAFETY: as above.
        let slot = unsafe { (*node).slot };
        let looked_at = slot.pins.load(Ordering::SeqCst) != 0;
        if looked_at {
            keep(node);
        } else {
            // SAFETY: made by `Box::into_raw`; its word is out of the slot, and nobody holds a pin,
            // so nobody can have it: who pins from now on finds another word.
            drop(unsafe { Box::from_raw(node) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, AsRawFd};
    use std::sync::atomic::AtomicBool;
    use wsd_switch::companion::Role;

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    fn descriptor(stream: &TcpStream) -> Arc<Descriptor> {
        let companion = Companion::new(stream.as_fd(), Role::Connected).unwrap();
        Descriptor::new(companion, stream.as_raw_fd())
    }

    /// Another test's thread may have the list of what is to be freed just now.
    fn is_let_go(d: &Arc<Descriptor>) -> bool {
        for _ in 0..3000 {
            if Arc::strong_count(d) == 1 {
                return true;
            }
            sweep();
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        false
    }

    #[test]
    fn what_a_thread_has_jumped_out_of_keeps_nothing() {
        const FD: RawFd = 700_040;
        #[inline(never)]
        fn deeper(fd: RawFd) -> ManuallyDrop<Held> {
            let room = [0_u8; 4096];
            std::hint::black_box(&room);
            ManuallyDrop::new(get(fd).unwrap())
        }
        let (stream, _peer) = connection();
        let d = descriptor(&stream);
        assert!(insert(FD, Arc::clone(&d)).is_none());
        let mark = 0_u8;
        let here = ptr::from_ref(&mark).addr();
        let held = get(FD).unwrap();
        let _left = deeper(FD);
        jump(Jump::new(here - (64 << 10), here - 4000));
        drop(held);
        assert!(take(FD).unwrap().last);
        assert!(is_let_go(&d));
    }

    #[test]
    fn a_number_stands_for_its_connection_until_it_is_taken() {
        // Numbers that the process does not use otherwise.
        const ONE: RawFd = 700_001;
        const OTHER: RawFd = 700_002;
        let (stream, _peer) = connection();
        let d = descriptor(&stream);
        assert_eq!(mark(ONE), Mark::None);
        assert!(insert(ONE, Arc::clone(&d)).is_none());
        assert!(insert(OTHER, Arc::clone(&d)).is_none());
        let held = get(ONE).unwrap();
        assert!(Arc::ptr_eq(held.descriptor(), &d));
        assert!(!take(ONE).unwrap().last);
        assert!(get(ONE).is_none());
        assert!(Arc::ptr_eq(held.descriptor(), &d), "held beyond the number");
        drop(held);
        assert!(take_if(OTHER, &descriptor(&stream)).is_none());
        assert!(take_if(OTHER, &d).unwrap().last);
        assert!(is_let_go(&d), "what nobody holds is freed");
    }

    #[test]
    fn marks_are_no_connections() {
        const FD: RawFd = 700_010;
        set_stream(FD);
        assert_eq!(mark(FD), Mark::Stream);
        assert!(get(FD).is_none());
        set_private(FD);
        let mut seen = false;
        each(|fd, known| seen |= fd == FD && known == Mark::Private);
        assert!(seen);
        assert!(take(FD).is_none());
        assert_eq!(mark(FD), Mark::None);
        assert_eq!(mark(-1), Mark::None);
        assert!(get(RawFd::MAX).is_none());
    }

    #[test]
    fn a_number_that_leads_elsewhere_is_noticed() {
        let (stream, peer) = connection();
        let d = descriptor(&stream);
        assert!(!d.is_behind(stream.as_raw_fd()), "not asked for yet");
        assert!(!d.is_elsewhere(peer.as_raw_fd()), "nor that");
        assert!(d.wake(stream.as_raw_fd()));
        assert!(d.is_behind(stream.as_raw_fd()));
        assert!(!d.is_behind(peer.as_raw_fd()));
        assert!(!d.is_behind(-1));
        assert!(!d.is_elsewhere(stream.as_raw_fd()));
        assert!(d.is_elsewhere(peer.as_raw_fd()) && d.is_elsewhere(-1));
    }

    const ALONE: &str = "WSD_TEST_ALONE";

    /// In a process of its own: a child of this one might find another test's locks held.
    #[test]
    fn a_child_holds_only_what_its_own_thread_held() {
        if std::env::var_os(ALONE).is_some() {
            return fork_while_others_look();
        }
        let name = std::thread::current().name().map(str::to_owned);
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name.unwrap()])
            .env(ALONE, "1")
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
    }

    fn fork_while_others_look() {
        const OTHERS: RawFd = 700_030;
        const OWN: RawFd = 700_031;
        let (stream, _peer) = connection();
        let [others, own] = [(); 2].map(|()| descriptor(&stream));
        assert!(insert(OTHERS, Arc::clone(&others)).is_none());
        assert!(insert(OWN, Arc::clone(&own)).is_none());
        let (tell, told) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let status = std::thread::scope(|scope| {
            scope.spawn(move || {
                let held = [OTHERS, OWN].map(get);
                tell.send(()).unwrap();
                let _over = released.recv();
                drop(held);
            });
            told.recv().unwrap();
            let held = get(OWN).unwrap();
            // SAFETY: the child does only what it may: its memory's locks are free.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                after_fork_in_child();
                drop([OTHERS, OWN].map(take));
                sweep();
                let mut as_it_should = Arc::strong_count(&others) == 1;
                as_it_should &= Arc::strong_count(&own) == 2;
                drop(held);
                sweep();
                as_it_should &= Arc::strong_count(&own) == 1;
                // SAFETY: ends the child, and nothing of the test in it.
                unsafe { libc::_exit(i32::from(!as_it_should)) };
            }
            let mut status = -1;
            // SAFETY: the place is live.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            drop(release);
            status
        });
        assert_eq!(status, 0);
        drop([OTHERS, OWN].map(take));
        assert!(is_let_go(&others) && is_let_go(&own));
    }

    #[test]
    fn threads_that_look_and_one_that_changes_agree() {
        const FD: RawFd = 700_020;
        let (stream, _peer) = connection();
        let d = descriptor(&stream);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        if let Some(held) = get(FD) {
                            assert!(Arc::ptr_eq(held.descriptor(), &d));
                        }
                    }
                });
            }
            for _ in 0..2_000 {
                assert!(insert(FD, Arc::clone(&d)).is_none());
                assert!(take(FD).unwrap().last);
            }
            done.store(true, Ordering::Relaxed);
        });
        drop(take(FD));
        assert!(insert(FD, Arc::clone(&d)).is_none());
        drop(take(FD));
        assert!(is_let_go(&d));
    }
}
