//! One end of a companion alone, between a kernel's connection and a session within this process:
//! what it does when the other end resets, is lost, or speaks another version.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use libc::c_int;

use super::data::finished;
use super::marker::{MARKER, marker};
use super::state::{BETWEEN, BROKEN, Direction, GUARDED, KERNEL, SAN, Stage};
use super::{Companion, Reason, Role, kernel};
use crate::conn::{Connection, News};

fn kernel_pair() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let one = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (one, listener.accept().unwrap().0)
}

/// With a session that carries everything.
fn up(tcp: &std::net::TcpStream) -> Arc<Companion> {
    let companion = Companion::new(std::os::fd::AsFd::as_fd(tcp), Role::Accepted).unwrap();
    let mut core = companion.core.lock();
    core.stage = Stage::Up;
    core.tcp = Some(kernel::duplicate(tcp.as_raw_fd()).unwrap());
    core.connection = Some(crate::conn::tests::pair().0);
    drop(core);
    companion.rx_to(SAN);
    companion.tx.phase.store(SAN, Ordering::SeqCst);
    companion
}

#[test]
fn a_session_is_not_taken_for_the_next_one() {
    let (tcp, _peer) = kernel_pair();
    let companion = up(&tcp);
    let first = companion.connection().unwrap();
    let carries = |direction: &Direction, one: &Arc<Connection>| {
        let carrier = companion.carrier(direction);
        carrier.is_some_and(|carrier| Arc::ptr_eq(&carrier, one))
    };
    assert!(carries(&companion.rx, &first) && carries(&companion.tx, &first));
    // There is a session, and it does not carry this direction yet.
    companion.rx_to(GUARDED);
    assert!(companion.carrier(&companion.rx).is_none());
    companion.rx_to(SAN);
    let second = crate::conn::tests::pair().0;
    companion.core.lock().connection = Some(Arc::clone(&second));
    let over = News {
        suspending: true,
        suspended: true,
        ..News::default()
    };
    let phases = || (companion.rx.phase(), companion.tx.phase());
    companion.heed(&first, over);
    assert_eq!(phases(), (SAN, SAN));
    assert!(carries(&companion.rx, &second));
    companion.heed(&second, over);
    assert_ne!(companion.rx.phase(), SAN);
    assert_ne!(companion.tx.phase(), SAN);
}

#[test]
fn a_reset_that_only_the_rest_of_a_marker_has_met_is_told_by_the_next_calls() {
    let (tcp, peer) = kernel_pair();
    let companion = up(&tcp);
    {
        let mut core = companion.core.lock();
        core.marker_out = marker([5; 16]).to_vec();
        companion.tx.phase.store(BETWEEN, Ordering::SeqCst);
        kernel::linger_zero(peer.as_raw_fd());
        drop(peer);
        companion.write_marker(&mut core);
        assert!(!core.owes());
    }
    // The kernel itself says that all is well: it has told already.
    let phases = (companion.rx.phase(), companion.tx.phase());
    assert_eq!(phases, (BROKEN, BROKEN));
    assert!(!companion.reset_told.load(Ordering::SeqCst));
    assert_eq!(companion.reason(), Reason::SanError);
}

#[test]
fn an_end_found_by_a_call_while_it_was_broken_off_is_not_the_end() {
    let (tcp, _peer) = kernel_pair();
    let companion = Companion::new(std::os::fd::AsFd::as_fd(&tcp), Role::Accepted).unwrap();
    let call = companion.begin_receive(tcp.as_raw_fd()).unwrap();
    companion.core.lock().tcp = Some(kernel::duplicate(tcp.as_raw_fd()).unwrap());
    companion.break_off(&mut companion.core.lock());
    assert_eq!(finished(call, 0), None);
    // The next call tells.
    assert!(!companion.reset_told.load(Ordering::SeqCst));
}

