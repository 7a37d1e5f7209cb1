//! The reverse proxy: what is passed on, and what a client sees when a server fails.

use crate::kit::*;
use hawser::web::Tier;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

fn lower(reply: &Reply) -> String {
    reply.text().to_ascii_lowercase()
}

#[test]
fn a_request_reaches_the_server_as_the_client_meant_it() {
    let app = App::echo();
    let (_handle, address) = proxied(&[&app]);
    let reply = get_with(
        address,
        "/a%2Fb/%e4?x=1&y=%20",
        "Cookie: c\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nKeep-Alive: 5\r\nTE: gzip\r\n",
    );
    let head = lower(&reply);
    assert!(head.starts_with("get /a%2fb/%e4?x=1&y=%20 http/1.1\r\n"), "{head}");
    for wanted in
        ["host: a", "cookie: c", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "x-forwarded-host: a"]
    {
        assert!(head.contains(&format!("\r\n{wanted}\r\n")), "{wanted}: {head}");
    }
    for unwanted in ["6.6.6.6", "keep-alive", "te:", "connection"] {
        assert!(!head.contains(unwanted), "{unwanted}: {head}");
    }
}

#[test]
fn a_dot_segment_is_not_passed_on() {
    let app = App::echo();
    let (_handle, address) = proxied(&[&app]);
    for path in ["/a/../b", "/%2e%2e/b", "/a/./b", "/a/.%2E"] {
        assert_eq!(get(address, path).status, 400, "{path}");
    }
    assert_eq!(app.connections(), 0);
}

