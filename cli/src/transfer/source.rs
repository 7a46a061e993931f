//! Reads what is sent, ahead of the transfer and in a thread of its own, and sums it up there.
//!
//! Invariant: pieces come out in file order, and the last one is `End` or `Failed`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use twox_hash::XxHash3_128;

use super::frame::Sum;
use super::{BUFFERS, CHUNK};
use crate::failure::Failure;
use crate::sys::{self, Buffer};

/// A file or standard input, open for reading.
pub(super) struct Source {
    pub(super) name: String,
    /// Known for regular files.
    pub(super) size: Option<u64>,
    input: File,
    /// The input has told its end, which a terminal does not repeat.
    has_ended: bool,
}

/// What a pipe is made to hold: what comes at a time is then large enough for RDMA.
const PIPE: i32 = 1 << 20;
/// A producer that has given so much at once has probably more in a moment.
const PLENTY: usize = 4 << 10;
/// How long more of it is waited for in all.
const GATHER: Duration = Duration::from_millis(5);

impl Source {
    /// `-` is standard input.
    pub(super) fn open(path: &Path) -> Result<Source, Failure> {
        if path == Path::new("-") {
            // Not through std's buffer: the buffers here are larger and aligned.
            let input = io::stdin()
                .as_fd()
                .try_clone_to_owned()
                .map_err(|error| Failure::caused("cannot read standard input", error))?;
            sys::widen_pipe(input.as_fd(), PIPE);
            return Ok(Source {
                name: "standard input".to_owned(),
                size: None,
                input: File::from(input),
                has_ended: false,
            });
        }
        let shown = path.display();
        let file = File::open(path).map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::NotFound => "check the name of the file to send",
                io::ErrorKind::PermissionDenied => "you may not read it; check its permissions",
                _ => "check the file to send",
            };
            Failure::caused(format!("cannot open '{shown}'"), error).advise(advice)
        })?;
        let about = file
            .metadata()
            .map_err(|error| Failure::caused(format!("cannot examine '{shown}'"), error))?;
        if about.is_dir() {
            return Err(
                Failure::new(format!("'{shown}' is a folder")).advise(format!(
                    "send an archive of it: tar c '{shown}' | wsdirect send - …"
                )),
            );
        }
        let name = path.file_name().unwrap_or(path.as_os_str());
        Ok(Source {
            name: name.to_string_lossy().into_owned(),
            // Files that the kernel makes up (/proc) say 0 and hold more.
            size: Some(about.len()).filter(|len| about.is_file() && *len > 0),
            input: file,
            has_ended: false,
        })
    }

    /// Starts the thread that reads. It is not joined: it may stand in a read of a terminal or
    /// pipe that never ends, and it owns nothing that must be cleaned up.
    pub(super) fn read_ahead(self) -> Result<ReadAhead, Failure> {
        let (give, pieces) = sync_channel(BUFFERS);
        let (give_back, empty) = sync_channel(BUFFERS);
        for _ in 0..BUFFERS {
            let buffer = Buffer::new(CHUNK)
                .map_err(|error| Failure::caused("cannot get memory for buffers", error))?;
            // The channel holds BUFFERS, and its other end is alive.
            give_back.try_send(buffer).ok();
        }
        std::thread::Builder::new()
            .name("read-ahead".to_owned())
            .spawn(move || self.fill(&empty, &give))
            .map_err(|error| Failure::caused("cannot start a thread", error))?;
        Ok(ReadAhead { pieces, give_back })
    }

    fn fill(mut self, empty: &Receiver<Buffer>, give: &SyncSender<Piece>) {
        let mut hasher = XxHash3_128::new();
        let mut total = 0;
        while let Ok(mut buffer) = empty.recv() {
            let piece = match self.fill_one(&mut buffer) {
                Ok(0) if self.was_cut(total) => Piece::Failed(
                    Failure::new(format!(
                        "{} has become shorter while it was sent",
                        self.name
                    ))
                    .advise("send it again when nobody changes it"),
                ),
                Ok(0) => Piece::End(Sum {
                    total,
                    digest: hasher.finish_128(),
                }),
                Ok(len) => {
                    hasher.write(buffer.get(..len).unwrap_or_default());
                    total += len as u64;
                    Piece::Data(buffer, len)
                }
                Err(error) => {
                    Piece::Failed(Failure::caused(format!("cannot read {}", self.name), error))
                }
            };
            let last = !matches!(piece, Piece::Data(..));
            if give.send(piece).is_err() || last {
                return;
            }
        }
    }

    /// Whether a file that ended after so many bytes had more of them when it was opened.
    fn was_cut(&self, total: u64) -> bool {
        // Files that the kernel makes up (/sys) never hold what they say. One that has grown again
        // since cannot be told from those.
        self.size.is_some_and(|size| {
            total < size && self.input.metadata().map_or(true, |now| now.len() < size)
        })
    }

    /// 0 at the end. A file fills the buffer; a pipe gives what it has, and what a fast producer
    /// adds in a moment, while a slow one's bytes travel at once.
    fn fill_one(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut len = 0;
        let mut until = None;
        while let Some(room) = buffer.get_mut(len..).filter(|room| !room.is_empty()) {
            if self.has_ended {
                break;
            }
            match self.input.read(room) {
                Ok(0) => self.has_ended = true,
                Ok(n) => len += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if self.size.is_none() {
                let until = *until.get_or_insert_with(|| Instant::now() + GATHER);
                let time = match len {
                    0..PLENTY => Duration::ZERO,
                    _ => until.saturating_duration_since(Instant::now()),
                };
                if !sys::is_readable_within(self.input.as_fd(), time) {
                    break;
                }
            }
        }
        Ok(len)
    }
}

/// What the reading thread hands over.
pub(super) enum Piece {
    /// The first `usize` bytes of the buffer, at least one.
    Data(Buffer, usize),
    End(Sum),
    Failed(Failure),
}

/// The near end of the reading thread.
pub(super) struct ReadAhead {
    pub(super) pieces: Receiver<Piece>,
    give_back: SyncSender<Buffer>,
}

impl ReadAhead {
    /// Hands a buffer back to be filled anew.
    pub(super) fn recycle(&self, buffer: Buffer) {
        // A thread that has ended needs no more buffers.
        self.give_back.try_send(buffer).ok();
    }
}
