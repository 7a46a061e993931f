//! A provider that records what the switch calls, and connects sockets of this process by queues.
//!
//! It keeps to the provider interface: messages wait for a posted receive, completions come once,
//! by poll or by upcall as asked for, the handle of a closed socket is given back last. What it can
//! do and what fails is configured; everything called is in the trace. There is one for the
//! process, so a test holds it from [`Mock::begin`] to the drop.

#![allow(dead_code, reason = "each test binary uses a part")]

mod memory;
pub(crate) mod pair;
mod table;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use wsd_switch::EntryPoint;
use wsdirect::abi::{SOCKET, WSANETWORKEVENTS, WSAOVERLAPPED, WSPUPCALLTABLEEX};

pub(crate) use table::{other_startup, startup};

/// What the mock can do, and what it fails at.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) addresses: Vec<IpAddr>,
    /// Those of the other entry, which is the same in everything else.
    pub(crate) other_addresses: Vec<IpAddr>,
    pub(crate) rdma_read: bool,
    /// Whether it has our own WSPArmCompletion.
    pub(crate) arm: bool,
    pub(crate) max_message: Option<u32>,
    pub(crate) max_rdma: Option<u32>,
    pub(crate) threshold: Option<u32>,
    pub(crate) descriptor_len: usize,
    /// Receives that one socket takes; WSAEWOULDBLOCK beyond.
    pub(crate) receive_depth: usize,
    /// Functions that fail, with their codes; by name without "WSP".
    pub(crate) failing: BTreeMap<&'static str, i32>,
    /// What FD_CONNECT tells: 0 connects, `None` never answers.
    pub(crate) connect_outcome: Option<i32>,
    /// Extensions that are missing, by name without "WSP".
    pub(crate) missing: Vec<&'static str>,
    /// Leaves one required slot null.
    pub(crate) null_slot: bool,
    /// Whether WSPSocket forgets to make a switch handle.
    pub(crate) no_handle: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            addresses: vec![[127, 0, 0, 1].into()],
            other_addresses: vec![[127, 0, 0, 1].into()],
            rdma_read: true,
            arm: true,
            max_message: Some(64 * 1024),
            max_rdma: Some(1 << 30),
            threshold: Some(16 * 1024),
            descriptor_len: 32,
            receive_depth: usize::MAX,
            failing: BTreeMap::new(),
            connect_outcome: Some(0),
            missing: Vec::new(),
            null_slot: false,
            no_handle: false,
        }
    }
}

impl Config {
    pub(crate) fn failing(name: &'static str, code: i32) -> Config {
        Config {
            failing: BTreeMap::from([(name, code)]),
            ..Config::default()
        }
    }
}

/// One of the two entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Which {
    #[default]
    First,
    Other,
}

/// One call of the switch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    /// The provider's socket; 0 where there is none.
    pub(crate) socket: SOCKET,
    /// By which entry it was made.
    pub(crate) made_by: Which,
    /// The function, without "WSP".
    pub(crate) name: &'static str,
    /// What was asked, as far as tests want to know.
    pub(crate) detail: String,
    /// The code it failed with; 0 is success.
    pub(crate) code: i32,
}

pub(crate) struct Registered {
    pub(crate) number: usize,
    pub(crate) base: usize,
    pub(crate) len: usize,
    pub(crate) flags: u32,
}

/// A receive that waits for a message.
pub(crate) struct Posted {
    pub(crate) overlapped: Overlapped,
    pub(crate) buffers: Vec<(usize, usize)>,
}

/// A switch's overlapped structure, by address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overlapped {
    pub(crate) address: usize,
    pub(crate) is_polled: bool,
}

impl Overlapped {
    pub(crate) fn pointer(self) -> *mut WSAOVERLAPPED {
        std::ptr::with_exposed_provenance_mut(self.address)
    }
}

#[derive(Default)]
pub(crate) struct Socket {
    pub(crate) made_by: Which,
    pub(crate) handle: SOCKET,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) peer: Option<SOCKET>,
    pub(crate) is_connected: bool,
    pub(crate) is_listening: bool,
    pub(crate) requests: VecDeque<SOCKET>,
    pub(crate) event: usize,
    pub(crate) mask: i32,
    pub(crate) record: WSANETWORKEVENTS,
    pub(crate) receives: VecDeque<Posted>,
    /// It has posted receives: from then on a peer sends no more than there are.
    pub(crate) has_posted: bool,
    pub(crate) inbox: VecDeque<Vec<u8>>,
    pub(crate) memory: Vec<Registered>,
    pub(crate) exposed: Vec<Registered>,
    /// Polled operations that are over and not collected.
    pub(crate) uncollected: usize,
    pub(crate) wake: Option<table::WakeUp>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) trace: Vec<Call>,
    /// Every message sent, with the socket that sent it.
    pub(crate) messages: Vec<(SOCKET, Vec<u8>)>,
    pub(crate) upcalls: Option<WSPUPCALLTABLEEX>,
    pub(crate) starts: usize,
    pub(crate) sockets: BTreeMap<SOCKET, Socket>,
    pub(crate) next: usize,
}

