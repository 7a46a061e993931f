//! Which memory the kernel can tell everything about: private, anonymous mappings.
//!
//! Owns the reading of `/proc/self/maps`. Memory of files, shared memory and huge pages of a
//! hugetlbfs can lose its pages through a descriptor (truncation, punching holes) without any word
//! to the process that maps it, so it is never kept registered.

use std::io::BufRead;

use super::map::Span;

/// Whether all of `span` is private, anonymous memory, by a text like `/proc/self/maps`.
pub(super) fn is_anonymous(maps: impl BufRead, span: Span) -> bool {
    let mut reached = span.start;
    for line in maps.split(b'\n') {
        let Some((range, is_ours)) = line.ok().as_deref().and_then(parse) else {
            return false;
        };
        if range.end <= reached {
            continue;
        }
        if range.start > reached || !is_ours {
            return false;
        }
        reached = range.end;
        if reached >= span.end {
            return true;
        }
    }
    false
}

/// `start-end perms offset dev inode [path]`. Names may be any bytes; lines are otherwise ASCII.
fn parse(line: &[u8]) -> Option<(Span, bool)> {
    let mut fields = line
        .split(|&byte| byte == b' ')
        .filter(|field| !field.is_empty());
    let mut next = || std::str::from_utf8(fields.next()?).ok();
    let (start, end) = next()?.split_once('-')?;
    let span = Span::new(
        usize::from_str_radix(start, 16).ok()?,
        usize::from_str_radix(end, 16).ok()?,
    )?;
    let is_private = next()?.ends_with('p');
    let _offset = next()?;
    let no_file = next()? == "00:00";
    let no_inode = next()? == "0";
    let is_plain = match fields.next() {
        None => true,
        Some(name) => name == b"[heap]" || name.starts_with(b"[anon:"),
    };
    Some((span, is_private && no_file && no_inode && is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
00001000-00002000 r-xp 00000000 fe:00 1234                               /usr/bin/x y\n\
00002000-00003000 rw-p 00000000 00:00 0 \n\
00003000-00005000 rw-p 00000000 00:00 0                                  [heap]\n\
00005000-00006000 rw-s 00000000 00:01 77                                 /memfd:z (deleted)\n\
00007000-00008000 rw-p 00000000 00:00 0                                  [anon: stack of 7]\n\
00008000-00009000 rw-s 00000000 00:01 78                                 /dev/zero (deleted)\n\
00009000-0000a000 rw-p 00000000 00:0f 79                                 /anon_hugepage (deleted)\n\
0000a000-0000b000 rw-p 00000000 00:00 0                                  [stack]\n\
0000b000-0000c000 rw-p 00000000 fe:00 80                                 /\xFF\xFE\n\
0000c000-0000d000 rw-p 00000000 00:00 0 \n";

    fn asked(start: usize, end: usize) -> bool {
        is_anonymous(MAPS, Span::new(start, end).unwrap())
    }

    #[test]
    fn private_anonymous_memory_is_told_from_all_other() {
        assert!(asked(0x2000, 0x3000));
        assert!(asked(0x2000, 0x5000), "two mappings side by side");
        assert!(asked(0x7000, 0x8000));
        assert!(asked(0xc000, 0xd000), "after a name that is no text");
        assert!(!asked(0x1000, 0x2000), "a file");
        assert!(!asked(0x4000, 0x6000), "half of it shared");
        assert!(!asked(0x5000, 0x6000), "shared");
        assert!(!asked(0x7000, 0x9000), "shared and anonymous");
        assert!(!asked(0x9000, 0xa000), "huge pages");
        assert!(!asked(0xa000, 0xb000), "the stack");
        assert!(!asked(0x4000, 0x8000), "with a hole");
        assert!(!asked(0x6000, 0x7000), "nothing there");
        assert!(!asked(0xc000, 0xe000), "beyond the last");
    }

    #[test]
    fn a_text_that_is_something_else_says_no() {
        let span = Span::new(0x2000, 0x3000).unwrap();
        for text in [
            "",
            "\n",
            "nonsense",
            "2000-3000",
            "3000-2000 rw-p 0 00:00 0",
        ] {
            assert!(!is_anonymous(text.as_bytes(), span), "{text:?}");
        }
    }
}
