//! The fabric over two devices with a link between them that can be cut: run with `--ignored` as root
//! in the guest of `scripts/rdma-vm --second`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::queue::WITHOUT_FENCE;
use super::tests::mishaps::resources;
use super::tests::{NEEDS, address, expose, fabric, read, write};
use crate::fabric::soft::tests::rig::{End, Host, Memory, Rig, free_address, number, until};
use crate::fabric::{Access, Ending, Key, OpId, Outcome, Post, PostError, Posted, Token};

/// Longer than a device needs to give up, with the silence before it is asked.
const NOTICE: Duration = Duration::from_secs(30);

/// What the guest calls the interface of the second device.
fn cable() -> String {
    std::env::var("WSD_VM_PEER_NETDEV").expect("a guest with two devices")
}

fn run(command: &[&str]) {
    let done = Command::new(command[0]).args(&command[1..]).output();
    let done = done.unwrap();
    assert!(done.status.success(), "{command:?}: {done:?}");
}

/// Loses so many of a hundred packets that the second device sends, until dropped.
struct Losing(String);

impl Losing {
    fn some(percent: &str) -> Self {
        Self::slowly(percent, "0ms")
    }

    /// As `some`, and the others take so long.
    fn slowly(percent: &str, delay: &str) -> Self {
        let cable = cable();
        run(&[
            "tc", "qdisc", "add", "dev", &cable, "root", "netem", "delay", delay, "loss", percent,
        ]);
        Self(cable)
    }
}

impl Drop for Losing {
    fn drop(&mut self) {
        run(&["tc", "qdisc", "del", "dev", &self.0, "root"]);
    }
}

/// A listener on the second device.
fn far() -> Rig {
    Rig::over(
        Host::over(fabric()),
        &std::env::var("WSD_VM_PEER").expect(NEEDS),
    )
}

/// The accepted end, on the second device, and the connecting one on the first.
fn pair(rig: &mut Rig) -> (End, End) {
    let (there, here) = (Token(number()), Token(number()));
    let from = free_address(&address());
    let connecting = rig.host.fabric.connect(here, from, rig.at).unwrap();
    let request = rig.host.request(rig.listening);
    let accepted = request.accept(there).unwrap();
    rig.host.connected(here).unwrap();
    rig.host.settled(&*accepted);
    (End::new(there, accepted), End::new(here, connecting))
}

fn endings(rig: &mut Rig, ends: [&mut End; 2]) -> Vec<Ending> {
    let begun = Instant::now();
    let found = ends.map(|end| {
        until("the end", || {
            rig.host.poll();
            end.poll();
            end.endpoint.ending()
        })
    });
    assert!(begun.elapsed() < NOTICE);
    found.to_vec()
}

#[test]
#[ignore = "needs two RDMA devices"]
fn a_peer_that_falls_silent_is_noticed_by_whoever_waits_for_it() {
    // req: WSD-11
    let mut rig = far();
    let before = resources();
    let (mut a, mut b) = pair(&mut rig);
    a.send(b"hello").unwrap();
    assert_eq!(b.take(), b"hello");
    let waiting = [a.receive(0, 10), b.receive(0, 10)];
    let _cut = Losing::some("100%");
    assert_eq!(endings(&mut rig, [&mut a, &mut b]), [Ending::Broken; 2]);
    assert_eq!(a.end(waiting[0]), Outcome::Flushed(Ending::Broken));
    assert_eq!(b.end(waiting[1]), Outcome::Flushed(Ending::Broken));
    assert!(resources()["qp"] > before["qp"]);
    drop((a, b));
    given_back(&mut rig, &before);
}

/// The process goes on, and has nothing any more of connections that have ended.
fn given_back(rig: &mut Rig, before: &BTreeMap<&'static str, usize>) {
    until("everything to be given back", || {
        rig.host.poll();
        (resources() == *before).then_some(())
    });
}

const ROLE: &str = "WSD_TEST_ROLE";
const AT: &str = "WSD_TEST_AT";
/// Fewer than a queue takes, and not such that the device reports the last one.
const MESSAGES: u8 = 200;

