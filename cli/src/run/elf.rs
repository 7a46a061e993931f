//! What a program's file says of itself: which machine it is for, and who loads it.
//!
//! Owns: reading the few headers that tell. Invariant: any file is read without a panic and with
//! bounded memory; what makes no sense is "not an ELF file of ours".

use std::io::{self, Read, Seek, SeekFrom};

const MAGIC: [u8; 4] = *b"\x7fELF";
const OWN_CLASS: u8 = if cfg!(target_pointer_width = "64") {
    2
} else {
    1
};
const OWN_ORDER: u8 = if cfg!(target_endian = "little") { 1 } else { 2 };
const LOADER: u32 = 3;
const NOTE: u32 = 4;
/// Far more than any loader's path or any program's notes.
const LONGEST: u64 = 64 << 10;
/// The note of Go's linker: its build id.
const GO_NOTE: (&[u8], u32) = (b"Go\0\0", 4);

/// The start of an ELF file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Elf {
    /// For this word size and byte order.
    pub(super) own_kind: bool,
    /// The processor, by ELF's number.
    pub(super) machine: u16,
    /// The path of the program that loads it with its libraries; a static program has none.
    pub(super) loader: Option<String>,
    /// Made by Go, whose programs call the kernel without a C library.
    pub(super) go: bool,
}

impl Elf {
    /// Reads the headers; `None`: this is not an ELF file.
    pub(super) fn read(mut file: impl Read + Seek) -> io::Result<Option<Elf>> {
        let head = bytes(&mut file, 0, 64)?;
        if head.get(..4) != Some(MAGIC.as_slice()) {
            return Ok(None);
        }
        let (Some(class), Some(order)) = (head.get(4), head.get(5)) else {
            return Ok(None);
        };
        let own_kind = *class == OWN_CLASS && *order == OWN_ORDER && OWN_CLASS == 2;
        let mut elf = Elf {
            own_kind,
            machine: number16(&head, 18).unwrap_or(0),
            loader: None,
            go: false,
        };
        if !own_kind {
            return Ok(Some(elf));
        }
        let (Some(table), Some(size), Some(count)) = (
            number64(&head, 32),
            number16(&head, 54),
            number16(&head, 56),
        ) else {
            return Ok(Some(elf));
        };
        for index in 0..u64::from(count) {
            let Some(at) = (index * u64::from(size)).checked_add(table) else {
                break;
            };
            let entry = bytes(&mut file, at, 56)?;
            let (Some(kind), Some(at), Some(len)) = (
                number32(&entry, 0),
                number64(&entry, 8),
                number64(&entry, 32),
            ) else {
                break;
            };
            match kind {
                LOADER => {
                    let path = bytes(&mut file, at, len)?;
                    let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
                    elf.loader = Some(String::from_utf8_lossy(path).into_owned());
                }
                NOTE => elf.go |= has_go_note(&bytes(&mut file, at, len)?),
                _ => {}
            }
        }
        Ok(Some(elf))
    }
}

/// Up to `len` bytes from `at`; fewer where the file ends.
fn bytes(file: &mut (impl Read + Seek), at: u64, len: u64) -> io::Result<Vec<u8>> {
    // An offset that no file has is where nothing stands.
    if i64::try_from(at).is_err() {
        return Ok(Vec::new());
    }
    file.seek(SeekFrom::Start(at))?;
    let mut read = Vec::new();
    file.take(len.min(LONGEST)).read_to_end(&mut read)?;
    Ok(read)
}

fn has_go_note(mut notes: &[u8]) -> bool {
    let padded = |len: u32| usize::try_from(len).ok()?.checked_next_multiple_of(4);
    while let (Some(name), Some(rest), Some(kind)) =
        (number32(notes, 0), number32(notes, 4), number32(notes, 8))
    {
        let (Some(name_room), Some(rest_room)) = (padded(name), padded(rest)) else {
            return false;
        };
        let Some(end) = name_room.checked_add(12) else {
            return false;
        };
        if notes.get(12..end) == Some(GO_NOTE.0) && kind == GO_NOTE.1 {
            return true;
        }
        let Some(left) = end
            .checked_add(rest_room)
            .and_then(|next| notes.get(next..))
        else {
            return false;
        };
        notes = left;
    }
    false
}

