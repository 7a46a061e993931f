//! Writes what arrives, behind the transfer and in a thread of its own, and sums it up there.
//!
//! Owns: the output and its name. Invariant: under the final name there is the old file or the
//! whole new one, never a part; whatever is not committed is removed, also when a signal ends
//! the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use twox_hash::XxHash3_128;

use super::frame::Sum;
use super::{BUFFERS, CHUNK};
use crate::failure::Failure;
use crate::sys::{self, Buffer};

/// The temporary file that a signal must remove. Held while it is renamed, so that a signal finds
/// it either still temporary or already final.
static TEMPORARY: Mutex<Option<PathBuf>> = Mutex::new(None);

fn temporary() -> MutexGuard<'static, Option<PathBuf>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the temporary file, if there is one. The process must end afterwards: the returned
/// guard keeps a rename that is about to happen from happening.
pub(crate) fn abandon() -> impl Sized {
    let mut guard = temporary();
    if let Some(path) = guard.take() {
        // Nothing is left to tell it to, and the process is ending.
        fs::remove_file(path).ok();
    }
    guard
}

/// Where the bytes go.
pub(super) struct Sink {
    file: File,
    /// The final name, if the bytes go to a temporary file first.
    target: Option<PathBuf>,
    shown: String,
}

impl Sink {
    /// `-` is standard output. A regular file is written under a temporary name; a device or pipe
    /// directly.
    pub(super) fn create(path: &Path) -> Result<Sink, Failure> {
        if path == Path::new("-") {
            let output = std::os::fd::AsFd::as_fd(&io::stdout())
                .try_clone_to_owned()
                .map_err(|error| Failure::caused("cannot write standard output", error))?;
            let shown = "standard output".to_owned();
            return Ok(Sink {
                file: File::from(output),
                target: None,
                shown,
            });
        }
        let shown = format!("'{}'", path.display());
        let existing = match fs::metadata(path) {
            Ok(about) => Some(about),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(cannot_write(&shown, error)),
        };
        match existing {
            Some(about) if about.is_dir() => {
                Err(Failure::new(format!("{shown} is a folder")).advise("name a file in it"))
            }
            Some(about) if !about.is_file() => {
                let file = OpenOptions::new().write(true).open(path);
                let file = file.map_err(|error| cannot_write(&shown, error))?;
                Ok(Sink {
                    file,
                    target: None,
                    shown,
                })
            }
            existing => {
                // It will be replaced, which the folder's rights allow; its own may forbid it.
                if existing.is_some() {
                    may_write(path).map_err(|error| cannot_write(&shown, error))?;
                }
                // A link keeps pointing; what it points to is replaced.
                let target = match existing {
                    Some(_) => fs::canonicalize(path).map_err(|e| cannot_write(&shown, e))?,
                    None => path.to_owned(),
                };
                if target.file_name().is_none() {
                    return Err(Failure::new(format!("{shown} names no file"))
                        .advise("name the file to write"));
                }
                let file = create_temporary(&target).map_err(|e| cannot_write(&shown, e))?;
                let sink = Sink {
                    file,
                    target: Some(target),
                    shown,
                };
                if let Some(about) = existing
                    && let Err(error) = sink.file.set_permissions(about.permissions())
                {
                    return Err(cannot_write(&sink.shown, error));
                }
                Ok(sink)
            }
        }
    }

    /// Fails now if the disk has no room for `size` bytes.
    pub(super) fn expect_room(&self, size: u64) -> Result<(), Failure> {
        if self.target.is_none() {
            return Ok(());
        }
        sys::has_room(&self.file, size).map_err(|error| cannot_write(&self.shown, error))
    }

