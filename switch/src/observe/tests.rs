//! Both sides of the observation memory: what is written is read, and what others may have written
//! there harms nobody.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wsd_proto::{Message, ResetReason};

use super::layout::{self, ENTRIES, ENTRY_LEN, HEAD_LEN, LEN, RING_AT, SLOT_LEN, head, slot};
use super::reader::Memory;
use super::*;

fn about(port: u16) -> About<'static> {
    About {
        role: Role::Accepted,
        addresses: Some((
            SocketAddr::from(([127, 0, 0, 1], port)),
            SocketAddr::from(([10, 0, 0, 7], 4711)),
        )),
        fd: Some(17),
        path: Path::Kernel,
        provider: "",
        upgrade: Upgrade::Waiting,
        reason: "no-rule",
    }
}

/// The connections of this process, as another process would see them.
fn seen() -> Vec<Live> {
    let (mut found, unreadable) = processes(&[std::process::id()]);
    assert!(unreadable.is_empty(), "{unreadable:?}");
    found
        .pop()
        .map_or(Vec::new(), |process| process.connections)
}

fn find(slot: &Slot) -> Option<Live> {
    seen().into_iter().find(|live| live.id == slot.id())
}

#[test]
fn a_connection_is_seen_as_it_is_until_its_slot_is_dropped() {
    let slot = Slot::new(&about(1)).unwrap();
    let live = find(&slot).unwrap();
    assert_eq!((live.role, live.path), (Role::Accepted, Path::Kernel));
    assert_eq!(live.local.zip(live.peer), about(1).addresses);
    assert_eq!((live.fd, live.upgrade), (Some(17), Upgrade::Waiting));
    assert_eq!((&*live.provider, &*live.reason), ("", "no-rule"));
    assert_eq!((live.session, live.rtt), (None, None));
    assert!(live.started.elapsed().unwrap().as_secs() < 600);

    slot.sent_by_kernel(5);
    slot.received_by_kernel(7);
    slot.received_by_kernel(1);
    slot.set_upgrade(Upgrade::Upgraded);
    slot.set_path(Path::San, "soft");
    slot.set_reason("");
    slot.set_fd(None);
    slot.set_session([9; 16]);
    let live = find(&slot).unwrap();
    assert_eq!((live.kernel_sent, live.kernel_received), (5, 8));
    assert_eq!((live.path, &*live.provider), (Path::San, "soft"));
    assert_eq!((live.upgrades, live.downgrades), (1, 0));
    assert_eq!((live.fd, &*live.reason), (None, ""));
    assert_eq!(live.session, Some([9; 16]));
    slot.set_upgrade(Upgrade::Downgraded);
    assert_eq!(find(&slot).unwrap().downgrades, 1);

    let id = slot.id();
    drop(slot);
    assert!(seen().iter().all(|live| live.id != id));
}

#[test]
fn a_slot_that_is_used_again_shows_nothing_of_the_connection_before() {
    let first = Slot::new(&about(2)).unwrap();
    first.sent_by_kernel(100);
    first.set_session([1; 16]);
    first.count(|words| words.set(slot::BYTES_SENT, 100));
    drop(first);
    // Ended slots come again, the oldest first.
    for _ in 0..64 {
        let live = find(&Slot::new(&about(3)).unwrap()).unwrap();
        assert_eq!((live.kernel_sent, live.san_sent), (0, 0));
        assert_eq!((live.session, live.local.unwrap().port()), (None, 3));
    }
}

#[test]
fn nobody_reads_a_mixture() {
    let slot = Slot::new(&about(4)).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let (writing, stop) = (Arc::clone(&slot), Arc::clone(&over));
    let writer = std::thread::spawn(move || {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            writing.count(|words| {
                for index in slot::BYTES_SENT..=slot::LARGE_RECEIVED {
                    words.set(index, number);
                }
            });
            let text = format!("{:032}", number % 10 * 11_111_111);
            writing.set_reason(&text);
            std::thread::yield_now();
        }
    });
    // A look in the middle of a change finds nothing; how often that is depends on the machine.
    let end = Instant::now() + Duration::from_secs(60);
    let mut reads = 0;
    while reads < 1000 && Instant::now() < end {
        let Some(live) = find(&slot) else { continue };
        reads += 1;
        let same = [live.san_received, live.messages_sent, live.stalls];
        assert_eq!(same, [live.san_sent; 3]);
        assert_eq!(live.large_received, live.san_sent);
        if live.reason.len() == 32 {
            let digits: std::collections::BTreeSet<_> = live.reason[24..].chars().collect();
            assert_eq!(digits.len(), 1, "{}", live.reason);
        }
    }
    over.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert!(reads >= 1000, "{reads}");
}

