//! What the switch does with a connection, seen from the provider: its pool of control buffers,
//! the limits it keeps, the borders between messages and RDMA, and failing registrations.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::multiple_unsafe_ops_per_block
)]

mod mock;

use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use mock::pair::{both_ways, calls_on, length, transfer};
use mock::{Config, Mock};
use wsd_switch::{PollEntry, Pollable, SanStream, SendPolicy, StreamOptions, Switch, poll};

#[test]
fn each_connection_has_two_regions_of_control_buffers_one_to_send_and_one_to_receive() {
    // req: SEED-01 SEED-02
    both_ways(&Config::default(), |mock, mut pair| {
        // The mock takes a message out of memory registered for reading only, and puts it into
        // memory registered for writing only.
        for socket in [pair.sockets.0, pair.sockets.1] {
            let calls = calls_on(mock, socket);
            let registered = |call: &&String| call.starts_with("RegisterMemory");
            let registered: Vec<_> = calls.iter().filter(registered).collect();
            assert_eq!(registered, ["RegisterMemory write", "RegisterMemory read"]);
        }
        mock.clear_trace();
        transfer(&mut pair.connector, &mut pair.acceptor, 1000);
        assert!(
            mock.calls("RegisterMemory").is_empty(),
            "small data needs no memory of its own"
        );
    });
}

#[test]
fn control_messages_are_consumed_at_once_and_their_buffers_posted_again() {
    // req: SEED-03
    both_ways(&Config::default(), |mock, mut pair| {
        let receiver = pair.sockets.1;
        let posts = |name| {
            mock.calls(name)
                .iter()
                .filter(|call| call.socket == receiver)
                .count()
        };
        let before = posts("Recv");
        const MESSAGES: usize = 8;
        for _ in 0..MESSAGES {
            pair.connector.write_all(b"12345678").unwrap();
        }
        // Nobody reads yet; what has been sent is fetched all the same, when the receiver looks.
        let mut first = [0; 8];
        pair.acceptor.read_exact(&mut first).unwrap();
        // req: WSD-19 before the call that delivers what was in it returns
        assert!(posts("Recv") > before);
        let mut rest = [0; 8 * (MESSAGES - 1)];
        pair.acceptor.read_exact(&mut rest).unwrap();
        let messages = mock.messages_of(pair.sockets.0).len() - 1;
        mock.until("every receive is posted again", |state| {
            let recv = |call: &&mock::Call| call.socket == receiver && call.name == "Recv";
            state.trace.iter().filter(recv).count() - before >= messages.min(MESSAGES)
        });
    });
}

#[test]
fn data_up_to_the_threshold_is_sent_in_messages_and_more_than_that_by_rdma() {
    // req: WSD-20
    const THRESHOLD: usize = 16 * 1024;
    for rdma_read in [true, false] {
        let config = Config {
            rdma_read,
            ..Config::default()
        };
        both_ways(&config, |mock, mut pair| {
            let rdma = || mock.calls("RdmaRead").len() + mock.calls("RdmaWrite").len();
            transfer(&mut pair.connector, &mut pair.acceptor, THRESHOLD);
            assert_eq!(rdma(), 0);
            transfer(&mut pair.connector, &mut pair.acceptor, THRESHOLD + 1);
            assert_eq!(rdma(), 1);
        });
    }
}

#[test]
fn no_message_and_no_rdma_is_larger_than_the_provider_allows() {
    // req: WSD-20
    for rdma_read in [true, false] {
        let config = Config {
            rdma_read,
            max_message: Some(1024),
            max_rdma: Some(10_000),
            ..Config::default()
        };
        both_ways(&config, |mock, mut pair| {
            transfer(&mut pair.connector, &mut pair.acceptor, 200_000);
            transfer(&mut pair.acceptor, &mut pair.connector, 5_000);
            let refused = |code| mock.trace().iter().any(|call| call.code == code);
            assert!(!refused(10_040), "a message was too large");
            assert!(mock.calls("Send").iter().all(|call| length(call) <= 1024));
            let rdma = [mock.calls("RdmaRead"), mock.calls("RdmaWrite")].concat();
            assert!(rdma.len() >= 19, "{rdma:?}");
            assert!(rdma.iter().all(|call| length(call) <= 10_000), "{rdma:?}");
        });
    }
}

#[test]
fn without_limits_of_the_provider_the_switch_has_its_own() {
    let config = Config {
        max_message: None,
        max_rdma: None,
        threshold: None,
        ..Config::default()
    };
    both_ways(&config, |mock, mut pair| {
        transfer(&mut pair.connector, &mut pair.acceptor, 512 << 10);
        assert_eq!(mock.calls("RdmaRead").len(), 1);
    });
}

