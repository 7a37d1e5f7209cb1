//! TLS on listeners: which certificate, which version, whose sessions, which clients.

use crate::{kit::*, secure::*};
use hawser::{
    cluster::Name,
    config::{ClientAuth, ClientNeed, Front, Tls, TlsVersion},
    http::Patience,
    trust::{ClusterId, Keyring, TicketSecrets},
    web::{self, Handle, Setup},
};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{DnType, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// A site behind TLS.
fn secured(tls: Tls) -> (tempfile::TempDir, Handle, SocketAddr) {
    let folder = site();
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    setup.web.listeners[0].front = front(tls);
    let (handle, address) = start(setup);
    (folder, handle, address)
}

/// An application behind TLS that answers with the head that it was sent.
fn echoing(front: Front) -> (App, Handle, SocketAddr) {
    let app = App::echo();
    let mut setup = setup(vec![proxy_route("/")], vec![upstream(&[app.address])]);
    setup.web.listeners[0].front = front;
    let (handle, address) = start(setup);
    (app, handle, address)
}

fn clients(authority: &Authority, need: ClientNeed) -> Option<ClientAuth> {
    Some(ClientAuth { ca: authority.ca_file(), need })
}

#[test]
fn a_visitor_is_shown_the_certificate_of_the_host_that_it_names() {
    let authority = Authority::new();
    let issue = |file, names: &[&str]| authority.issue(file, names, &PKCS_ECDSA_P256_SHA256);
    let shop = issue("shop", &["shop.example"]);
    let wild = issue("wild", &["*.shop.example"]);
    let blog = issue("blog", &["blog.example", "www.blog.example"]);
    let (_folder, _handle, address) = secured(tls(vec![shop.clone(), wild.clone(), blog.clone()]));
    let client = authority.client(BOTH);
    for (host, files) in
        [("shop.example", &shop), ("img.shop.example", &wild), ("www.blog.example", &blog), ("BLOG.example", &blog)]
    {
        let stream = secure(address, &client, host).unwrap();
        assert_eq!(shown(&stream), in_file(files), "{host}");
    }
    // A host that nobody knows is shown the first, which is not for it.
    let error = secure(address, &client, "other.example").unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
    let error = secure(address, &client, "a.b.shop.example").unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
}

/// Believes everything, and can check these signatures only.
#[derive(Debug)]
struct Checks(Vec<SignatureScheme>);

impl ServerCertVerifier for Checks {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let provider = hawser::trust::tls::provider();
        rustls::crypto::verify_tls12_signature(message, cert, dss, &provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let provider = hawser::trust::tls::provider();
        rustls::crypto::verify_tls13_signature(message, cert, dss, &provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

#[test]
fn a_client_is_shown_ecdsa_if_it_can_check_that_and_else_rsa() {
    let authority = Authority::new();
    let rsa = authority.issue("rsa", &["localhost"], &PKCS_RSA_SHA256);
    let ecdsa = authority.issue("ecdsa", &["localhost"], &PKCS_ECDSA_P256_SHA256);
    let (_folder, _handle, address) = secured(tls(vec![rsa.clone(), ecdsa.clone()]));
    for version in [&TLS13, &TLS12] {
        for (schemes, files) in [
            (vec![SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256], &ecdsa),
            (vec![SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256], &rsa),
        ] {
            let config = ClientConfig::builder_with_provider(hawser::trust::tls::provider())
                .with_protocol_versions(&[version])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Checks(schemes)))
                .with_no_client_auth();
            let stream = secure(address, &Arc::new(config), "localhost").unwrap();
            assert_eq!(shown(&stream), in_file(files), "{version:?}");
        }
    }
}

#[test]
fn both_versions_are_spoken_unless_the_older_is_ruled_out() {
    let authority = Authority::new();
    let (_folder, _handle, address) = secured(authority.tls());
    for version in [&TLS12, &TLS13] {
        let text = ask_secure(address, &authority.client(&[version]), "localhost").unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("<p>home</p>"), "{text}");
    }
    let (_folder, handle, address) = secured(Tls { min_version: TlsVersion::Tls13, ..authority.tls() });
    assert!(ask_secure(address, &authority.client(&[&TLS13]), "localhost").is_ok());
    let error = ask_secure(address, &authority.client(&[&TLS12]), "localhost").unwrap_err().to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
    until("it is counted", || handle.totals().handshakes_failed == 1);
}

fn offering(authority: &Authority, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut config = (*authority.client(BOTH)).clone();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

#[test]
fn client_and_server_agree_on_http2_if_both_speak_it() {
    let authority = Authority::new();
    let (_folder, _handle, address) = secured(authority.tls());
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let stream = secure(address, &offering(&authority, offered), "localhost").unwrap();
        let said = stream.conn.alpn_protocol().map(|said| std::str::from_utf8(said).unwrap());
        assert_eq!(said, agreed, "{offered:?}");
    }
    assert!(secure(address, &offering(&authority, &["acme/1"]), "localhost").is_err(), "RFC 7301 §3.2");
}

#[test]
fn http2_is_spoken_over_tls() {
    let authority = Authority::new();
    let (_app, _handle, address) = echoing(front(authority.tls()));
    let config = offering(&authority, &["h2"]);
    control(async {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(config);
        let stream = connector.connect("localhost".try_into().unwrap(), socket).await.unwrap();
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..20 {
            let request = http::Request::get("https://localhost/x").body(Empty::<bytes::Bytes>::new()).unwrap();
            let response = sender.send_request(request).await.unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let body = std::str::from_utf8(&body).unwrap().to_ascii_lowercase();
            assert!(body.contains("x-forwarded-proto: https"), "{body}");
        }
    });
}

#[test]
fn who_agreed_on_one_protocol_and_speaks_another_is_let_go() {
    let authority = Authority::new();
    let (_folder, handle, address) = secured(authority.tls());
    let mut stream = secure(address, &offering(&authority, &["h2"]), "localhost").unwrap();
    assert!(exchange(&mut stream, HELLO).is_err());
    until("it is closed", || handle.totals().active == 0);
    assert_eq!(handle.totals().requests, 0);
}

/// What both nodes of a cluster make their ticket keys from.
fn cluster(secret: u8) -> Option<TicketSecrets> {
    let ring = Keyring::new(Name::new("shop").unwrap(), ClusterId([1; 8]), [secret; 32]);
    Some(TicketSecrets::of_cluster(&ring))
}

/// A node with a site behind TLS, and a second listener that demands more.
fn node(
    authority: &Authority,
    tickets: Option<TicketSecrets>,
    change: impl FnOnce(&mut Setup),
) -> (Handle, SocketAddr) {
    let app = App::echo();
    let mut setup = Setup { tickets, ..setup(vec![proxy_route("/")], vec![upstream(&[app.address])]) };
    setup.web.listeners[0].front = front(authority.tls());
    change(&mut setup);
    start(setup)
}

/// Shakes hands and asks, so that the tickets have come; how the handshake went.
fn visit(address: SocketAddr, client: &Arc<ClientConfig>) -> std::io::Result<HandshakeKind> {
    let mut stream = secure(address, client, "localhost")?;
    exchange(&mut stream, HELLO)?;
    Ok(stream.conn.handshake_kind().unwrap())
}

#[test]
fn a_session_of_one_node_is_taken_up_again_by_the_other_and_by_no_stranger() {
    let authority = Authority::new();
    let (first, one) = node(&authority, cluster(1), |_| {});
    let (second, other) = node(&authority, cluster(1), |_| {});
    let (_third, stranger) = node(&authority, cluster(2), |_| {});
    for version in [&TLS13, &TLS12] {
        let client = authority.client(&[version]);
        assert_eq!(visit(one, &client).unwrap(), HandshakeKind::Full);
        assert_eq!(visit(other, &client).unwrap(), HandshakeKind::Resumed, "{version:?}");
        assert_eq!(visit(one, &client).unwrap(), HandshakeKind::Resumed, "and back: {version:?}");
        assert_eq!(visit(stranger, &client).unwrap(), HandshakeKind::Full, "{version:?}");
    }
    assert_eq!((first.totals().handshakes, first.totals().handshakes_resumed), (4, 2));
    assert_eq!(second.totals().handshakes_resumed, 2);
}

#[test]
fn keys_of_a_file_go_before_the_secret_of_the_cluster() {
    use std::os::unix::fs::PermissionsExt;
    let authority = Authority::new();
    let keys = authority.folder.path().join("tickets");
    fs::write(&keys, "5a".repeat(32)).unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    let with_keys = |secret| node(&authority, cluster(secret), |setup| setup.web.ticket_keys = Some(keys.clone()));
    let ((_first, one), (_second, other)) = (with_keys(1), with_keys(2));
    let client = authority.client(BOTH);
    assert_eq!(visit(one, &client).unwrap(), HandshakeKind::Full);
    assert_eq!(visit(other, &client).unwrap(), HandshakeKind::Resumed);
}

#[test]
fn a_session_does_not_get_in_where_more_is_demanded_than_where_it_began() {
    let authority = Authority::new();
    let (handle, plain) = node(&authority, cluster(1), |setup| {
        for need in [ClientNeed::Optional, ClientNeed::Required] {
            let tls = Tls { clients: clients(&authority, need), ..authority.tls() };
            setup.web.listeners.push(listener(setup, front(tls)));
        }
    });
    let [optional, required] = [1, 2].map(|at| handle.local_addrs()[at]);
    for version in [&TLS13, &TLS12] {
        let client = authority.client(&[version]);
        assert_eq!(visit(plain, &client).unwrap(), HandshakeKind::Full);
        assert_eq!(visit(optional, &client).unwrap(), HandshakeKind::Full, "another demand: {version:?}");
        assert_eq!(visit(optional, &client).unwrap(), HandshakeKind::Resumed, "{version:?}");
        assert!(visit(required, &client).is_err(), "{version:?}");
    }
}

#[test]
fn a_required_certificate_of_a_client_must_be_there_and_be_good() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let tls = Tls { clients: clients(&authority, ClientNeed::Required), ..authority.tls() };
    let (_app, handle, address) = echoing(front(tls));
    let alice = [(DnType::OrganizationName, "Shop"), (DnType::CommonName, "alice")];
    assert!(ask_secure(address, &authority.client(BOTH), "localhost").is_err(), "without one");
    assert!(ask_secure(address, &authority.client_as(&stranger, &alice), "localhost").is_err(), "of another CA");
    let text = ask_secure(address, &authority.client_as(&authority, &alice), "localhost").unwrap();
    assert!(text.to_ascii_lowercase().contains("x-client-subject: cn=alice,o=shop\r\n"), "{text}");
    assert_eq!(handle.totals().requests, 1);
}