#[test]
fn addresses_that_nobody_has_told_are_those_of_the_descriptor() {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let listener = match TcpListener::bind(at) {
            // Without IPv6 there is nothing to show; ./test says so.
            Err(_) if at.starts_with("[::1]") => continue,
            bound => bound.unwrap(),
        };
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let slot = Slot::new(&About {
            addresses: None,
            fd: Some(stream.as_raw_fd()),
            ..about(0)
        })
        .unwrap();
        let live = find(&slot).unwrap();
        assert_eq!(live.local, stream.local_addr().ok());
        assert_eq!(live.peer, stream.peer_addr().ok());
        slot.set_fd(None);
        let live = find(&slot).unwrap();
        assert_eq!((live.local, live.peer), (None, None));
        let (local, peer) = about(9).addresses.unwrap();
        slot.set_addresses(local, peer);
        slot.carried_by_kernel(3, 4);
        let live = find(&slot).unwrap();
        assert_eq!((live.local, live.peer), (Some(local), Some(peer)));
        assert_eq!((live.kernel_sent, live.kernel_received), (3, 4));
    }
}

/// A memory that somebody else has made.
struct Foreign(File);

impl Foreign {
    fn new(len: u64) -> Foreign {
        // SAFETY: a live string that ends in zero.
        let fd = unsafe { libc::memfd_create(c"foreign".as_ptr(), 0) };
        assert!(fd >= 0);
        // SAFETY: the descriptor is ours alone.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(len).unwrap();
        let foreign = Foreign(file);
        for (index, value) in [
            (head::MAGIC, layout::MAGIC),
            (head::VERSION, layout::VERSION),
            (head::SLOTS_AT, HEAD_LEN as u64),
            (head::SLOT_LEN, SLOT_LEN as u64),
            (head::SLOTS, layout::SLOTS as u64),
            (head::RING_AT, RING_AT as u64),
            (head::ENTRY_LEN, ENTRY_LEN as u64),
            (head::ENTRIES, ENTRIES as u64),
        ] {
            foreign.set(index, value);
        }
        foreign
    }

    fn set(&self, index: usize, value: u64) {
        let at = index as u64 * 8;
        // Behind its end there is nothing to set.
        if at < self.0.metadata().unwrap().len() {
            self.0.write_all_at(&value.to_ne_bytes(), at).unwrap();
        }
    }

    fn open(&self) -> std::io::Result<Memory> {
        Memory::new(self.0.try_clone().unwrap())
    }
}

#[test]
fn memory_that_is_short_or_of_another_version_or_kind_is_an_error() {
    for len in [0, 7, 8, 95, 96, HEAD_LEN as u64, LEN as u64 - 4096] {
        assert!(Foreign::new(len).open().is_err(), "{len}");
    }
    let whole = LEN as u64;
    assert!(Foreign::new(whole).open().is_ok());
    let bad = [
        (head::MAGIC, 0),
        (head::VERSION, 0),
        (head::VERSION, layout::VERSION + 1),
        (head::SLOT_LEN, 0),
        (head::SLOT_LEN, SLOT_LEN as u64 + 1),
        (head::SLOT_LEN, u64::MAX),
        (head::SLOTS, u64::MAX),
        (head::SLOTS, layout::SLOTS as u64 * 2),
        (head::SLOTS_AT, u64::MAX),
        (head::SLOTS_AT, 0),
        (head::RING_AT, u64::MAX - 7),
        (head::ENTRY_LEN, 8),
        (head::ENTRIES, 0),
        (head::ENTRIES, u64::MAX),
    ];
    for (index, value) in bad {
        let foreign = Foreign::new(whole);
        foreign.set(index, value);
        let error = foreign.open().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{index}");
    }
}

#[test]
fn memory_that_shrinks_under_the_reader_is_an_error() {
    let foreign = Foreign::new(LEN as u64);
    foreign.set(head::USED, 1000);
    let memory = foreign.open().unwrap();
    assert!(memory.connections().unwrap().is_empty());
    foreign.0.set_len(HEAD_LEN as u64 + 5).unwrap();
    assert!(memory.connections().is_err());
    foreign.0.set_len(0).unwrap();
    assert!(memory.connections().is_err());
}

#[test]
fn slots_of_nonsense_are_left_out_and_the_others_shown() {
    let foreign = Foreign::new(LEN as u64);
    foreign.set(head::USED, u64::MAX);
    let word = |number: usize, index: usize| (HEAD_LEN + number * SLOT_LEN) / 8 + index;
    // The first makes sense, each other one is spoilt in one word.
    let spoilt = [
        (slot::ID, 7),
        (slot::KINDS, 0),
        (slot::KINDS, u64::MAX),
        (slot::LOCAL + 2, u64::MAX),
        (slot::PEER + 2, 1),
        (slot::COLD, 1),
        (slot::HOT, 3),
        (slot::LIFE, 99),
    ];
    for (number, (index, value)) in spoilt.into_iter().enumerate() {
        foreign.set(word(number, slot::LIFE), layout::life::LIVE);
        foreign.set(word(number, slot::KINDS), 0x01_02_01);
        let (local, _) = about(5).addresses.unwrap();
        for (offset, part) in layout::address_to_words(&local).into_iter().enumerate() {
            foreign.set(word(number, slot::LOCAL + offset), part);
            foreign.set(word(number, slot::PEER + offset), part);
        }
        foreign.set(
            word(number, slot::REASON),
            u64::from_ne_bytes(*b"\x1b]0;hi\x07\0"),
        );
        foreign.set(word(number, index), value);
    }
    let found = foreign.open().unwrap().connections().unwrap();
    let [only] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((only.id, &*only.reason), (7, "?]0;hi?"));
}

