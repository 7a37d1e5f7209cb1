//! What holds for every request: hostile bytes, limits, protocols.

use crate::kit::*;
use bytes::Bytes;
use hawser::web::{Patience, Tier};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::{Duration, Instant};

#[test]
fn a_request_needs_one_valid_host() {
    let (_folder, _handle, address) = served_site();
    for hosts in
        ["", "Host: a\r\nHost: b\r\n", "Host: a\r\nHost: a\r\n", "Host: a b\r\n", "Host: a/b\r\n", "Host: u@a\r\n"]
    {
        let reply = ask(address, &format!("GET / HTTP/1.1\r\n{hosts}\r\n"));
        assert!(reply.status == 400 && reply.closes(), "{hosts:?}: {reply:?}");
    }
    assert_eq!(ask(address, "GET / HTTP/1.0\r\n\r\n").status, 200);
    for host in ["a:80", "[::1]:80", "192.0.2.1"] {
        assert_eq!(ask(address, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).status, 200, "{host}");
    }
}

#[test]
fn trace_and_connect_are_refused_and_the_connection_closed() {
    let (_folder, _handle, address) = served_site();
    for request in ["TRACE / HTTP/1.1", "CONNECT a:80 HTTP/1.1"] {
        let mut client = Client::connect(address);
        let reply = client.send(format!("{request}\r\nHost: a:80\r\n\r\n")).reply().unwrap();
        assert_eq!(reply.status, 405, "{request}");
        assert!(client.rest().unwrap().is_empty(), "{request}");
    }
}

#[test]
fn ambiguous_framing_is_refused() {
    let app = App::echo();
    let (_handle, address) = proxied(&[&app]);
    for framing in [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 3, 4\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "Content-Length: 3\r\n\tfolded\r\n",
    ] {
        let mut client = Client::connect(address);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\nabcd"));
        let answer = String::from_utf8_lossy(&client.rest().unwrap()).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{framing:?}: {answer}");
    }
    assert_eq!(app.connections(), 0);
}

#[test]
fn a_length_beside_chunks_is_not_passed_on() {
    let app = App::start(|client| {
        let head = client.request_head().unwrap();
        while client.chunk().unwrap().is_some() {}
        client.send(ok(&head));
    });
    let (_handle, address) = proxied(&[&app]);
    let mut client = Client::connect(address);
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    );
    let reply = client.reply().unwrap();
    let head = reply.text().to_ascii_lowercase();
    assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"), "{head}");
    // RFC 9112 §6.1: after such a request the connection is closed.
    assert!(client.rest().unwrap().is_empty());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_folder, _handle, address) = served_site();
    let mut client = Client::connect(address);
    client.send("GET /ten.txt HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply().unwrap().text(), "0123456789");
    assert_eq!(client.reply().unwrap().text(), "<p>home</p>");
    assert_eq!(client.reply().unwrap().status, 404);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let (_folder, _handle, address) = served_site();
    let long = "x".repeat(70_000);
    let many: String = (0..200).map(|index| format!("X-{index}: 1\r\n")).collect();
    for headers in [format!("X: {long}\r\n"), many] {
        let mut client = Client::connect(address);
        // The server may close before all has been sent.
        let _sent = std::io::Write::write_all(
            &mut client.stream,
            format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes(),
        );
        assert_eq!(client.reply().unwrap().status, 431);
    }
}