#[test]
fn an_optional_certificate_of_a_client_may_be_missing_and_must_not_be_bad() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let tls = Tls { clients: clients(&authority, ClientNeed::Optional), ..authority.tls() };
    let (_app, _handle, address) = echoing(front(tls));
    let mut stream = secure(address, &authority.client(BOTH), "localhost").unwrap();
    let forged = "GET / HTTP/1.1\r\nHost: a\r\nX-Client-Subject: CN=root\r\nX_Client_Subject: CN=root\r\n\r\n";
    let (_, body) = exchange(&mut stream, forged).unwrap();
    assert!(!body.to_ascii_lowercase().replace('_', "-").contains("x-client-subject"), "{body}");
    // A name that tries to look like two.
    let mallory = [(DnType::CommonName, "mallory, CN=root\u{e9}")];
    let mut stream = secure(address, &authority.client_as(&authority, &mallory), "localhost").unwrap();
    let (_, body) = exchange(&mut stream, forged).unwrap();
    assert!(body.to_ascii_lowercase().contains("x-client-subject: cn=mallory\\, cn\\=root\\c3\\a9\r\n"), "{body}");
    assert_eq!(body.to_ascii_lowercase().matches("client-subject").count(), 1, "{body}");
    // A session that is taken up again is still of the same client.
    let client = authority.client_as(&authority, &mallory);
    assert_eq!(visit(address, &client).unwrap(), HandshakeKind::Full);
    let mut stream = secure(address, &client, "localhost").unwrap();
    let (_, body) = exchange(&mut stream, HELLO).unwrap();
    assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(body.to_ascii_lowercase().contains("x-client-subject: cn=mallory"), "{body}");
    let bob = authority.client_as(&stranger, &[(DnType::CommonName, "bob")]);
    assert!(ask_secure(address, &bob, "localhost").is_err());
}

