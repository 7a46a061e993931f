//! The layout of the observation memory: where each word is, and what its values mean.
//!
//! Both sides use it: the process that is observed and the one that looks. Everything is 64-bit
//! words of the host, so that nothing is ever half written. `docs/observe.md` says the same in
//! prose. Invariant: [`VERSION`] changes with any change of meaning here; words may be given a
//! meaning where there was none before without it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// What the memory is called in `/proc/PID/fd`.
pub(super) const NAME: &str = "wsdirect-observe";
/// The first word: "WSDOBSRV" in the order of the bytes.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"WSDOBSRV");
pub(super) const VERSION: u64 = 1;

/// Words of the head.
pub(super) mod head {
    pub(in super::super) const MAGIC: usize = 0;
    pub(in super::super) const VERSION: usize = 1;
    /// The process that writes, by its own number (that of its innermost namespace).
    pub(in super::super) const PID: usize = 2;
    /// Where the slots begin, in bytes.
    pub(in super::super) const SLOTS_AT: usize = 3;
    /// Bytes of a slot.
    pub(in super::super) const SLOT_LEN: usize = 4;
    /// Slots there are.
    pub(in super::super) const SLOTS: usize = 5;
    /// Slots that have ever been in use: the first ones.
    pub(in super::super) const USED: usize = 6;
    /// Connections that found no slot.
    pub(in super::super) const UNOBSERVED: usize = 7;
    /// Where the ring of traced messages begins, in bytes.
    pub(in super::super) const RING_AT: usize = 8;
    /// Bytes of an entry of it.
    pub(in super::super) const ENTRY_LEN: usize = 9;
    /// Entries there are.
    pub(in super::super) const ENTRIES: usize = 10;
    /// Messages ever put into it.
    pub(in super::super) const RING_HEAD: usize = 11;
    /// Words that mean something.
    pub(in super::super) const WORDS: usize = 12;
}

/// Bytes of the head: a page.
pub(super) const HEAD_LEN: usize = 4096;
/// Words of a slot.
pub(super) const SLOT_WORDS: usize = 64;
pub(super) const SLOT_LEN: usize = SLOT_WORDS * 8;
/// Slots: pages of those that are never used do not exist.
pub(super) const SLOTS: usize = 32_768;
/// Words of an entry of the ring.
pub(super) const ENTRY_WORDS: usize = 36;
pub(super) const ENTRY_LEN: usize = ENTRY_WORDS * 8;
pub(super) const ENTRIES: usize = 1024;
pub(super) const RING_AT: usize = HEAD_LEN + SLOTS * SLOT_LEN;
/// Bytes of the whole.
pub(super) const LEN: usize = (RING_AT + ENTRIES * ENTRY_LEN).next_multiple_of(HEAD_LEN);

/// Words of a slot, by cache lines of eight.
pub(super) mod slot {
    /// Counts the changes of the words 1 to 23; odd during one.
    pub(in super::super) const COLD: usize = 0;
    /// One of [`super::life`].
    pub(in super::super) const LIFE: usize = 1;
    /// The connection's number in its process.
    pub(in super::super) const ID: usize = 2;
    /// Role, path, upgrade state, and whether there is a session: a byte each, from the lowest.
    pub(in super::super) const KINDS: usize = 3;
    /// The descriptor plus one; 0 if it is not known.
    pub(in super::super) const FD: usize = 4;
    /// Nanoseconds since 1970.
    pub(in super::super) const STARTED: usize = 5;
    /// Three words each: two of the address, one of port, family and scope.
    pub(in super::super) const LOCAL: usize = 6;
    pub(in super::super) const PEER: usize = 9;
    /// Four words of text each, ended by a zero.
    pub(in super::super) const PROVIDER: usize = 12;
    pub(in super::super) const REASON: usize = 16;
    /// The session's id: the same at both ends.
    pub(in super::super) const SESSION: usize = 20;
    /// Times that it moved to the SAN, and back to the kernel.
    pub(in super::super) const UPGRADES: usize = 22;
    pub(in super::super) const DOWNGRADES: usize = 23;

    /// Counts the changes of the words 25 to 47; odd during one.
    pub(in super::super) const HOT: usize = 24;
    pub(in super::super) const BYTES_SENT: usize = 25;
    pub(in super::super) const BYTES_RECEIVED: usize = 26;
    pub(in super::super) const MESSAGES_SENT: usize = 27;
    pub(in super::super) const MESSAGES_RECEIVED: usize = 28;
    /// Messages this side may send (low half), and the peer (high half).
    pub(in super::super) const CREDITS: usize = 29;
    pub(in super::super) const UNSENT: usize = 30;
    pub(in super::super) const UNREAD: usize = 31;
    pub(in super::super) const RDMA_READ_BYTES: usize = 32;
    pub(in super::super) const RDMA_WRITE_BYTES: usize = 33;
    pub(in super::super) const RDMA_READS: usize = 34;
    pub(in super::super) const RDMA_WRITES: usize = 35;
    pub(in super::super) const STALLS: usize = 36;
    /// Nanoseconds.
    pub(in super::super) const RTT: usize = 37;
    pub(in super::super) const RTT_LEAST: usize = 38;
    pub(in super::super) const RTT_SAMPLES: usize = 39;
    pub(in super::super) const LARGE_SENT: usize = 40;
    pub(in super::super) const LARGE_RECEIVED: usize = 41;

    /// Bytes by the kernel; each is added to on its own.
    pub(in super::super) const KERNEL_SENT: usize = 48;
    pub(in super::super) const KERNEL_RECEIVED: usize = 49;

