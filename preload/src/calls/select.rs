//! select(2) and pselect(2).
//!
//! As poll(2): without a connection that the SAN carries the kernel does all of it. Otherwise the
//! sets are waited for as poll() would, because our own descriptors may have numbers that no
//! `fd_set` holds.

use core::ffi::{c_int, c_long, c_short};

use libc::{fd_set, pollfd, sigset_t, timespec, timeval};

use crate::clock::{Clock, Time, is_valid, now};
use crate::log::Border;
use crate::many::{self, Kind};
use crate::raw::{errno, fail, set_errno};
use crate::{export, guard, real};

const INWARDS: c_short = libc::POLLIN | libc::POLLRDNORM | libc::POLLRDBAND;
const OUTWARDS: c_short = libc::POLLOUT | libc::POLLWRNORM | libc::POLLWRBAND;
const URGENT: c_short = libc::POLLPRI;
/// What makes a descriptor a member of the answer, by set: as the kernel has it.
const ANSWERS: [c_short; 3] = [
    INWARDS | libc::POLLHUP | libc::POLLERR,
    OUTWARDS | libc::POLLERR,
    URGENT,
];
const QUESTIONS: [c_short; 3] = [INWARDS, OUTWARDS, URGENT];
const WORD: usize = c_long::BITS as usize;
const SECOND: u64 = 1_000_000_000;

/// The three sets, any of which may be missing.
struct Sets<'a> {
    sets: [Option<&'a mut [usize]>; 3],
    count: usize,
}

impl<'a> Sets<'a> {
    /// # Safety
    /// Each is null or has room for `count` bits, rounded up to whole words.
    unsafe fn new(count: usize, sets: [*mut fd_set; 3]) -> Sets<'a> {
        let words = count.div_ceil(WORD);
        let sets = sets.map(|set| {
            (!set.is_null()).then(|| {
                // SAFETY: the caller's promise; an `fd_set` is an array of words.
                unsafe { core::slice::from_raw_parts_mut(set.cast::<usize>(), words) }
            })
        });
        Sets { sets, count }
    }

    fn word(&self, set: usize, at: usize) -> usize {
        let words = self.sets.get(set).and_then(Option::as_deref);
        words.and_then(|w| w.get(at).copied()).unwrap_or(0)
    }

    /// Calls `work` for each member of any set.
    fn each(&self, mut work: impl FnMut(c_int)) {
        for at in 0..self.count.div_ceil(WORD) {
            let mut any = self.word(0, at) | self.word(1, at) | self.word(2, at);
            while any != 0 {
                let bit = any.trailing_zeros() as usize;
                any &= any - 1;
                let number = at * WORD + bit;
                if number < self.count
                    && let Ok(fd) = c_int::try_from(number)
                {
                    work(fd);
                }
            }
        }
    }

    fn has(&self, set: usize, fd: c_int) -> bool {
        let number = usize::try_from(fd).unwrap_or(usize::MAX);
        self.word(set, number / WORD) >> (number % WORD) & 1 != 0
    }

    fn kind(&self) -> Kind {
        let mut kind = Kind::Plain;
        self.each(|fd| kind = kind.and(fd));
        kind
    }

    /// As the array that poll() takes.
    fn questions(&self) -> Vec<pollfd> {
        let mut fds = Vec::new();
        self.each(|fd| {
            let mut events = 0;
            for (set, question) in QUESTIONS.iter().enumerate() {
                if self.has(set, fd) {
                    events |= question;
                }
            }
            fds.push(pollfd {
                fd,
                events,
                revents: 0,
            });
        });
        fds
    }

    /// Leaves those in the sets of which poll() says so. Says how many.
    fn answer(&mut self, fds: &[pollfd]) -> c_int {
        let mut found = 0;
        for (set, answer) in ANSWERS.iter().enumerate() {
            let members: Vec<bool> = fds.iter().map(|entry| self.has(set, entry.fd)).collect();
            let Some(Some(words)) = self.sets.get_mut(set) else {
                continue;
            };
            words.fill(0);
            for (entry, member) in fds.iter().zip(members) {
                let number = usize::try_from(entry.fd).unwrap_or(usize::MAX);
                if member
                    && entry.revents & answer != 0
                    && let Some(word) = words.get_mut(number / WORD)
                {
                    *word |= 1 << (number % WORD);
                    found += 1;
                }
            }
        }
        found
    }

    fn copy(&self) -> [Vec<usize>; 3] {
        [0, 1, 2].map(|set| {
            let words = self.sets.get(set).and_then(Option::as_deref);
            words.map(<[usize]>::to_vec).unwrap_or_default()
        })
    }

    fn restore(&mut self, copy: &[Vec<usize>; 3]) {
        for (words, before) in self.sets.iter_mut().zip(copy) {
            if let Some(words) = words {
                words.copy_from_slice(before);
            }
        }
    }
}

