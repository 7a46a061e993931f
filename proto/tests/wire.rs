//! The wire format, byte by byte, and what happens to bytes that are none.
//!
//! The vectors below are the format: they are written by hand into this file and published in
//! `docs/session-protocol.md`, which is compared. A change of one of them breaks every peer in use.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;
use wsd_proto::*;

const ONE: TransferId = TransferId(1);

fn offer() -> Offer {
    Offer {
        versions: (1, 1),
        rdma_read: true,
        urgent: true,
        suspend: false,
        returns: false,
        resumes: false,
        receive_buffers: 64,
        receive_buffer_size: 8224,
        max_descriptor: 64,
        descriptor_len: 32,
        max_rdma: 1 << 30,
        threshold: 65536,
        keep_alive_ms: 30_000,
        max_large: 4,
        session_id: *b"0123456789abcdef",
        companion: None,
    }
}

/// 192.0.2.1:40000 connected to 192.0.2.2:80.
fn companion() -> CompanionInfo {
    let mapped = |last| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, last];
    CompanionInfo {
        local: (mapped(1), 40_000),
        peer: (mapped(2), 80),
    }
}

fn returned(offset: u64, len: u32, (leave, last, gone): (bool, bool, bool)) -> Message {
    Message::Return {
        offset,
        len,
        leave,
        last,
        gone,
    }
}

/// Name, message, credit, and the bytes in front of the application's.
fn vectors() -> Vec<(&'static str, Message, u32, &'static str)> {
    let descriptor = Descriptor::new(&[0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7]).unwrap();
    VECTORS
        .iter()
        .map(|&(name, credit, bytes)| {
            let message = match name {
                "Negotiate" => Message::Negotiate(offer()),
                "Negotiate, companion" => Message::Negotiate(Offer {
                    suspend: true,
                    returns: true,
                    resumes: true,
                    companion: Some(companion()),
                    ..offer()
                }),
                "Accepted" => Message::Accepted(Offer {
                    rdma_read: false,
                    ..offer()
                }),
                "Data" => Message::Data {
                    offset: 1000,
                    len: 5,
                },
                "Data, filling" => Message::Fill {
                    transfer: ONE,
                    offset: 9192,
                    len: 8192,
                },
                "Urgent" => Message::Urgent { mark: 1005, len: 1 },
                "LargeRead" => Message::LargeRead {
                    transfer: ONE,
                    offset: 1000,
                    total: 1_000_000,
                    initial: 8192,
                    descriptor,
                },
                "ReadDone" => Message::ReadDone { transfer: ONE },
                "LargeWrite" => Message::LargeWrite {
                    transfer: ONE,
                    offset: 1000,
                    total: 1_000_000,
                    initial: 8192,
                },
                "Location" => Message::Location {
                    transfer: ONE,
                    offset: 9192,
                    len: 262_144,
                    descriptor,
                },
                "WriteDone" => Message::WriteDone {
                    transfer: ONE,
                    offset: 9192,
                    len: 262_144,
                },
                "Refused" => Message::Refused {
                    transfer: ONE,
                    offset: 9192,
                    len: 65_536,
                },
                "Credit" => Message::Credit,
                "Shutdown" => Message::Shutdown {
                    send: Some(1_001_000),
                    receive: true,
                    finished: false,
                },
                "Shutdown, finished" => Message::Shutdown {
                    send: None,
                    receive: false,
                    finished: true,
                },
                "Suspend" => Message::Suspend { end: 1_001_000 },
                "Suspended" => Message::Suspended { end: 77 },
                "Return, leaving" => returned(0, 0, (true, false, false)),
                "Return" => returned(64_000, 8192, (false, false, false)),
                "Return, last" => returned(72_192, 5, (false, true, false)),
                "Return, gone" => returned(0, 0, (false, true, true)),
                "KeepAlive" => Message::KeepAlive { query: true },
                "Reset" => Message::Reset {
                    reason: ResetReason::Aborted,
                },
                other => panic!("no message {other}"),
            };
            (name, message, credit, bytes)
        })
        .collect()
}