#[test]
#[ignore = "needs two RDMA devices"]
fn messages_that_were_reported_as_sent_arrive_although_their_process_has_ended() {
    // req: WSD-11
    for role in ["exit", "close and exit"] {
        let mut rig = Rig::over(Host::over(fabric()), &address());
        let mut child = Other(in_role(role).env(AT, rig.at.to_string()).spawn().unwrap());
        let there = Token(number());
        let request = rig.host.request(rig.listening);
        let accepted = request.accept(there).unwrap();
        rig.host.settled(&*accepted);
        let mut end = End::new(there, accepted);
        let _losing = Losing::slowly("5%", "10ms");
        end.send(b"go").unwrap();
        for byte in 0..MESSAGES {
            assert_eq!(end.take(), [byte; 100], "{role}");
        }
        let ended = until("the end of the child", || child.0.try_wait().unwrap());
        assert!(ended.success(), "{role}");
    }
}

#[test]
#[ignore = "needs two RDMA devices"]
fn an_answer_is_not_taken_back_by_the_end_of_the_process_that_gave_it() {
    // req: WSD-07
    for role in ["accept and exit", "accept, close and exit"] {
        let _slow = Losing::slowly("0%", "50ms");
        let mut child = Other(in_role(role).stdout(Stdio::piped()).spawn().unwrap());
        let said = BufReader::new(child.0.stdout.take().unwrap());
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                drop(tell.send(line));
            }
        });
        let mut host = Host::over(fabric());
        let hear = |host: &mut Host, word: &str| {
            until("a word of the child", || {
                host.poll();
                let line = told.try_recv().ok()?;
                Some(line.split_once(word)?.1.to_owned())
            })
        };
        let at = hear(&mut host, "listens at ").parse().unwrap();
        let token = Token(number());
        let from = free_address(&address());
        let _connecting = host.fabric.connect(token, from, at).unwrap();
        hear(&mut host, "accepted");
        // Who is slow to take the answer gets it nevertheless.
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(host.connected(token), Ok(()), "{role}");
        let ended = until("the end of the child", || {
            host.poll();
            child.0.try_wait().unwrap()
        });
        assert!(ended.success(), "{role}");
    }
}

/// This program in a new process, which plays that role.
fn in_role(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .arg("fabric::verbs::links::role_of_a_process_that_ends")
        .env(ROLE, role);
    command
}

/// A child process that does not outlive the test.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Not a test of its own: what the child does, by the second device.
#[test]
#[ignore = "needs two RDMA devices"]
fn role_of_a_process_that_ends() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    match role.as_str() {
        "accept and exit" => accept(false),
        "accept, close and exit" => accept(true),
        "exit" => send(false),
        "close and exit" => send(true),
        other => panic!("no role {other}"),
    }
}

/// Ends the process while the fabric is open.
fn accept(closes: bool) -> ! {
    let mut rig = far();
    println!("listens at {}", rig.at);
    let request = rig.host.request(rig.listening);
    let accepted = request.accept(Token(number())).unwrap();
    println!("accepted");
    if closes {
        drop(accepted);
    }
    std::process::exit(0);
}

/// Ends the process while the fabric is open.
fn send(closes: bool) -> ! {
    let at = std::env::var(AT).unwrap().parse().unwrap();
    let from = free_address(&std::env::var("WSD_VM_PEER").expect(NEEDS));
    let mut host = Host::over(fabric());
    let token = Token(number());
    let endpoint = host.fabric.connect(token, from, at).unwrap();
    host.connected(token).unwrap();
    let mut end = End::new(token, endpoint);
    assert_eq!(end.take(), b"go");
    for byte in 0..MESSAGES {
        let (_, posted) = end.send(&[byte; 100]).unwrap();
        assert_eq!(posted, Posted::Done(100));
    }
    if closes {
        drop(end);
    }
    std::process::exit(0);
}