/// Waits; `plain` is the program's own call. `left` is told the time that is left when it was not
/// the kernel who waited.
fn wait(
    count: c_int,
    sets: [*mut fd_set; 3],
    span: Option<timespec>,
    mask: Option<&sigset_t>,
    plain: impl FnOnce() -> c_int,
    left: impl FnOnce(timespec),
) -> c_int {
    let Ok(room) = usize::try_from(count) else {
        return plain();
    };
    if guard::our_thread() {
        return plain();
    }
    let _border = Border;
    // SAFETY: the program says that the sets have so many bits.
    let mut sets = unsafe { Sets::new(room, sets) };
    let kind = sets.kind();
    if kind == Kind::Plain {
        return plain();
    }
    let begun = now();
    let asked = sets.questions();
    let mut clock = Clock::new(Time::Span(span.as_ref()));
    if kind == Kind::Kernel {
        let copy = sets.copy();
        let answer = plain();
        if answer <= 0 {
            return answer;
        }
        let mut answers = sets.told(&asked);
        many::genuine(&mut answers);
        if sets.are_still(&answers) {
            return answer;
        }
        sets.restore(&copy);
        // A marker was among it: ask again, and wait on if there was nothing else.
    }
    let before = errno();
    let mut fds = asked;
    let outcome = many::wait(&mut fds, &mut clock, mask);
    if let Some(span) = span {
        left(rest(span, now().saturating_sub(begun)));
    }
    match outcome {
        Ok(_) if fds.iter().any(|entry| entry.revents & libc::POLLNVAL != 0) => fail(libc::EBADF),
        Ok(_) => {
            set_errno(before);
            sets.answer(&fds)
        }
        Err(code) => fail(code),
    }
}

impl Sets<'_> {
    /// What the kernel has left in the sets, as poll() would have said it.
    fn told(&self, asked: &[pollfd]) -> Vec<pollfd> {
        let told = asked.iter().map(|entry| {
            let mut revents = 0;
            for (set, question) in QUESTIONS.iter().enumerate() {
                if self.has(set, entry.fd) {
                    revents |= question;
                }
            }
            pollfd {
                fd: entry.fd,
                events: revents,
                revents,
            }
        });
        told.collect()
    }
}

impl Sets<'_> {
    /// Whether poll() would leave every member in each of the sets.
    fn are_still(&self, fds: &[pollfd]) -> bool {
        fds.iter().all(|entry| {
            let mut sets = ANSWERS.iter().enumerate();
            sets.all(|(set, answer)| !self.has(set, entry.fd) || entry.revents & answer != 0)
        })
    }
}