    /// Starts the thread that writes.
    pub(super) fn write_behind(self) -> Result<WriteBehind, Failure> {
        let (give, full) = sync_channel(BUFFERS);
        let (give_back, empty) = sync_channel(BUFFERS);
        for _ in 0..BUFFERS {
            let buffer = Buffer::new(CHUNK)
                .map_err(|error| Failure::caused("cannot get memory for buffers", error))?;
            // The channel holds BUFFERS, and its other end is alive.
            give_back.try_send(buffer).ok();
        }
        let thread = std::thread::Builder::new()
            .name("write-behind".to_owned())
            .spawn(move || self.drain(&full, &give_back))
            .map_err(|error| Failure::caused("cannot start a thread", error))?;
        Ok(WriteBehind {
            give,
            empty,
            thread,
        })
    }

    fn drain(
        mut self,
        full: &Receiver<(Buffer, usize)>,
        give_back: &SyncSender<Buffer>,
    ) -> Result<(Sink, Sum), Failure> {
        let mut hasher = XxHash3_128::new();
        let mut total = 0;
        while let Ok((buffer, len)) = full.recv() {
            let bytes = buffer.get(..len).unwrap_or_default();
            hasher.write(bytes);
            self.file
                .write_all(bytes)
                .map_err(|error| cannot_write(&self.shown, error))?;
            total += len as u64;
            // The other end goes away before us when the transfer has failed.
            give_back.try_send(buffer).ok();
        }
        Ok((
            self,
            Sum {
                total,
                digest: hasher.finish_128(),
            },
        ))
    }

    /// Gives the file its final name.
    pub(super) fn commit(mut self) -> Result<(), Failure> {
        let Some(target) = self.target.take() else {
            return Ok(());
        };
        let mut guard = temporary();
        let Some(temporary) = guard.take() else {
            return Ok(());
        };
        fs::rename(&temporary, target).map_err(|error| {
            // The failure that is reported is the first one.
            fs::remove_file(temporary).ok();
            cannot_write(&self.shown, error)
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.target.is_some() {
            drop(abandon());
        }
    }
}

/// Whether the user may write to a file. A program that runs (ETXTBSY) may be replaced all the same.
fn may_write(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::ExecutableFileBusy => Err(error),
        _ => Ok(()),
    }
}

fn create_temporary(target: &Path) -> io::Result<File> {
    let folder = target.parent().unwrap_or(Path::new(""));
    let mut error = io::Error::from(io::ErrorKind::AlreadyExists);
    for attempt in 0..100 {
        let path = folder.join(format!(".wsdirect-{}-{attempt}.part", std::process::id()));
        // Noted while the lock is held, so that a signal cannot come between.
        let mut guard = temporary();
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => {
                *guard = Some(path);
                return Ok(file);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => error = e,
            Err(e) => return Err(e),
        }
    }
    Err(error)
}

fn cannot_write(shown: &str, error: io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some room or choose another disk; nothing was left under the final name"
        }
        io::ErrorKind::FileTooLarge => {
            "the file would exceed the size limit (ulimit -f) or what the disk can hold"
        }
        io::ErrorKind::NotFound => "the folder does not exist; create it first",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "choose a place where you may write"
        }
        io::ErrorKind::BrokenPipe => "whoever read the output has gone",
        _ => "choose another output",
    };
    Failure::caused(format!("cannot write {shown}"), error).advise(advice)
}

/// The near end of the writing thread.
pub(super) struct WriteBehind {
    give: SyncSender<(Buffer, usize)>,
    empty: Receiver<Buffer>,
    thread: JoinHandle<Result<(Sink, Sum), Failure>>,
}

impl WriteBehind {
    /// A buffer to fill; `None` when the writing thread has failed: then `finish` says why.
    pub(super) fn empty(&self) -> Option<Buffer> {
        self.empty.recv().ok()
    }

    /// Hands over the first `len` bytes. A failure shows at the next `empty` or at `finish`.
    pub(super) fn write(&self, buffer: Buffer, len: usize) {
        self.give.send((buffer, len)).ok();
    }

    /// Waits until everything is written.
    pub(super) fn finish(self) -> Result<(Sink, Sum), Failure> {
        drop(self.give);
        match self.thread.join() {
            Ok(result) => result,
            Err(_) => Err(Failure::new("the writing thread failed")),
        }
    }
}