#[test]
fn a_session_ends_with_the_certificate_that_began_it() {
    let authority = Authority::new();
    let tls = Tls { clients: clients(&authority, ClientNeed::Required), ..authority.tls() };
    let (_app, handle, address) = echoing(front(tls));
    // Long enough for a few handshakes on a busy machine.
    let begun = Instant::now();
    let client = authority.client_for(&authority, &[(DnType::CommonName, "alice")], 8);
    assert_eq!(visit(address, &client).unwrap(), HandshakeKind::Full);
    assert_eq!(visit(address, &client).unwrap(), HandshakeKind::Resumed);
    thread::sleep(Duration::from_secs(10).saturating_sub(begun.elapsed()));
    let taken_up = handle.totals().handshakes_resumed;
    assert!(visit(address, &client).is_err());
    assert_eq!(
        handle.totals().handshakes_resumed,
        taken_up + 1,
        "it was refused for its certificate, not for its ticket"
    );
    assert_eq!(handle.totals().requests, 2);
}

#[test]
fn nobody_names_a_subject_in_the_clear() {
    let app = App::echo();
    let (_handle, address) = proxied(&[&app]);
    let reply = get_with(address, "/", "X-Client-Subject: CN=root\r\nx_client_subject: CN=root\r\n");
    assert!(!reply.text().to_ascii_lowercase().replace('_', "-").contains("x-client-subject"), "{}", reply.text());
}

