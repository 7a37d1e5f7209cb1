//! Binding.

use crate::kit::*;
use hawser::web::{Tier, serve_dir};
use std::{collections::BTreeSet, net::TcpListener};

#[test]
fn an_address_that_is_not_here_is_bound_all_the_same() {
    let folder = site();
    for address in ["192.0.2.77:0", "[2001:db8::77]:0"] {
        let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
        setup.web.listeners[0].address = address.parse().unwrap();
        let (handle, bound) = start(setup);
        assert!(bound.port() != 0 && bound.ip() == address.parse::<std::net::SocketAddr>().unwrap().ip());
        assert_eq!(handle.view().listeners, [bound]);
    }
}

#[test]
fn both_families_listen_on_one_port() {
    let folder = site();
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    setup.web.listeners[0].address = "0.0.0.0:0".parse().unwrap();
    let (_first, v4) = start(setup.clone());
    setup.web.listeners[0].address = format!("[::]:{}", v4.port()).parse().unwrap();
    let (_second, v6) = start(setup);
    assert_eq!(get(([127, 0, 0, 1], v4.port()).into(), "/").status, 200);
    assert_eq!(get(format!("[::1]:{}", v6.port()).parse().unwrap(), "/").status, 200);
}

#[test]
fn a_taken_port_is_an_error_that_names_who_has_it() {
    let taken = TcpListener::bind(ANY_PORT).unwrap();
    let address = taken.local_addr().unwrap();
    let mut setup = setup(vec![], vec![]);
    setup.web.listeners[0].address = address;
    let error = Tier::start(setup).unwrap_err().to_string();
    let me = format!("(pid {})", std::process::id());
    assert!(
        error.contains(&address.to_string()) && error.contains("already taken by") && error.contains(&me),
        "{error}"
    );
}

#[test]
fn a_second_tier_does_not_silently_share_the_port_of_the_first() {
    let (folder, _first, address) = served_site();
    let error = serve_dir(folder.path().to_owned(), address).unwrap_err().to_string();
    assert!(error.contains("already taken"), "{error}");
}

#[test]
fn a_wildcard_and_an_address_of_its_own_may_share_a_port() {
    let folder = site();
    let port = nobody().port();
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    setup.web.listeners.push(setup.web.listeners[0].clone());
    setup.web.listeners[0].address = ([0, 0, 0, 0], port).into();
    setup.web.listeners[1].address = ([127, 0, 0, 9], port).into();
    setup.web.listeners[1].routes.clear();
    let (_handle, _) = start(setup);
    assert_eq!(get(([127, 0, 0, 1], port).into(), "/").status, 200);
    assert_eq!(get(([127, 0, 0, 9], port).into(), "/").status, 404);
}

#[test]
fn every_web_thread_serves() {
    let folder = site();
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    setup.web.threads = 3;
    let (handle, address) = start(setup);
    assert_eq!(handle.view().threads, 3);
    let names: BTreeSet<String> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default().trim().to_owned())
        .collect();
    for name in ["web-0", "web-1", "web-2"] {
        assert!(names.contains(name), "{names:?}");
    }
    for _ in 0..50 {
        assert_eq!(get(address, "/").status, 200);
    }
    until("all are counted", || handle.totals().requests == 50);
}

#[test]
fn a_folder_is_served_in_one_call_and_ends_cleanly() {
    let folder = site();
    let handle = serve_dir(folder.path().to_owned(), ANY_PORT.parse().unwrap()).unwrap();
    let address = handle.local_addrs()[0];
    assert_eq!(get(address, "/").text(), "<p>home</p>");
    assert!(control(handle.shutdown(PATIENCE)));
    assert!(std::net::TcpStream::connect(address).is_err());
    let error = serve_dir(folder.path().join("none"), ANY_PORT.parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("none") && error.contains("cannot serve"), "{error}");
}
