//! The addresses of connections that their processes have not told: the kernel knows them.
//!
//! A connection of an unknowing program is not asked for its addresses when it is made, because
//! that would cost two system calls for each. Who looks has the time.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::reader::{Live, folder};

/// Fills in what is missing, as far as the kernel tells.
pub(super) fn name(pid: u32, connections: &mut [Live]) {
    let mut known = None;
    let missing = connections.iter_mut().filter(|live| live.local.is_none());
    for live in missing {
        let known = known.get_or_insert_with(|| sockets(pid));
        let pair = live
            .fd
            .and_then(|fd| inode(pid, fd))
            .and_then(|inode| known.get(&inode));
        if let Some((local, peer)) = pair {
            live.local = Some(*local);
            live.peer = Some(*peer);
        }
    }
}

/// The number of the socket that a descriptor stands for.
fn inode(pid: u32, fd: i32) -> Option<u64> {
    let target = fs::read_link(folder(pid).join(format!("fd/{fd}"))).ok()?;
    let number = target.to_str()?.strip_prefix("socket:[")?;
    number.strip_suffix(']')?.parse().ok()
}

/// All TCP sockets that a process's network has, by number.
fn sockets(pid: u32) -> HashMap<u64, (SocketAddr, SocketAddr)> {
    let mut all = HashMap::new();
    for table in ["net/tcp", "net/tcp6"] {
        let text = fs::read_to_string(folder(pid).join(table)).unwrap_or_default();
        all.extend(text.lines().skip(1).filter_map(line));
    }
    all
}

fn line(line: &str) -> Option<(u64, (SocketAddr, SocketAddr))> {
    let mut words = line.split_whitespace().skip(1);
    let (local, peer) = (address(words.next()?)?, address(words.next()?)?);
    let inode = words.nth(6)?.parse().ok()?;
    Some((inode, (local, peer)))
}

/// "0100007F:0050": the address in words of the host, the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |start: usize| {
        let digits = ip.get(start..start + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (part, start) in bytes.chunks_exact_mut(4).zip([0, 8, 16, 24]) {
                part.copy_from_slice(&word(start)?);
            }
            let v6 = Ipv6Addr::from(bytes);
            // As people name it.
            v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernels_tables_are_read_and_others_are_not() {
        let given = "  0: 0100007F:1F90 0200007F:C001 01 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 20 4 30 10 -1";
        let (inode, (local, peer)) = line(given).unwrap();
        if cfg!(target_endian = "little") {
            assert_eq!(local, "127.0.0.1:8080".parse().unwrap());
            assert_eq!(peer, "127.0.0.2:49153".parse().unwrap());
        }
        assert_eq!(inode, 4242);
        for bad in [
            "",
            "x",
            "0: 01:1 02:2",
            "0: zzzzzzzz:1F90 0200007F:C001 01 a b c d e f",
        ] {
            assert!(line(bad).is_none(), "{bad}");
        }
    }
}