/// Name, credit, bytes.
#[rustfmt::skip]
const VECTORS: &[(&str, u32, &str)] = &[
    ("Negotiate", 64, "\
         01 00 00 00  80 00 00 00  00 00 00 00  00 00 00 00 \
         40 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         57 53 44 53  45 53 53 01  01 01 03 00  40 00 00 00 \
         20 20 00 00  40 00 20 00  00 00 00 40  00 00 00 00 \
         00 00 01 00  00 00 00 00  30 75 00 00  04 00 00 00 \
         30 31 32 33  34 35 36 37  38 39 61 62  63 64 65 66 \
         00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00"),
    ("Negotiate, companion", 64, "\
         01 00 00 00  80 00 00 00  00 00 00 00  00 00 00 00 \
         40 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         57 53 44 53  45 53 53 01  01 01 3f 00  40 00 00 00 \
         20 20 00 00  40 00 20 00  00 00 00 40  00 00 00 00 \
         00 00 01 00  00 00 00 00  30 75 00 00  04 00 00 00 \
         30 31 32 33  34 35 36 37  38 39 61 62  63 64 65 66 \
         00 00 00 00  00 00 00 00  00 00 ff ff  c0 00 02 01 \
         40 9c 00 00  00 00 00 00  00 00 00 00  ff ff c0 00 \
         02 02 50 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00"),
    ("Accepted", 65, "\
         02 00 00 00  80 00 00 00  00 00 00 00  00 00 00 00 \
         41 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         57 53 44 53  45 53 53 01  01 01 02 00  40 00 00 00 \
         20 20 00 00  40 00 20 00  00 00 00 40  00 00 00 00 \
         00 00 01 00  00 00 00 00  30 75 00 00  04 00 00 00 \
         30 31 32 33  34 35 36 37  38 39 61 62  63 64 65 66 \
         00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00"),
    ("Data", 66, "\
         03 01 00 00  05 00 00 00  e8 03 00 00  00 00 00 00 \
         42 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00"),
    ("Data, filling", 67, "\
         03 01 00 00  00 20 00 00  e8 23 00 00  00 00 00 00 \
         43 00 00 00  01 00 00 00  00 00 00 00  00 00 00 00"),
    ("Urgent", 68, "\
         04 01 00 00  01 00 00 00  ed 03 00 00  00 00 00 00 \
         44 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00"),
    ("LargeRead", 69, "\
         05 01 00 08  00 20 00 00  e8 03 00 00  00 00 00 00 \
         45 00 00 00  01 00 00 00  40 42 0f 00  00 00 00 00 \
         d0 d1 d2 d3  d4 d5 d6 d7"),
    ("ReadDone", 70, "\
         06 01 00 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         46 00 00 00  01 00 00 00  00 00 00 00  00 00 00 00"),
    ("LargeWrite", 71, "\
         07 01 00 00  00 20 00 00  e8 03 00 00  00 00 00 00 \
         47 00 00 00  01 00 00 00  40 42 0f 00  00 00 00 00"),
    ("Location", 72, "\
         08 01 00 08  00 00 00 00  e8 23 00 00  00 00 00 00 \
         48 00 00 00  01 00 00 00  00 00 04 00  00 00 00 00 \
         d0 d1 d2 d3  d4 d5 d6 d7"),
    ("WriteDone", 73, "\
         09 01 00 00  00 00 00 00  e8 23 00 00  00 00 00 00 \
         49 00 00 00  01 00 00 00  00 00 04 00  00 00 00 00"),
    ("Refused", 74, "\
         0a 01 00 00  00 00 00 00  e8 23 00 00  00 00 00 00 \
         4a 00 00 00  01 00 00 00  00 00 01 00  00 00 00 00"),
    ("Credit", 75, "\
         0b 01 00 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         4b 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00"),
    ("Shutdown", 76, "\
         0c 01 03 00  00 00 00 00  28 46 0f 00  00 00 00 00 \
         4c 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00"),
    ("Shutdown, finished", 77, "\
         0c 01 04 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         4d 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00"),
    ("Suspend", 80, "\
         0d 01 00 00  00 00 00 00  28 46 0f 00  00 00 00 00 \
         50 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00"),
    ("Suspended", 81, "\
         0e 01 00 00  00 00 00 00  4d 00 00 00  00 00 00 00 \
         51 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00"),
    ("Return, leaving", 82, "\
         12 01 01 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         52 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00"),
    ("Return", 83, "\
         12 01 00 00  00 20 00 00  00 fa 00 00  00 00 00 00 \
         53 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00"),
    ("Return, last", 84, "\
         12 01 02 00  05 00 00 00  00 1a 01 00  00 00 00 00 \
         54 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00"),
    ("Return, gone", 85, "\
         12 01 06 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         55 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00"),
    ("KeepAlive", 78, "\
         10 01 01 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         4e 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00"),
    ("Reset", 79, "\
         11 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00 \
         4f 00 00 00  00 00 00 00  01 00 00 00  00 00 00 00"),
];

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.split_whitespace().collect::<String>();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for row in bytes.chunks(16) {
        for (at, quad) in row.chunks(4).enumerate() {
            if at > 0 {
                text.push_str("  ");
            }
            let quad = quad
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<Vec<_>>();
            text.push_str(&quad.join(" "));
        }
        text.push('\n');
    }
    text
}

