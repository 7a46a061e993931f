//! Live observation from outside the process: what `wsdirect ss` and `wsdirect trace` show.
//!
//! Each process with a connection that a SAN may carry has one memory that others of the same user
//! find in `/proc/PID/fd`. Nothing has a name on disk, and all of it ends with the process. The
//! format is published in `docs/observe.md`.
//!
//! * `layout`: where what stands; `memory`: the memory of this process; `slot`, `ring`: what is
//!   written into it; `meter`: when a connection over the SAN writes.
//! * `reader`, `tracer`: the other side, which trusts nothing that it reads; `sockets`: what the
//!   kernel tells of a connection's addresses.
//!
//! Invariant: observing costs a connection a few stores for each call, no lock, no system call and
//! no memory of its own; failing to observe harms nobody.

mod layout;
#[allow(unsafe_code)]
mod memory;
mod meter;
mod reader;
mod ring;
mod slot;
mod sockets;
#[cfg(test)]
#[allow(unsafe_code)]
mod tests;
mod tracer;

pub use memory::descriptor;
pub(crate) use meter::{Meter, Queues};
pub use reader::{Live, Process, Unreadable, all, processes};
pub use slot::{About, Slot};
pub use tracer::{Traced, Tracer};

/// Which end this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It connected.
    Connected,
    /// It accepted.
    Accepted,
}

impl Role {
    /// A word that never changes.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Role::Connected => "connected",
            Role::Accepted => "accepted",
        }
    }
}

/// What carries a connection now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    /// TCP of the kernel.
    Kernel,
    /// A SAN, both directions.
    San,
    /// One direction each, for a moment.
    Both,
}

impl Path {
    const ALL: [Path; 3] = [Path::Kernel, Path::San, Path::Both];

    fn number(self) -> u8 {
        match self {
            Path::Kernel => 1,
            Path::San => 2,
            Path::Both => 3,
        }
    }

    /// A word that never changes.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Path::Kernel => "kernel",
            Path::San => "san",
            Path::Both => "both",
        }
    }
}

/// How far the move from the kernel to the SAN is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upgrade {
    /// It is what it is for life.
    Fixed,
    /// Not yet worth it.
    Waiting,
    /// The peer is asked.
    Offering,
    /// There is a session; the directions are moving.
    Upgrading,
    /// On the SAN.
    Upgraded,
    /// The directions are moving back.
    Downgrading,
    /// Back with the kernel.
    Downgraded,
    /// It stays with the kernel; the reason says why.
    Refused,
}

impl Upgrade {
    const ALL: [Upgrade; 8] = [
        Upgrade::Fixed,
        Upgrade::Waiting,
        Upgrade::Offering,
        Upgrade::Upgrading,
        Upgrade::Upgraded,
        Upgrade::Downgrading,
        Upgrade::Downgraded,
        Upgrade::Refused,
    ];

    fn number(self) -> u8 {
        match self {
            Upgrade::Fixed => 1,
            Upgrade::Waiting => 2,
            Upgrade::Offering => 3,
            Upgrade::Upgrading => 4,
            Upgrade::Upgraded => 5,
            Upgrade::Downgrading => 6,
            Upgrade::Downgraded => 7,
            Upgrade::Refused => 8,
        }
    }

    /// A word that never changes.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Upgrade::Fixed => "fixed",
            Upgrade::Waiting => "waiting",
            Upgrade::Offering => "offering",
            Upgrade::Upgrading => "upgrading",
            Upgrade::Upgraded => "upgraded",
            Upgrade::Downgrading => "downgrading",
            Upgrade::Downgraded => "downgraded",
            Upgrade::Refused => "refused",
        }
    }
}