#[test]
fn a_client_that_never_ends_its_head_is_let_go() {
    let folder = site();
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    setup.patience = Patience { head: Duration::from_millis(300), ..Patience::default() };
    let (handle, address) = start(setup);
    for begun in ["", "P", "PRI", "G", "GET / HTTP/1.1\r\nHost: a\r\nX: "] {
        let mut client = Client::connect(address);
        let asked = Instant::now();
        client.send(begun);
        assert!(client.rest().unwrap_or_default().len() < 200, "{begun:?}");
        assert!(asked.elapsed() >= Duration::from_millis(290), "{begun:?} was let go after {:?}", asked.elapsed());
    }
    // Drop by drop is no better.
    let mut client = Client::connect(address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    let begun = Instant::now();
    while std::io::Write::write_all(&mut client.stream, b"X: y\r\n").is_ok() {
        assert!(begun.elapsed() < PATIENCE, "a client that sends drop by drop is served for ever");
        std::thread::sleep(Duration::from_millis(20));
    }
    until("all are closed", || handle.totals().active == 0);
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let folder = site();
    std::fs::File::create(folder.path().join("large.bin")).unwrap().set_len(256 << 20).unwrap();
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    setup.patience = Patience { write: Duration::from_millis(200), ..Patience::default() };
    let (handle, address) = start(setup);
    let mut client = Client::connect(address);
    client.send("GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 200);
    until("it is closed", || handle.totals().active == 0);
}

#[test]
fn the_answer_to_a_body_that_nobody_reads_is_not_lost() {
    let (folder, _handle, address) = served_site();
    let bytes = vec![b'x'; 1_000_000];
    std::fs::write(folder.path().join("large.bin"), &bytes).unwrap();
    // A narrow window, so that most of the response waits at the server when that is done with it.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut client = Client::new(socket.into());
    client.send("GET /large.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 50000000\r\n\r\n");
    client.send(vec![b'x'; 100_000]);
    std::thread::sleep(Duration::from_millis(300));
    assert!(client.reply().unwrap().body == bytes);
}

#[test]
fn http2_by_prior_knowledge_serves_many_requests_on_one_connection() {
    let (_folder, handle, address) = served_site();
    control(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let asked = (0..50).map(|_| {
            let mut sender = sender.clone();
            async move {
                let request =
                    http::Request::get(format!("http://{address}/ten.txt")).body(Empty::<Bytes>::new()).unwrap();
                let response = sender.send_request(request).await.unwrap();
                assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
                response.into_body().collect().await.unwrap().to_bytes()
            }
        });
        for task in asked.map(tokio::spawn).collect::<Vec<_>>() {
            assert_eq!(task.await.unwrap(), "0123456789");
        }
    });
    assert_eq!((handle.totals().connections, handle.totals().requests), (1, 50));
}

#[test]
fn more_connections_than_allowed_are_refused_and_counted() {
    let folder = site();
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    setup.connections_max = 3;
    let (handle, address) = start(setup);
    let mut open: Vec<_> = (0..3).map(|_| Client::connect(address)).collect();
    until("three are open", || handle.totals().active == 3);
    assert!(Client::connect(address).rest().is_err(), "the fourth is not reset");
    until("it is counted", || handle.totals().refused == 1);
    open.pop();
    until("one has gone", || handle.totals().active == 2);
    assert_eq!(get(address, "/").status, 200);
}

#[test]
fn what_is_served_is_counted() {
    let (_folder, handle, address) = served_site();
    get(address, "/ten.txt");
    get(address, "/none");
    until("both are closed", || handle.totals().active == 0);
    let totals = handle.totals();
    assert_eq!((totals.connections, totals.requests, totals.responses), (2, 2, [0, 1, 0, 1, 0]));
    assert!(totals.bytes_in > 80 && totals.bytes_out > 300);
    let json = serde_json::to_value(handle.view()).unwrap();
    assert_eq!(json["totals"]["requests"], 2);
}

#[test]
fn the_server_itself_can_be_asked() {
    let (_folder, _handle, address) = served_site();
    assert_eq!(ask(address, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").status, 204);
}

#[test]
fn a_tier_whose_handle_is_gone_serves_no_more() {
    let folder = site();
    let handle = Tier::start(setup(vec![folder_route("/", folder.path())], vec![])).unwrap();
    let address = handle.local_addrs()[0];
    assert_eq!(get(address, "/").status, 200);
    drop(handle);
    until("nobody listens", || std::net::TcpStream::connect(address).is_err());
}
