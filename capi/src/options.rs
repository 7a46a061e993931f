//! Socket options: the ones that mean something on both paths, by their numbers and bytes.
//!
//! Owns what was asked for, so that it can be given to the stream that comes of the socket. What is
//! not known here goes to the kernel's socket, as long as there is one; over a SAN there is none.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use libc::c_int;
use wsd_switch::{Mode, SanStream, SendPolicy, StreamOptions};

use crate::socket::Socket;
use crate::sys::{self, errno};
use crate::types::{
    SOL_WSD, WSD_MODE_AUTO, WSD_MODE_READ, WSD_MODE_TCP, WSD_MODE_WRITE, WSD_SEND_AUTO,
    WSD_SEND_BACKGROUND, WSD_SEND_ZERO_COPY, WSD_SO_MODE, WSD_SO_SEND_POLICY,
};

/// Idle time of SO_KEEPALIVE where the kernel's is not asked: the usual one.
const KEEP_ALIVE: Duration = Duration::from_secs(7200);

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) receive_time: Option<Duration>,
    send_time: Option<Duration>,
    linger: Option<Duration>,
    is_urgent_inline: bool,
    is_kept_alive: bool,
    idle: Option<Duration>,
    send_buffer: Option<c_int>,
    receive_buffer: Option<c_int>,
    nodelay: Option<bool>,
    mode: c_int,
    policy: c_int,
}

impl Asked {
    pub(crate) fn stream_options(&self) -> StreamOptions {
        let mode = match self.mode {
            WSD_MODE_READ => Mode::Read,
            WSD_MODE_WRITE => Mode::Write,
            WSD_MODE_TCP => Mode::Tcp,
            _ => Mode::Auto,
        };
        let policy = match self.policy {
            WSD_SEND_ZERO_COPY => SendPolicy::ZeroCopy,
            WSD_SEND_BACKGROUND => SendPolicy::Background,
            _ => SendPolicy::Auto,
        };
        let mut options = StreamOptions::new()
            .mode(mode)
            .send_policy(policy)
            .connect_timeout(self.send_time);
        if self.is_kept_alive {
            options = options.keep_alive(Some(self.idle.unwrap_or(KEEP_ALIVE)));
        }
        let bytes = |value: c_int| usize::try_from(value).ok();
        if let Some(bytes) = self.send_buffer.and_then(bytes) {
            options = options.send_buffer(bytes);
        }
        if let Some(bytes) = self.receive_buffer.and_then(bytes) {
            options = options.receive_buffer(bytes);
        }
        options
    }

    /// Gives a new stream what was asked for before. What it does not take is as good as not asked.
    pub(crate) fn apply(&self, stream: &SanStream) {
        drop(stream.set_read_timeout(self.receive_time));
        drop(stream.set_write_timeout(self.send_time));
        drop(stream.set_linger(self.linger));
        drop(stream.set_oob_inline(self.is_urgent_inline));
        if let Some(on) = self.nodelay {
            drop(stream.set_nodelay(on));
        }
    }
}

fn too_short() -> io::Error {
    errno(libc::EINVAL)
}

fn int(value: &[u8]) -> io::Result<c_int> {
    let bytes = value.first_chunk::<4>().ok_or_else(too_short)?;
    Ok(c_int::from_ne_bytes(*bytes))
}

fn ints(values: &[c_int]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect()
}

/// A `timeval`; zero is no limit.
fn time(value: &[u8]) -> io::Result<Option<Duration>> {
    let (seconds, rest) = value.split_first_chunk::<8>().ok_or_else(too_short)?;
    let micros = rest.first_chunk::<8>().ok_or_else(too_short)?;
    let micros = i64::from_ne_bytes(*micros);
    if !(0..1_000_000).contains(&micros) {
        return Err(errno(libc::EDOM));
    }
    // The kernel takes less than nothing for a moment.
    let seconds = u64::try_from(i64::from_ne_bytes(*seconds)).unwrap_or(0);
    let time = Duration::from_secs(seconds) + Duration::from_micros(micros.unsigned_abs());
    Ok((!time.is_zero()).then_some(time))
}

fn timeval(time: Option<Duration>) -> Vec<u8> {
    let time = time.unwrap_or_default();
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let micros = i64::from(time.subsec_micros());
    [seconds.to_ne_bytes(), micros.to_ne_bytes()].concat()
}

fn linger(value: &[u8]) -> io::Result<Option<Duration>> {
    let (on, rest) = value.split_first_chunk::<4>().ok_or_else(too_short)?;
    let seconds = u64::try_from(int(rest)?).unwrap_or(0);
    Ok((c_int::from_ne_bytes(*on) != 0).then(|| Duration::from_secs(seconds)))
}

impl Socket {
    pub(crate) fn set_option(&self, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
        let mut own = self.own.lock();
        let stream = self.stream.get();
        let asked = &mut own.asked;
        let mut is_known = true;
        match (level, name) {
            (SOL_WSD, _) => {
                let is_late = stream.is_some() || self.listener.get().is_some();
                return set_own(asked, name, int(value)?, is_late);
            }
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => {
                asked.receive_time = time(value)?;
                return stream.map_or(Ok(()), |s| s.set_read_timeout(asked.receive_time));
            }
            (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => {
                asked.send_time = time(value)?;
                return stream.map_or(Ok(()), |s| s.set_write_timeout(asked.send_time));
            }
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                asked.linger = linger(value)?;
                return stream.map_or(Ok(()), |s| s.set_linger(asked.linger));
            }
            (libc::SOL_SOCKET, libc::SO_OOBINLINE) => {
                asked.is_urgent_inline = int(value)? != 0;
                return stream.map_or(Ok(()), |s| s.set_oob_inline(asked.is_urgent_inline));
            }
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => {
                let on = int(value)? != 0;
                asked.nodelay = Some(on);
                return stream.map_or(Ok(()), |s| s.set_nodelay(on));
            }
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => asked.send_buffer = Some(positive(value)?),
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => asked.receive_buffer = Some(positive(value)?),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => asked.is_kept_alive = int(value)? != 0,
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => {
                let seconds = u64::try_from(positive(value)?).unwrap_or(1);
                asked.idle = Some(Duration::from_secs(seconds));
            }
            _ => is_known = false,
        }
        // What the kernel can do it does, too.
        let set = |fd| sys::set_option(fd, level, name, value);
        if let Some(fd) = stream.and_then(SanStream::tcp_socket) {
            set(fd)
        } else if let Some(kernel) = &own.kernel {
            set(kernel.as_fd())
        } else if let Some(listening) = self.listener.get() {
            set(listening.listener.tcp_socket())
        } else if is_known {
            Ok(())
        } else {
            Err(errno(libc::ENOPROTOOPT))
        }
    }

