//! Every state times every event, as a text that is reviewed: a change of behaviour is a change of
//! `tests/snapshots/session.txt`. `WSD_BLESS=1` writes it anew.
//!
//! A state is the side A of a pair that has been brought there; an event is a message of the peer, an
//! answer of the driver, a wish of the application, or a time-out. The text says what A does then.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

use std::fmt::Write as _;
use std::time::Duration;

use wsd_proto::testing::{self, Pair};
use wsd_proto::*;

const ONE: TransferId = TransferId(1);

fn small() -> Config {
    Config {
        suspend: true,
        ..testing::small()
    }
}

fn companion() -> CompanionInfo {
    CompanionInfo {
        local: ([1; 16], 40_000),
        peer: ([2; 16], 80),
    }
}

fn writes() -> Config {
    Config {
        rdma_read: false,
        ..small()
    }
}

/// A pair on which nothing of A's answers is executed any more: what A asks for stays open.
struct State {
    name: &'static str,
    session: Session,
    /// What A has asked for on the way here.
    asked: Vec<Action>,
}

/// Brings a pair somewhere, then drains A by hand.
fn state(name: &'static str, config: Config, way: impl FnOnce(&mut Pair)) -> State {
    let mut pair = Pair::established(config.clone(), config);
    way(&mut pair);
    let mut session = pair.a.session.clone();
    let asked = drain(&mut session);
    State {
        name,
        session,
        asked,
    }
}

fn drain(session: &mut Session) -> Vec<Action> {
    let mut actions = vec![];
    while let Some(action) = session.poll_action() {
        if matches!(action, Action::Message(_)) {
            session.handle_sent();
        }
        actions.push(action);
        assert!(actions.len() < 1000, "actions without end");
    }
    actions
}

fn descriptor() -> Descriptor {
    Descriptor::new(&[7; 24]).unwrap()
}