#[test]
fn an_end_is_none_while_somebody_has_just_heard_of_a_reset() {
    let (tcp, _peer) = kernel_pair();
    let companion = up(&tcp);
    companion.rx_to(KERNEL);
    let (tell, begun) = std::sync::mpsc::channel();
    let mut core = companion.core.lock();
    let receive = || {
        let call = companion.begin_receive(tcp.as_raw_fd()).unwrap();
        tell.send(()).unwrap();
        finished(call, 0)
    };
    std::thread::scope(|scope| {
        let call = scope.spawn(receive);
        begun.recv().unwrap();
        // Long enough for the call to be over if nothing held it up.
        std::thread::sleep(Duration::from_millis(20));
        companion.break_off(&mut core);
        drop(core);
        assert_eq!(call.join().unwrap(), None);
    });
}

/// Who takes it back is told, but not the application.
#[test]
fn a_way_back_that_fails_does_not_make_the_reset_an_end() {
    let (tcp, _peer) = kernel_pair();
    let companion = up(&tcp);
    let (ours, theirs) = crate::conn::tests::pair();
    theirs.abort();
    let end = Instant::now() + Duration::from_secs(30);
    while ours.failed().is_none() {
        assert!(Instant::now() < end);
        ours.look();
    }
    companion.core.lock().connection = Some(ours);
    let back = companion.downgrade(tcp.as_raw_fd(), Reason::Asked);
    assert_eq!(back.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(companion.rx.phase(), BROKEN);
    assert!(!companion.reset_told.load(Ordering::SeqCst));
}

#[test]
fn a_wrong_marker_is_told_by_the_next_call_if_it_was_found_by_none() {
    let (tcp, _peer) = kernel_pair();
    let companion = up(&tcp);
    drop(companion.foreign(&mut companion.core.lock()));
    assert!(!companion.reset_told.load(Ordering::SeqCst));
}

#[test]
fn calls_that_met_by_chance_do_not_end_all_upgrades() {
    let (tcp, _peer) = kernel_pair();
    let companion = Companion::new(std::os::fd::AsFd::as_fd(&tcp), Role::Accepted).unwrap();
    companion.core.lock().stage = Stage::Joining;
    // As when an upgrade is sought.
    companion.trigger.store(u64::MAX, Ordering::Relaxed);
    let own = companion.begin_receive(tcp.as_raw_fd()).unwrap();
    std::thread::scope(|scope| {
        let (over, ends) = std::sync::mpsc::channel::<()>();
        let (tell, begun) = std::sync::mpsc::channel();
        let (companion, fd) = (&companion, tcp.as_raw_fd());
        scope.spawn(move || {
            let other = companion.begin_receive(fd).unwrap();
            tell.send(()).unwrap();
            let _over = ends.recv();
            drop(other);
        });
        begun.recv().unwrap();
        companion.joined(Ok(crate::conn::tests::pair().0));
        drop(over);
    });
    drop(own);
    assert_eq!(companion.reason(), Reason::Concurrent);
    assert!(companion.on_kernel() && !companion.is_untriggered());
}

#[test]
fn a_marker_is_nobodys_though_the_san_is_lost_before_it_has_told_of_it() {
    for own in [0, 7] {
        for peeks in [false, true] {
            let (tcp, _peer) = kernel_pair();
            let companion =
                Companion::new(std::os::fd::AsFd::as_fd(&tcp), Role::Connected).unwrap();
            let (ours, theirs) = crate::conn::tests::pair();
            {
                let mut core = companion.core.lock();
                core.stage = Stage::Seeking;
                core.tcp = Some(kernel::duplicate(tcp.as_raw_fd()).unwrap());
            }
            // A call of the application is in the kernel all the time.
            let call = companion.begin_receive(tcp.as_raw_fd()).unwrap();
            let session = ours.session_id();
            assert!(companion.admit(session));
            companion.joined(Ok(Arc::clone(&ours)));
            theirs.abort();
            let end = Instant::now() + Duration::from_secs(30);
            while ours.failed().is_none() && companion.rx.phase() == GUARDED {
                assert!(Instant::now() < end);
                ours.look();
            }
            let mut bytes = vec![1; own];
            bytes.extend(marker(session));
            let mut tail = |from: usize| bytes[from..].to_vec();
            let count = own + MARKER;
            assert_eq!(companion.finish_guarded(count, peeks, &mut tail), own);
            assert_eq!(companion.rx.phase(), BROKEN);
            drop(call);
        }
    }
}

#[test]
fn breaking_off_is_a_reset_for_the_peer_though_the_application_keeps_its_descriptor() {
    let (tcp, mut peer) = kernel_pair();
    let companion = up(&tcp);
    companion.break_off(&mut companion.core.lock());
    let error = io::Read::read(&mut peer, &mut [0]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    after_a_reset(&tcp, Some(libc::ECONNRESET));
}

/// What calls that had begun before get from the kernel.
fn after_a_reset(mut tcp: &std::net::TcpStream, first: Option<c_int>) {
    if first.is_some() {
        let error = io::Read::read(&mut tcp, &mut [0]).unwrap_err();
        assert_eq!(error.raw_os_error(), first);
    }
    assert_eq!(io::Read::read(&mut tcp, &mut [0]).unwrap(), 0);
    let error = io::Write::write(&mut tcp, &[0]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
}

#[test]
fn breaking_off_after_the_peers_reset_leaves_what_the_kernel_says_of_that() {
    for told in [false, true] {
        let (tcp, peer) = kernel_pair();
        let companion = up(&tcp);
        kernel::linger_zero(peer.as_raw_fd());
        drop(peer);
        if told {
            assert!(io::Read::read(&mut &tcp, &mut [0]).is_err());
        }
        companion.break_off(&mut companion.core.lock());
        after_a_reset(&tcp, (!told).then_some(libc::ECONNRESET));
    }
}

#[test]
fn a_peer_of_another_version_leaves_the_connection_with_the_kernel_and_says_why() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let tcp = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    for role in [Role::Connected, Role::Accepted] {
        let companion = Companion::new(std::os::fd::AsFd::as_fd(&tcp), role).unwrap();
        {
            // As after an offer that was answered, or one that was made.
            let mut core = companion.core.lock();
            if role == Role::Connected {
                assert!(companion.guard(&mut core, [5; 16]));
            }
            core.stage = Stage::Joining;
        }
        let error = crate::conn::failure(wsd_proto::Failure::VersionMismatch);
        companion.joined(Err(error));
        assert_eq!(companion.reason(), Reason::Version);
        assert!(companion.on_kernel());
        assert_eq!(companion.rx.phase(), KERNEL);
        assert_eq!(companion.core.lock().stage, Stage::Idle);
    }
}

#[test]
fn a_marker_makes_nothing_readable_however_it_was_asked_for() {
    use std::io::Write;

    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let tcp = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut peer = listener.accept().unwrap().0;
    let companion = Companion::new(std::os::fd::AsFd::as_fd(&tcp), Role::Connected).unwrap();
    {
        let mut core = companion.core.lock();
        core.tcp = Some(tcp.try_clone().unwrap().into());
        assert!(companion.guard(&mut core, [5; 16]));
        core.stage = Stage::Joining;
    }
    peer.write_all(&marker([5; 16])).unwrap();
    let mut come = [libc::pollfd {
        fd: tcp.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    kernel::poll(&mut come, 30_000).unwrap();
    assert_eq!(come[0].revents, libc::POLLIN);
    // All that select(2) understands by readable.
    let inwards = libc::POLLIN | libc::POLLRDNORM | libc::POLLRDBAND;
    let revents = inwards | libc::POLLOUT;
    assert_eq!(companion.relook(revents), libc::POLLOUT);
    assert_eq!(companion.rx.phase(), GUARDED);
    companion.close(tcp.as_raw_fd());
}