fn rest(span: timespec, gone: u64) -> timespec {
    let seconds = u64::try_from(span.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(span.tv_nsec).unwrap_or(0);
    let left = seconds
        .saturating_mul(SECOND)
        .saturating_add(nanos)
        .saturating_sub(gone);
    timespec {
        tv_sec: i64::try_from(left / SECOND).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(left % SECOND).unwrap_or(0),
    }
}

export! {
    /// Waits, wherever connections are carried. The time that is left is stored, as Linux does.
    fn select(
        count: c_int, readable: *mut fd_set, writable: *mut fd_set, urgent: *mut fd_set,
        timeout: *mut timeval,
    ) -> c_int {
        // SAFETY: null, or a time of the program's, live during the call.
        let span = unsafe { timeout.as_ref() }.map(|time| timespec {
            tv_sec: time.tv_sec.saturating_add(time.tv_usec / 1_000_000),
            tv_nsec: time.tv_usec % 1_000_000 * 1000,
        });
        // SAFETY: the program's own call.
        let plain = || unsafe { real::select(count, readable, writable, urgent, timeout) };
        if span.as_ref().is_some_and(|span| !is_valid(span)) {
            return plain();
        }
        wait(count, [readable, writable, urgent], span, None, plain, |left| {
            let time = timeval {
                tv_sec: left.tv_sec,
                tv_usec: left.tv_nsec / 1000,
            };
            // SAFETY: there is a span, so there is a time, which is the program's to change.
            unsafe { timeout.write(time) };
        })
    }

    /// As `select`, with this mask; the time stays as it is.
    fn pselect(
        count: c_int, readable: *mut fd_set, writable: *mut fd_set, urgent: *mut fd_set,
        timeout: *const timespec, mask: *const sigset_t,
    ) -> c_int {
        // SAFETY: null, or a time of the program's, live during the call.
        let span = unsafe { timeout.as_ref() }.copied();
        // SAFETY: null, or a set of signals of the program's, live during the call.
        let signals = unsafe { mask.as_ref() };
        // SAFETY: the program's own call.
        let plain = || unsafe { real::pselect(count, readable, writable, urgent, timeout, mask) };
        if span.as_ref().is_some_and(|span| !is_valid(span)) {
            return plain();
        }
        wait(count, [readable, writable, urgent], span, signals, plain, |_| {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_become_questions_and_answers_sets() {
        let mut first = [0_usize; 16];
        let mut second = [0_usize; 16];
        first[0] = 1 << 5 | 1 << 9;
        second[1] = 1 << 3;
        second[0] = 1 << 9;
        // SAFETY: the arrays have 1024 bits.
        let mut sets = unsafe {
            Sets::new(
                70,
                [
                    first.as_mut_ptr().cast(),
                    second.as_mut_ptr().cast(),
                    core::ptr::null_mut(),
                ],
            )
        };
        let mut fds = sets.questions();
        let asked: Vec<_> = fds.iter().map(|f| (f.fd, f.events)).collect();
        assert_eq!(
            asked,
            [(5, INWARDS), (9, INWARDS | OUTWARDS), (67, OUTWARDS)]
        );
        fds[0].revents = libc::POLLHUP;
        fds[1].revents = libc::POLLOUT;
        fds[2].revents = libc::POLLHUP;
        assert_eq!(sets.answer(&fds), 2);
        assert!(sets.has(0, 5) && sets.has(1, 9));
        assert!(!sets.has(0, 9) && !sets.has(1, 67));
        assert_eq!(first[0], 1 << 5);
        assert_eq!(second, {
            let mut left = [0; 16];
            left[0] = 1 << 9;
            left
        });
    }

    #[test]
    fn an_answer_stays_only_as_long_as_all_of_it_is_true() {
        let mut readable = [0_usize; 16];
        let mut writable = [0_usize; 16];
        readable[0] = 1 << 5 | 1 << 9;
        writable[0] = 1 << 9;
        // SAFETY: the arrays have 1024 bits.
        let sets = unsafe {
            Sets::new(
                10,
                [
                    readable.as_mut_ptr().cast(),
                    writable.as_mut_ptr().cast(),
                    core::ptr::null_mut(),
                ],
            )
        };
        let mut told = sets.told(&sets.questions());
        assert!(sets.are_still(&told));
        // Only one of the two things that were said of it is left.
        told[1].revents = libc::POLLOUT;
        assert!(!sets.are_still(&told));
        told[1].revents = libc::POLLOUT | libc::POLLHUP;
        assert!(sets.are_still(&told));
        told[0].revents = 0;
        assert!(!sets.are_still(&told));
    }

    #[test]
    fn the_time_that_is_left_is_never_negative() {
        let span = timespec {
            tv_sec: 1,
            tv_nsec: 5,
        };
        assert_eq!(rest(span, 6).tv_nsec, SECOND as i64 - 1);
        assert_eq!(rest(span, 2 * SECOND).tv_sec, 0);
        assert_eq!(rest(span, 2 * SECOND).tv_nsec, 0);
    }
}
