//! Memory that runs short at the receiver: the data arrives all the same, by messages.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::multiple_unsafe_ops_per_block
)]

mod mock;

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use mock::pair::{Pair, both_ways, pair, transfer};
use mock::{Config, Mock};
use wsd_switch::Switch;

/// How many bytes have been moved by RDMA from the connector to the acceptor, once both know it
/// alike: what the peer has done is known when it says so.
fn by_rdma(pair: &Pair) -> u64 {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let (sender, receiver) = (pair.connector.stats(), pair.acceptor.stats());
        let sender = sender.peer_read_bytes + sender.rdma_write_bytes;
        let receiver = receiver.rdma_read_bytes + receiver.peer_write_bytes;
        if sender == receiver {
            return receiver;
        }
        assert!(Instant::now() < end, "{sender} {receiver}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_receiver_that_cannot_register_gets_large_data_in_messages() {
    // req: SEED-10
    let pulled = (Config::default(), "RegisterMemory");
    let no_read = Config {
        rdma_read: false,
        ..Config::default()
    };
    let pushed = (no_read, "RegisterRdmaMemory");
    for (config, name) in [pulled, pushed] {
        both_ways(&config, |mock, mut pair| {
            transfer(&mut pair.connector, &mut pair.acceptor, 300_000);
            assert_eq!(pair.acceptor.stats().refused_sent, 0);
            mock.reconfigure(|config| {
                config.failing.insert(name, 10_055);
            });
            let moved = by_rdma(&pair);
            transfer(&mut pair.connector, &mut pair.acceptor, 300_000);
            assert_ne!(pair.acceptor.stats().refused_sent, 0);
            assert_eq!(by_rdma(&pair), moved, "neither end takes it for RDMA");
            assert_ne!(pair.connector.stats().refused_received, 0);
            mock.reconfigure(|config| config.failing.clear());
            let refused = pair.acceptor.stats().refused_sent;
            transfer(&mut pair.connector, &mut pair.acceptor, 300_000);
            assert_eq!(pair.acceptor.stats().refused_sent, refused);
            assert!(by_rdma(&pair) > moved);
        });
    }
}

#[test]
fn a_provider_that_keeps_lent_memory_costs_the_connection_and_nothing_else() {
    for name in ["DeregisterRdmaMemory", "DeregisterMemory"] {
        let mock = Mock::begin(Config::default());
        {
            let switch = Switch::with_providers([mock.entry()]);
            let mut pair = pair(&mock, &switch);
            mock.reconfigure(|config| {
                config.failing.insert(name, 10_022);
            });
            // More than is ever copied, so that both ends lend their own buffers.
            let data = vec![7; 6 << 20];
            let mut room = vec![0; 6 << 20];
            thread::scope(|scope| {
                let writing = scope.spawn(|| pair.connector.write_all(&data));
                let read = pair.acceptor.read_exact(&mut room);
                let written = writing.join().unwrap();
                assert!(read.is_err() || written.is_err());
            });
            mock.reconfigure(|config| config.failing.clear());
        }
        // It stays the provider's until the socket is closed.
        mock.assert_nothing_left();
    }
}

#[test]
fn a_provider_with_a_short_queue_gets_as_many_receives_as_it_takes() {
    // req: WSD-19
    let config = Config {
        receive_depth: 6,
        ..Config::default()
    };
    both_ways(&config, |_, mut pair| {
        for len in [1, 10_000, 300_000] {
            transfer(&mut pair.connector, &mut pair.acceptor, len);
            transfer(&mut pair.acceptor, &mut pair.connector, len);
        }
    });
}
