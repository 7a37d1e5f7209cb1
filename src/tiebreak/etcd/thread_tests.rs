//! The thread and its link against a stand-in on loopback that speaks etcd's JSON. A real one is tried by `tests/etcd.sh`.

use super::*;
use crate::cluster::{
    Fitness, Identity, Incarnation, Member, Name, Term,
    message::{AckVerdict, GroupLine, Heartbeat, Recall},
};
use crate::config::{self, Endpoint};
use crate::tiebreak::etcd::{json::Folder, speaker::Setup};
use crate::time::Duration;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Mutex, mpsc as std_mpsc},
};
use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_rustls::TlsAcceptor;

/// Keys and values as they travel, in base64.
#[derive(Default)]
struct StandIn {
    revision: u64,
    pairs: BTreeMap<String, (u64, Value)>,
}

impl StandIn {
    fn transaction(&mut self, body: &Value) -> Value {
        let compares = body["compare"].as_array().cloned().unwrap_or_default();
        let succeeded = compares.iter().all(|c| {
            let there = self.pairs.get(c["key"].as_str().unwrap()).map_or(0, |pair| pair.0);
            c["target"] == "MOD" && c["mod_revision"] == json!(there.to_string())
        });
        let operations = body[if succeeded { "success" } else { "failure" }].as_array().cloned().unwrap_or_default();
        let responses: Vec<Value> = operations.iter().map(|operation| self.operate(operation)).collect();
        // As etcd does, what is false is left out.
        let mut answer = json!({ "header": { "revision": self.revision.to_string() }, "responses": responses });
        if succeeded {
            answer["succeeded"] = Value::Bool(true);
        }
        answer
    }

    fn operate(&mut self, operation: &Value) -> Value {
        if let Some(put) = operation.get("request_put") {
            self.revision += 1;
            let key = put["key"].as_str().unwrap().to_owned();
            self.pairs.insert(key, (self.revision, put["value"].clone()));
            return json!({ "response_put": {} });
        }
        if let Some(inner) = operation.get("request_txn") {
            return json!({ "response_txn": self.transaction(inner) });
        }
        let key = &operation["request_range"]["key"];
        let pair = self.pairs.get(key.as_str().unwrap());
        match pair.map(|(revision, value)| json!({ "key": key, "mod_revision": revision.to_string(), "value": value }))
        {
            Some(pair) => json!({ "response_range": { "kvs": [pair] } }),
            None => json!({ "response_range": {} }),
        }
    }
}

async fn respond(etcd: Arc<Mutex<StandIn>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    assert_eq!(request.uri().path(), "/v3/kv/txn");
    let body = request.into_body().collect().await?.to_bytes();
    let answer = etcd.lock().unwrap().transaction(&serde_json::from_slice(&body).unwrap());
    Ok(Response::new(Full::new(Bytes::from(answer.to_string()))))
}

/// A member of an etcd on loopback, until the test ends.
fn member(etcd: &Arc<Mutex<StandIn>>, tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let etcd = Arc::clone(etcd);
    let serve = async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let etcd = Arc::clone(&etcd);
            let service = service_fn(move |request| respond(Arc::clone(&etcd), request));
            // A client that goes away ends its connection with an error.
            match &tls {
                None => drop(tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service))),
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => {
                        drop(tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service)));
                    }
                    Err(refused) => println!("refused: {refused}"),
                },
            }
        }
    };
    run_aside(serve);
    address
}

/// A member that takes questions and never answers.
fn silent_member() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    run_aside(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            drop(tokio::spawn(async move {
                let mut buffer = [0; 1024];
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            }));
        }
    });
    address
}

fn run_aside(work: impl Future<Output = ()> + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    drop(thread::spawn(move || runtime.block_on(work)));
}

fn config(endpoints: &[SocketAddr], ca: Option<&Path>) -> config::Etcd {
    config::Etcd {
        name: Name::new("etcd").unwrap(),
        endpoints: endpoints.iter().map(|address| Endpoint { tls: ca.is_some(), address: *address }).collect(),
        ca: ca.map(Path::to_owned),
        identity: None,
        prefix: "/hawser".to_owned(),
    }
}

