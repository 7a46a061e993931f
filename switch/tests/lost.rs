//! The SAN of an upgraded connection is lost: both ends go on over TCP, with every byte, each once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    unused_qualifications
)]

#[path = "companion/ends.rs"]
mod ends;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ends::{End, Numbers, bytes, check, fill, pair, to_and_fro, until, upgrade, upgraded};
use wsd_switch::companion::{Path, Reason};

/// Who finds the loss first.
fn cut(one: &End, two: &End, who: usize) {
    if who != 1 {
        one.companion.cut_san();
    }
    if who != 0 {
        two.companion.cut_san();
    }
}

fn both_on_tcp(one: &End, two: &End) {
    until("both go on over TCP", || {
        one.companion.refresh();
        two.companion.refresh();
        one.companion.on_kernel() && two.companion.on_kernel()
    });
}

#[test]
fn an_idle_connection_goes_on_over_tcp_and_may_be_upgraded_again() {
    for who in 0..3 {
        let (one, two) = upgraded();
        cut(&one, &two, who);
        both_on_tcp(&one, &two);
        for end in [&one, &two] {
            assert_eq!(end.companion.reason(), Reason::SanError);
            assert_eq!(end.companion.snapshot().downgrades, 1);
        }
        one.send_all(b"there").unwrap();
        let mut room = [0; 5];
        two.receive_exactly(&mut room).unwrap();
        assert_eq!(&room, b"there");
        two.send_all(b"again").unwrap();
        one.receive_exactly(&mut room).unwrap();
        assert_eq!(&room, b"again");
        upgrade(&one, &two);
        assert_eq!(one.companion.snapshot().upgrades, 2);
    }
}

// req: COMP-04
#[test]
fn what_was_sent_and_not_received_comes_over_tcp() {
    for who in 0..3 {
        for len in [1, 700, 40_000, 700_000] {
            let (one, two) = upgraded();
            let (theirs, ours) = (bytes(1, len), bytes(2, len));
            one.send_all(&theirs).unwrap();
            two.send_all(&ours).unwrap();
            cut(&one, &two, who);
            for (end, expected) in [(&one, &ours), (&two, &theirs)] {
                let mut room = vec![0; len];
                end.receive_exactly(&mut room).unwrap();
                assert!(room == *expected, "{who} {len}");
            }
            both_on_tcp(&one, &two);
            one.shut();
            two.shut();
            assert_eq!(one.receive(&mut [0; 9], 0).unwrap(), 0);
            assert_eq!(two.receive(&mut [0; 9], 0).unwrap(), 0);
        }
    }
}

/// What tells an end that its peer has gone over lies where it never reads.
#[test]
fn an_end_that_only_sends_goes_on_as_well() {
    for who in 0..3 {
        let (one, two) = pair();
        let mut sent = 0;
        let (mut bytes, mut room) = ([0; 2048], [0; 2048]);
        let mut send = |count: usize| {
            for _ in 0..count {
                fill(4, sent, &mut bytes);
                one.send_all(&bytes).unwrap();
                two.receive_exactly(&mut room).unwrap();
                check(4, sent, &room);
                sent += bytes.len();
            }
        };
        until("its stream goes over the SAN", || {
            send(1);
            one.companion.snapshot().sent_san > 100_000 && two.is_san()
        });
        cut(&one, &two, who);
        send(100);
        for end in [&one, &two] {
            assert!(end.companion.snapshot().downgrades > 0);
        }
        one.shut();
        assert_eq!(two.receive(&mut room, 0).unwrap(), 0);
    }
}

#[test]
fn after_three_losses_the_kernel_keeps_the_connection() {
    let (one, two) = pair();
    for round in 0..3 {
        upgrade(&one, &two);
        cut(&one, &two, round);
        both_on_tcp(&one, &two);
    }
    to_and_fro(&one, &two, 1, 300);
    assert_eq!(one.companion.path(), Path::Tcp);
    assert_eq!(one.companion.reason(), Reason::Sticky);
    assert_eq!(one.companion.snapshot().upgrades, 3);
}

/// An urgent byte that was sent after both have gone on over TCP is no matter of the SAN's.
#[test]
fn an_urgent_byte_that_may_be_missing_is_an_error_and_no_hole() {
    let (one, two) = upgraded();
    two.companion.cut_san();
    let sent = one.send(b"x!", libc::MSG_OOB);
    let sent = sent.and_then(|_| one.send_all(b"."));
    let mut room = [0; 2];
    match two.receive_exactly(&mut room) {
        Ok(()) => {
            assert_eq!(&room, b"x.");
            sent.unwrap();
            assert_eq!(one.companion.path(), Path::Tcp);
        }
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET)),
    }
}