fn encoded(message: &Message, credit: u32) -> Vec<u8> {
    let mut buffer = vec![0xee; 300];
    let len = message.encode(VERSION, credit, &mut buffer).unwrap();
    assert_eq!(len, message.head_len());
    buffer.truncate(len);
    buffer
}

#[test]
fn every_message_is_encoded_as_published() {
    for (name, message, credit, published) in vectors() {
        assert_eq!(
            hex(&encoded(&message, credit)),
            hex(&bytes(published)),
            "{name}"
        );
    }
}

#[test]
fn every_published_message_is_understood() {
    for (name, message, credit, published) in vectors() {
        let mut received = bytes(published);
        let head = received.len();
        received.resize(head + message.payload_len() as usize, 0x5a);
        let agreed = match name {
            "Negotiate" | "Negotiate, companion" | "Accepted" => None,
            _ => Some(VERSION),
        };
        let parsed = parse(&received, agreed).unwrap();
        assert_eq!((parsed.message, parsed.credit), (message, credit), "{name}");
        assert_eq!(parsed.payload, head..received.len(), "{name}");
    }
}

#[test]
fn no_buffer_is_overrun() {
    for (name, message, credit, published) in vectors() {
        for room in 0..bytes(published).len() {
            let mut buffer = vec![0xee; room];
            assert_eq!(
                message.encode(VERSION, credit, &mut buffer),
                None,
                "{name} in {room}"
            );
        }
    }
}

#[test]
fn the_negotiation_fits_into_the_private_buffer_of_a_provider() {
    assert!(Message::Negotiate(offer()).head_len() <= MAX_NEGOTIATION);
    assert!(Message::Accepted(offer()).head_len() <= MAX_NEGOTIATION);
}