#[test]
fn visitors_are_told_to_come_back_by_https_and_only_by_https() {
    let authority = Authority::new();
    let hsts = "max-age=31536000; includeSubDomains";
    let (_app, _handle, address) = echoing(Front { hsts: Some(hsts.to_owned()), ..front(authority.tls()) });
    let text = ask_secure(address, &authority.client(BOTH), "localhost").unwrap().to_ascii_lowercase();
    assert!(text.contains(&format!("\r\nstrict-transport-security: {}\r\n", hsts.to_ascii_lowercase())), "{text}");
    let (_folder, _handle, plain) = served_site();
    assert_eq!(get(plain, "/").header("strict-transport-security"), None);
}

#[test]
fn a_redirect_goes_to_the_same_address_by_https() {
    use hawser::config::{Route, RouteAction};
    let redirect = |path: &str, port| Route { path: path.to_owned(), action: RouteAction::ToHttps { port } };
    let folder = site();
    let routes = vec![redirect("/", 443), redirect("/odd/", 8443), folder_route("/.well-known/", folder.path())];
    let (_handle, address) = start(setup(routes, vec![]));
    let to = |request: &str| {
        let reply = ask(address, request);
        (reply.status, reply.header("location").unwrap_or_default().to_owned())
    };
    let moved = |location: &str| (301, location.to_owned());
    assert_eq!(to("GET /a%20b?c=d HTTP/1.1\r\nHost: Shop.example:80\r\n\r\n"), moved("https://Shop.example/a%20b?c=d"));
    assert_eq!(to("GET /odd/x HTTP/1.1\r\nHost: shop.example\r\n\r\n"), moved("https://shop.example:8443/odd/x"));
    assert_eq!(to("GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n"), moved("https://[2001:db8::1]/"));
    let head = Client::connect(address).send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n").head().unwrap();
    assert_eq!((head.status, head.header("location")), (301, Some("https://a/x")));
    assert_eq!(to("GET http://b.example/x HTTP/1.1\r\nHost: a\r\n\r\n"), moved("https://b.example/x"));
    let post = "POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(to(post), (308, "https://a/form".to_owned()), "it stays a POST");
    assert_eq!(to("GET / HTTP/1.0\r\n\r\n").0, 400);
    assert_eq!(to("GET / HTTP/1.1\r\nHost: \r\n\r\n").0, 400);
}

/// Watches the certificates, as the control runtime of a daemon does.
fn watching(handle: &Handle) {
    let certificates = handle.certificates();
    thread::spawn(move || control(web::tls::run(certificates)));
}