/// Receives until the error or the end: what comes is right, and the end is at the end only.
fn whole_or_reset(end: &End, expected: &[u8]) -> bool {
    let mut room = vec![0; 100_000];
    let mut done = 0;
    loop {
        match end.receive(&mut room, 0) {
            Ok(0) => {
                assert_eq!(done, expected.len(), "{:?}", end.companion.snapshot());
                return true;
            }
            Ok(count) => {
                assert!(expected[done..].starts_with(&room[..count]), "at {done}");
                done += count;
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
                assert_eq!(end.companion.reason(), Reason::SanError);
                return false;
            }
        }
    }
}

/// A stream that has an end already does not go on elsewhere, and does not end early.
#[test]
fn a_half_closed_connection_is_reset_unless_all_has_arrived() {
    for who in 0..3 {
        for both in [false, true] {
            let (one, two) = upgraded();
            let (theirs, ours) = (bytes(5, 700_000), bytes(6, 90_000));
            one.send_all(&theirs).unwrap();
            two.send_all(&ours).unwrap();
            one.shut();
            if both {
                two.shut();
            }
            cut(&one, &two, who);
            let got = whole_or_reset(&two, &theirs);
            let back = whole_or_reset(&one, &ours);
            assert!(both || !back, "{who} {got} {back}");
        }
    }
}

/// Nobody else can be given what arrived over a SAN that is gone.
#[test]
fn what_was_not_read_keeps_the_connection_from_going_to_somebody_else() {
    let (one, two) = upgraded();
    one.send_all(&[3; 1000]).unwrap();
    until("it is there", || {
        two.companion.refresh() & libc::POLLIN != 0
    });
    cut(&one, &two, 2);
    let error = two.companion.downgrade(two.fd(), Reason::Exec).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let error = one.receive(&mut [0], 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
}

/// The other end is at another point: it has taken the connection back, or is about to.
#[test]
fn an_end_that_goes_back_does_not_resume_and_says_so() {
    for first in 0..2 {
        let ends: [End; 2] = upgraded().into();
        let (goes, stays) = (&ends[first], &ends[1 - first]);
        stays.companion.cut_san();
        // Nobody there has noticed yet, perhaps.
        let went = goes.companion.downgrade(goes.fd(), Reason::Asked);
        let said = goes.send(b"x", 0).and_then(|_| stays.receive(&mut [0], 0));
        match went {
            Ok(()) => assert_eq!(said.unwrap(), 1),
            Err(_) => {
                let code = said.unwrap_err().raw_os_error();
                assert!(
                    matches!(code, Some(libc::ECONNRESET | libc::EPIPE)),
                    "{code:?}"
                );
            }
        }
    }
}

/// Nobody calls any more when it is sent again.
#[test]
fn a_close_after_the_loss_delivers_what_was_sent() {
    for who in [0, 2] {
        let (one, two) = upgraded();
        let sent = bytes(7, 900_000);
        one.send_all(&sent).unwrap();
        cut(&one, &two, who);
        drop(one);
        let mut room = vec![0; sent.len()];
        two.receive_exactly(&mut room).unwrap();
        assert!(room == sent);
        assert_eq!(two.receive(&mut [0], 0).unwrap(), 0);
    }
}

/// TCP is gone, too: what has arrived, then the error.
#[test]
fn without_tcp_it_is_an_error_after_what_has_arrived() {
    let (one, two) = upgraded();
    one.send_all(&[3; 1000]).unwrap();
    until("it is there", || {
        two.companion.refresh() & libc::POLLIN != 0
    });
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let (socket, option) = (libc::SOL_SOCKET, libc::SO_LINGER);
    let (place, len) = (
        (&raw const linger).cast(),
        size_of_val(&linger) as libc::socklen_t,
    );
    // SAFETY: a structure of this frame, as long as it is said to be.
    let set = unsafe { libc::setsockopt(one.fd(), socket, option, place, len) };
    assert_eq!(set, 0);
    drop(one);
    let mut room = [0; 1000];
    let got = two.receive_exactly(&mut room);
    assert!(got.is_err() || room == [3; 1000]);
    let error = match got {
        Ok(()) => two.receive(&mut room, 0).unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
}

/// A downgrade and a loss at once: every byte, or, in the moment in which nobody can know better,
/// an error at both ends.
#[test]
fn a_loss_in_the_middle_of_a_downgrade_loses_nothing_silently() {
    for round in 0..60 {
        let (one, two) = upgraded();
        let (theirs, ours) = (bytes(8, 60_000), bytes(9, 60_000));
        one.send_all(&theirs).unwrap();
        two.send_all(&ours).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| drop(one.companion.downgrade(one.fd(), Reason::Asked)));
            for _ in 0..round * 40 {
                std::hint::spin_loop();
            }
            cut(&one, &two, round % 3);
        });
        let read = |end: &End, expected: &[u8]| {
            let mut room = vec![0; expected.len()];
            let mut done = 0;
            while done < room.len() {
                match end.receive(&mut room[done..], 0) {
                    Ok(0) => panic!("an end: {:?}", [&one, &two].map(|e| e.companion.snapshot())),
                    Ok(count) => done += count,
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
                        break;
                    }
                }
                assert!(room[..done] == expected[..done], "round {round}");
            }
        };
        read(&one, &ours);
        read(&two, &theirs);
    }
}

