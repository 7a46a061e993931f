//! The marker, behind the last byte that a side sends on TCP, and how it is found in bytes.
//!
//! Invariant: what is searched may end with the first part of a marker, and that is found, too.

pub(super) const MARKER: usize = 24;
const MARKER_START: u8 = 0xF7;
const MAGIC: [u8; 8] = [MARKER_START, b'W', b'S', b'D', b'c', b'u', b't', 0x01];

/// Bytes that are looked at together for the marker.
const CHUNK: usize = 64;

pub(super) fn marker(session: [u8; 16]) -> [u8; MARKER] {
    let mut marker = [0; MARKER];
    let (magic, name) = marker.split_at_mut(8);
    magic.copy_from_slice(&MAGIC);
    name.copy_from_slice(&session);
    marker
}

/// Where the marker, or its beginning at the end, is in these bytes.
pub(super) fn find_marker(bytes: &[u8], marker: &[u8; MARKER]) -> Option<usize> {
    let mut at = 0;
    for chunk in bytes.chunks(CHUNK) {
        // Fast where the first byte is not even there, which is nearly everywhere.
        if chunk.contains(&MARKER_START) {
            let found = (at..at + chunk.len()).find(|from| {
                let rest = bytes.get(*from..).unwrap_or_default();
                let len = rest.len().min(MARKER);
                rest.get(..len) == marker.get(..len)
            });
            if found.is_some() {
                return found;
            }
        }
        at += chunk.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_found_whole_and_its_beginning_at_the_end() {
        let marker = marker([7; 16]);
        let mut bytes = vec![1, 2, 3];
        assert_eq!(find_marker(&bytes, &marker), None);
        bytes.extend(marker);
        assert_eq!(find_marker(&bytes, &marker), Some(3));
        bytes.extend([9; 30]);
        assert_eq!(find_marker(&bytes, &marker), Some(3));
        for len in 1..MARKER {
            let mut cut = vec![5; 40];
            cut.extend(&marker[..len]);
            assert_eq!(find_marker(&cut, &marker), Some(40), "{len}");
            cut.push(0);
            assert_eq!(find_marker(&cut, &marker), None, "{len}");
        }
    }
}