#[test]
fn changed_certificates_are_taken_up_without_a_failed_request() {
    let authority = Arc::new(Authority::new());
    let (_folder, handle, address) = secured(authority.tls());
    watching(&handle);
    let client = authority.client(BOTH);
    let mut old = secure(address, &client, "localhost").unwrap();
    exchange(&mut old, HELLO).unwrap();
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let visitors: Vec<_> = (0..3)
        .map(|_| {
            let (authority, stop, asked) = (Arc::clone(&authority), Arc::clone(&stop), Arc::clone(&asked));
            thread::spawn(move || {
                let client = authority.client(BOTH);
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = secure(address, &client, "localhost").unwrap();
                    for _ in 0..5 {
                        let (head, body) = exchange(&mut stream, HELLO).unwrap();
                        assert!(head.starts_with("HTTP/1.1 200") && body == "<p>home</p>", "{head}");
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for _ in 0..4 {
        let files = authority.issue("localhost", &["localhost"], &PKCS_ECDSA_P256_SHA256);
        handle.certificates().look_now();
        until("the new one is shown", || shown(&secure(address, &client, "localhost").unwrap()) == in_file(&files));
        let seen = asked.load(Ordering::Relaxed);
        until("visitors go on", || asked.load(Ordering::Relaxed) > seen + 20);
    }
    stop.store(true, Ordering::Relaxed);
    for visitor in visitors {
        visitor.join().unwrap();
    }
    assert!(exchange(&mut old, HELLO).is_ok(), "the connection from before them all is still open");
    assert_eq!(handle.view().tls[0].refused, None);
}

#[test]
fn changed_certificates_that_cannot_be_used_change_nothing_and_say_why() {
    let authority = Authority::new();
    let (_folder, handle, address) = secured(authority.tls());
    watching(&handle);
    let client = authority.client(BOTH);
    let before = shown(&secure(address, &client, "localhost").unwrap());
    let file = |name: &str| authority.folder.path().join(name);
    let refused = || handle.view().tls[0].refused.clone();
    let spoil = |name: &str, bytes: &[u8], word: &str| {
        fs::write(file(name), bytes).unwrap();
        until(word, || {
            handle.certificates().look_now();
            refused().is_some_and(|why| why.contains(word) && why.contains(name))
        });
        assert_eq!(shown(&secure(address, &client, "localhost").unwrap()), before, "{word}");
        assert!(web::tls::advice(&handle.view().tls).concat().contains(word));
    };
    let good = fs::read(file("localhost.crt")).unwrap();
    spoil("localhost.crt", b"nothing", "holds no certificate in PEM");
    spoil("localhost.crt", &good[..good.len() / 4], "is damaged");
    fs::write(file("localhost.crt"), &good).unwrap();
    authority.issue("another", &["localhost"], &PKCS_ECDSA_P256_SHA256);
    spoil("localhost.key", &fs::read(file("another.key")).unwrap(), "does not belong to");
    fs::remove_file(file("localhost.key")).unwrap();
    handle.certificates().look_now();
    until("it is told", || refused().is_some_and(|why| why.contains("No such file")));
    let files = authority.issue("localhost", &["localhost"], &PKCS_ECDSA_P256_SHA256);
    handle.certificates().look_now();
    until("what is right again is shown", || shown(&secure(address, &client, "localhost").unwrap()) == in_file(&files));
    until("and nothing is refused", || refused().is_none());
}

#[test]
fn a_changed_certificate_is_noticed_without_being_asked_to() {
    let authority = Authority::new();
    let (_folder, handle, address) = secured(authority.tls());
    watching(&handle);
    let client = authority.client(BOTH);
    let files = authority.issue("localhost", &["localhost"], &PKCS_ECDSA_P256_SHA256);
    until("the new one is shown", || shown(&secure(address, &client, "localhost").unwrap()) == in_file(&files));
}

#[test]
fn a_slow_handshake_is_cut_off() {
    let authority = Authority::new();
    let folder = site();
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    setup.patience = Patience { handshake: Duration::from_millis(300), ..Patience::default() };
    setup.web.listeners[0].front = front(authority.tls());
    let (handle, address) = start(setup);
    // Nothing, the head of a record, and a record that never ends.
    for begun in [&b""[..], &[22, 3, 1], &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]] {
        let mut client = Client::connect(address);
        let asked = Instant::now();
        client.send(begun);
        assert!(client.rest().unwrap_or_default().len() < 100);
        assert!(asked.elapsed() >= Duration::from_millis(290), "let go after {:?}", asked.elapsed());
    }
    until("all are counted", || handle.totals().handshakes_failed == 3 && handle.totals().active == 0);
    assert!(ask_secure(address, &authority.client(BOTH), "localhost").is_ok());
}

#[test]
fn handshakes_that_never_end_leave_room_for_those_that_do() {
    let authority = Authority::new();
    let folder = site();
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    setup.connections_max = 8;
    setup.web.listeners[0].front = front(authority.tls());
    let (handle, address) = start(setup);
    let client = authority.client(BOTH);
    let mut visitors: Vec<_> = (0..3).map(|_| secure(address, &client, "localhost").unwrap()).collect();
    let idle: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
    until("they are accepted", || handle.totals().active == 7);
    // One more on its way in than may be; those that are in are served.
    assert!(secure(address, &client, "localhost").is_err());
    until("it is counted", || handle.totals().handshakes_refused == 1);
    for visitor in &mut visitors {
        exchange(visitor, HELLO).unwrap();
    }
    drop(idle);
    until("they are gone", || handle.totals().active == 3);
    assert!(secure(address, &client, "localhost").is_ok());
}

#[test]
fn garbage_on_the_port_harms_nobody() {
    let authority = Authority::new();
    let (_folder, handle, address) = secured(authority.tls());
    let client = authority.client(BOTH);
    let mut other = secure(address, &client, "localhost").unwrap();
    for garbage in [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        vec![0; 100_000],
        vec![22; 100_000],
        [&[22, 3, 1, 255, 255][..], &[1; 70_000]].concat(),
        (0..=255).collect(),
    ] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be closed before it has been taken.
        drop(stream.write_all(&garbage));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        assert!(answer.len() < 100, "{answer:?}");
        exchange(&mut other, HELLO).unwrap();
    }
    until("all are counted", || handle.totals().handshakes_failed == 6);
    assert_eq!(handle.totals().requests, 6);
}

#[test]
fn a_response_over_tls_that_breaks_off_does_not_pass_as_whole() {
    let authority = Authority::new();
    let app = App::start(|client| {
        client.request_head();
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let mut setup = setup(vec![proxy_route("/")], vec![upstream(&[app.address])]);
    setup.web.listeners[0].front = front(authority.tls());
    let (_handle, address) = start(setup);
    assert!(ask_secure(address, &authority.client(BOTH), "localhost").is_err());
}

#[test]
fn a_tier_with_files_that_cannot_be_used_does_not_start() {
    let authority = Authority::new();
    let mut setup = setup(vec![], vec![]);
    let mut tls = authority.tls();
    tls.certificates[0].key = authority.folder.path().join("none.key");
    setup.web.listeners[0].front = front(tls);
    let error = web::Tier::start(setup).unwrap_err().to_string();
    assert!(error.contains("none.key") && error.contains("No such file"), "{error}");
}

#[test]
fn the_view_tells_each_certificate_once_with_its_days() {
    let authority = Authority::new();
    let folder = site();
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    let mut params = rcgen::CertificateParams::new(vec!["old.example".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let tls = tls(vec![
        authority.issue("shop", &["shop.example", "www.shop.example"], &PKCS_ECDSA_P256_SHA256),
        authority.write("old", &params, &PKCS_ECDSA_P256_SHA256),
    ]);
    setup.web.listeners[0].front = front(tls);
    // Two addresses of one listener share what they show.
    setup.web.listeners.push(setup.web.listeners[0].clone());
    let (handle, _) = start(setup);
    let view = handle.view();
    let [listener] = view.tls.as_slice() else { panic!("{view:?}") };
    assert_eq!(listener.listeners, handle.local_addrs());
    let [shop, old] = listener.certificates.as_slice() else { panic!("{listener:?}") };
    assert_eq!((shop.names.len(), shop.key.as_str(), &shop.trouble), (2, "ecdsa", &None));
    assert!(shop.days_left > 300 && old.days_left < -300, "{} {}", shop.days_left, old.days_left);
    let advice = web::tls::advice(&view.tls);
    assert!(advice.len() == 1 && advice[0].contains("of old.example") && advice[0].contains("EXPIRED"), "{advice:?}");
}
