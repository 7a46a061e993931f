//! How long a call still waits, and which signals end it.

use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr;

use libc::{sigset_t, timespec};

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Time<'a> {
    /// As epoll_wait() takes it.
    Millis(c_int),
    /// As epoll_pwait2() takes it.
    Span(Option<&'a timespec>),
}

/// How much of the time is left.
pub(crate) struct Clock<'a> {
    time: Time<'a>,
    begun: u64,
    span: timespec,
    slept: bool,
}

/// The longest nap of who has to look by himself, in milliseconds.
const NAP: c_int = 3;

impl<'a> Clock<'a> {
    /// A short sleep, if the time allows; whether it is shorter than what is left.
    pub(crate) fn nap(&mut self) -> (Time<'_>, bool) {
        self.slept = true;
        let longer = match self.left() {
            Time::Millis(span) => !(0..=NAP).contains(&span),
            Time::Span(Some(span)) => span.tv_sec > 0 || span.tv_nsec > i64::from(NAP) * 1_000_000,
            Time::Span(None) => true,
        };
        if longer {
            return (Time::Millis(NAP), true);
        }
        (self.left(), false)
    }

    /// Begins to count.
    pub(crate) fn new(time: Time<'a>) -> Clock<'a> {
        let finite = match time {
            Time::Millis(span) => span > 0,
            Time::Span(span) => span.is_some_and(|s| s.tv_sec != 0 || s.tv_nsec != 0),
        };
        Clock {
            time,
            begun: if finite { now() } else { 0 },
            span: timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            slept: false,
        }
    }

    /// Whether the caller does not want to wait at all.
    pub(crate) fn is_zero(&self) -> bool {
        match self.time {
            Time::Millis(span) => span == 0,
            Time::Span(span) => span.is_some_and(|s| s.tv_sec == 0 && s.tv_nsec == 0),
        }
    }

    /// What to sleep now; exactly what the program gave, the first time.
    pub(crate) fn left(&mut self) -> Time<'_> {
        const SECOND: u64 = 1_000_000_000;
        if !std::mem::replace(&mut self.slept, true) || self.begun == 0 {
            return self.time;
        }
        let gone = now().saturating_sub(self.begun);
        match self.time {
            Time::Millis(span) => {
                let whole = u64::try_from(span).unwrap_or(0) * 1_000_000;
                let left = whole.saturating_sub(gone).div_ceil(1_000_000);
                Time::Millis(c_int::try_from(left).unwrap_or(c_int::MAX))
            }
            Time::Span(None) => Time::Span(None),
            Time::Span(Some(span)) => {
                let seconds = u64::try_from(span.tv_sec).unwrap_or(0);
                let nanos = u64::try_from(span.tv_nsec).unwrap_or(0);
                let whole = seconds.saturating_mul(SECOND).saturating_add(nanos);
                let left = whole.saturating_sub(gone);
                self.span.tv_sec = i64::try_from(left / SECOND).unwrap_or(i64::MAX);
                self.span.tv_nsec = i64::try_from(left % SECOND).unwrap_or(0);
                Time::Span(Some(&self.span))
            }
        }
    }
}

/// All signals blocked while it lives.
pub(crate) struct Blocked {
    before: sigset_t,
}

impl Blocked {
    pub(crate) fn new() -> Blocked {
        let mut all = MaybeUninit::<sigset_t>::uninit();
        let mut before = MaybeUninit::<sigset_t>::zeroed();
        // SAFETY: fills the set it is given.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: both sets are live; the first was filled.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        // SAFETY: the call has filled it, and all zeros are a set, too.
        let before = unsafe { before.assume_init() };
        Blocked { before }
    }

    /// The signals that were blocked before.
    pub(crate) fn before(&self) -> &sigset_t {
        &self.before
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is live.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut());
        }
    }
}

/// The monotonic clock, in nanoseconds.
pub(crate) fn now() -> u64 {
    let mut time = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live value.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Whether the kernel takes it for a span of time.
pub(crate) fn is_valid(span: &timespec) -> bool {
    span.tv_sec >= 0 && (0..1_000_000_000).contains(&span.tv_nsec)
}