impl State {
    /// The entry that has made a socket.
    pub(crate) fn maker(&self, socket: SOCKET) -> Which {
        let known = self.sockets.get(&socket);
        known.map_or(Which::First, |socket| socket.made_by)
    }
}

pub(crate) static STATE: Mutex<State> = Mutex::new(State {
    config: Config {
        addresses: Vec::new(),
        other_addresses: Vec::new(),
        rdma_read: true,
        arm: true,
        max_message: None,
        max_rdma: None,
        threshold: None,
        descriptor_len: 32,
        receive_depth: usize::MAX,
        failing: BTreeMap::new(),
        connect_outcome: Some(0),
        missing: Vec::new(),
        null_slot: false,
        no_handle: false,
    },
    trace: Vec::new(),
    messages: Vec::new(),
    upcalls: None,
    starts: 0,
    sockets: BTreeMap::new(),
    next: 1,
});

/// Numbers for registrations and the like, never given twice in the process.
pub(crate) fn fresh() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn record(socket: SOCKET, name: &'static str, detail: impl Into<String>, code: i32) {
    let mut state = STATE.lock();
    let made_by = state.maker(socket);
    state.trace.push(Call {
        socket,
        made_by,
        name,
        detail: detail.into(),
        code,
    });
}

/// The mock, for one test at a time.
pub(crate) struct Mock {
    _turn: MutexGuard<'static, ()>,
}

impl Mock {
    pub(crate) fn begin(config: Config) -> Mock {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock();
        let mut state = STATE.lock();
        assert_eq!(state.starts, 0, "the mock is still started");
        let next = state.next;
        *state = State {
            config,
            next,
            ..State::default()
        };
        Mock { _turn: turn }
    }

    pub(crate) fn entry(&self) -> EntryPoint {
        // SAFETY: the mock keeps to the provider interface; see its module.
        unsafe { EntryPoint::new(startup) }
    }

    /// A second provider, with addresses and a name of its own.
    pub(crate) fn other_entry(&self) -> EntryPoint {
        // SAFETY: as above.
        unsafe { EntryPoint::new(other_startup) }
    }

    pub(crate) fn reconfigure(&self, change: impl FnOnce(&mut Config)) {
        change(&mut STATE.lock().config);
    }

    pub(crate) fn trace(&self) -> Vec<Call> {
        STATE.lock().trace.clone()
    }

    pub(crate) fn clear_trace(&self) {
        STATE.lock().trace.clear();
    }

    /// The calls of one socket, by name.
    pub(crate) fn calls_of(&self, socket: SOCKET) -> Vec<&'static str> {
        let state = STATE.lock();
        state
            .trace
            .iter()
            .filter(|call| call.socket == socket)
            .map(|call| call.name)
            .collect()
    }

    pub(crate) fn calls(&self, name: &str) -> Vec<Call> {
        let state = STATE.lock();
        state
            .trace
            .iter()
            .filter(|call| call.name == name)
            .cloned()
            .collect()
    }

    /// The messages a socket has sent.
    pub(crate) fn messages_of(&self, socket: SOCKET) -> Vec<Vec<u8>> {
        let state = STATE.lock();
        let sent = state
            .messages
            .iter()
            .filter(|(sender, _)| *sender == socket);
        sent.map(|(_, message)| message.clone()).collect()
    }

    pub(crate) fn open_sockets(&self) -> usize {
        STATE.lock().sockets.len()
    }

    pub(crate) fn starts(&self) -> usize {
        STATE.lock().starts
    }

    /// Waits until something holds; for what happens on other threads.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !holds(&STATE.lock()) {
            assert!(Instant::now() < end, "waited in vain for: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A peer without a switch: connects and then says nothing.
    pub(crate) fn silent_peer(&self, to: SocketAddr) -> SOCKET {
        table::silent_peer(to)
    }

    /// Ends such a peer.
    pub(crate) fn end_peer(&self, peer: SOCKET) {
        table::end_peer(peer);
    }

    /// Nothing is left: every socket closed, every start cleaned up. Closing may go on in the
    /// background for a while.
    pub(crate) fn assert_nothing_left(&self) {
        // req: WSD-22 cleanup balanced
        self.until("every socket is closed", |state| state.sockets.is_empty());
        self.until("every start is cleaned up", |state| state.starts == 0);
    }

    /// Checks the rules that hold for every call ever made.
    pub(crate) fn assert_rules(&self) {
        let trace = self.trace();
        let forbidden: Vec<_> = trace
            .iter()
            .filter(|call| call.name == "FORBIDDEN")
            .collect();
        assert!(forbidden.is_empty(), "{forbidden:?}");
        let broken: Vec<_> = trace
            .iter()
            .filter(|call| call.detail.contains("BAD"))
            .collect();
        assert!(broken.is_empty(), "{broken:?}");
    }
}
