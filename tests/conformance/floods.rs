//! HTTP/2 clients that send what costs a server much and themselves little: each is cut off, and nobody else notices.

use crate::kit::*;
use hawser::web::Handle;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread,
    time::Instant,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET http://a/`, in HPACK without Huffman coding.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Reads frames until the connection ends: the error code of the server's GOAWAY, if it sent one.
fn listen(mut stream: TcpStream) -> Option<u32> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let [high, middle, low, kind, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        stream.read_exact(&mut payload).ok()?;
        if kind == GOAWAY {
            return payload[4..8].try_into().ok().map(u32::from_be_bytes);
        }
    }
}

/// Sends what `next` makes, a hundred at a time, until the server closes; with which error, if it says so.
fn flood(address: SocketAddr, mut next: impl FnMut(usize) -> Vec<u8>) -> Option<u32> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
    let (heard, hears) = mpsc::channel();
    let reading = stream.try_clone().unwrap();
    thread::spawn(move || heard.send(listen(reading)));
    let (begun, mut sent) = (Instant::now(), 0);
    loop {
        if let Ok(ended) = hears.try_recv() {
            return ended;
        }
        assert!(begun.elapsed() < PATIENCE, "{sent} frames were endured");
        let bytes: Vec<u8> = (sent..sent + 100).flat_map(&mut next).collect();
        if stream.write_all(&bytes).is_err() {
            return hears.recv_timeout(PATIENCE).expect("the server closes");
        }
        sent += 100;
    }
}

fn stream_of(number: usize) -> u32 {
    u32::try_from(number * 2 + 1).unwrap()
}

/// Floods a site while another visitor uses it, on a connection from before and on new ones.
fn floods_a_site(next: impl FnMut(usize) -> Vec<u8>) -> (Handle, Option<u32>) {
    let (folder, handle, address) = served_site();
    let mut other = Client::connect(address);
    let mut served = |count: u64| {
        for _ in 0..count {
            assert_eq!(other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").reply().unwrap().text(), "<p>home</p>");
            assert_eq!(get(address, "/").status, 200);
        }
    };
    served(1);
    let answer = flood(address, next);
    served(3);
    drop(folder);
    until("only the other visitor is left", || handle.totals().active == 1);
    (handle, answer)
}

#[test]
fn rapid_resets_are_cut_off() {
    const ENHANCE_YOUR_CALM: u32 = 11;
    let (handle, ended) = floods_a_site(|number| {
        let stream = stream_of(number);
        let ask = frame(HEADERS, END_HEADERS | END_STREAM, stream, GET);
        [ask, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    assert!(ended.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{ended:?}");
    let requests = handle.totals().requests - 8;
    assert!(requests < 5000, "{requests} of them became requests");
}

/// The client makes the server reset its own streams (CVE-2025-8671).
#[test]
fn resets_that_a_client_provokes_are_cut_off() {
    let (handle, _) = floods_a_site(|number| {
        let stream = stream_of(number);
        let ask = frame(HEADERS, END_HEADERS, stream, GET);
        [ask, frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes())].concat()
    });
    let requests = handle.totals().requests - 8;
    assert!(requests < 5000, "{requests} of them became requests");
}

#[test]
fn continuations_without_an_end_are_cut_off() {
    for payload in [&b""[..], &[0x40, 1, b'a', 1, b'b'].repeat(100)] {
        let (handle, _) = floods_a_site(|number| match number {
            0 => frame(HEADERS, 0, 1, GET),
            _ => frame(CONTINUATION, 0, 1, payload),
        });
        assert_eq!(handle.totals().responses[1], 8, "only the other visitor was answered");
    }
}

#[test]
fn frames_that_carry_nothing_are_cut_off() {
    for (kind, stream, payload) in [
        (SETTINGS, 0, &[0, 3, 0, 0, 0, 100][..]),
        (PING, 0, &[0; 8]),
        (PRIORITY, 1, &[0, 0, 0, 3, 16]),
        (WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
        (99, 0, &[]),
    ] {
        let (handle, _) = floods_a_site(|_| frame(kind, 0, stream, payload));
        assert_eq!(handle.totals().floods, 1, "{kind}");
        assert_eq!(handle.totals().requests, 8, "{kind}");
    }
}

#[test]
fn data_without_a_byte_is_cut_off() {
    let app = App::start(|client| drop(client.rest()));
    let (handle, address) = proxied(&[&app]);
    flood(address, |number| match number {
        0 => frame(HEADERS, END_HEADERS, 1, &[0x83, 0x86, 0x84, 0x41, 1, b'a']),
        _ => frame(DATA, 0, 1, &[]),
    });
    until("it is closed", || handle.totals().active == 0);
}

#[test]
fn a_list_of_headers_that_is_too_long_costs_the_request_and_not_the_connection() {
    let (_folder, handle, address) = served_site();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let field = [&[0x40, 1, b'x', 0x7f, 0x81, 0x3e][..], &[b'y'; 8064]].concat();
    let list: Vec<u8> = [GET, &field.repeat(4)].concat();
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_STREAM, 1, &list[..16_000])].concat();
    bytes.extend(frame(CONTINUATION, 0, 1, &list[16_000..32_000]));
    bytes.extend(frame(CONTINUATION, END_HEADERS, 1, &list[32_000..]));
    bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 3, GET));
    stream.write_all(&bytes).unwrap();
    until("the second request is answered", || handle.totals().responses[1] == 1);
    assert_eq!(handle.totals().requests, 1, "the first was never one");
}