fn states() -> Vec<State> {
    let fresh = |role| Session::new(role, small(), Instant(Duration::from_secs(1))).unwrap();
    let mut awaiting = fresh(Role::Connector);
    let asked = drain(&mut awaiting);
    let mut wanting = Session::new(
        Role::Acceptor,
        Config {
            companion_wanted: true,
            ..small()
        },
        Instant(Duration::from_secs(1)),
    )
    .unwrap();
    let waiting = wanting.clone();
    let first = Message::Negotiate(Offer {
        companion: Some(companion()),
        ..offer()
    });
    receive(&mut wanting, &first).unwrap();
    let offered = drain(&mut wanting);
    vec![
        State {
            name: "connector: awaits the answer",
            session: awaiting,
            asked,
        },
        State {
            name: "acceptor: awaits the first message",
            session: fresh(Role::Acceptor),
            asked: vec![],
        },
        State {
            name: "acceptor: awaits a companion",
            session: waiting,
            asked: vec![],
        },
        State {
            name: "acceptor: decides about a companion",
            session: wanting,
            asked: offered,
        },
        state("open: idle", small(), |_| {}),
        state("open: cannot be suspended", testing::small(), |_| {}),
        state("open: small data unread", small(), |pair| {
            pair.b.send(10).unwrap();
            pair.drive();
        }),
        state("open: out of credit", small(), |pair| {
            for _ in 0..20 {
                pair.a.send(200).unwrap();
            }
            pair.drive();
        }),
        state("sending by read: memory asked for", small(), |pair| {
            pair.a.session.send(SendId(900), 1000).unwrap();
        }),
        state("sending by read: announced", small(), |pair| {
            pair.b.session.set_direct(true);
            pair.a.send(1000).unwrap();
            pair.drive();
        }),
        state("sending by write: memory asked for", writes(), |pair| {
            pair.a.session.send(SendId(900), 1000).unwrap();
        }),
        state("sending by write: announced", writes(), |pair| {
            pair.b.session.set_direct(true);
            pair.a.send(1000).unwrap();
            pair.drive();
        }),
        state("sending by write: writing", writes(), |pair| {
            pair.b.session.set_direct(true);
            pair.a.send(1000).unwrap();
            pair.drive();
            let message = Message::Location {
                transfer: ONE,
                offset: 100,
                len: 900,
                descriptor: descriptor(),
            };
            receive(&mut pair.a.session, &message).unwrap();
        }),
        state("sending: refused", small(), |pair| {
            pair.b.knobs.fail_allocate = true;
            pair.a.send(1000).unwrap();
            pair.drive();
            pair.b.read(100);
            pair.drive();
        }),
        state("receiving by read: memory asked for", small(), |pair| {
            announce(pair, true)
        }),
        state("receiving by read: reading", small(), |pair| {
            announce(pair, true);
            drain(&mut pair.a.session);
            pair.a.session.handle_allocated(TempId(1), Ok(()));
        }),
        state("receiving by read: left with the peer", small(), |pair| {
            pair.a.session.set_direct(true);
            announce(pair, true);
        }),
        state("receiving by read: pulling", small(), |pair| {
            pair.a.session.set_direct(true);
            announce(pair, true);
            pair.a.session.consumed(100);
            pair.a.session.pull(500).unwrap();
        }),
        state("receiving by write: exposing", writes(), |pair| {
            announce(pair, false);
            drain(&mut pair.a.session);
            pair.a.session.handle_allocated(TempId(1), Ok(()));
        }),
        state("receiving by write: location told", writes(), |pair| {
            announce(pair, false);
            drain(&mut pair.a.session);
            pair.a.session.handle_allocated(TempId(1), Ok(()));
            drain(&mut pair.a.session);
            let descriptor = descriptor();
            pair.a
                .session
                .handle_exposed(Memory::Temp(TempId(1)), Ok(descriptor.as_bytes()));
        }),
        state("receiving: refused", small(), |pair| {
            announce(pair, true);
            pair.a.session.consumed(100);
            drain(&mut pair.a.session);
            pair.a.session.handle_allocated(TempId(1), Err(NoBuffers));
        }),
        state("half closed here", small(), |pair| {
            pair.a.session.shutdown_send();
            pair.drive();
        }),
        state("half closed by the peer", small(), |pair| {
            pair.b.session.shutdown_send();
            pair.drive();
        }),
        state("suspended here", small(), |pair| {
            pair.a.session.suspend_send().unwrap();
            pair.drive();
        }),
        state("suspended by the peer", small(), |pair| {
            pair.b.session.suspend_send().unwrap();
            pair.drive();
        }),
        state("suspending while a transfer is open", small(), |pair| {
            pair.b.session.set_direct(true);
            pair.a.send(1000).unwrap();
            pair.a.session.suspend_send().unwrap();
            pair.drive();
        }),
        state("closed here", small(), |pair| {
            let now = pair.now;
            pair.cut = true;
            pair.a.session.close(now);
        }),
        state("closed by the peer", small(), |pair| {
            let now = pair.now;
            pair.b.session.close(now);
            pair.drain();
            pair.choose(0);
        }),
        state("both ended, not finished", small(), |pair| {
            pair.a.session.shutdown_send();
            pair.drive();
            let end = Message::Shutdown {
                send: Some(0),
                receive: false,
                finished: false,
            };
            receive(&mut pair.a.session, &end).unwrap();
        }),
        state("failed", small(), |pair| {
            pair.b.send(10).unwrap();
            pair.drive();
            let now = pair.now;
            pair.a.session.handle_disconnected(now);
        }),
        state("over", small(), |pair| {
            pair.a.session.shutdown_send();
            pair.b.session.shutdown_send();
            pair.drive();
        }),
    ]
}

/// The peer announces 1000 bytes, 100 of them at once.
fn announce(pair: &mut Pair, read: bool) {
    let message = large(0, read);
    receive(&mut pair.a.session, &message).unwrap();
}

fn large(offset: u64, read: bool) -> Message {
    let (transfer, total, initial) = (ONE, 1000, 100);
    if read {
        Message::LargeRead {
            transfer,
            offset,
            total,
            initial,
            descriptor: descriptor(),
        }
    } else {
        Message::LargeWrite {
            transfer,
            offset,
            total,
            initial,
        }
    }
}

