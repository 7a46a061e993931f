//! The ring of messages that somebody wanted to see, as the observed process writes it.
//!
//! One ring for the process. Each writer takes a position from a counter of this process's own, so
//! what others write into the memory can spoil what is shown and nothing else. Readers that are
//! too slow find positions overwritten and know how many.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::layout::{ENTRIES, ENTRY_WORDS, RECORDED, RING_AT, entry, head};

/// Messages ever put into the ring.
static POSITION: AtomicU64 = AtomicU64::new(0);

/// Puts one message in.
pub(super) fn append(
    words: &[AtomicU64],
    time: u64,
    id: u64,
    sent: bool,
    message: &[u8],
    len: usize,
) {
    let position = POSITION.fetch_add(1, Ordering::Relaxed);
    let place = usize::try_from(position % ENTRIES as u64).unwrap_or(0);
    let start = RING_AT / 8 + place * ENTRY_WORDS;
    let Some(words_of_entry) = words.get(start..start + ENTRY_WORDS) else {
        return;
    };
    let set = |index: usize, value: u64| {
        if let Some(word) = words_of_entry.get(index) {
            word.store(value, Ordering::Relaxed);
        }
    };
    let message = message.get(..RECORDED).unwrap_or(message);
    set(entry::TURN, position.wrapping_mul(2).wrapping_add(1));
    fence(Ordering::Release);
    set(entry::TIME, time);
    set(entry::ID, id);
    let about = message.len() as u64 | u64::from(sent) << 16 | (len as u64) << 32;
    set(entry::ABOUT, about);
    for (index, chunk) in message.chunks(8).enumerate() {
        let mut word = [0; 8];
        for (byte, from) in word.iter_mut().zip(chunk) {
            *byte = *from;
        }
        set(entry::BYTES + index, u64::from_le_bytes(word));
    }
    fence(Ordering::Release);
    set(entry::TURN, position.wrapping_mul(2).wrapping_add(2));
    // Two writers may finish in the wrong order: never back.
    if let Some(told) = words.get(head::RING_HEAD) {
        let count = position.wrapping_add(1);
        if told.load(Ordering::Relaxed) < count {
            told.store(count, Ordering::Release);
        }
    }
}