#[test]
fn a_registration_that_fails_is_the_senders_enobufs_and_the_connection_goes_on() {
    // req: WSD-21 SEED-10
    let pulled = (Config::default(), "RegisterRdmaMemory");
    let pushed = (
        Config {
            rdma_read: false,
            ..Config::default()
        },
        "RegisterMemory",
    );
    for (config, name) in [pulled, pushed] {
        both_ways(&config, |mock, mut pair| {
            mock.reconfigure(|config| {
                config.failing.insert(name, 10_055);
            });
            let error = pair.connector.write_all(&[1; 1 << 20]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
            mock.reconfigure(|config| config.failing.clear());
            // Nothing of the failed send has left.
            transfer(&mut pair.connector, &mut pair.acceptor, 1 << 20);
            transfer(&mut pair.acceptor, &mut pair.connector, 100);
        });
    }
}

#[test]
fn a_registration_that_fails_because_the_connection_is_gone_is_the_senders_connreset() {
    // req: WSD-21
    let no_read = Config {
        rdma_read: false,
        ..Config::default()
    };
    let pulled = (Config::default(), "RegisterRdmaMemory");
    for (config, name) in [pulled, (no_read, "RegisterMemory")] {
        // WSAECONNABORTED, WSAECONNRESET, WSAENOTCONN. The end itself is not told of.
        for code in [10_053, 10_054, 10_057] {
            both_ways(&config, |mock, mut pair| {
                mock.reconfigure(|config| {
                    config.failing.insert(name, code);
                });
                let error = pair.connector.write_all(&[1; 1 << 20]).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{code}");
                mock.reconfigure(|config| config.failing.clear());
            });
        }
    }
}

#[test]
fn a_lent_write_tells_why_it_failed_too() {
    // req: WSD-21 SEED-10
    let mock = Mock::begin(Config::default());
    {
        let switch = Switch::with_providers([mock.entry()]);
        let listener = switch.bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let options = StreamOptions::new().send_policy(SendPolicy::ZeroCopy);
        let to = listener.local_addr().unwrap();
        let mut connector = switch.connect_with(to, &options).unwrap();
        let (mut acceptor, _) = listener.accept().unwrap();
        mock.reconfigure(|config| {
            config.failing.insert("RegisterRdmaMemory", 10_055);
        });
        let error = connector.write_all(&[1; 1 << 20]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
        mock.reconfigure(|config| config.failing.clear());
        transfer(&mut connector, &mut acceptor, 1 << 20);
    }
    mock.assert_nothing_left();
}

#[test]
fn the_mode_is_chosen_by_what_the_receivers_provider_can_do() {
    // req: SEED-17
    let mock = Mock::begin(Config::default());
    {
        let reads = Switch::with_providers([mock.entry()]);
        mock.reconfigure(|config| config.rdma_read = false);
        let reads_not = Switch::with_providers([mock.entry()]);
        mock.reconfigure(|config| config.rdma_read = true);
        mock.clear_trace();
        let listener = reads_not.bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut connector = reads.connect(listener.local_addr().unwrap()).unwrap();
        let (mut acceptor, _) = listener.accept().unwrap();
        transfer(&mut connector, &mut acceptor, 1 << 20);
        assert_eq!(mock.calls("RdmaRead").len(), 0);
        assert_ne!(mock.calls("RdmaWrite").len(), 0);
        mock.clear_trace();
        transfer(&mut acceptor, &mut connector, 1 << 20);
        assert_ne!(mock.calls("RdmaRead").len(), 0);
        assert_eq!(mock.calls("RdmaWrite").len(), 0);
    }
    mock.assert_nothing_left();
}

#[test]
fn a_peer_that_vanishes_resets_the_connection() {
    both_ways(&Config::default(), |mock, mut pair| {
        mock.end_peer(pair.sockets.1);
        let mut byte = [0];
        let error = pair.connector.read_exact(&mut byte).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        // The other end finds its socket gone, too; nothing waits for it.
        assert!(pair.acceptor.read_exact(&mut byte).is_err());
    });
}

#[test]
fn who_only_polls_the_descriptor_gets_every_byte_also_from_a_provider_that_counts_ends_of_sends() {
    both_ways(&Config::default(), |_, mut pair| {
        const LEN: usize = 300_000;
        const ANSWER: &[u8] = b"so much for that";
        let mut received = 0;
        thread::scope(|scope| {
            let (connector, acceptor) = (&mut pair.connector, &mut pair.acceptor);
            let sending = scope.spawn(move || {
                connector.write_all(&vec![7; LEN])?;
                let mut answer = [0; ANSWER.len()];
                connector.read_exact(&mut answer)?;
                std::io::Result::Ok(answer)
            });
            acceptor.set_nonblocking(true).unwrap();
            let mut block = [0; 1000];
            while received < LEN {
                match acceptor.read(&mut block) {
                    Ok(count) => {
                        assert_ne!(count, 0, "the stream ended after {received} bytes");
                        received += count;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        assert!(readable(acceptor), "no news after {received} bytes");
                    }
                }
            }
            acceptor.write_all(ANSWER).unwrap();
            // Its send is over by now; the descriptor has to go silent all the same.
            assert_eq!(
                acceptor.read(&mut block).unwrap_err().kind(),
                ErrorKind::WouldBlock
            );
            assert_eq!(sending.join().unwrap().unwrap(), ANSWER);
        });
    });
}

/// Waits for the descriptor that a stream offers to pollers.
fn readable(stream: &SanStream) -> bool {
    let descriptor = Pollable::Descriptor(stream.as_fd().as_raw_fd());
    let mut entries = [PollEntry::new(descriptor, libc::POLLIN)];
    poll(&mut entries, Some(Duration::from_secs(30))).unwrap() == 1
}