fn number16(from: &[u8], at: usize) -> Option<u16> {
    field(from, at).map(u16::from_ne_bytes)
}

fn number32(from: &[u8], at: usize) -> Option<u32> {
    field(from, at).map(u32::from_ne_bytes)
}

fn number64(from: &[u8], at: usize) -> Option<u64> {
    field(from, at).map(u64::from_ne_bytes)
}

fn field<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests {
    use super::*;
    use std::io::Cursor;

    /// The headers of a program with these segments, each a kind with its bytes.
    pub(in crate::run) fn program(machine: u16, segments: &[(u32, &[u8])]) -> Vec<u8> {
        let mut head = vec![0; 64];
        head[..4].copy_from_slice(&MAGIC);
        head[4] = OWN_CLASS;
        head[5] = OWN_ORDER;
        head[18..20].copy_from_slice(&machine.to_ne_bytes());
        head[32..40].copy_from_slice(&64_u64.to_ne_bytes());
        head[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        head[56..58].copy_from_slice(&u16::try_from(segments.len()).unwrap().to_ne_bytes());
        let mut at = 64 + 56 * segments.len();
        let mut data = Vec::new();
        for (kind, bytes) in segments {
            let mut entry = vec![0; 56];
            entry[..4].copy_from_slice(&kind.to_ne_bytes());
            entry[8..16].copy_from_slice(&(at as u64).to_ne_bytes());
            entry[32..40].copy_from_slice(&(bytes.len() as u64).to_ne_bytes());
            head.extend(entry);
            data.extend_from_slice(bytes);
            at += bytes.len();
        }
        head.extend(data);
        head
    }

    pub(in crate::run) fn note(name: &[u8], kind: u32, rest: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        note.extend(u32::try_from(name.len()).unwrap().to_ne_bytes());
        note.extend(u32::try_from(rest.len()).unwrap().to_ne_bytes());
        note.extend(kind.to_ne_bytes());
        for part in [name, rest] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    fn read(file: &[u8]) -> Option<Elf> {
        Elf::read(Cursor::new(file)).unwrap()
    }

    #[test]
    fn the_loader_and_gos_note_are_found() {
        let mut notes = note(b"GNU\0", 3, b"12345");
        notes.extend(note(b"Go\0\0", 4, b"build id"));
        let file = program(62, &[(1, b"x"), (LOADER, b"/lib/ld.so\0"), (NOTE, &notes)]);
        let elf = read(&file).unwrap();
        assert!(elf.own_kind && elf.go);
        assert_eq!(elf.machine, 62);
        assert_eq!(elf.loader.as_deref(), Some("/lib/ld.so"));
        let file = program(62, &[(NOTE, &note(b"Go\0\0", 3, b""))]);
        let elf = read(&file).unwrap();
        assert!(!elf.go && elf.loader.is_none());
    }

    #[test]
    fn what_is_no_elf_file_of_ours_is_told_apart() {
        assert_eq!(read(b""), None);
        assert_eq!(read(b"\x7fELF"), None);
        assert_eq!(read(b"#!/bin/sh\n"), None);
        let mut file = program(62, &[(LOADER, b"/lib/ld.so\0")]);
        file[4] = 3 - OWN_CLASS;
        let other = read(&file).unwrap();
        assert!(!other.own_kind && other.loader.is_none());
    }

    #[test]
    fn a_mutilated_file_is_read_without_harm() {
        let notes = note(b"Go\0\0", 4, b"build id");
        let file = program(62, &[(LOADER, b"/lib/ld.so\0"), (NOTE, &notes)]);
        for len in 0..file.len() {
            drop(read(&file[..len]));
        }
        for at in 0..file.len() {
            for value in [0xFF, 0x80, 0x00] {
                let mut file = file.clone();
                file[at] = value;
                drop(read(&file));
            }
        }
        let huge = note(b"Go\0\0", 4, b"");
        for at in 0..4 {
            let mut huge = huge.clone();
            huge[at] = 0xFF;
            assert!(!has_go_note(&huge));
        }
    }

    #[test]
    fn this_test_itself_is_a_program_with_a_loader() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let elf = Elf::read(file).unwrap().unwrap();
        assert!(elf.own_kind && !elf.go);
        assert!(elf.loader.unwrap().contains("ld-"));
    }
}