/// `WSD_BLESS=1` writes the vectors of this file into the document.
#[test]
fn the_document_publishes_the_same_bytes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/session-protocol.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- vectors: begin -->\n", "<!-- vectors: end -->\n");
    let (before, rest) = document.split_once(begin).unwrap();
    let (published, after) = rest.split_once(end).unwrap();
    let mut listing = String::new();
    for (name, message, credit, vector) in vectors() {
        let text = format!("{message:?}");
        let kind = &text[..text.find([' ', '(']).unwrap_or(text.len())];
        let body = message.payload_len();
        write!(listing, "\n**{name}**, credit {credit}").unwrap();
        match kind {
            "Negotiate" | "Accepted" => {}
            _ if body > 0 => write!(listing, ", before {body} bytes of the application").unwrap(),
            _ => {}
        }
        write!(listing, "\n\n```text\n{}```\n", hex(&bytes(vector))).unwrap();
    }
    write!(
        listing,
        "\n**Resume**, on the TCP connection\n\n```text\n{}```\n",
        hex(&bytes(RESUME))
    )
    .unwrap();
    listing.push('\n');
    if std::env::var_os("WSD_BLESS").is_some() {
        std::fs::write(path, format!("{before}{begin}{listing}{end}{after}")).unwrap();
    } else {
        assert_eq!(
            published, listing,
            "run with WSD_BLESS=1 and look at the difference"
        );
    }
}

// ---- what travels over the connection that is left

/// The message behind the header of a lost session: its vector in the document.
const RESUME: &str = "\
    0f 01 00 00  10 00 00 00  28 46 0f 00  00 00 00 00 \
    00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00 \
    30 31 32 33  34 35 36 37  38 39 61 62  63 64 65 66";

const RESUMED: Resume = Resume {
    offset: 1_001_000,
    session_id: *b"0123456789abcdef",
};

#[test]
fn a_resume_is_written_and_read_as_published() {
    assert_eq!(hex(&RESUMED.encode()), hex(&bytes(RESUME)));
    assert_eq!(Resume::parse(&bytes(RESUME)), Ok(RESUMED));
}

#[test]
fn a_resume_inside_a_session_is_refused() {
    for agreed in [None, Some(VERSION)] {
        assert_eq!(
            parse(&RESUMED.encode(), agreed),
            Err(ProtocolError::Unexpected)
        );
    }
}

#[test]
fn what_breaks_a_resume_is_named() {
    use ProtocolError::*;
    let changed = |at: usize, byte: u8| {
        let mut bytes = RESUMED.encode();
        bytes[at] = byte;
        Resume::parse(&bytes)
    };
    assert_eq!(changed(0, 14), Err(Type(14)));
    assert_eq!(changed(1, 0), Err(Version(0)));
    assert_eq!(changed(2, 1), Err(Flags));
    assert_eq!(changed(3, 1), Err(Descriptor));
    assert_eq!(changed(4, 15), Err(Length));
    for at in [16, 20, 24, 31] {
        assert_eq!(changed(at, 1), Err(NonZero), "{at}");
    }
    assert!(changed(15, 1).is_ok() && changed(47, 1).is_ok());
    let bytes = RESUMED.encode();
    assert_eq!(Resume::parse(&bytes[..47]), Err(Length));
    let mut long = bytes.to_vec();
    long.push(0);
    assert_eq!(Resume::parse(&long), Err(Length));
    assert_eq!(Resume::parse(&[]), Err(Length));
}

// ---- what is not understood

/// The published message with bytes changed, parsed as if the application's bytes were there.
fn parse_changed(name: &str, changes: &[(usize, u8)]) -> Result<Message, ProtocolError> {
    let (_, message, _, published) = vectors().into_iter().find(|v| v.0 == name).unwrap();
    let mut changed = bytes(published);
    changed.resize(changed.len() + message.payload_len() as usize, 0);
    for &(at, byte) in changes {
        changed[at] = byte;
    }
    let agreed =
        (!matches!(name, "Negotiate" | "Negotiate, companion" | "Accepted")).then_some(VERSION);
    parse(&changed, agreed).map(|received| received.message)
}

/// Name of a vector, changed bytes, and what follows.
type Broken = (&'static str, &'static [(usize, u8)], ProtocolError);

