//! Whose turn it is to write: what a thread writes in one call stays together.
//!
//! A call that has to wait in its middle keeps the turn; until it is over the writes of other
//! threads find no room. Invariant: whoever has the turn is inside a call, or has promised to end
//! the turn.

/// The thread in the middle of a write, if there is one.
#[derive(Debug, Default)]
pub(super) struct Turn {
    holder: Option<usize>,
    /// Another thread waits for its end.
    wanted: bool,
}

impl Turn {
    /// Whether the calling thread may write; if not, others are told at the end of the turn.
    #[inline]
    pub(super) fn is_free(&mut self) -> bool {
        let free = self.holder.is_none_or(|holder| holder == this_thread());
        self.wanted |= !free;
        free
    }

    /// The calling thread is in the middle.
    pub(super) fn keep(&mut self) {
        self.holder = Some(this_thread());
    }

    /// The calling thread's turn, if it is its own, is over; `true` if another waits for that.
    #[inline]
    pub(super) fn end(&mut self) -> bool {
        if self.holder != Some(this_thread()) {
            return false;
        }
        self.holder = None;
        std::mem::take(&mut self.wanted)
    }
}

/// Different for all threads that live at the same time.
fn this_thread() -> usize {
    thread_local! {
        static PLACE: u8 = const { 0 };
    }
    // Without a destructor it is there as long as the thread is.
    PLACE
        .try_with(|place| std::ptr::from_ref(place).addr())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_keeps_others_out_until_it_ends_and_says_whether_they_waited() {
        let mut turn = Turn::default();
        assert!(turn.is_free() && !turn.end());
        turn.keep();
        assert!(turn.is_free(), "one's own turn is free");
        std::thread::scope(|scope| {
            let turn = &mut turn;
            scope.spawn(move || assert!(!turn.is_free() && !turn.end()));
        });
        assert!(turn.end(), "somebody waited");
        turn.keep();
        assert!(!turn.end(), "nobody waited this time");
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(turn.is_free()));
        });
    }
}
