//! What the provider does: sockets, connections, operations, registrations, progress.
//!
//! Rust names only: no pointer, no code of the interface, and a fabric's name in one place. Calls
//! come from `spi`; what goes out to the switch goes through the traits in `outlet`.
//!
//! One provider exists between the first start and the last stop; its sockets are found by number in
//! one table for the process. A provider belongs to the process that started it: after a fork the
//! child has no sockets and may start its own.

mod config;
mod error;
mod events;
mod handles;
mod link;
mod listener;
mod memory;
mod operation;
mod options;
mod outlet;
mod progress;
mod socket;
mod wait;

use std::net::IpAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub(crate) use error::{
    AcceptError, BindError, ConnectError, ConnectFailure, Ending, ListenError, LookupError,
    MemoryError, ProgressError, SocketError, StartError, TransferError,
};
pub(crate) use events::{Interest, Record};
pub(crate) use handles::Handle;
pub(crate) use link::{Span, Waited};
pub(crate) use listener::{Backlog, Verdict};
pub(crate) use memory::RegistrationId;
pub(crate) use operation::Kind;
pub(crate) use outlet::{End, EventObject, Report, Switch, SwitchSocket, System, Ticket};
pub(crate) use socket::{Family, Socket, TABLE};

pub(crate) use crate::fabric::{Access, Region, Released};

use crate::fabric::both::Both;
use crate::fabric::{self, Caps, Event, Fabric, soft, verbs};
use config::{Config, FabricChoice, RdmaChoice};
use progress::{Progress, Work};

/// What exists while the provider is started.
pub(crate) struct Provider {
    config: Config,
    caps: Caps,
    fabric: Arc<dyn Fabric>,
    progress: Arc<Progress>,
    system: Arc<dyn System>,
    /// The process that started it.
    process: u32,
}

struct Started {
    provider: Arc<Provider>,
    /// The switch of the latest start; new sockets belong to it.
    switch: Arc<dyn Switch>,
    /// Starts that were not stopped.
    count: usize,
}

/// Guards starting and stopping. Never held across an upcall.
static STARTED: Mutex<Option<Started>> = Mutex::new(None);

/// The one place that knows the fabrics.
fn make_fabric(config: &Config) -> Result<Arc<dyn Fabric>, StartError> {
    match config.fabric {
        FabricChoice::Soft => make_soft(config),
        FabricChoice::Verbs => match make_verbs(config) {
            Ok(fabric) => Ok(fabric),
            Err(error) => Err(StartError::FabricAbsent {
                name: "verbs",
                reason: verbs::absence(&error),
            }),
        },
        FabricChoice::Auto => {
            let soft = make_soft(config)?;
            match make_verbs(config) {
                Ok(verbs) => {
                    let both =
                        Both::new(soft, verbs).map_err(|error| StartError::FabricAbsent {
                            name: "auto",
                            reason: error.to_string(),
                        })?;
                    Ok(Arc::new(both))
                }
                Err(error) => {
                    tracing::debug!(%error, "no RDMA devices are used");
                    Ok(soft)
                }
            }
        }
    }
}

fn make_soft(config: &Config) -> Result<Arc<dyn Fabric>, StartError> {
    let defaults = soft::Options::default();
    let fabric = soft::SoftFabric::new(soft::Options {
        rdma: match config.rdma {
            RdmaChoice::Auto => soft::Rdma::Auto,
            RdmaChoice::Direct => soft::Rdma::Direct,
            RdmaChoice::Pipelined => soft::Rdma::Pipelined,
        },
        rdma_read: config.rdma_read,
        ring_size: config.ring_size.unwrap_or(defaults.ring_size),
        ..defaults
    });
    fabric
        .and_then(|fabric| fabric::with_faults(Arc::new(fabric)))
        .map_err(|error| StartError::FabricAbsent {
            name: "soft",
            reason: error.to_string(),
        })
}

fn make_verbs(config: &Config) -> std::io::Result<Arc<dyn Fabric>> {
    let fabric = verbs::open(verbs::Options::new(config.rdma_read))?;
    fabric::with_faults(fabric)
}

/// What the fabric of the next start is to do wrong.
#[cfg(test)]
pub(crate) static TEST_FAULTS: Mutex<Option<fabric::fault::Faults>> = Mutex::new(None);

/// Starts the provider, or counts one more start.
pub(crate) fn start(switch: Arc<dyn Switch>, system: &Arc<dyn System>) -> Result<(), StartError> {
    let mut started = STARTED.lock();
    if let Some(running) = &mut *started
        && !running.provider.is_inherited()
    {
        running.count += 1;
        running.switch = switch;
        return Ok(());
    }
    let provider = Arc::new(Provider::new(system)?);
    let old = started.replace(Started {
        provider,
        switch,
        count: 1,
    });
    drop(started);
    if let Some(old) = old {
        // The parent's, after a fork: dropping it would end what is the parent's.
        let _kept = std::mem::ManuallyDrop::new(old.provider);
    }
    Ok(())
}

/// Takes one start back; the last one ends everything.
pub(crate) fn stop() -> Result<(), LookupError> {
    let last = {
        let mut started = STARTED.lock();
        let running = started.as_mut().ok_or(LookupError::NotStarted)?;
        if running.provider.is_inherited() {
            return Err(LookupError::NotStarted);
        }
        running.count -= 1;
        if running.count > 0 {
            return Ok(());
        }
        started.take()
    };
    // req: WSD-02, the last one really cleans up, and a new start works afterwards.
    if let Some(last) = last {
        last.provider.shut();
    }
    Ok(())
}