#[test]
fn what_breaks_the_format_is_named() {
    use ProtocolError::*;
    let refused: &[Broken] = &[
        ("Data", &[(0, 0)], Type(0)),
        ("Data", &[(0, 19)], Type(19)),
        ("Data", &[(0, 255)], Type(255)),
        ("Credit", &[(0, 15)], Unexpected),
        ("Suspend", &[(2, 1)], Flags),
        ("Suspend", &[(20, 1)], NonZero),
        ("Suspended", &[(24, 1)], NonZero),
        ("Suspended", &[(4, 1)], Length),
        ("Return", &[(2, 8)], Flags),
        ("Return", &[(2, 1)], Flags),
        ("Return, last", &[(2, 6)], Flags),
        ("Return, leaving", &[(8, 1)], Flags),
        ("Return, gone", &[(2, 4)], Flags),
        ("Return, gone", &[(24, 1)], NonZero),
        ("Data", &[(1, 0)], Version(0)),
        ("Data", &[(1, 2)], Version(2)),
        ("Reset", &[(1, 1)], Version(1)),
        ("Data", &[(2, 1)], Flags),
        ("Shutdown", &[(2, 8)], Flags),
        ("Shutdown, finished", &[(2, 0)], Flags),
        ("Shutdown", &[(2, 2)], NonZero),
        ("KeepAlive", &[(2, 2)], Flags),
        ("Data", &[(4, 6)], Length),
        ("Data", &[(4, 4)], Length),
        ("Data", &[(7, 255)], Length),
        ("Data", &[(3, 5), (4, 0)], Descriptor),
        ("LargeRead", &[(3, 0), (4, 8)], Descriptor),
        ("LargeRead", &[(3, 200), (4, 64), (5, 31)], Descriptor),
        ("Credit", &[(8, 1)], NonZero),
        ("Credit", &[(20, 1)], NonZero),
        ("Credit", &[(31, 1)], NonZero),
        ("ReadDone", &[(8, 1)], NonZero),
        ("Reset", &[(26, 1)], NonZero),
        ("Data", &[(24, 1)], NonZero),
        ("ReadDone", &[(20, 0)], Transfer),
        ("LargeRead", &[(20, 0)], Transfer),
        ("Location", &[(26, 0)], Range),
        ("Location", &[(28, 1)], Range),
        (
            "Location",
            &[
                (8, 255),
                (9, 255),
                (10, 255),
                (11, 255),
                (12, 255),
                (13, 255),
                (14, 255),
                (15, 255),
            ],
            Range,
        ),
        ("LargeWrite", &[(24, 0), (25, 32), (26, 0)], Range),
        ("Negotiate", &[(32, 0)], Magic),
        ("Negotiate", &[(40, 0)], Version(0)),
        ("Negotiate", &[(40, 3)], Version(3)),
        ("Accepted", &[(41, 2)], Version(1)),
        ("Negotiate", &[(42, 64)], NonZero),
        ("Negotiate", &[(42, 8)], Negotiation),
        ("Negotiate, companion", &[(42, 3)], NonZero),
        ("Negotiate, companion", &[(112, 0), (113, 0)], Negotiation),
        ("Negotiate, companion", &[(130, 0), (131, 0)], Negotiation),
        ("Negotiate, companion", &[(132, 1)], NonZero),
        ("Negotiate, companion", &[(159, 1)], NonZero),
        ("Negotiate", &[(78, 1)], NonZero),
        ("Negotiate", &[(96, 1)], NonZero),
        ("Negotiate", &[(159, 1)], NonZero),
        ("Negotiate", &[(2, 1)], Flags),
        ("Negotiate", &[(8, 1)], NonZero),
    ];
    for (name, changes, error) in refused {
        assert_eq!(
            parse_changed(name, changes),
            Err(*error),
            "{name} with {changes:?}"
        );
    }
    assert_eq!(parse(&[], None), Err(Length));
    assert_eq!(parse(&[0; 31], Some(VERSION)), Err(Length));
    let empty = encoded(&Message::Data { offset: 0, len: 0 }, 0);
    assert_eq!(parse(&empty, Some(VERSION)), Err(Length));
    let urgent = encoded(&Message::Urgent { mark: 0, len: 0 }, 0);
    assert_eq!(parse(&urgent, Some(VERSION)), Err(Length));
    let early = encoded(&Message::Credit, 0);
    assert_eq!(parse(&early, None), Err(Unexpected));
}