    /// The bytes of an option, at most this many.
    pub(crate) fn option(&self, level: c_int, name: c_int, most: usize) -> io::Result<Vec<u8>> {
        let mut own = self.own.lock();
        let stream = self.stream.get();
        let asked = &own.asked;
        let one = |value: c_int| Ok(ints(&[value]));
        let mut known = match (level, name) {
            (SOL_WSD, WSD_SO_MODE) => one(asked.mode),
            (SOL_WSD, WSD_SO_SEND_POLICY) => one(asked.policy),
            (SOL_WSD, _) => Err(errno(libc::ENOPROTOOPT)),
            (libc::SOL_SOCKET, libc::SO_ERROR) => {
                let pending = std::mem::take(&mut own.error);
                let error = match stream {
                    Some(stream) => stream.take_error()?.map_or(0, |e| sys::number_of(&e)),
                    None => 0,
                };
                one(if pending == 0 { error } else { pending })
            }
            (libc::SOL_SOCKET, libc::SO_TYPE) => one(libc::SOCK_STREAM),
            (libc::SOL_SOCKET, libc::SO_DOMAIN) => one(self.domain),
            (libc::SOL_SOCKET, libc::SO_PROTOCOL) => one(libc::IPPROTO_TCP),
            (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => {
                one(c_int::from(self.listener.get().is_some()))
            }
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => Ok(timeval(asked.receive_time)),
            (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => Ok(timeval(asked.send_time)),
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let seconds = asked.linger.unwrap_or_default().as_secs();
                let seconds = c_int::try_from(seconds).unwrap_or(c_int::MAX);
                Ok(ints(&[c_int::from(asked.linger.is_some()), seconds]))
            }
            (libc::SOL_SOCKET, libc::SO_OOBINLINE) => one(c_int::from(asked.is_urgent_inline)),
            _ => {
                let get = |fd| sys::option(fd, level, name, most);
                if let Some(fd) = stream.and_then(SanStream::tcp_socket) {
                    return get(fd);
                } else if let Some(kernel) = &own.kernel {
                    return get(kernel.as_fd());
                } else if let Some(listening) = self.listener.get() {
                    return get(listening.listener.tcp_socket());
                }
                over_san(asked, level, name)
            }
        }?;
        known.truncate(most);
        Ok(known)
    }
}

/// Options that the kernel answers for elsewhere.
fn over_san(asked: &Asked, level: c_int, name: c_int) -> io::Result<Vec<u8>> {
    /// What StreamOptions has if nothing was asked for.
    const BUFFER: c_int = 4 << 20;
    let value = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => asked.send_buffer.unwrap_or(BUFFER),
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => asked.receive_buffer.unwrap_or(BUFFER),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => c_int::from(asked.is_kept_alive),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => {
            c_int::try_from(asked.idle.unwrap_or(KEEP_ALIVE).as_secs()).unwrap_or(c_int::MAX)
        }
        // Nothing is ever delayed there.
        (libc::IPPROTO_TCP, libc::TCP_NODELAY) => 1,
        _ => return Err(errno(libc::ENOPROTOOPT)),
    };
    Ok(ints(&[value]))
}

fn positive(value: &[u8]) -> io::Result<c_int> {
    match int(value)? {
        number if number > 0 => Ok(number),
        _ => Err(errno(libc::EINVAL)),
    }
}

fn set_own(asked: &mut Asked, name: c_int, value: c_int, is_late: bool) -> io::Result<()> {
    let (place, range) = match name {
        WSD_SO_MODE => (&mut asked.mode, WSD_MODE_AUTO..=WSD_MODE_TCP),
        WSD_SO_SEND_POLICY => (&mut asked.policy, WSD_SEND_AUTO..=WSD_SEND_BACKGROUND),
        _ => return Err(errno(libc::ENOPROTOOPT)),
    };
    if is_late {
        return Err(errno(libc::EISCONN));
    }
    if !range.contains(&value) {
        return Err(errno(libc::EINVAL));
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_lingers_come_back_as_they_were() {
        for micros in [0, 1, 1_500_000] {
            let value = Some(Duration::from_micros(micros)).filter(|time| !time.is_zero());
            assert_eq!(time(&timeval(value)).unwrap(), value);
        }
        assert_eq!(
            linger(&ints(&[1, 5])).unwrap(),
            Some(Duration::from_secs(5))
        );
        assert_eq!(linger(&ints(&[0, 5])).unwrap(), None);
        assert!(time(&[0; 15]).is_err() && linger(&[0; 7]).is_err() && int(&[0; 3]).is_err());
        let micros = [0i64.to_ne_bytes(), 1_000_000i64.to_ne_bytes()].concat();
        assert_eq!(time(&micros).unwrap_err().raw_os_error(), Some(libc::EDOM));
    }
}
