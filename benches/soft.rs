//! The bare ring beside two endpoints: latency there and back, and bandwidth.
//!
//! usage: cargo bench --bench soft --features testing
//!
//! The best of several rounds, in which the two take turns: on a shared machine the distance of the
//! processors changes, and only what was measured side by side can be compared.

#![allow(clippy::print_stdout)]

use std::time::Duration;

use wsdirect::bench_ring::{Layer, alone, ping_pong, read, stream};

const RING: usize = 1 << 20;
const ROUNDS: usize = 5;
const LAYERS: [Layer; 2] = [Layer::Ring, Layer::Endpoint];

/// The best time of each layer.
fn best(measure: impl Fn(Layer) -> Option<Duration>) -> [f64; 2] {
    let mut best = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        for (layer, best) in LAYERS.into_iter().zip(&mut best) {
            if let Some(took) = measure(layer) {
                *best = best.min(took.as_secs_f64() * 1e9);
            }
        }
    }
    best
}

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
    println!("{processors} processors; the ring, two endpoints");
    for len in [8, 64, 4096] {
        let [ring, endpoint] = best(|layer| alone(layer, len, 1000, RING)).map(|ns| ns / 1000.0);
        println!("{len:>7} B in one thread     {ring:>8.0} ns    {endpoint:>8.0} ns");
    }
    for len in [8, 64, 4096, 64 << 10] {
        let rounds = if len < 4096 { 200 } else { 50 };
        let half = 1.0 / (2.0 * f64::from(rounds));
        let [ring, endpoint] =
            best(|layer| ping_pong(layer, len, rounds, RING)).map(|ns| ns * half);
        println!("{len:>7} B half a round trip {ring:>8.0} ns    {endpoint:>8.0} ns");
    }
    for len in [64u32, 4096, 16 << 10, 64 << 10] {
        let count = (4 << 20) / len.max(1024);
        let bytes = f64::from(len) * f64::from(count);
        let [ring, endpoint] =
            best(|layer| stream(layer, len as usize, count, RING)).map(|ns| bytes / ns);
        println!("{len:>7} B one way           {ring:>8.2} GB/s  {endpoint:>8.2} GB/s");
    }
    println!("reads of remote memory, direct, pipelined");
    for len in [64usize << 10, 1 << 20] {
        let [direct, pipelined] = [true, false].map(|direct| {
            let times = (0..ROUNDS).filter_map(|_| read(direct, len));
            times
                .min()
                .map_or(f64::NAN, |took| len as f64 / (took.as_secs_f64() * 1e9))
        });
        println!("{len:>7} B                   {direct:>8.2} GB/s  {pipelined:>8.2} GB/s");
    }
}
