//! PROXY headers, from proxies in front and to servers behind; and the probe of listeners that want more than HTTP.

use crate::{kit::*, secure::*};
use hawser::{
    config::{ClientAuth, ClientNeed, Front, HealthKind, ProxyVersion, Tls},
    web::{Handle, health, probe},
};
use std::{
    io::Write,
    net::SocketAddr,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use tokio::sync::watch;

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.10 50000 443\r\n";

/// The same in version 2, with what a vendor adds.
fn v2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13".to_vec();
    header.extend([203, 0, 113, 7, 192, 0, 2, 10, 0xc3, 0x50, 1, 0xbb]);
    header.extend([0xea, 0, 4, 1, 2, 3, 4]);
    header
}

const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const ASK: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn loopback() -> Front {
    Front { proxy_from: vec!["127.0.0.0/8".parse().unwrap()], ..Front::default() }
}

fn echoing(front: Front) -> (App, Handle, SocketAddr) {
    let app = App::echo();
    let mut setup = setup(vec![proxy_route("/")], vec![upstream(&[app.address])]);
    setup.web.listeners[0].front = front;
    let (handle, address) = start(setup);
    (app, handle, address)
}

fn client_in(text: &str) -> String {
    let line =
        text.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("x-forwarded-for: ").map(str::to_owned));
    assert!(line.is_some(), "nobody is named in {text}");
    line.unwrap_or_default()
}

#[test]
fn the_client_is_the_one_that_the_proxy_in_front_names() {
    let (_app, handle, address) = echoing(loopback());
    for (header, client) in [
        (V1.to_vec(), "203.0.113.7"),
        (v2(), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::10 50000 443\r\n".to_vec(), "2001:db8::7"),
        // It speaks for itself.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (V2_LOCAL.to_vec(), "127.0.0.1"),
    ] {
        let mut whole = Client::connect(address);
        whole.send([&header[..], ASK.as_bytes()].concat());
        assert_eq!(client_in(whole.reply().unwrap().text()), client);
        let mut in_pieces = Client::connect(address);
        for piece in header.chunks(5) {
            in_pieces.send(piece);
            thread::sleep(Duration::from_millis(1));
        }
        in_pieces.send(ASK);
        assert_eq!(client_in(in_pieces.reply().unwrap().text()), client);
    }
    assert_eq!(handle.totals().proxy_headers_refused, 0);
}

#[test]
fn a_proxy_header_comes_before_tls() {
    let authority = Authority::new();
    let both = Front { proxy_from: loopback().proxy_from, ..front(authority.tls()) };
    let (_app, _handle, address) = echoing(both);
    for header in [V1.to_vec(), v2()] {
        let mut stream = secure_after(address, &header, &authority.client(BOTH), "localhost").unwrap();
        let (_, body) = exchange(&mut stream, HELLO).unwrap();
        assert_eq!(client_in(&body), "203.0.113.7");
        assert!(body.to_ascii_lowercase().contains("x-forwarded-proto: https"), "{body}");
    }
    assert!(secure(address, &authority.client(BOTH), "localhost").is_err(), "without a header");
}

#[test]
fn only_the_proxies_that_are_named_may_connect() {
    let front = Front { proxy_from: vec!["10.0.0.0/8".parse().unwrap()], ..Front::default() };
    let (_app, handle, address) = echoing(front);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.2:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut client = Client::new(socket.into());
    // It may be reset before it has been taken.
    drop(client.stream.write_all(V1));
    assert!(client.head().is_err());
    until("it is counted", || handle.totals().proxy_headers_refused == 1 && handle.totals().active == 0);
    // Where nobody may say it, a header is no request.
    let (_app, _handle, plain) = echoing(Front::default());
    let mut client = Client::connect(plain);
    client.send([V1, ASK.as_bytes()].concat());
    assert_eq!(client.reply().unwrap().status, 400);
}

#[test]
fn what_is_no_proxy_header_is_refused() {
    let (_app, handle, address) = echoing(loopback());
    let long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat();
    let mut too_long = V2_LOCAL.to_vec();
    too_long[14] = 0xff;
    let bad: [&[u8]; 6] = [
        ASK.as_bytes(),
        b"PROXY TCP4 1.2.3.4\r\n.......",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03......",
        &long,
        &too_long,
        &[0; 64],
    ];
    for (at, bytes) in bad.iter().enumerate() {
        let mut client = Client::connect(address);
        drop(client.stream.write_all(bytes));
        assert!(client.head().is_err(), "{at}");
    }
    until("all are counted", || handle.totals().proxy_headers_refused == 6 && handle.totals().active == 0);
    assert_eq!(handle.totals().requests, 0);
}

#[test]
fn a_proxy_header_that_never_ends_is_not_waited_for() {
    let (_app, handle, address) = echoing(loopback());
    let asked = Instant::now();
    let mut clients: Vec<Client> = [&b""[..], b"PROXY TC", &v2()[..20]]
        .into_iter()
        .map(|begun| {
            let mut client = Client::connect(address);
            client.send(begun);
            client
        })
        .collect();
    for client in &mut clients {
        assert!(client.head().is_err());
    }
    assert!(
        asked.elapsed() >= hawser::limits::PROXY_HEADER_TIMEOUT - Duration::from_millis(50),
        "{:?}",
        asked.elapsed()
    );
    until("all are counted", || handle.totals().proxy_headers_refused == 3);
}

/// A server that reports the first bytes of each connection, up to `length`, and answers what follows.
fn listening(length: usize) -> (App, mpsc::Receiver<Vec<u8>>) {
    let (tell, told) = mpsc::channel();
    let app = App::start(move |client| {
        let bytes = client.bytes(length);
        drop(tell.send(bytes));
        while client.request_head().is_some() {
            client.send(ok("fine"));
        }
    });
    (app, told)
}

#[test]
fn a_server_behind_is_told_the_client_and_the_address_that_it_came_to() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let (one, other) = (4000, 4001);
        // Both headers are as long as these addresses make them.
        let say = |port: u16| match version {
            ProxyVersion::V1 => format!("PROXY TCP4 203.0.113.7 192.0.2.10 {port} 443\r\n").into_bytes(),
            ProxyVersion::V2 => {
                let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
                header.extend([203, 0, 113, 7, 192, 0, 2, 10]);
                header.extend(port.to_be_bytes());
                header.extend(443_u16.to_be_bytes());
                header
            }
        };
        let (app, told) = listening(say(one).len());
        let mut to = upstream(&[app.address]);
        to.proxy_protocol = Some(version);
        let mut setup = setup(vec![proxy_route("/")], vec![to]);
        setup.web.listeners[0].front = loopback();
        let (_handle, address) = start(setup);
        for port in [one, other, one] {
            let mut client = Client::connect(address);
            client.send(say(port)).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.reply().unwrap().text(), "fine");
            assert_eq!(told.recv_timeout(PATIENCE).unwrap(), say(port), "{version:?}");
            // A second request of the same client begins anew, too: nobody else's connection is used.
            client.send(ASK);
            assert_eq!(client.reply().unwrap().text(), "fine");
            assert_eq!(told.recv_timeout(PATIENCE).unwrap(), say(port), "{version:?}");
        }
        assert_eq!(app.connections(), 6);
    }
}

