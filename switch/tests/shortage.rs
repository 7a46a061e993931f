//! Memory that runs short at the receiver: the data arrives all the same, by messages.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::multiple_unsafe_ops_per_block
)]

mod mock;

use mock::Config;
use mock::pair::{both_ways, transfer};

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
            transfer(&mut pair.connector, &mut pair.acceptor, 300_000);
            assert_ne!(pair.acceptor.stats().refused_sent, 0);
            assert_ne!(pair.connector.stats().refused_received, 0);
            mock.reconfigure(|config| config.failing.clear());
            let refused = pair.acceptor.stats().refused_sent;
            transfer(&mut pair.connector, &mut pair.acceptor, 300_000);
            assert_eq!(pair.acceptor.stats().refused_sent, refused);
        });
    }
}