fn start(config: &config::Etcd) -> (Handle, std_mpsc::Receiver<Message>) {
    let settings = Settings::new(config, Folder::new("/hawser", "shop", "01")).unwrap();
    let me = Identity { member: Member::First, incarnation: Incarnation(1), hash: None };
    let (lease, interval) = (Duration::from_millis(500), Duration::from_millis(50));
    let speaker = Speaker::new(Setup { me, hash: crate::trust::hash_secret, lease, interval });
    let (tell, heard) = std_mpsc::channel();
    let tell = async move |message| tell.send(message).unwrap();
    (spawn(settings, speaker, || {}, tell).unwrap(), heard)
}

fn beat(seq: u64, owned: Option<u64>, released: Option<u64>) -> Message {
    let (owned, released) = (owned.map(Term), released.map(Term));
    let name = Name::new("web").unwrap();
    Message::Heartbeat(Heartbeat {
        seq,
        hold: Duration::from_millis(550),
        hash: None,
        fitness: Fitness::Fit,
        standby: false,
        leaving: false,
        config: 0,
        recall: Recall::Kept,
        groups: vec![GroupLine { name, owned, witnessed: false, released, highest: Term(0), addresses: Vec::new() }],
    })
}

/// Says heartbeats until one of them is confirmed. Its number, and the last that was said.
fn until_confirmed(handle: &Handle, heard: &std_mpsc::Receiver<Message>) -> (u64, u64) {
    for seq in 1..400 {
        handle.say(beat(seq, Some(1), None));
        while let Ok(message) = heard.recv_timeout(Duration::from_millis(50)) {
            if let Message::Ack(ack) = message
                && ack.groups[0].verdict == Some(AckVerdict::Promised(Term(1)))
            {
                return (ack.seq, seq);
            }
        }
    }
    panic!("nothing was confirmed in 20 s")
}

#[test]
fn an_owner_is_confirmed_and_what_it_lets_go_of_is_known_before_the_goodbye() {
    let etcd = Arc::new(Mutex::new(StandIn::default()));
    let (handle, heard) = start(&config(&[member(&etcd, None)], None));
    let (confirmed, last) = until_confirmed(&handle, &heard);
    assert!(confirmed <= last, "{confirmed} was said");
    handle.say(beat(500, None, Some(1)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(handle.goodbye());
    let etcd = etcd.lock().unwrap();
    let (key, (_, value)) = etcd.pairs.first_key_value().unwrap();
    let text = |base64: &str| String::from_utf8(data_encoding::BASE64.decode(base64.as_bytes()).unwrap()).unwrap();
    assert_eq!(text(key), "/hawser/shop.01/web");
    assert_eq!(text(value.as_str().unwrap()), r#"{"version":1,"highest":1,"holder":null,"doubt":null}"#);
}

#[test]
fn the_next_member_is_asked_when_one_is_silent_or_gone() {
    let etcd = Arc::new(Mutex::new(StandIn::default()));
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (handle, heard) = start(&config(&[silent_member(), gone, member(&etcd, None)], None));
    until_confirmed(&handle, &heard);
}

#[test]
fn by_https_only_an_etcd_of_the_named_ca_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let made = |file: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(dir.path().join(file), cert.pem()).unwrap();
        (cert.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()))
    };
    let (cert, key) = made("ca.pem");
    made("other.pem");
    let tls = rustls::ServerConfig::builder_with_provider(crate::trust::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], key.into())
        .unwrap();
    let etcd = Arc::new(Mutex::new(StandIn::default()));
    let address = member(&etcd, Some(TlsAcceptor::from(Arc::new(tls))));
    let (stranger, heard) = start(&config(&[address], Some(&dir.path().join("other.pem"))));
    for seq in 1..6 {
        stranger.say(beat(seq, Some(1), None));
        assert!(heard.recv_timeout(Duration::from_millis(100)).is_err(), "nobody is heard who cannot be believed");
    }
    let (handle, heard) = start(&config(&[address], Some(&dir.path().join("ca.pem"))));
    until_confirmed(&handle, &heard);
}