    /// Until when messages are wanted in the ring, in nanoseconds since 1970. Written by who
    /// looks: the one word a slot's owner does not write but at its beginning.
    pub(in super::super) const TRACED_UNTIL: usize = 56;
}

/// What a slot holds.
pub(super) mod life {
    pub(in super::super) const LIVE: u64 = 1;
    pub(in super::super) const ENDED: u64 = 2;
}

/// Words of an entry of the ring.
pub(super) mod entry {
    /// Twice the entry's position plus two; one less while it is written.
    pub(in super::super) const TURN: usize = 0;
    /// Nanoseconds since 1970.
    pub(in super::super) const TIME: usize = 1;
    /// The connection's number.
    pub(in super::super) const ID: usize = 2;
    /// Bytes of the head that follow (bits 0 to 15), 1 if it was sent (bit 16), and from bit 32
    /// on the length of the whole message.
    pub(in super::super) const ABOUT: usize = 3;
    pub(in super::super) const BYTES: usize = 4;
}

/// Bytes of a message that an entry holds: any head of the protocol.
pub(super) const RECORDED: usize = (ENTRY_WORDS - entry::BYTES) * 8;

// Nothing overlaps, and every head of the protocol fits.
const _: () = {
    assert!(
        head::WORDS * 8 <= HEAD_LEN && HEAD_LEN.is_multiple_of(64) && RING_AT.is_multiple_of(8)
    );
    assert!(slot::DOWNGRADES < slot::HOT && slot::LARGE_RECEIVED < slot::KERNEL_SENT);
    assert!(slot::TRACED_UNTIL < SLOT_WORDS && RECORDED >= wsd_proto::MAX_NEGOTIATION);
};

/// An address as three words.
pub(super) fn address_to_words(address: &SocketAddr) -> [u64; 3] {
    let (bytes, family, scope) = match address {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped().octets(), 4_u64, 0),
        SocketAddr::V6(v6) => (v6.ip().octets(), 6, v6.scope_id()),
    };
    let number = u128::from_le_bytes(bytes);
    let [low, high] = halves(number);
    let about = u64::from(address.port()) | family << 16 | u64::from(scope) << 32;
    [low, high, about]
}

/// `None` if they are none.
pub(super) fn address_from_words([low, high, about]: [u64; 3]) -> Option<SocketAddr> {
    let [first, second, family, _, s0, s1, s2, s3] = about.to_le_bytes();
    let port = u16::from_le_bytes([first, second]);
    let scope = u32::from_le_bytes([s0, s1, s2, s3]);
    let ip = Ipv6Addr::from((u128::from(high) << 64 | u128::from(low)).to_le_bytes());
    match family {
        4 => {
            let v4: Ipv4Addr = ip.to_ipv4_mapped()?;
            Some(SocketAddr::new(IpAddr::V4(v4), port))
        }
        6 => Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope))),
        _ => None,
    }
}

/// The low and the high half.
fn halves(number: u128) -> [u64; 2] {
    let bytes = number.to_le_bytes();
    let (low, high) = bytes.split_at(8);
    [low, high].map(|half| half.try_into().map_or(0, u64::from_le_bytes))
}

/// A session's id as two words.
pub(super) fn id_to_words(id: [u8; 16]) -> [u64; 2] {
    halves(u128::from_le_bytes(id))
}

/// And back.
pub(super) fn id_from_words([low, high]: [u64; 2]) -> [u8; 16] {
    (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
}

/// A short text as four words; what does not fit is cut off.
pub(super) fn text_to_words(text: &str) -> [u64; 4] {
    let mut bytes = text.bytes();
    [(); 4].map(|()| {
        let mut word = [0; 8];
        for (byte, from) in word.iter_mut().zip(&mut bytes) {
            *byte = from;
        }
        // `zip` takes from `word` first, so nothing of `bytes` is lost between two words.
        u64::from_le_bytes(word)
    })
}

/// A short text of four words. Whoever wrote it: what comes out can be shown on a terminal.
pub(super) fn text_from_words(words: [u64; 4]) -> String {
    let bytes = words.into_iter().flat_map(u64::to_le_bytes);
    let shown = bytes.take_while(|byte| *byte != 0);
    let plain = shown.map(|byte| match byte {
        b' '..=b'~' => char::from(byte),
        _ => '?',
    });
    plain.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_ids_and_texts_come_back_as_they_were() {
        for address in [
            "127.0.0.1:80",
            "255.255.255.255:65535",
            "[::]:0",
            "[fe80::1%7]:9",
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(
                address_from_words(address_to_words(&address)),
                Some(address)
            );
        }
        let id = std::array::from_fn(|n| u8::try_from(n * 15).unwrap());
        assert_eq!(id_from_words(id_to_words(id)), id);
        for text in [
            "",
            "soft",
            "12345678",
            "123456789",
            "a-reason-of-thirty-two-characters",
        ] {
            let end = text.len().min(32);
            assert_eq!(text_from_words(text_to_words(text)), text[..end]);
        }
    }

    #[test]
    fn words_of_nonsense_are_no_address_and_harmless_text() {
        assert_eq!(address_from_words([u64::MAX; 3]), None);
        assert_eq!(address_from_words([0, 0, 4 << 16]), None, "not a mapped v4");
        let text = text_from_words([u64::from_le_bytes(*b"\x1b[2Jx\n\xffy"), 0, 1, 1]);
        assert_eq!(text, "?[2Jx??y");
    }
}