#[test]
#[ignore = "needs two RDMA devices"]
fn the_last_connection_of_a_port_that_goes_down_ends_every_operation_once() {
    // req: WSD-11
    let mut rig = far();
    let before = resources();
    let (mut a, mut b) = pair(&mut rig);
    let memory = vec![1_u8; 4 << 20];
    let (_key, descriptor) = expose(&b, &memory, Access::READ | Access::WRITE);
    let cable = cable();
    let waiting = a.receive(0, 10);
    run(&["ip", "link", "set", &cable, "down"]);
    let reading = read(&a, 1000, &descriptor, 0);
    let writing = write(&a, 1000, &descriptor, 0);
    let sending = a.send(b"x");
    assert_eq!(endings(&mut rig, [&mut a, &mut b]), [Ending::Broken; 2]);
    for started in [reading, writing, sending] {
        match started {
            Ok(op) => assert_eq!(a.end(op), Outcome::Flushed(Ending::Broken)),
            Err(error) => assert_eq!(error, PostError::Ended(Ending::Broken)),
        }
    }
    assert_eq!(a.end(waiting), Outcome::Flushed(Ending::Broken));
    a.poll();
    assert!(a.completions.is_empty(), "each ended once");
    // Whatever is started afterwards says why not.
    assert_eq!(a.send(b"x"), Err(PostError::Ended(Ending::Broken)));
    let late = read(&a, 10, &descriptor, 0);
    assert_eq!(late, Err(PostError::Ended(Ending::Broken)));
    let late = write(&a, 10, &descriptor, 0);
    assert_eq!(late, Err(PostError::Ended(Ending::Broken)));
    let late = a.endpoint.post(Post::Receive {
        op: OpId(number()),
        pieces: &[a.inward.piece(0, 10)],
    });
    assert_eq!(late, Err(PostError::Ended(Ending::Broken)));
    drop((a, b));
    given_back(&mut rig, &before);
    // No connection comes about over this port again: soft-RoCE loses the queue pair of its
    // connection management when that has to send while the port is down.
    run(&["ip", "link", "set", &cable, "up"]);
}

#[test]
#[ignore = "needs two RDMA devices"]
fn a_listener_outlives_a_port_that_was_down_for_a_while() {
    let mut rig = far();
    drop(pair(&mut rig));
    // Until that is over; see below.
    std::thread::sleep(Duration::from_secs(1));
    rig.host.poll();
    let (cable, near, far) = (cable(), address(), rig.at.ip());
    let served = |rig: &Rig| rig.host.fabric.addresses().contains(&far);
    assert!(served(&rig));
    run(&["ip", "link", "set", &cable, "down"]);
    std::thread::sleep(Duration::from_secs(1));
    rig.host.poll();
    run(&["ip", "link", "set", &cable, "up"]);
    // The kernel forgets what was routed over it; that between two interfaces of one host is no
    // ordinary route, which would come back by itself.
    let far_ip = far.to_string();
    run(&[
        "ip", "route", "replace", &near, "dev", &cable, "src", &far_ip, "table", "101",
    ]);
    until("the address to be served again", || {
        rig.host.poll();
        served(&rig).then_some(())
    });
    let (mut a, mut b) = pair(&mut rig);
    a.send(b"again").unwrap();
    assert_eq!(b.take(), b"again");
}

/// A connection over which one end reads what the other one exposes.
struct Lane {
    owner: End,
    reader: End,
    memory: Vec<u8>,
    round: Option<Round>,
}

/// What of a round has yet to end.
struct Round {
    byte: u8,
    key: Key,
    told: Option<OpId>,
    reading: Option<OpId>,
    sent: Option<OpId>,
}

/// How long a round may take on a slow machine, whatever is lost.
const ROUND_PATIENCE: Duration = Duration::from_secs(60);

impl Lane {
    /// Several packets, of which any may be lost.
    const LEN: usize = 20_000;