/// When the SAN is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// When both directions are on it, and nobody ends anything.
    Settled,
    Any,
}

/// How much is sent at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sizes {
    /// In messages only.
    Small,
    /// By RDMA only, but for the end.
    Large,
    /// Messages overtake RDMA. Too many of them, and they cannot be sent again.
    Mixed,
}

fn is_over(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ECONNRESET | libc::EPIPE))
}

fn send_stream(
    end: &End,
    seed: u64,
    total: usize,
    sizes: Sizes,
    numbers: &mut Numbers,
) -> std::io::Result<()> {
    let mut sent = 0;
    let mut buffer = vec![0; 400_000];
    while sent < total {
        let (least, most) = match sizes {
            Sizes::Small => (1, [10, 1000, 20_000, 30_000][numbers.below(4)]),
            Sizes::Large => (300_000, 100_000),
            Sizes::Mixed => (1, [10, 1000, 20_000, 400_000][numbers.below(4)]),
        };
        let len = (least + numbers.below(most)).min(total - sent);
        fill(seed, sent, &mut buffer[..len]);
        end.send_all(&buffer[..len])?;
        sent += len;
    }
    Ok(())
}

fn receive_stream(
    end: &End,
    seed: u64,
    total: usize,
    progress: &AtomicUsize,
    numbers: &mut Numbers,
) -> std::io::Result<()> {
    let mut received = 0;
    let mut buffer = vec![0; 300_000];
    while received < total {
        let most = [10, 3000, 300_000][numbers.below(3)];
        let len = 1 + numbers.below(most);
        let count = end.receive(&mut buffer[..len], 0)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        check(seed, received, &buffer[..count]);
        received += count;
        progress.fetch_add(count, Ordering::Relaxed);
        if numbers.below(8) == 0 {
            thread::sleep(Duration::from_micros(numbers.below(400) as u64));
        }
    }
    Ok(())
}

