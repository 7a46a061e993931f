//! RDMA devices for other hosts and the embedded SAN for this one, as one fabric.
//!
//! Owns the choice between the two: by the destination, when a connection is made. What is local
//! goes by shared memory, which is faster than any device; the rest goes by the device that serves
//! the local address. Every limit is one that both keep.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::soft::is_local;
use super::soft::sys::Epoll;
use super::{
    Caps, ConnectError, Endpoint, Event, Fabric, ListenError, Listener, Region, Released, Token,
};

pub(crate) struct Both {
    local: Arc<dyn Fabric>,
    remote: Arc<dyn Fabric>,
    readiness: Epoll,
}

impl Both {
    /// `local` serves every address of the host, `remote` those that a device serves.
    pub(crate) fn new(local: Arc<dyn Fabric>, remote: Arc<dyn Fabric>) -> io::Result<Self> {
        let readiness = Epoll::new()?;
        readiness.add(local.readiness(), 0)?;
        readiness.add(remote.readiness(), 1)?;
        Ok(Self {
            local,
            remote,
            readiness,
        })
    }
}

/// What both can do.
fn common(a: &Caps, b: &Caps) -> Caps {
    Caps {
        max_message: a.max_message.min(b.max_message),
        max_rdma: a.max_rdma.min(b.max_rdma),
        rdma_threshold: a.rdma_threshold.min(b.rdma_threshold),
        rdma_read: a.rdma_read && b.rdma_read,
        max_pieces: a.max_pieces.min(b.max_pieces),
        send_depth: a.send_depth.min(b.send_depth),
        receive_depth: a.receive_depth.min(b.receive_depth),
        descriptor_len: a.descriptor_len.max(b.descriptor_len),
    }
}

/// One listening address on both.
struct Pair {
    /// Declared first: nobody connects over the device while the local one stops.
    remote: Option<Box<dyn Listener>>,
    local: Box<dyn Listener>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} and {:?}", self.local, self.remote)
    }
}

impl Listener for Pair {}

impl Fabric for Both {
    fn name(&self) -> &'static str {
        "soft and verbs"
    }

    fn caps(&self) -> Caps {
        common(&self.local.caps(), &self.remote.caps())
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses = self.local.addresses();
        addresses.extend(self.remote.addresses());
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    fn listen(&self, listener: Token, at: SocketAddr) -> Result<Box<dyn Listener>, ListenError> {
        let local = self.local.listen(listener, at)?;
        let served = at.ip().is_unspecified() || self.remote.addresses().contains(&at.ip());
        let remote = if served {
            match self.remote.listen(listener, at) {
                Ok(remote) => Some(remote),
                // Who connects over the device would meet somebody else.
                Err(ListenError::AddressInUse) => return Err(ListenError::AddressInUse),
                Err(error) => {
                    tracing::warn!(%at, %error, "listening without the RDMA devices");
                    None
                }
            }
        } else {
            None
        };
        Ok(Box::new(Pair { remote, local }))
    }

    fn connect(
        &self,
        endpoint: Token,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<Arc<dyn Endpoint>, ConnectError> {
        let by_device = !is_local(to.ip())
            && (from.ip().is_unspecified() || self.remote.addresses().contains(&from.ip()));
        if by_device {
            self.remote.connect(endpoint, from, to)
        } else {
            self.local.connect(endpoint, from, to)
        }
    }

    fn poll(&self, events: &mut Vec<Event>) {
        self.local.poll(events);
        self.remote.poll(events);
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.readiness.fd()
    }

    fn keeps_registrations(&self) -> bool {
        self.local.keeps_registrations() || self.remote.keeps_registrations()
    }

    fn memory_released(&self, region: Region) -> Released {
        let of = |fabric: &dyn Fabric| fabric.memory_released(region);
        match (of(&*self.local), of(&*self.remote)) {
            (Released::InUse, _) | (_, Released::InUse) => Released::InUse,
            (Released::Ended, _) | (_, Released::Ended) => Released::Ended,
            _ => Released::NotKept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_both_is_one_that_each_keeps() {
        let a = Caps {
            max_message: 100,
            max_rdma: 7,
            rdma_threshold: 50,
            rdma_read: true,
            max_pieces: 64,
            send_depth: 10,
            receive_depth: 20,
            descriptor_len: 32,
        };
        let b = Caps {
            max_message: 90,
            max_rdma: 8,
            rdma_read: false,
            max_pieces: 16,
            send_depth: 11,
            ..a.clone()
        };
        for caps in [common(&a, &b), common(&b, &a)] {
            assert_eq!((caps.max_message, caps.max_rdma), (90, 7));
            assert_eq!((caps.max_pieces, caps.send_depth), (16, 10));
            assert!(!caps.rdma_read);
            assert_eq!((caps.receive_depth, caps.descriptor_len), (20, 32));
        }
    }
}