    fn new(rig: &mut Rig) -> Self {
        let (there, here) = (Token(number()), Token(number()));
        let from = free_address(&address());
        let reader = rig.host.fabric.connect(here, from, rig.at).unwrap();
        let owner = rig.host.request(rig.listening).accept(there).unwrap();
        rig.host.connected(here).unwrap();
        rig.host.settled(&*owner);
        let reader = End {
            out: Memory::new(&*reader, 10, Access::READ),
            inward: Memory::new(&*reader, Self::LEN, Access::WRITE),
            ..End::small(here, reader)
        };
        Self {
            owner: End::small(there, owner),
            reader,
            memory: vec![0; Self::LEN],
            round: None,
        }
    }

    /// Reads, and says "done" without waiting for that.
    fn begin(&mut self, round: usize) {
        let byte = u8::try_from(round % 200).unwrap() + 1;
        self.memory.fill(byte);
        let (key, descriptor) = expose(&self.owner, &self.memory, Access::READ);
        let (told, posted) = self.owner.receive(0, 10);
        assert_eq!(posted, Posted::Pending);
        self.reader.inward.bytes.fill(0);
        let (reading, _) = read(&self.reader, Self::LEN, &descriptor, 0).unwrap();
        let (sent, posted) = self.reader.send(b"done").unwrap();
        self.round = Some(Round {
            byte,
            key,
            told: Some(told),
            reading: Some(reading),
            sent: (posted == Posted::Pending).then_some(sent),
        });
    }

    /// Looks once; whether the round has gone well, when it is over.
    fn turn(&mut self) -> Option<bool> {
        let round = self.round.as_mut()?;
        if let Some(outcome) = round.told.and_then(|op| self.owner.outcome(op)) {
            if outcome != Outcome::Done(4) {
                return Some(false);
            }
            // The memory is taken back, and used for something else.
            self.owner.endpoint.conceal(round.key).unwrap();
            self.memory.fill(0xDD);
            round.told = None;
        }
        if let Some(outcome) = round.reading.and_then(|op| self.reader.outcome(op)) {
            let right = *self.reader.inward.bytes == [round.byte; Self::LEN];
            if outcome != Outcome::Done(Self::LEN) || !right {
                return Some(false);
            }
            round.reading = None;
        }
        if let Some(outcome) = round.sent.and_then(|op| self.reader.outcome(op)) {
            if outcome != Outcome::Done(4) {
                return Some(false);
            }
            round.sent = None;
        }
        let over = round.told.is_none() && round.reading.is_none() && round.sent.is_none();
        over.then(|| {
            self.round = None;
            true
        })
    }
}

/// How many rounds went well before one did not, over several connections at once.
fn read_then_send(rounds: usize) -> usize {
    let mut rig = far();
    let mut lanes: Vec<_> = (0..16).map(|_| Lane::new(&mut rig)).collect();
    // What was lost is asked for again when its successors have come. By then the owner, who may be
    // kept from running, is to have taken its memory back.
    let _losing = Losing::slowly("2%", "20ms");
    let (mut begun, mut good) = (0, 0);
    let mut moved = Instant::now();
    while good < rounds {
        rig.host.poll();
        for lane in &mut lanes {
            if lane.round.is_none() && begun < rounds {
                lane.begin(begun);
                begun += 1;
            }
            match lane.turn() {
                None => {}
                Some(true) => {
                    good += 1;
                    moved = Instant::now();
                }
                Some(false) => return good,
            }
        }
        assert!(moved.elapsed() < ROUND_PATIENCE, "stuck after {good}");
    }
    good
}

#[test]
#[ignore = "needs two RDMA devices"]
fn a_send_stays_behind_a_read_whose_answer_is_lost_and_only_because_it_is_fenced() {
    // req: WSD-14
    let rounds = std::env::var("WSD_TEST_ROUNDS");
    let rounds = 10 * rounds.map_or(400, |text| text.parse::<usize>().unwrap());
    assert_eq!(read_then_send(rounds), rounds);
    println!("rounds: {rounds}");
    WITHOUT_FENCE.store(true, Ordering::Relaxed);
    let unfenced = read_then_send(rounds);
    WITHOUT_FENCE.store(false, Ordering::Relaxed);
    assert!(unfenced < rounds, "nothing was to be seen of the fence");
}