/// One round of progress of the host with this descriptor; how long until the next one at the latest.
pub(crate) fn make_progress(host: RawFd) -> Result<Option<Duration>, ProgressError> {
    let made = match running() {
        Ok((provider, _)) => provider.progress.make(host, &Sockets),
        Err(_) => Err(ProgressError::NotStarted),
    };
    if matches!(
        made,
        Err(ProgressError::NotStarted | ProgressError::NotTaken)
    ) {
        progress::forget_host(host);
    }
    made
}

/// The provider and the switch that a new socket belongs to.
pub(crate) fn running() -> Result<(Arc<Provider>, Arc<dyn Switch>), LookupError> {
    match &*STARTED.lock() {
        Some(started) if !started.provider.is_inherited() => {
            Ok((Arc::clone(&started.provider), Arc::clone(&started.switch)))
        }
        _ => Err(LookupError::NotStarted),
    }
}

impl Provider {
    fn new(system: &Arc<dyn System>) -> Result<Self, StartError> {
        let config = Config::from_environment();
        let fabric = make_fabric(&config)?;
        #[cfg(test)]
        let fabric = match &*TEST_FAULTS.lock() {
            Some(faults) => faults
                .around(fabric)
                .expect("descriptors for a faulty fabric"),
            None => fabric,
        };
        let mut caps = fabric.caps();
        caps.rdma_read &= config.rdma_read;
        let absent = |error: std::io::Error| StartError::FabricAbsent {
            name: fabric.name(),
            reason: error.to_string(),
        };
        let progress = Progress::new(Arc::clone(&fabric), Arc::clone(system)).map_err(absent)?;
        Ok(Self {
            config,
            caps,
            progress: Arc::new(progress),
            fabric,
            system: Arc::clone(system),
            process: std::process::id(),
        })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn caps(&self) -> &Caps {
        &self.caps
    }

    pub(crate) fn fabric(&self) -> &Arc<dyn Fabric> {
        &self.fabric
    }

    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    pub(crate) fn system(&self) -> &Arc<dyn System> {
        &self.system
    }

    /// Local addresses that can be bound to: IPv4 first.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses = self.fabric.addresses();
        addresses.sort_by_key(IpAddr::is_ipv6);
        addresses
    }

    /// Whether somebody has to tell `memory_released` of memory that goes back to the system.
    pub(crate) fn keeps_registrations(&self) -> bool {
        self.fabric.keeps_registrations()
    }

    pub(crate) fn memory_released(&self, region: Region) -> Released {
        self.fabric.memory_released(region)
    }

    /// Whether this process has it from a fork of the one that started it.
    pub(crate) fn is_inherited(&self) -> bool {
        self.process != std::process::id()
    }

    fn start_progress(&self) -> std::io::Result<()> {
        self.progress.start(Sockets)
    }

    /// Has the host make progress from now on.
    pub(crate) fn take_progress(&self) -> Result<OwnedFd, ProgressError> {
        self.progress.take()
    }

    /// Closes every socket that is left and ends progress.
    fn shut(self: &Arc<Self>) {
        for socket in TABLE.all() {
            if Arc::ptr_eq(socket.provider(), self) {
                socket.discard();
            }
        }
        self.progress.stop();
    }
}

/// Gives what a round of progress gets to the sockets.
struct Sockets;

impl Work for Sockets {
    fn event(&self, event: Event) {
        let find = |token: fabric::Token| TABLE.get(Handle::from_raw(token.0));
        match event {
            Event::Request { listener, request } => match find(listener) {
                Some(socket) => socket.requested(request),
                None => request.reject(),
            },
            Event::Connected { endpoint } => {
                if let Some(socket) = find(endpoint) {
                    socket.connect_ended(Ok(()));
                }
            }
            Event::ConnectFailed { endpoint, error } => {
                if let Some(socket) = find(endpoint) {
                    socket.connect_ended(Err(error));
                }
            }
            Event::Ready { endpoint } => {
                if let Some(socket) = find(endpoint)
                    && let Ok(link) = socket.link()
                {
                    link.ready();
                }
            }
            Event::Ended { endpoint, ending } => {
                tracing::debug!(?endpoint, ?ending, "a connection ended");
                if let Some(socket) = find(endpoint)
                    && let Ok(link) = socket.link()
                {
                    link.advance_and_watch();
                }
            }
            // Addresses are asked for anew each time.
            Event::AddressesChanged => {}
        }
    }

    fn enlisted(&self, socket: Handle) {
        if let Some(socket) = TABLE.get(socket)
            && let Ok(link) = socket.link()
        {
            link.advance_and_watch();
        }
    }

    fn later(&self, socket: Handle) {
        if let Some(socket) = TABLE.get(socket)
            && let Ok(link) = socket.link()
        {
            link.overdue();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fabric_that_this_build_lacks_is_refused_with_its_name() {
        let config = Config {
            fabric: FabricChoice::Verbs,
            ..Config::from_environment()
        };
        let error = make_fabric(&config).err().unwrap();
        assert!(matches!(
            error,
            StartError::FabricAbsent { name: "verbs", .. }
        ));
        assert!(error.to_string().contains("WSD_FABRIC"), "says what to do");
    }
}