#[test]
fn an_offer_of_a_later_version_may_use_what_is_spare_here() {
    assert!(parse_changed("Negotiate", &[(41, 2), (43, 1), (100, 7)]).is_ok());
    let mut long = bytes(VECTORS[0].2);
    long[41] = 9;
    long[4] = 224;
    long.resize(MAX_NEGOTIATION, 0xff);
    assert!(parse(&long, None).is_ok());
    long[4] = 225;
    long.push(0);
    assert_eq!(
        parse(&long, None).map(|r| r.message),
        Err(ProtocolError::Length)
    );
}

#[test]
fn a_descriptor_has_a_length_and_a_limit() {
    assert!(Descriptor::new(&[]).is_none());
    assert!(Descriptor::new(&[1; MAX_DESCRIPTOR + 1]).is_none());
    assert!(Descriptor::new(&[1; 300]).is_none());
    assert_eq!(
        Descriptor::new(&[1; MAX_DESCRIPTOR]).unwrap().as_bytes(),
        [1; MAX_DESCRIPTOR]
    );
}

fn any_transfer() -> impl Strategy<Value = TransferId> {
    (1..=u32::MAX).prop_map(TransferId)
}

fn any_descriptor() -> impl Strategy<Value = Descriptor> {
    vec(any::<u8>(), 1..=MAX_DESCRIPTOR).prop_map(|bytes| Descriptor::new(&bytes).unwrap())
}

/// Offset and length of a part that does not wrap around.
fn any_part() -> impl Strategy<Value = (u64, u64)> {
    (0..=u64::MAX - u64::from(u32::MAX), 1..=u64::from(u32::MAX))
}

