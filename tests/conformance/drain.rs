//! Draining for a planned move, and the end of the tier.

use crate::kit::*;
use bytes::Bytes;
use hawser::{
    cluster::Name,
    config::{Front, Listener},
    web::{Drain, Handle},
};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    net::SocketAddr,
    sync::mpsc::{self, Receiver, Sender},
    time::Duration,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// An application that answers when it is told to.
fn held() -> (App, Handle, SocketAddr, Receiver<()>, Sender<()>) {
    let (came, has_come) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let may_go = std::sync::Mutex::new(may_go);
    let app = App::answering(move |_| {
        came.send(()).unwrap();
        may_go.lock().unwrap().recv().unwrap();
        ok("done")
    });
    let (handle, address) = proxied(&[&app]);
    (app, handle, address, has_come, go)
}

#[test]
fn in_flight_are_requests_and_new_connections_but_not_idle_ones() {
    let (_app, handle, address, has_come, go) = held();
    let flying = || handle.in_flight(group());
    assert_eq!(flying(), 0);
    let mut client = Client::connect(address);
    until("a new connection counts", || flying() == 1);
    client.send(GET);
    has_come.recv_timeout(PATIENCE).unwrap();
    assert_eq!(flying(), 1);
    go.send(()).unwrap();
    client.reply().unwrap();
    until("an idle one does not", || flying() == 0);
    client.send("GET / HT");
    until("half a head does", || flying() == 1);
    client.send("TP/1.1\r\nHost: a\r\n\r\n");
    has_come.recv_timeout(PATIENCE).unwrap();
    go.send(()).unwrap();
    client.reply().unwrap();
    until("an idle one does not", || flying() == 0);
    let silent = Client::connect(address);
    until("a new connection counts", || flying() == 1);
    until("but not for ever", || flying() == 0);
    drop(silent);
    assert_eq!(handle.view().in_flight[&group()], 0);
}

#[test]
fn a_drain_lets_requests_end_and_says_close() {
    let (_app, handle, address, has_come, go) = held();
    let mut busy = Client::connect(address);
    busy.send(GET);
    has_come.recv_timeout(PATIENCE).unwrap();
    handle.drain(group(), Drain::Announce);
    go.send(()).unwrap();
    let reply = busy.reply().unwrap();
    assert!(reply.text() == "done" && reply.closes(), "{reply:?}");
    assert!(busy.rest().unwrap().is_empty());
    until("nothing is in flight", || handle.in_flight(group()) == 0);
}

#[test]
fn a_drain_serves_new_connections_and_the_next_request_of_idle_ones() {
    let (_folder, handle, address) = served_site();
    let mut idle = Client::connect(address);
    assert!(!idle.send(GET).reply().unwrap().closes());
    let mut untouched = Client::connect(address);
    assert!(!untouched.send(GET).reply().unwrap().closes());
    handle.drain(group(), Drain::Announce);
    // Longer than any race takes: an idle connection is left alone.
    std::thread::sleep(Duration::from_millis(100));
    let reply = idle.send(GET).reply().unwrap();
    assert!(reply.status == 200 && reply.closes());
    assert!(idle.rest().unwrap().is_empty());
    let mut new = Client::connect(address);
    let reply = new.send(GET).reply().unwrap();
    assert!(reply.status == 200 && reply.closes());
    handle.drain(group(), Drain::Off);
    assert!(!untouched.send(GET).reply().unwrap().closes());
}

#[test]
fn the_end_of_a_drain_closes_idle_connections_and_no_others() {
    let (_app, handle, address, has_come, go) = held();
    let (mut idle, mut half) = (Client::connect(address), Client::connect(address));
    for client in [&mut idle, &mut half] {
        client.send(GET);
        has_come.recv_timeout(PATIENCE).unwrap();
        go.send(()).unwrap();
        client.reply().unwrap();
    }
    let new = Client::connect(address);
    let before = handle.totals().bytes_in;
    half.send("GET / HT");
    until("half a head has arrived", || handle.totals().bytes_in == before + 8);
    let mut busy = Client::connect(address);
    busy.send(GET);
    has_come.recv_timeout(PATIENCE).unwrap();
    until("all have arrived", || handle.totals().active == 4);
    handle.drain(group(), Drain::Announce);
    handle.drain(group(), Drain::Close);
    assert!(idle.rest().unwrap().is_empty());
    go.send(()).unwrap();
    assert_eq!(busy.reply().unwrap().text(), "done");
    assert!(busy.rest().unwrap().is_empty());
    for (mut client, rest) in [(new, GET), (half, "TP/1.1\r\nHost: a\r\n\r\n")] {
        client.send(rest);
        has_come.recv_timeout(PATIENCE).unwrap();
        go.send(()).unwrap();
        assert!(client.reply().unwrap().closes());
    }
}