#[test]
fn what_is_between_server_and_proxy_does_not_reach_the_client() {
    let app = App::answering(|_| {
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n\
         Server: app\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nhi"
            .to_owned()
    });
    let (_handle, address) = proxied(&[&app]);
    let reply = ask(address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((reply.text(), reply.header("server")), ("hi", Some("app")));
    assert_eq!(reply.headers.iter().filter(|(name, _)| name == "set-cookie").count(), 2);
    for name in ["x-secret", "keep-alive", "connection"] {
        assert_eq!(reply.header(name), None);
    }
}

#[test]
fn a_connection_to_the_server_is_used_again() {
    let app = App::echo();
    let (_handle, address) = proxied(&[&app]);
    let mut client = Client::connect(address);
    for _ in 0..20 {
        assert_eq!(client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").reply().unwrap().status, 200);
    }
    assert_eq!(app.connections(), 1);
}

#[test]
fn a_response_without_a_body_keeps_the_connection() {
    let app = App::answering(|head| match head.split(' ').next().unwrap() {
        "HEAD" => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".to_owned(),
        "GET" => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n".to_owned(),
        _ => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
    });
    let (_handle, address) = proxied(&[&app]);
    let mut client = Client::connect(address);
    for (method, status, length) in [("HEAD", 200, Some("1234")), ("GET", 304, None), ("DELETE", 204, None)] {
        let reply = client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).head().unwrap();
        assert_eq!((reply.status, reply.header("content-length")), (status, length), "{method}");
    }
    assert_eq!(app.connections(), 1);
}

#[test]
fn trailers_pass() {
    let app = App::answering(|_| {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n"
            .to_owned()
    });
    let (_handle, address) = proxied(&[&app]);
    let mut client = Client::connect(address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n");
    let answer = String::from_utf8(client.rest().unwrap()).unwrap().to_ascii_lowercase();
    assert!(answer.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{answer}");
}

#[test]
fn servers_take_turns() {
    let apps = ["one", "two", "three"].map(|name| App::answering(move |_| ok(name)));
    let (_handle, address) = proxied(&[&apps[0], &apps[1], &apps[2]]);
    let mut client = Client::connect(address);
    let mut answers: Vec<_> =
        (0..9).map(|_| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").reply().unwrap().text().to_owned()).collect();
    answers.sort_unstable();
    assert_eq!(answers, ["one", "one", "one", "three", "three", "three", "two", "two", "two"]);
}

#[test]
fn bodies_stream_both_ways_at_once() {
    let app = App::start(|client| {
        client.request_head().unwrap();
        client.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while let Some(piece) = client.chunk().unwrap() {
            client.send(format!("{:x}\r\n", piece.len())).send(piece).send("\r\n");
        }
        client.send("0\r\n\r\n");
    });
    let (_handle, address) = proxied(&[&app]);
    let mut client = Client::connect(address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 200);
    // Each piece comes back before the next is sent: nothing is held until the end.
    for piece in ["first", "second", "third"] {
        client.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
        assert_eq!(client.chunk().unwrap().as_deref(), Some(piece.as_bytes()));
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.chunk().unwrap(), None);
}

#[test]
fn a_slow_client_holds_the_server_back() {
    let written = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&written);
    let app = App::start(move |client| {
        client.request_head().unwrap();
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n");
        let piece = vec![0; 1 << 16];
        while client.stream.write_all(&piece).is_ok() {
            counted.fetch_add(piece.len() as u64, Ordering::SeqCst);
        }
    });
    let (_handle, address) = proxied(&[&app]);
    let mut client = Client::connect(address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 200);
    let taken = || written.load(Ordering::SeqCst);
    until("the server waits", || {
        let before = taken();
        std::thread::sleep(Duration::from_millis(300));
        before > 0 && before == taken()
    });
    assert!(taken() < 200 << 20, "{} bytes were taken for a client that reads none", taken());
}

#[test]
fn a_large_upload_arrives_whole() {
    let app = App::start(|client| {
        let head = client.request_head().unwrap().to_ascii_lowercase();
        assert!(head.contains("content-length: 5000000") && !head.contains("expect"));
        let sum: u64 = client.bytes(5_000_000).iter().map(|byte| u64::from(*byte)).sum();
        client.send(ok(&sum.to_string()));
    });
    let (_handle, address) = proxied(&[&app]);
    let mut client = Client::connect(address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 100);
    client.send(vec![3; 5_000_000]);
    assert_eq!(client.reply().unwrap().text(), "15000000");
}

#[test]
fn nobody_listening_is_502_and_nobody_up_is_503() {
    let (_handle, address) = start(setup(vec![proxy_route("/")], vec![upstream(&[nobody()])]));
    let reply = get(address, "/");
    assert_eq!(reply.status, 502);
    assert!(reply.text().contains("refuses the connection") && !reply.text().contains("127.0.0.1"));
    let (_handle, address) = start(setup(vec![proxy_route("/")], vec![upstream(&[])]));
    let reply = get(address, "/");
    assert_eq!((reply.status, reply.text().contains("No server")), (503, true));
}

#[test]
fn a_server_that_cannot_be_connected_to_is_passed_over_even_for_a_post() {
    let app = App::start(|client| {
        while client.request_head().is_some() {
            let body = client.bytes(3);
            client.send(ok(std::str::from_utf8(&body).unwrap()));
        }
    });
    let (handle, address) = start(setup(vec![proxy_route("/")], vec![upstream(&[nobody(), app.address, nobody()])]));
    for _ in 0..6 {
        let reply = ask(address, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc");
        assert_eq!((reply.status, reply.text()), (200, "abc"));
    }
    assert!(handle.totals().upstream_errors > 0);
}

#[test]
fn a_server_that_never_accepts_is_504() {
    // A full backlog: the kernel drops further handshakes.
    let listener = TcpListener::bind(ANY_PORT).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let full = listener.local_addr().unwrap();
    let _filling: Vec<_> =
        (0..4).map(|_| std::net::TcpStream::connect_timeout(&full, Duration::from_millis(100))).collect();
    let mut upstream = upstream(&[full]);
    upstream.connect_timeout = Duration::from_millis(100);
    let (_handle, address) = start(setup(vec![proxy_route("/")], vec![upstream]));
    assert_eq!(get(address, "/").status, 504);
}

#[test]
fn a_server_that_says_nothing_is_504_counted_from_the_end_of_the_request() {
    let app = App::start(|client| {
        client.request_head().unwrap();
        let _silence = client.rest();
    });
    let mut upstream = upstream(&[app.address]);
    upstream.response_timeout = Duration::from_millis(300);
    let (_handle, address) = start(setup(vec![proxy_route("/")], vec![upstream]));
    let reply = get(address, "/");
    assert!(reply.status == 504 && reply.text().contains("took too long"));
    // An upload that takes longer than that is no silence.
    let mut client = Client::connect(address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(60));
        client.send("x");
    }
    let sent = std::time::Instant::now();
    assert_eq!(client.reply().unwrap().status, 504);
    assert!(sent.elapsed() >= Duration::from_millis(250), "{:?}", sent.elapsed());
}

#[test]
fn a_server_that_answers_no_http_is_502() {
    for nonsense in ["", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "HTTP/1.1 101 Go\r\n\r\n"]
    {
        let app = App::start(move |client| {
            client.request_head().unwrap();
            client.send(nonsense);
        });
        let (_handle, address) = proxied(&[&app]);
        let reply = get(address, "/");
        assert!(reply.status == 502 && reply.text().contains("broke"), "{nonsense:?}: {reply:?}");
    }
}

#[test]
fn a_response_head_that_is_too_large_is_502() {
    for fields in ["X: y\r\n".repeat(1_000), format!("X: {}\r\n", "y".repeat(600_000))] {
        let app = App::start(move |client| {
            client.request_head().unwrap();
            client.send(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n"));
        });
        let (_handle, address) = proxied(&[&app]);
        assert_eq!(get(address, "/").status, 502);
    }
}

#[test]
fn a_request_that_a_server_may_have_seen_is_not_sent_twice() {
    let seen = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&seen);
    let app = App::start(move |client| {
        // The first is answered, so that the connection is kept; the second is seen and lost.
        client.request_head().unwrap();
        client.bytes(1);
        client.send(ok("first"));
        if client.request_head().is_some() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (_handle, address) = proxied(&[&app]);
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    let mut client = Client::connect(address);
    assert_eq!(client.send(post).reply().unwrap().text(), "first");
    assert_eq!(client.send(post).reply().unwrap().status, 502);
    assert_eq!((seen.load(Ordering::SeqCst), app.connections()), (1, 1));
}

#[test]
fn a_page_is_asked_for_again_when_a_kept_connection_ends_instead_of_answering() {
    let app = App::start(|client| {
        client.request_head().unwrap();
        client.send(ok("answer"));
        // Closes when the next request has come, as if both had crossed.
        client.request_head();
    });
    let (_handle, address) = proxied(&[&app]);
    let mut client = Client::connect(address);
    for _ in 0..4 {
        assert_eq!(client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").reply().unwrap().text(), "answer");
    }
    assert_eq!(app.connections(), 4);
}

#[test]
fn a_server_that_closes_its_kept_connections_costs_no_request() {
    let app = App::start(|client| {
        let head = client.request_head().unwrap();
        let length = if head.starts_with("POST") { 1 } else { 0 };
        client.bytes(length);
        client.send(ok("answer"));
    });
    let (_handle, address) = proxied(&[&app]);
    let mut client = Client::connect(address);
    for _ in 0..30 {
        let reply = client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").reply().unwrap();
        assert_eq!(reply.status, 200);
        // The server's close has arrived by then.
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn broken_off(response: &'static str) -> (App, hawser::web::Handle, SocketAddr) {
    let app = App::start(move |client| {
        client.request_head().unwrap();
        client.send(response);
    });
    let (handle, address) = proxied(&[&app]);
    (app, handle, address)
}

#[test]
fn a_response_that_the_server_breaks_off_does_not_pass_as_whole() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly",
    ] {
        for version in ["1.1", "1.0"] {
            let (_app, handle, address) = broken_off(response);
            let mut client = Client::connect(address);
            client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"));
            let whole = client.reply();
            assert!(whole.is_err(), "{version} {response:?}: {whole:?}");
            until("it is counted", || handle.totals().broken == 1);
        }
    }
}

#[test]
fn a_body_that_stalls_is_broken_off() {
    let app = App::start(|client| {
        client.request_head().unwrap();
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
        let _silence = client.rest();
    });
    let mut upstream = upstream(&[app.address]);
    upstream.idle_timeout = Duration::from_millis(200);
    let (_handle, address) = start(setup(vec![proxy_route("/")], vec![upstream]));
    assert!(Client::connect(address).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").reply().is_err());
}

#[test]
fn an_upload_that_stalls_is_408() {
    let app = App::start(|client| {
        client.request_head().unwrap();
        let _never = client.rest();
    });
    let mut upstream = upstream(&[app.address]);
    upstream.idle_timeout = Duration::from_millis(200);
    let (_handle, address) = start(setup(vec![proxy_route("/")], vec![upstream]));
    let mut client = Client::connect(address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx");
    assert_eq!(client.reply().unwrap().status, 408);
}

#[test]
fn a_client_that_goes_away_ends_the_request_at_the_server() {
    let (gone, is_gone) = std::sync::mpsc::channel();
    let app = App::start(move |client| {
        client.request_head().unwrap();
        gone.send(client.rest()).unwrap();
    });
    let (_handle, address) = proxied(&[&app]);
    let mut client = Client::connect(address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until("it has arrived", || app.connections() == 1);
    std::thread::sleep(Duration::from_millis(50));
    drop(client);
    assert!(is_gone.recv_timeout(PATIENCE).is_ok());
}

#[test]
fn a_web_socket_passes() {
    let app = App::start(|client| {
        let head = client.request_head().unwrap().to_ascii_lowercase();
        assert!(head.contains("\r\nupgrade: websocket\r\n") && head.contains("\r\nconnection: upgrade\r\n"), "{head}");
        client.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nhello");
        let said = client.bytes(4);
        client.send(said);
    });
    let (handle, address) = proxied(&[&app]);
    let mut client = Client::connect(address);
    client.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let reply = client.reply().unwrap();
    assert_eq!((reply.status, reply.header("sec-websocket-accept")), (101, Some("x")));
    assert_eq!((reply.header("upgrade"), reply.header("connection")), (Some("websocket"), Some("upgrade")));
    assert_eq!(client.bytes(5), b"hello");
    assert_eq!((handle.totals().tunnels, handle.in_flight(group())), (1, 0));
    client.send("ping");
    assert_eq!(client.rest().unwrap(), b"ping");
    drop(client);
    until("it has ended", || handle.totals().tunnels == 0 && handle.totals().active == 0);
}

#[test]
fn a_tunnel_may_be_closed_from_one_side_first() {
    let (heard, hears) = std::sync::mpsc::channel();
    let app = App::start(move |client| {
        client.request_head().unwrap();
        client.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        heard.send(client.rest().unwrap()).unwrap();
    });
    let (_handle, address) = proxied(&[&app]);
    let mut client = Client::connect(address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(client.reply().unwrap().status, 101);
    assert!(client.rest().unwrap().is_empty());
    client.send("last words");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(hears.recv_timeout(PATIENCE).unwrap(), b"last words");
}

#[test]
fn an_upgrade_that_the_server_declines_is_an_ordinary_response() {
    let app = App::echo();
    let (_handle, address) = proxied(&[&app]);
    let mut client = Client::connect(address);
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(client.reply().unwrap().status, 200);
    }
}

#[test]
fn a_server_is_spoken_to_in_http2_where_that_is_asked_for() {
    // Our own tier is the server.
    let folder = site();
    let (_inner, server) = start(setup(vec![folder_route("/", folder.path())], vec![]));
    let mut upstream = upstream(&[server]);
    upstream.http2 = true;
    let (_handle, address) = start(setup(vec![proxy_route("/")], vec![upstream]));
    let mut client = Client::connect(address);
    for _ in 0..3 {
        client.send("GET /ten.txt HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n");
        assert_eq!(client.reply().unwrap().text(), "0123456789");
    }
    client.send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply().unwrap().status, 404);
    until("one connection carried all", || _inner.totals().connections == 1 && _inner.totals().requests == 4);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.reply().unwrap().status, 501);
}

#[test]
fn a_route_to_an_unknown_upstream_is_refused_at_start() {
    let error = Tier::start(setup(vec![proxy_route("/")], vec![])).unwrap_err();
    assert!(error.to_string().contains("upstream app"), "{error}");
}

#[test]
fn a_close_delimited_response_of_a_server_is_whole_for_the_client() {
    let (_app, _handle, address) = broken_off("HTTP/1.0 200 OK\r\n\r\nall there is");
    let mut client = Client::connect(address);
    assert_eq!(client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").reply().unwrap().text(), "all there is");
    let mut probe = [0];
    client.stream.set_nonblocking(true).unwrap();
    assert!(client.stream.read(&mut probe).is_err(), "the client's connection is kept");
}
