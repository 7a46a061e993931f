//! Ends that go in one thread while another one takes what the connection manager says of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

/// Has the other threads end, also after a failure.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_queue_pair_may_go_while_another_thread_takes_the_answer_of_its_peer() {
    // req: WSD-08
    const ROUNDS: usize = 120;
    let mut rig = rig();
    let client = Core::new(Options::new(true)).unwrap();
    let from = std::net::SocketAddr::new(rig.at.ip(), 0);
    // How many attempts the other thread has been told the outcome of.
    let told = &AtomicUsize::new(0);
    let over = &AtomicBool::new(false);
    let (asks, asked) = std::sync::mpsc::channel::<(Box<dyn Request>, bool)>();
    std::thread::scope(|scope| {
        let polled = &client;
        scope.spawn(move || {
            let mut events = Vec::new();
            while !over.load(Ordering::Relaxed) {
                polled.poll(&mut events);
                let outcome =
                    |e: &Event| matches!(e, Event::Connected { .. } | Event::ConnectFailed { .. });
                let outcomes = events.drain(..).filter(outcome).count();
                told.fetch_add(outcomes, Ordering::SeqCst);
            }
        });
        let (answers, answered) = std::sync::mpsc::channel();
        scope.spawn(move || {
            for (request, refused) in asked {
                let accepted = if refused {
                    request.reject();
                    None
                } else {
                    request.accept(Token(number())).ok()
                };
                if answers.send(accepted).is_err() {
                    break;
                }
            }
        });
        let (_over, asks) = (Over(over), asks);
        // Every kind of answer has its own time, which is looked for.
        let mut waits = [1_u32 << 14; 2];
        // How often the queue pair went after the answer was taken, and how often before.
        let mut went = [[0; 2]; 2];
        for round in 0..ROUNDS {
            let refused = round % 4 == 3;
            let attempt = Attempt::new(from, rig.at, PATIENCE);
            let connecting = VerbsEndpoint::connecting(&client, Token(number()), attempt).unwrap();
            let request = rig.host.request(rig.listening);
            let earlier = told.load(Ordering::SeqCst);
            asks.send((request, refused)).unwrap();
            let wait = &mut waits[usize::from(refused)];
            for _ in 0..*wait {
                std::hint::spin_loop();
            }
            connecting.conn().kill();
            let early = told.load(Ordering::SeqCst) == earlier;
            went[usize::from(refused)][usize::from(early)] += 1;
            // Around the moment at which the answer is taken.
            let next = if early { *wait / 4 * 5 } else { *wait / 4 * 3 };
            *wait = next.clamp(64, 1 << 24);
            drop(connecting);
            drop(answered.recv().unwrap());
        }
        assert!(went.iter().flatten().all(|&count| count > 0), "{went:?}");
    });
    // The events were still in order.
    let (mut a, mut b) = rig.pair();
    a.send(b"still here").unwrap();
    assert_eq!(b.take(), b"still here");
}
