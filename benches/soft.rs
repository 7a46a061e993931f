//! The bare ring beside two endpoints: latency there and back, and bandwidth.
//!
//! usage: cargo bench --bench soft --features testing

#![allow(clippy::print_stdout)]

use wsdirect::bench_ring::{Layer, alone, ping_pong, stream};

const RING: usize = 1 << 20;

fn main() {
    // One figure only, for a profiler: `... -- alone`.
    if std::env::args().any(|argument| argument == "alone") {
        for _ in 0..5 {
            if let Some(took) = alone(Layer::Endpoint, 8, 1000, RING) {
                println!("{took:?} for 1000 messages of 8 B");
            }
        }
        return;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{processors} processors; best burst; half of a round trip, and one direction");
    for layer in [Layer::Ring, Layer::Endpoint] {
        for len in [8, 64, 4096] {
            if let Some(took) = alone(layer, len, 1000, RING) {
                let each = took.as_secs_f64() * 1e9 / 1000.0;
                println!("{layer:?} {len:>7} B  {each:>9.0} ns  in one thread");
            }
        }
        for len in [8, 64, 4096, 64 << 10] {
            let rounds = if len < 4096 { 500 } else { 50 };
            if let Some(took) = ping_pong(layer, len, rounds, RING) {
                let half = took.as_secs_f64() * 1e9 / (2.0 * f64::from(rounds));
                println!("{layer:?} {len:>7} B  {half:>9.0} ns");
            }
        }
        for len in [64u32, 4096, 16 << 10, 64 << 10] {
            let count = (4 << 20) / len.max(1024);
            if let Some(took) = stream(layer, len as usize, count, RING) {
                let each = took.as_secs_f64() * 1e9 / f64::from(count);
                let rate = f64::from(len) / each;
                println!("{layer:?} {len:>7} B  {rate:>9.2} GB/s  {each:>7.0} ns each");
            }
        }
    }
}