/// Cuts at random places of the stream. How often.
fn cut_often(
    (one, two): (&End, &End),
    moment: Moment,
    total: usize,
    (progress, over): (&AtomicUsize, &AtomicBool),
    numbers: &mut Numbers,
) -> usize {
    let mut cuts = 0;
    for _ in 0..1 + numbers.below(4) {
        let at = numbers.below(total);
        let is_due = || progress.load(Ordering::Relaxed) >= at;
        let settled = || moment == Moment::Any || (one.is_san() && two.is_san());
        while !(over.load(Ordering::Relaxed) || is_due() && settled()) {
            thread::sleep(Duration::from_micros(20));
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
        let who = numbers.below(3);
        cut(one, two, who);
        cuts += 1;
        // Until it is found there is nothing to be lost again.
        let san = |end: &End| end.companion.snapshot().session.is_some();
        while moment == Moment::Settled
            && one.is_san()
            && two.is_san()
            && san(one)
            && san(two)
            && !over.load(Ordering::Relaxed)
        {
            one.companion.refresh();
            two.companion.refresh();
            thread::sleep(Duration::from_micros(20));
        }
    }
    cuts
}

/// One exchange with losses. Times that it went back, or `None` if it was reset.
fn exchange(seed: u64, moment: Moment, sizes: Sizes) -> Option<u32> {
    let numbers = &mut Numbers(seed.wrapping_mul(1_000_003) | 1);
    let fresh = numbers.below(3) == 0;
    let (one, two) = if fresh { pair() } else { upgraded() };
    let total = [3_000, 100_000, 3_000_000][numbers.below(3)];
    let doubtful = if seed.is_multiple_of(5) {
        ends::DOUBTFUL
    } else {
        0
    };
    let streams = (doubtful + 11, doubtful + 22);
    let mut five: Vec<Numbers> = (0..5).map(|_| Numbers(numbers.next() | 1)).collect();
    let mut next = || five.pop().unwrap();
    let (mut a, mut b, mut c, mut d, mut e) = (next(), next(), next(), next(), next());
    let (progress, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results = thread::scope(|scope| {
        let (one, two, progress, over) = (&one, &two, &progress, &over);
        let (up, down) = streams;
        let threads = [
            scope.spawn(move || send_stream(one, up, total, sizes, &mut a)),
            scope.spawn(move || send_stream(two, down, total, sizes, &mut b)),
            scope.spawn(move || receive_stream(one, down, total, progress, &mut c)),
            scope.spawn(move || receive_stream(two, up, total, progress, &mut d)),
        ];
        let cutter =
            scope.spawn(move || cut_often((one, two), moment, 2 * total, (progress, over), &mut e));
        let results = threads.map(|thread| thread.join());
        over.store(true, Ordering::Relaxed);
        cutter.join().unwrap();
        results.map(|result| result.expect("see above"))
    });
    let [sent_one, sent_two, received_one, received_two] = &results;
    for (sent, received) in [(sent_one, received_one), (sent_two, received_two)] {
        for result in [sent, received] {
            let Err(error) = result else { continue };
            let may_fail = moment == Moment::Any || sizes == Sizes::Mixed;
            assert!(may_fail, "seed {seed}: {results:?}");
            // As with TCP a reset is told once: if the sender has heard of it, the receiver's is an end.
            let end = error.kind() == std::io::ErrorKind::UnexpectedEof && sent.is_err();
            assert!(is_over(error) || end, "seed {seed}: {results:?}");
        }
    }
    if results.iter().any(Result::is_err) {
        return None;
    }
    let went_back = one.companion.snapshot().downgrades + two.companion.snapshot().downgrades;
    if moment == Moment::Settled {
        // What was cut last may be noticed at the very end.
        for end in [&one, &two] {
            until("the last loss is dealt with", || {
                end.companion.refresh();
                end.is_san() || end.companion.on_kernel()
            });
        }
    }
    Some(went_back)
}

fn exchanges(moment: Moment, sizes: Sizes, rounds: u64) -> (u32, u64) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let rounds = number("WSD_TEST_ROUNDS").unwrap_or(rounds);
    let start = number("WSD_TEST_SEED").unwrap_or(1);
    let (mut losses, mut whole) = (0, 0);
    for seed in start.. {
        // On a busy machine some exchanges are over before anything was lost.
        let most = if losses > 0 { rounds } else { 10 * rounds };
        if seed - start >= most {
            break;
        }
        if let Some(count) = exchange(seed, moment, sizes) {
            losses += count;
            whole += 1;
        }
    }
    (losses, whole)
}

// req: COMP-04
#[test]
fn random_messages_on_a_san_that_is_lost_all_arrive_once() {
    let (losses, _) = exchanges(Moment::Settled, Sizes::Small, 12);
    assert!(losses > 0);
}

#[test]
fn large_sends_on_a_san_that_is_lost_all_arrive_once() {
    let (losses, _) = exchanges(Moment::Settled, Sizes::Large, 12);
    assert!(losses > 0);
}

/// Messages that arrived behind a large send that has not cannot be counted, nor sent again once
/// their buffers were used again: that is an error, and nothing but that.
#[test]
fn small_and_large_sends_on_a_san_that_is_lost_never_make_a_byte_wrong() {
    let (_, whole) = exchanges(Moment::Settled, Sizes::Mixed, 12);
    assert!(whole > 0);
}

/// In the middle of a change of path the loss may be an error, and nothing but that.
#[test]
fn a_loss_at_any_moment_of_a_random_exchange_never_makes_a_byte_wrong() {
    let (_, whole) = exchanges(Moment::Any, Sizes::Mixed, 12);
    assert!(whole > 0);
}
