//! The ring against a queue that cannot be wrong.

use std::collections::VecDeque;
use std::os::fd::AsFd;

use proptest::prelude::*;

use crate::fabric::soft::ring::{Consumer, Producer, record_size};
use crate::fabric::soft::shm::{GRANULE, Lane, Ring, Segment, Side};

const SIZE: usize = 256 << 10;

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    Take,
    /// The producer asks for room.
    Look,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..300).prop_map(Step::Put),
        2 => (0usize..70_000).prop_map(Step::Put),
        1 => (SIZE / 2..SIZE + 10).prop_map(Step::Put),
        5 => Just(Step::Take),
        1 => Just(Step::Look),
    ];
    proptest::collection::vec(step, 1..400)
}

fn put(producer: &mut Producer, ring: Ring<'_>, len: usize, number: u64) -> bool {
    let Some(position) = producer.reserve(ring, len).unwrap() else {
        return false;
    };
    let fill = u8::try_from(number % 251).unwrap();
    assert!(ring.fill_from(position, &vec![fill; len]));
    producer.publish(ring, fill, len, number);
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn records_come_out_as_they_went_in_and_the_ring_is_as_large_as_it_says(steps in steps()) {
        let (ours, file) = Segment::create(SIZE).unwrap();
        let theirs = Segment::join(file.as_fd(), SIZE).unwrap();
        let out = ours.ring(Side::Acceptor, Lane::Messages);
        let inward = theirs.ring(Side::Acceptor, Lane::Messages);
        let (mut producer, mut consumer) = (Producer::default(), Consumer::default());
        let mut queue = VecDeque::new();
        for (number, step) in (1u64..).zip(steps) {
            match step {
                Step::Put(len) => {
                    let used = producer.head() - consumer.told();
                    let fits = used + record_size(len) + GRANULE <= SIZE as u64;
                    prop_assert_eq!(put(&mut producer, out, len, number), fits);
                    if fits {
                        queue.push_back((u8::try_from(number % 251).unwrap(), len, number));
                    }
                }
                Step::Take => {
                    let record = consumer.peek(inward).unwrap();
                    prop_assert_eq!(record.map(|r| (r.kind, r.len, r.second)), queue.pop_front());
                    if let Some(record) = record {
                        let mut payload = vec![0; record.len];
                        prop_assert!(inward.take_into(record.payload, &mut payload));
                        prop_assert!(payload.iter().all(|&byte| byte == record.kind));
                        consumer.release(inward, record);
                    }
                }
                Step::Look => {
                    // However the consumer keeps space to itself, an empty ring takes any record.
                    if queue.is_empty() {
                        prop_assert!(producer.reserve(out, 66_000).unwrap().is_some());
                    }
                }
            }
        }
    }
}

#[test]
fn a_chat_stays_in_the_first_part_of_the_ring_and_a_stream_uses_all_of_it() {
    let (segment, _file) = Segment::create(1 << 20).unwrap();
    let ring = segment.ring(Side::Acceptor, Lane::Messages);
    let (mut producer, mut consumer) = (Producer::default(), Consumer::default());
    let mut furthest = |len: usize| {
        let mut furthest = 0;
        for number in 0..40_000 {
            let position = producer.reserve(ring, len).unwrap().unwrap();
            furthest = furthest.max(position % (1 << 20));
            producer.publish(ring, 1, len, number);
            let record = consumer.peek(ring).unwrap().unwrap();
            assert_eq!((record.len, record.second), (len, number));
            consumer.release(ring, record);
        }
        furthest
    };
    assert!(furthest(8) <= (64 << 10) + 64);
    assert!(furthest(5000) > 1_000_000);
    furthest(8);
    assert!(furthest(100) <= (64 << 10) + 128);
}

#[test]
fn large_records_behind_a_small_one_never_wait_for_a_consumer_that_has_taken_all_before() {
    for (size, large) in [(1 << 20, 33_000), (256 << 10, 15_000)] {
        let (segment, _file) = Segment::create(size).unwrap();
        let ring = segment.ring(Side::Acceptor, Lane::Messages);
        let (mut producer, mut consumer) = (Producer::default(), Consumer::default());
        let mut furthest = 0;
        for round in 0..1_000 {
            for len in [250, large, large] {
                let position = producer.reserve(ring, len).unwrap();
                let position = position.unwrap_or_else(|| panic!("no room in round {round}"));
                furthest = furthest.max(position % size as u64);
                producer.publish(ring, 1, len, round);
            }
            while let Some(record) = consumer.peek(ring).unwrap() {
                consumer.release(ring, record);
            }
        }
        assert!(furthest < size as u64 * 2 / 3, "{furthest} of {size}");
    }
}

#[test]
fn two_threads_pass_many_records_through_a_small_ring() {
    let (ours, file) = Segment::create(SIZE).unwrap();
    let theirs = Segment::join(file.as_fd(), SIZE).unwrap();
    let len = |number: u64| usize::try_from(number * 7919 % 700).unwrap();
    const COUNT: u64 = 200_000;
    let consumer = std::thread::spawn(move || {
        let ring = theirs.ring(Side::Acceptor, Lane::Messages);
        let mut consumer = Consumer::default();
        let mut payload = [0; 700];
        let mut number = 0;
        while number < COUNT {
            let Some(record) = consumer.peek(ring).unwrap() else {
                std::thread::yield_now();
                continue;
            };
            assert_eq!((record.second, record.len), (number, len(number)));
            let place = &mut payload[..record.len];
            ring.take_into(record.payload, place);
            assert!(place.iter().all(|&byte| u64::from(byte) == number % 256));
            consumer.release(ring, record);
            number += 1;
        }
    });
    let ring = ours.ring(Side::Acceptor, Lane::Messages);
    let mut producer = Producer::default();
    for number in 0..COUNT {
        let fill = [u8::try_from(number % 256).unwrap(); 700];
        let position = loop {
            match producer.reserve(ring, len(number)).unwrap() {
                Some(position) => break position,
                None => std::thread::yield_now(),
            }
        };
        ring.fill_from(position, &fill[..len(number)]);
        producer.publish(ring, 1, len(number), number);
    }
    consumer.join().unwrap();
}
