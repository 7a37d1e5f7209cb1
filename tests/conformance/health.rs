//! Health of the servers, and of the tier itself.

use crate::kit::*;
use hawser::{
    config::HealthKind,
    limits::{PROBE_FALL, PROBE_INTERVAL, PROBE_TIMEOUT},
    web::{fault::Fault, health, probe},
};
use std::{
    fs,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

fn http_check() -> HealthKind {
    HealthKind::Http { path: "/health?x".to_owned(), host: Some("app.example".to_owned()), status: (200, 299) }
}

/// Runs the checks of a tier on a thread of their own. It outlives the test: what it checks must keep its port, or it
/// would knock at whoever gets that next.
fn checked(handle: &hawser::web::Handle) {
    let upstreams = handle.upstreams();
    std::thread::spawn(move || control(health::run(upstreams)));
}

#[test]
fn a_server_that_fails_its_check_gets_no_requests_until_it_passes_again() {
    let status = Arc::new(AtomicU16::new(500));
    let answered = Arc::clone(&status);
    let sick = App::answering(move |head| {
        if !head.starts_with("GET /health?x ") {
            return ok("sick");
        }
        assert!(head.contains("host: app.example\r\n"), "{head}");
        format!("HTTP/1.1 {} X\r\nContent-Length: 0\r\n\r\n", answered.load(Ordering::SeqCst))
    });
    let well = App::answering(|head| if head.starts_with("GET /health?x ") { ok("") } else { ok("well") });
    let mut upstream = upstream(&[sick.address, well.address]);
    upstream.health.kind = http_check();
    let (handle, address) = start(setup(vec![proxy_route("/")], vec![upstream]));
    let view = || handle.view().upstreams[0].servers.clone();
    assert!(view()[0].up && !view()[0].checked, "a server counts as up until its first check");
    checked(&handle);
    until("the sick one is down", || !view()[0].up);
    assert!(view()[0].error.as_ref().unwrap().contains("status 500"), "{:?}", view()[0]);
    for _ in 0..6 {
        assert_eq!(get(address, "/").text(), "well");
    }
    status.store(204, Ordering::SeqCst);
    until("it is up again", || view()[0].up);
    let answers: Vec<_> = (0..6).map(|_| get(address, "/").text().to_owned()).collect();
    assert!(answers.contains(&"sick".to_owned()) && view()[1].up);
}

#[test]
fn without_a_server_that_is_up_the_answer_is_503() {
    let mut upstream = upstream(&[nobody()]);
    upstream.health.kind = HealthKind::Tcp;
    let (handle, address) = start(setup(vec![proxy_route("/")], vec![upstream]));
    checked(&handle);
    until("it is down", || !handle.view().upstreams[0].servers[0].up);
    assert_eq!(get(address, "/").status, 503);
    let error = handle.view().upstreams[0].servers[0].error.clone().unwrap();
    assert!(error.contains("cannot connect"), "{error}");
}

#[test]
fn a_server_that_accepts_but_does_not_answer_fails_an_http_check_and_passes_a_tcp_check() {
    let listener = Box::leak(Box::new(TcpListener::bind(ANY_PORT).unwrap()));
    let address = listener.local_addr().unwrap();
    for (kind, up) in [(http_check(), false), (HealthKind::Tcp, true)] {
        let mut upstream = upstream(&[address]);
        (upstream.health.kind, upstream.health.timeout) = (kind, Duration::from_millis(200));
        let (handle, _) = start(setup(vec![proxy_route("/")], vec![upstream]));
        checked(&handle);
        until("it was checked", || handle.view().upstreams[0].servers[0].checked);
        assert_eq!(handle.view().upstreams[0].servers[0].up, up);
    }
}

#[test]
fn an_http2_server_is_checked_in_http2() {
    let folder = site();
    let (inner, server) = start(setup(vec![folder_route("/", folder.path())], vec![]));
    Box::leak(Box::new(inner));
    for (path, up) in [("/", true), ("/none", false)] {
        let mut upstream = upstream(&[server]);
        upstream.http2 = true;
        upstream.health.kind = HealthKind::Http { path: path.to_owned(), host: None, status: (200, 299) };
        let (handle, _) = start(setup(vec![proxy_route("/")], vec![upstream]));
        checked(&handle);
        until("it was checked", || handle.view().upstreams[0].servers[0].checked);
        assert_eq!(handle.view().upstreams[0].servers[0].up, up, "{:?}", handle.view().upstreams);
    }
}

/// Runs the probe of a tier, and tells what it says.
fn probed(handle: &hawser::web::Handle) -> watch::Receiver<Option<String>> {
    let (tell, told) = watch::channel(None);
    let targets = handle.probe_targets();
    std::thread::spawn(move || control(probe::run(targets, tell)));
    told
}

#[test]
fn a_stuck_web_tier_is_unfit_within_three_seconds_and_fit_again_later() {
    let folder = site();
    let fault = folder.path().join("stall");
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    setup.web.threads = 2;
    setup.fault = Some(Fault::WebStall(fault.clone()));
    let (handle, address) = start(setup);
    let told = probed(&handle);
    assert_eq!(get(address, "/").status, 200);
    std::thread::sleep(Duration::from_millis(300));
    fs::write(&fault, "").unwrap();
    let begun = Instant::now();
    until("it is unfit", || told.borrow().is_some());
    let took = begun.elapsed();
    let promised = PROBE_INTERVAL + PROBE_FALL * PROBE_TIMEOUT;
    assert!(took < promised + Duration::from_millis(700), "known only after {took:?}");
    let reason = told.borrow().clone().unwrap();
    assert!(reason.contains("does not answer"), "{reason}");
    fs::remove_file(&fault).unwrap();
    until("it is fit again", || told.borrow().is_none());
    assert_eq!(get(address, "/").status, 200);
}

#[test]
fn a_tier_that_answers_is_fit_also_for_addresses_that_are_elsewhere() {
    let folder = site();
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    // TEST-NET: on no machine.
    setup.web.listeners[0].address = "192.0.2.77:0".parse().unwrap();
    let (handle, _) = start(setup);
    let told = probed(&handle);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(*told.borrow(), None);
}

#[test]
fn a_tier_that_has_ended_is_unfit() {
    let (_folder, handle, _) = served_site();
    let told = probed(&handle);
    assert!(control(handle.shutdown(Duration::from_secs(1))));
    until("it is unfit", || told.borrow().is_some());
}
