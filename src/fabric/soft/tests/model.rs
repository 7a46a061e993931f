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
    /// The consumer tells how far it is.
    Tell,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..300).prop_map(Step::Put),
        2 => (0usize..70_000).prop_map(Step::Put),
        1 => (SIZE - 300..SIZE + 10).prop_map(Step::Put),
        5 => Just(Step::Take),
        1 => Just(Step::Tell),
    ];
    proptest::collection::vec(step, 1..400)
}

struct Model {
    queue: VecDeque<(u8, usize, u64)>,
    used: u64,
    freed: u64,
}

fn put(
    producer: &mut Producer,
    ring: Ring<'_>,
    model: &mut Model,
    len: usize,
    number: u64,
) -> bool {
    let fill = u8::try_from(number % 251).unwrap();
    let Some(position) = producer.reserve(ring, len).unwrap() else {
        return false;
    };
    assert!(ring.fill_from(position, &vec![fill; len]));
    producer.publish(ring, fill, len, number);
    model.queue.push_back((fill, len, number));
    model.used += record_size(len);
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
        let mut model = Model { queue: VecDeque::new(), used: 0, freed: 0 };
        let mut unsaid = 0;
        for (number, step) in (1u64..).zip(steps) {
            match step {
                Step::Put(len) => {
                    let known = model.used - (model.freed - unsaid);
                    let fits = record_size(len) + GRANULE + known <= SIZE as u64;
                    let was_put = put(&mut producer, out, &mut model, len, number);
                    prop_assert_eq!(was_put, fits);
                }
                Step::Take => {
                    let record = consumer.peek(inward).unwrap();
                    prop_assert_eq!(
                        record.map(|r| (r.kind, r.len, r.second)),
                        model.queue.pop_front()
                    );
                    if let Some(record) = record {
                        let mut payload = vec![0; record.len];
                        prop_assert!(inward.take_into(record.payload, &mut payload));
                        prop_assert!(payload.iter().all(|&byte| byte == record.kind));
                        let told = consumer.release(inward, record);
                        model.freed += record_size(record.len);
                        unsaid += record_size(record.len);
                        prop_assert_eq!(told, unsaid >= SIZE as u64 / 8);
                        if told {
                            unsaid = 0;
                        }
                    }
                }
                Step::Tell => {
                    prop_assert_eq!(consumer.tell(inward), unsaid > 0);
                    unsaid = 0;
                }
            }
        }
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
                consumer.tell(ring);
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