#[test]
fn a_check_of_a_server_that_wants_a_proxy_header_speaks_for_itself() {
    for (version, header) in [(ProxyVersion::V1, &b"PROXY UNKNOWN\r\n"[..]), (ProxyVersion::V2, V2_LOCAL)] {
        let (app, told) = listening(header.len());
        let mut to = upstream(&[app.address]);
        to.proxy_protocol = Some(version);
        to.health.kind = HealthKind::Http { path: "/".to_owned(), host: None, status: (200, 200) };
        let (handle, _) = start(setup(vec![proxy_route("/")], vec![to]));
        let upstreams = handle.upstreams();
        thread::spawn(move || control(health::run(upstreams)));
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), header);
        until("it is checked", || handle.view().upstreams[0].servers[0].checked);
        assert!(handle.view().upstreams[0].servers[0].up);
    }
}

#[test]
fn a_tier_of_every_kind_of_listener_is_fit() {
    let authority = Authority::new();
    let demanding = |need| Tls { clients: Some(ClientAuth { ca: authority.ca_file(), need }), ..authority.tls() };
    let mut setup = setup(vec![], vec![]);
    let strangers = Front { proxy_from: vec!["10.0.0.0/8".parse().unwrap()], ..Front::default() };
    let both = Front { proxy_from: loopback().proxy_from, ..front(authority.tls()) };
    let fronts = [
        front(authority.tls()),
        front(demanding(ClientNeed::Optional)),
        front(demanding(ClientNeed::Required)),
        loopback(),
        strangers,
        both,
    ];
    setup.web.listeners = fronts.into_iter().map(|front| listener(&setup, front)).collect();
    let (handle, _) = start(setup);
    let (tell, told) = watch::channel(None);
    let targets = handle.probe_targets();
    thread::spawn(move || control(probe::run(targets, tell)));
    // Each round shakes hands with the first two.
    until("it was asked three times", || handle.totals().handshakes >= 6);
    assert_eq!(*told.borrow(), None);
    let totals = handle.totals();
    assert_eq!((totals.handshakes_failed, totals.proxy_headers_refused), (0, 0), "the probe counts as no failure");
    assert!(control(handle.shutdown(PATIENCE)));
    until("what has ended is unfit", || told.borrow().is_some());
}