fn receive(session: &mut Session, message: &Message) -> Result<Incoming, ProtocolError> {
    let mut bytes = vec![0; 1000];
    // As much credit as before: nothing the peer has not granted is needed.
    let credit = match message {
        Message::Negotiate(_) | Message::Accepted(_) => 12,
        _ => session.granted_to_send(),
    };
    let head = message.encode(VERSION, credit, &mut bytes).unwrap();
    bytes.truncate(head + message.payload_len() as usize);
    let now = Instant(Duration::from_secs(2));
    let result = session.handle_message(now, &bytes);
    session.handle_reposted();
    result
}

type Event = (&'static str, Box<dyn Fn(&mut Session, &[Action]) -> String>);

fn message(name: &'static str, make: impl Fn(&Session) -> Message + 'static) -> Event {
    let event = move |session: &mut Session, _: &[Action]| match receive(session, &make(session)) {
        Ok(Incoming::Control) => String::new(),
        Ok(Incoming::Data {
            queue,
            range,
            is_head,
        }) => {
            format!(
                "{} bytes to {queue:?}{}",
                range.len(),
                if is_head { ", head" } else { "" }
            )
        }
        Ok(Incoming::Urgent { range, mark }) => format!("{} urgent bytes at {mark}", range.len()),
        Ok(Incoming::Returned { range }) => format!("{} bytes back", range.len()),
        Ok(Incoming::Discarded) => "discarded".into(),
        Err(error) => format!("error: {error:?}"),
    };
    (name, Box::new(event))
}

fn event(
    name: &'static str,
    event: impl Fn(&mut Session, &[Action]) -> Option<String> + 'static,
) -> Event {
    let text = move |session: &mut Session, asked: &[Action]| {
        event(session, asked).unwrap_or_else(|| "-".into())
    };
    (name, Box::new(text))
}

fn outcome<T: std::fmt::Debug, E: std::fmt::Debug>(result: Result<T, E>) -> Option<String> {
    Some(match result {
        Ok(_) => String::new(),
        Err(error) => format!("error: {error:?}"),
    })
}

/// The next position of the stream that the peer sends.
fn next(session: &Session) -> u64 {
    session.stats().bytes_received
}

fn events() -> Vec<Event> {
    let late = Instant(Duration::from_secs(5000));
    vec![
        message("Accepted", |_| Message::Accepted(offer())),
        message("Negotiate", |_| Message::Negotiate(offer())),
        message("Negotiate companion", |_| {
            Message::Negotiate(Offer {
                companion: Some(companion()),
                ..offer()
            })
        }),
        message("Data", |s| Message::Data {
            offset: next(s),
            len: 5,
        }),
        message("Data elsewhere", |s| Message::Data {
            offset: next(s) + 1,
            len: 5,
        }),
        message("Data filling", |_| Message::Fill {
            transfer: ONE,
            offset: 100,
            len: 50,
        }),
        message("Urgent", |s| Message::Urgent {
            mark: next(s),
            len: 1,
        }),
        message("LargeRead", |s| large(next(s), true)),
        message("LargeWrite", |s| large(next(s), false)),
        message("ReadDone", |_| Message::ReadDone { transfer: ONE }),
        message("Location", |_| Message::Location {
            transfer: ONE,
            offset: 100,
            len: 400,
            descriptor: descriptor(),
        }),
        message("WriteDone", |_| Message::WriteDone {
            transfer: ONE,
            offset: 100,
            len: 900,
        }),
        message("Refused", |_| Message::Refused {
            transfer: ONE,
            offset: 100,
            len: 300,
        }),
        message("Credit", |_| Message::Credit),
        message("Shutdown send", |s| Message::Shutdown {
            send: Some(next(s)),
            receive: false,
            finished: false,
        }),
        message("Shutdown receive", |_| Message::Shutdown {
            send: None,
            receive: true,
            finished: false,
        }),
        message("Shutdown finished", |_| Message::Shutdown {
            send: None,
            receive: false,
            finished: true,
        }),
        message("Suspend", |s| Message::Suspend { end: next(s) }),
        message("Suspend elsewhere", |s| Message::Suspend {
            end: next(s) + 1,
        }),
        message("Suspended", |s| Message::Suspended { end: next(s) }),
        message("Return", |_| Message::Return {
            offset: 0,
            len: 0,
            leave: false,
            last: true,
            gone: false,
        }),
        message("KeepAlive query", |_| Message::KeepAlive { query: true }),
        message("Reset", |_| Message::Reset {
            reason: ResetReason::Aborted,
        }),
        event("memory: given", |session, asked| {
            answer(session, asked, true)
        }),
        event("memory: refused", |session, asked| {
            answer(session, asked, false)
        }),
        event("RDMA: done", |session, asked| rdma(session, asked, true)),
        event("RDMA: failed", |session, asked| rdma(session, asked, false)),
        event("disconnected", move |session, _| {
            session.handle_disconnected(late);
            Some(String::new())
        }),
        event("time-out", move |session, _| {
            session.poll_timeout()?;
            session.handle_timeout(late);
            session.handle_timeout(late.saturating_add(Duration::from_secs(5000)));
            Some(String::new())
        }),
        event("send small", |session, _| {
            outcome(session.send(SendId(901), 10))
        }),
        event("send large", |session, _| {
            outcome(session.send(SendId(901), 1000))
        }),
        event("send urgent", |session, _| {
            outcome(session.send_urgent(SendId(901), 1))
        }),
        event("read", |session, _| match session.readable() {
            Readable::Bytes { len, .. } | Readable::Temp { len, .. } => {
                session.consumed(len);
                Some(format!("{len} bytes"))
            }
            _ => None,
        }),
        event("pull", |session, _| outcome(session.pull(400))),
        event("shut down sending", |session, _| {
            session.shutdown_send();
            Some(String::new())
        }),
        event("suspend", |session, _| outcome(session.suspend_send())),
        event("companion: accepted", |session, asked| {
            decide(session, asked, true)
        }),
        event("companion: refused", |session, asked| {
            decide(session, asked, false)
        }),
        event("shut down receiving", |session, _| {
            session.shutdown_receive();
            Some(String::new())
        }),
        event("close", move |session, _| {
            session.close(late);
            Some(String::new())
        }),
        event("abort", move |session, _| {
            session.abort(late, ResetReason::Aborted);
            Some(String::new())
        }),
    ]
}

fn offer() -> Offer {
    Offer {
        versions: (1, 1),
        rdma_read: true,
        urgent: true,
        suspend: true,
        returns: false,
        resumes: false,
        receive_buffers: 12,
        receive_buffer_size: 256,
        max_descriptor: 64,
        descriptor_len: 24,
        max_rdma: 1000,
        threshold: 512,
        keep_alive_ms: 0,
        max_large: 4,
        session_id: [0; 16],
        companion: None,
    }
}

fn decide(session: &mut Session, asked: &[Action], accept: bool) -> Option<String> {
    let offered = |action: &Action| matches!(action, Action::CompanionOffered(_));
    asked.iter().any(offered).then(|| {
        session.answer_companion(Instant(Duration::from_secs(2)), accept);
        String::new()
    })
}

/// The driver's answer to the last question about memory.
fn answer(session: &mut Session, asked: &[Action], given: bool) -> Option<String> {
    let result = if given { Ok(()) } else { Err(NoBuffers) };
    asked.iter().rev().find_map(|action| match *action {
        Action::Expose { memory, .. } => {
            let bytes = [3; 24];
            session.handle_exposed(memory, result.map(|()| &bytes[..]));
            Some(String::new())
        }
        Action::Register { memory, .. } => {
            session.handle_registered(memory, result);
            Some(String::new())
        }
        Action::AllocateTemp { temp, .. } => {
            session.handle_allocated(temp, result);
            Some(String::new())
        }
        _ => None,
    })
}

fn rdma(session: &mut Session, asked: &[Action], done: bool) -> Option<String> {
    asked.iter().rev().find_map(|action| match *action {
        Action::RdmaRead { rdma, .. } | Action::RdmaWrite { rdma, .. } => {
            session.handle_rdma_done(rdma, if done { Ok(()) } else { Err(RdmaFailed) });
            Some(String::new())
        }
        _ => None,
    })
}

fn say(action: &Action) -> String {
    match action {
        Action::Message(outgoing) => match outgoing.message() {
            Message::Shutdown {
                send,
                receive,
                finished,
            } => {
                let mut text = String::from("Shutdown(");
                let parts = [
                    (send.is_some(), "send "),
                    (*receive, "receive "),
                    (*finished, "finished "),
                ];
                for (_, part) in parts.iter().filter(|(said, _)| *said) {
                    text.push_str(part);
                }
                format!("{})", text.trim_end())
            }
            Message::Reset { reason } => format!("Reset({reason:?})"),
            Message::Data { len, .. } => format!("Data({len})"),
            Message::Fill { len, .. } => format!("Fill({len})"),
            other => first_word(&format!("{other:?}")),
        },
        Action::SendComplete { result: Ok(()), .. } => "SendComplete".into(),
        Action::SendComplete {
            result: Err(error), ..
        } => format!("SendComplete({error:?})"),
        Action::PullComplete { result: Ok(n), .. } => format!("PullComplete({n})"),
        Action::PullComplete {
            result: Err(error), ..
        } => format!("PullComplete({error:?})"),
        other => first_word(&format!("{other:?}")),
    }
}

/// The actions in order, repeated ones once with their number.
fn list(actions: &[Action]) -> String {
    let said = actions.iter().map(say).collect::<Vec<_>>();
    let runs = said.chunk_by(|a, b| a == b).map(|run| match run.len() {
        1 => run[0].clone(),
        n => format!("{n}x{}", run[0]),
    });
    runs.collect::<Vec<_>>().join(" ")
}

fn first_word(text: &str) -> String {
    text[..text.find([' ', '(']).unwrap_or(text.len())].to_owned()
}

fn render() -> String {
    let mut text = String::from(
        "What one side does, by state and event. Made by proto/tests/snapshot.rs.\n\
         An event that cannot be in a state is left out, one that changes nothing is told as such.\n",
    );
    for State {
        name,
        session,
        asked,
    } in states()
    {
        let pending = list(&asked);
        writeln!(text, "\n== {name}\n   {:?}", session.readable()).unwrap();
        if !pending.is_empty() {
            writeln!(text, "   came here by: {pending}").unwrap();
        }
        for (name, event) in events() {
            let mut after = session.clone();
            let said = event(&mut after, &asked);
            if said == "-" {
                continue;
            }
            let actions = list(&drain(&mut after));
            let mut parts = vec![];
            if !said.is_empty() {
                parts.push(said);
            }
            if !actions.is_empty() {
                parts.push(actions);
            }
            if after.readable() != session.readable() {
                parts.push(format!("now {:?}", after.readable()));
            }
            if parts.is_empty() {
                let same = after.fingerprint() == session.fingerprint();
                parts.push(if same { "nothing" } else { "noted" }.into());
            }
            writeln!(text, "   {name:<20} {}", parts.join(" | ")).unwrap();
        }
    }
    text
}

#[test]
fn every_state_answers_every_event_as_reviewed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/session.txt");
    let text = render();
    if std::env::var_os("WSD_BLESS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots")).unwrap();
        std::fs::write(path, text).unwrap();
        return;
    }
    let reviewed = std::fs::read_to_string(path).unwrap();
    for (number, (old, new)) in reviewed.lines().zip(text.lines()).enumerate() {
        assert_eq!(
            old,
            new,
            "line {}; WSD_BLESS=1 rewrites the file",
            number + 1
        );
    }
    assert_eq!(reviewed.len(), text.len(), "WSD_BLESS=1 rewrites the file");
}

/// No state is without a way out: closing, or losing the connection, ends each of them.
#[test]
fn every_state_has_a_way_out() {
    for State {
        name,
        session,
        asked,
    } in states()
    {
        for close in [true, false] {
            let mut session = session.clone();
            let late = Instant(Duration::from_secs(5000));
            if close {
                session.abort(late, ResetReason::Aborted);
            } else {
                session.handle_disconnected(late);
            }
            let mut open = asked.clone();
            for _ in 0..100 {
                open.extend(drain(&mut session));
                // The provider flushes what is pending, the driver answers what is open.
                let Some(action) = open.pop() else { break };
                answer(&mut session, core::slice::from_ref(&action), true);
                rdma(&mut session, core::slice::from_ref(&action), false);
            }
            assert!(session.is_finished(), "{name}, {close}");
            assert!(session.is_disconnected());
        }
    }
}