#[test]
fn the_end_of_a_drain_closes_tunnels() {
    let app = App::start(|client| {
        client.request_head().unwrap();
        client.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
        let _silence = client.rest();
    });
    let (handle, address) = proxied(&[&app]);
    let mut client = Client::connect(address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(client.reply().unwrap().status, 101);
    handle.drain(group(), Drain::Announce);
    client.send("still there");
    std::thread::sleep(Duration::from_millis(50));
    until("the tunnel is open", || handle.totals().tunnels == 1);
    handle.drain(group(), Drain::Close);
    until("it is closed", || handle.totals().active == 0);
}

#[test]
fn a_drain_concerns_its_group_only() {
    let folder = site();
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    let routes = setup.web.listeners[0].routes.clone();
    let other = Name::new("other").unwrap();
    setup.web.listeners.push(Listener {
        address: ANY_PORT.parse().unwrap(),
        group: Some(other),
        routes: routes.clone(),
        front: Front::default(),
    });
    setup.web.listeners.push(Listener {
        address: "0.0.0.0:0".parse().unwrap(),
        group: None,
        routes,
        front: Front::default(),
    });
    // A wildcard listener: a connection belongs to the group of the address that it came to.
    setup.vips = vec![("127.0.0.9".parse().unwrap(), group())];
    let (handle, mine) = start(setup);
    let (others, wildcard) = (handle.local_addrs()[1], handle.local_addrs()[2]);
    handle.drain(group(), Drain::Announce);
    let closes = |address| Client::connect(address).send(GET).reply().unwrap().closes();
    assert!(closes(mine));
    assert!(!closes(others));
    assert!(closes(([127, 0, 0, 9], wildcard.port()).into()));
    assert!(!closes(([127, 0, 0, 1], wildcard.port()).into()));
}

#[test]
fn an_http2_connection_in_a_drain_ends_after_its_requests() {
    let (_folder, handle, address) = served_site();
    control(async {
        let ask = async |sender: &mut hyper::client::conn::http2::SendRequest<Empty<Bytes>>| {
            let request = http::Request::get(format!("http://{address}/ten.txt")).body(Empty::new()).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "0123456789");
        };
        let connect = async || {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            (sender, tokio::spawn(connection))
        };
        let (mut used, used_ends) = connect().await;
        ask(&mut used).await;
        let (mut new, new_ends) = connect().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        handle.drain(group(), Drain::Announce);
        tokio::time::timeout(PATIENCE, used_ends).await.expect("a used one ends").unwrap().unwrap();
        // One that has had no request yet has its first one answered.
        assert!(!new_ends.is_finished());
        ask(&mut new).await;
        tokio::time::timeout(PATIENCE, new_ends).await.expect("a new one ends after it").unwrap().unwrap();
    });
}

#[test]
fn no_request_of_a_busy_client_fails_when_a_drain_begins() {
    let (_folder, handle, address) = served_site();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let (mut client, mut reconnected) = (Client::connect(address), 0);
                for _ in 0..400 {
                    if client.send(GET).reply().expect("a request failed").closes() {
                        (client, reconnected) = (Client::connect(address), reconnected + 1);
                    }
                }
                reconnected
            })
        })
        .collect();
    for _ in 0..20 {
        handle.drain(group(), Drain::Announce);
        std::thread::sleep(Duration::from_millis(2));
        handle.drain(group(), Drain::Off);
        std::thread::sleep(Duration::from_millis(2));
    }
    let reconnected: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(reconnected > 0, "no drain met a request");
}

#[test]
fn a_shutdown_lets_requests_end_and_then_nobody_listens() {
    let (_app, handle, address, has_come, go) = held();
    let mut busy = Client::connect(address);
    busy.send(GET);
    has_come.recv_timeout(PATIENCE).unwrap();
    let idle = Client::connect(address);
    until("both are open", || handle.totals().active == 2);
    let stopping = {
        let handle = handle.clone();
        std::thread::spawn(move || control(handle.shutdown(PATIENCE)))
    };
    until("nobody listens", || std::net::TcpStream::connect(address).is_err());
    assert!(!stopping.is_finished());
    go.send(()).unwrap();
    assert_eq!(busy.reply().unwrap().text(), "done");
    assert!(stopping.join().unwrap());
    drop(idle);
}

#[test]
fn a_shutdown_cuts_off_what_does_not_end() {
    let (_app, handle, address, has_come, _go) = held();
    let mut busy = Client::connect(address);
    busy.send(GET);
    has_come.recv_timeout(PATIENCE).unwrap();
    assert!(control(handle.shutdown(Duration::from_millis(100))));
    assert!(busy.reply().is_err());
}