fn any_message() -> impl Strategy<Value = Message> {
    let large = (any_transfer(), any_part(), 0..5000_u32, any_descriptor());
    let part = (any_transfer(), any_part(), any_descriptor());
    prop_oneof![
        (any::<u64>(), 1..5000_u32).prop_map(|(offset, len)| Message::Data { offset, len }),
        (any_transfer(), any::<u64>(), 1..5000_u32).prop_map(|(transfer, offset, len)| {
            Message::Fill {
                transfer,
                offset,
                len,
            }
        }),
        (any::<u64>(), 1..5000_u32).prop_map(|(mark, len)| Message::Urgent { mark, len }),
        (large, any::<bool>()).prop_map(
            |((transfer, (offset, total), initial, descriptor), read)| {
                let initial = initial.min(u32::try_from(total - 1).unwrap());
                if read {
                    Message::LargeRead {
                        transfer,
                        offset,
                        total,
                        initial,
                        descriptor,
                    }
                } else {
                    Message::LargeWrite {
                        transfer,
                        offset,
                        total,
                        initial,
                    }
                }
            }
        ),
        (part, 0..3).prop_map(
            |((transfer, (offset, len), descriptor), which)| match which {
                0 => Message::Location {
                    transfer,
                    offset,
                    len,
                    descriptor
                },
                1 => Message::WriteDone {
                    transfer,
                    offset,
                    len
                },
                _ => Message::Refused {
                    transfer,
                    offset,
                    len
                },
            }
        ),
        any_transfer().prop_map(|transfer| Message::ReadDone { transfer }),
        Just(Message::Credit),
        (any::<Option<u64>>(), any::<bool>(), any::<bool>())
            .prop_filter("says something", |(send, receive, finished)| {
                send.is_some() || *receive || *finished
            })
            .prop_map(|(send, receive, finished)| Message::Shutdown {
                send,
                receive,
                finished
            }),
        any::<u64>().prop_map(|end| Message::Suspend { end }),
        any::<u64>().prop_map(|end| Message::Suspended { end }),
        Just(returned(0, 0, (true, false, false))),
        Just(returned(0, 0, (false, true, true))),
        (any::<u32>(), 1..10_000u32, any::<bool>()).prop_map(|(at, len, last)| returned(
            at.into(),
            len,
            (false, last, false)
        )),
        any::<bool>().prop_map(|query| Message::KeepAlive { query }),
        any::<u16>().prop_map(|code| Message::Reset {
            reason: ResetReason::from_code(code)
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_parsed(message in any_message(), credit in any::<u32>()) {
        let mut wire = encoded(&message, credit);
        let head = wire.len();
        wire.resize(head + message.payload_len() as usize, 7);
        let parsed = parse(&wire, Some(VERSION)).unwrap();
        prop_assert_eq!(parsed.message, message);
        prop_assert_eq!(parsed.credit, credit);
        prop_assert_eq!(parsed.payload, head..wire.len());
    }

    #[test]
    fn a_resume_is_parsed_as_encoded(offset in any::<u64>(), session_id in any::<[u8; 16]>()) {
        let resume = Resume { offset, session_id };
        prop_assert_eq!(Resume::parse(&resume.encode()), Ok(resume));
    }

    #[test]
    fn any_bytes_are_one_resume_or_none(
        at in 0..48_usize, byte in any::<u8>(), garbage in vec(any::<u8>(), 0..60),
    ) {
        let mut changed = RESUMED.encode();
        changed[at] = byte;
        for bytes in [&changed[..], &garbage[..]] {
            if let Ok(resume) = Resume::parse(bytes) {
                prop_assert_eq!(&resume.encode()[..], bytes);
            }
        }
    }

    #[test]
    fn an_offer_of_a_companion_is_parsed_as_encoded(
        local in any::<([u8; 16], u16)>(), peer in any::<([u8; 16], u16)>(), answer in any::<bool>(),
    ) {
        let offer = Offer { companion: Some(CompanionInfo { local, peer }), ..offer() };
        let message = if answer { Message::Accepted(offer) } else { Message::Negotiate(offer) };
        let parsed = parse(&encoded(&message, 3), None).map(|received| received.message);
        if local.1 == 0 || peer.1 == 0 {
            prop_assert_eq!(parsed, Err(ProtocolError::Negotiation));
        } else {
            prop_assert_eq!(parsed, Ok(message));
        }
    }

    /// Nothing panics, and what is accepted could not have been written in another way.
    #[test]
    fn any_bytes_are_a_message_or_an_error(garbage in vec(any::<u8>(), 0..200), kind in 0..20_u8) {
        let mut garbage = garbage;
        if let Some(first) = garbage.first_mut() {
            *first = kind;
        }
        for version in [None, Some(VERSION)] {
            if let Ok(parsed) = parse(&garbage, version) {
                let head = encoded(&parsed.message, parsed.credit);
                prop_assert_eq!(&garbage[..head.len()], &head[..]);
            }
        }
    }

    #[test]
    fn a_changed_message_is_canonical_or_an_error(
        message in any_message(), at in 0..104_usize, byte in any::<u8>(), cut in 0..3_usize,
    ) {
        let mut wire = encoded(&message, 1);
        wire.resize(wire.len() + message.payload_len() as usize, 7);
        if let Some(place) = wire.get_mut(at) {
            *place = byte;
        }
        wire.truncate(wire.len() - cut.min(wire.len()));
        if let Ok(parsed) = parse(&wire, Some(VERSION)) {
            let head = encoded(&parsed.message, parsed.credit);
            prop_assert_eq!(&wire[..head.len()], &head[..]);
            prop_assert!(parsed.payload.end == wire.len());
        }
    }
}