/// A header without anything else, and the length of its message.
fn head_of(message: Message, body: usize) -> (Vec<u8>, usize) {
    let mut bytes = vec![0; 512];
    let len = message.encode(1, 77, &mut bytes).unwrap();
    bytes.truncate(len);
    (bytes, len + body)
}

fn data(offset: u64) -> (Vec<u8>, usize) {
    head_of(Message::Data { offset, len: 100 }, 100)
}

fn meter(slot: &Arc<Slot>) -> Meter {
    let config = wsd_proto::Config::default();
    let start = wsd_proto::Instant::ZERO;
    let session = wsd_proto::Session::new(wsd_proto::Role::Connector, config, start).unwrap();
    let mut meter = Meter::default();
    meter.attach(Arc::clone(slot), &session);
    meter
}

#[test]
fn messages_are_shown_while_somebody_watches_and_only_then() {
    let watched = Slot::new(&about(6)).unwrap();
    let other = Slot::new(&about(7)).unwrap();
    let (meter, others) = (meter(&watched), meter(&other));
    let (first, len) = data(0);
    meter.trace(true, &first, || len);
    let mut tracer = Tracer::new(std::process::id(), watched.id())
        .unwrap()
        .unwrap();
    assert!(tracer.poll().unwrap().is_empty());
    let (second, len) = data(100);
    meter.trace(true, &second, || len);
    others.trace(true, &second, || len);
    let reset = head_of(
        Message::Reset {
            reason: ResetReason::Aborted,
        },
        0,
    );
    meter.trace(false, &reset.0, || reset.1);
    let found = tracer.poll().unwrap();
    let told: Vec<_> = found
        .iter()
        .map(|traced| (traced.sent, traced.to_string()))
        .collect();
    assert_eq!(
        told,
        [
            (true, "Data offset=100 len=100 credit=77".to_owned()),
            (false, "Reset reason=Aborted credit=77".to_owned())
        ]
    );
    assert_eq!((found[0].len, found[0].head.len()), (132, 32));
    assert_eq!(found[1].kind(), "Reset");
    assert!(tracer.is_live().unwrap());
    assert_eq!(tracer.lost(), 0);

    drop(meter);
    let id = watched.id();
    drop(watched);
    assert!(!tracer.is_live().unwrap());
    assert!(Tracer::new(std::process::id(), id).unwrap().is_none());
}

#[test]
fn a_slow_watcher_loses_the_oldest_messages_and_knows_how_many() {
    let watched = Slot::new(&about(8)).unwrap();
    let meter = meter(&watched);
    let mut tracer = Tracer::new(std::process::id(), watched.id())
        .unwrap()
        .unwrap();
    let all = ENTRIES as u64 + 500;
    for offset in 0..all {
        let (head, len) = data(offset);
        meter.trace(true, &head, || len);
    }
    let found = tracer.poll().unwrap();
    // Tests beside this one may have used the ring, too.
    assert!(found.len() <= ENTRIES && tracer.lost() >= 500);
    assert!(found.len() as u64 + tracer.lost() >= all);
    let last = found.last().unwrap().decode().unwrap().0;
    assert_eq!(
        last,
        Message::Data {
            offset: all - 1,
            len: 100
        }
    );
}

#[test]
fn a_request_that_is_over_or_that_makes_no_sense_ends_by_itself() {
    let watched = Slot::new(&about(9)).unwrap();
    let meter = meter(&watched);
    for until in [1, u64::MAX] {
        let memory = Memory::of_process(std::process::id(), true)
            .unwrap()
            .unwrap();
        let at = memory.slot_of(watched.id()).unwrap().unwrap();
        memory
            .write(at + slot::TRACED_UNTIL as u64 * 8, until)
            .unwrap();
        assert!(watched.is_traced());
        let (head, len) = data(0);
        meter.trace(true, &head, || len);
        assert!(!watched.is_traced());
    }
}

#[test]
fn what_is_no_message_is_shown_as_bytes() {
    let odd = Traced {
        time: std::time::SystemTime::now(),
        sent: false,
        len: u32::MAX,
        head: vec![0xff; 40],
    };
    assert!(odd.decode().is_err());
    assert!(odd.to_string().contains("no message"), "{odd}");
    assert_eq!(odd.kind(), "Unknown");
    let short = Traced {
        head: Vec::new(),
        len: 3,
        ..odd
    };
    assert!(short.decode().is_err());
}
