//! Streams and listeners for tokio, over the embedded SAN and over TCP: copies with half closes,
//! futures that are dropped midway, one direction while the other is not looked at, and hyper.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;
use wsd_switch::{AsyncSanListener, AsyncSanStream, Mode, StreamOptions};

const MODES: [Mode; 3] = [Mode::Read, Mode::Write, Mode::Tcp];
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test once with one thread and once with two.
fn run<F: Future<Output = ()>>(test: impl Fn(Mode) -> F) {
    for mode in MODES {
        for threads in [1, 2] {
            let mut runtime = if threads == 1 {
                tokio::runtime::Builder::new_current_thread()
            } else {
                tokio::runtime::Builder::new_multi_thread()
            };
            let runtime = runtime
                .worker_threads(threads)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let in_time = timeout(PATIENCE, test(mode)).await;
                in_time.unwrap_or_else(|_| panic!("{mode:?} with {threads} threads hangs"));
            });
        }
    }
}

fn listener() -> (AsyncSanListener, SocketAddr) {
    let listener = AsyncSanListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.get_ref().local_addr().unwrap();
    (listener, at)
}

async fn connect(to: SocketAddr, mode: Mode) -> AsyncSanStream {
    let options = StreamOptions::new().mode(mode);
    let stream = AsyncSanStream::connect_with(to, options).await.unwrap();
    assert_eq!(stream.get_ref().transport().is_san(), mode != Mode::Tcp);
    stream
}

async fn pair(mode: Mode) -> (AsyncSanStream, AsyncSanStream) {
    let (listener, at) = listener();
    let (one, accepted) = tokio::join!(connect(at, mode), listener.accept());
    (one, accepted.unwrap().0)
}

/// Bytes that show when one is missing.
fn tape(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| ((at * 31) >> 3).to_le_bytes()[0])
        .collect()
}

#[test]
fn what_is_copied_back_is_what_was_sent_up_to_the_half_close() {
    run(async |mode| {
        let (listener, at) = listener();
        let mut servers = JoinSet::new();
        servers.spawn(async move {
            for _ in 0..3 {
                let (stream, _) = listener.accept().await.unwrap();
                let (mut from, mut to) = tokio::io::split(stream);
                let copied = tokio::io::copy(&mut from, &mut to).await.unwrap();
                assert_eq!(copied, 9_000_000);
                to.shutdown().await.unwrap();
            }
        });
        let mut clients = JoinSet::new();
        for _ in 0..3 {
            clients.spawn(async move {
                let (mut from, mut to) = tokio::io::split(connect(at, mode).await);
                let sent = tape(9_000_000);
                let expected = sent.clone();
                let writing = tokio::spawn(async move {
                    for piece in sent.chunks(700_001) {
                        to.write_all(piece).await.unwrap();
                    }
                    to.shutdown().await.unwrap();
                    to
                });
                let mut got = Vec::new();
                from.read_to_end(&mut got).await.unwrap();
                assert!(got == expected);
                drop(writing.await.unwrap());
            });
        }
        while let Some(done) = clients.join_next().await {
            done.unwrap();
        }
        servers.join_next().await.unwrap().unwrap();
    });
}

#[test]
fn a_task_that_only_writes_goes_on_while_nobody_reads_what_has_arrived() {
    run(async |mode| {
        let (mut one, mut two) = pair(mode).await;
        two.write_all(b"nobody looks at this yet").await.unwrap();
        let reader = tokio::spawn(async move {
            let mut got = vec![0; 20_000_000];
            two.read_exact(&mut got).await.unwrap();
            assert!(got == tape(20_000_000));
            two
        });
        // Of every length that is sent in a way of its own.
        let sent = tape(20_000_000);
        let mut done = 0;
        for len in [1, 100, 40_000, 3_000_000].into_iter().cycle() {
            let end = (done + len).min(sent.len());
            one.write_all(&sent[done..end]).await.unwrap();
            done = end;
            if done == sent.len() {
                break;
            }
        }
        let two = reader.await.unwrap();
        let mut got = [0; 24];
        one.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"nobody looks at this yet");
        drop(two);
        assert_eq!(one.read(&mut got).await.unwrap(), 0);
    });
}

#[test]
fn a_read_or_an_accept_that_is_dropped_has_taken_nothing() {
    run(async |mode| {
        let (listener, at) = listener();
        let early = timeout(Duration::from_millis(1), listener.accept()).await;
        assert!(early.is_err());
        let (mut one, accepted) = tokio::join!(connect(at, mode), listener.accept());
        let mut two = accepted.unwrap().0;
        let sent = tape(300_000);
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            for piece in sent.chunks(10_000) {
                one.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            one.shutdown().await.unwrap();
            one
        });
        let mut got = Vec::new();
        let mut room = vec![0; 7_001];
        loop {
            let read = timeout(Duration::from_micros(200), two.read(&mut room));
            match read.await {
                Ok(Ok(0)) => break,
                Ok(Ok(count)) => got.extend_from_slice(&room[..count]),
                Ok(Err(error)) => panic!("{error}"),
                Err(_) => tokio::task::yield_now().await,
            }
        }
        assert!(got == expected);
        drop(writing.await.unwrap());
    });
}

#[test]
fn a_waiting_read_learns_of_a_peer_that_is_gone() {
    run(async |mode| {
        let (mut one, two) = pair(mode).await;
        let reader = tokio::spawn(async move { one.read(&mut [0; 8]).await });
        tokio::task::yield_now().await;
        let two = two.into_inner();
        two.set_linger(Some(Duration::ZERO)).unwrap();
        drop(two);
        let error = reader.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let (status, body) = match (head.method, head.uri.path()) {
        (Method::GET, "/hello") => (StatusCode::OK, Bytes::from_static(b"hello")),
        (Method::POST, "/echo") => (StatusCode::OK, body),
        _ => (StatusCode::NOT_FOUND, Bytes::new()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    Ok(response)
}

#[test]
fn hyper_serves_and_asks_over_it() {
    run(async |mode| {
        let (listener, at) = listener();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await
                .unwrap();
        });
        let stream = TokioIo::new(connect(at, mode).await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        let driving = tokio::spawn(connection);
        let large = Bytes::from(tape(3_000_000));
        let wanted = [
            (
                Method::GET,
                "/hello",
                Bytes::new(),
                StatusCode::OK,
                Bytes::from_static(b"hello"),
            ),
            (Method::POST, "/echo", large.clone(), StatusCode::OK, large),
            (
                Method::GET,
                "/nothing",
                Bytes::new(),
                StatusCode::NOT_FOUND,
                Bytes::new(),
            ),
        ];
        for (method, path, body, status, expected) in wanted {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "here")
                .body(Full::new(body))
                .unwrap();
            sender.ready().await.unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), status);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(body == expected, "{path}");
        }
        drop(sender);
        driving.await.unwrap().unwrap();
        server.await.unwrap();
    });
}
