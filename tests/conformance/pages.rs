//! How a folder is shown: types, caching, fallback, listings, links and names with a dot.

use crate::kit::*;
use hawser::config::{DotFiles, Static, Symlinks};
use std::{ffi::OsStr, fs, net::SocketAddr, os::unix::ffi::OsStrExt, os::unix::fs::symlink, path::Path};

fn serve(folder: &Path, change: impl FnOnce(&mut Static)) -> (hawser::web::Handle, SocketAddr) {
    let mut files = Static::new(folder.to_owned());
    change(&mut files);
    start(setup(vec![files_route("/", files)], vec![]))
}

#[test]
fn the_index_is_the_first_name_that_is_there() {
    let folder = site();
    fs::write(folder.path().join("sub/start.htm"), "start").unwrap();
    let (_handle, address) =
        serve(folder.path(), |files| files.index = vec!["start.htm".to_owned(), "index.html".to_owned()]);
    assert_eq!(get(address, "/sub/").text(), "start");
    assert_eq!(get(address, "/").text(), "<p>home</p>");
}

#[test]
fn an_application_of_one_page_answers_for_its_addresses_and_not_for_missing_files() {
    let folder = site();
    let (_handle, address) = serve(folder.path(), |files| files.fallback = Some("index.html".into()));
    for page in ["/users/7", "/users/7/", "/a?b=c.d", "/%C3%A4", "/sub/none"] {
        let reply = get(address, page);
        assert_eq!((reply.status, reply.text()), (200, "<p>home</p>"), "{page}");
        assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    }
    let etag = get(address, "/users/7").header("etag").unwrap().to_owned();
    assert_eq!(get_with(address, "/users/8", &format!("If-None-Match: {etag}\r\n")).status, 304);
    assert_eq!(get(address, "/ten.txt").text(), "0123456789");
    assert_eq!(get(address, "/sub/").text(), "<p>sub</p>");
    for missing in ["/app.3f2a.js", "/users/photo.png", "/.env"] {
        assert_eq!(get(address, missing).status, 404, "{missing}");
    }
    assert_eq!(get(address, "/a/%2e%2e/b").status, 400);
    assert_eq!(ask(address, "POST /users/7 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status, 405);
}

#[test]
fn types_and_cache_headers_are_as_written() {
    let folder = site();
    fs::create_dir(folder.path().join("assets")).unwrap();
    for name in ["assets/a.js", "assets/a.map", "a.geo", "index.htm"] {
        fs::write(folder.path().join(name), "x").unwrap();
    }
    let (_handle, address) = serve(folder.path(), |files| {
        files.types = [("geo".to_owned(), "application/geo+json".to_owned())].into();
        files.cache_control =
            [("/assets/*", "max-age=31536000, immutable"), ("*.html", "no-cache"), ("*", "max-age=60")]
                .map(|(pattern, value)| (pattern.to_owned(), value.to_owned()))
                .to_vec();
    });
    assert_eq!(get(address, "/a.geo").header("content-type"), Some("application/geo+json"));
    for (path, value) in [
        ("/assets/a.js", "max-age=31536000, immutable"),
        ("/", "no-cache"),
        ("/sub/", "no-cache"),
        ("/ten.txt", "max-age=60"),
    ] {
        let reply = get(address, path);
        assert_eq!(reply.header("cache-control"), Some(value), "{path}");
        let etag = reply.header("etag").unwrap();
        let again = get_with(address, path, &format!("If-None-Match: {etag}\r\n"));
        assert_eq!((again.status, again.header("cache-control")), (304, Some(value)), "{path}");
    }
    assert_eq!(get(address, "/none.html").header("cache-control"), Some("no-store"));
}

#[test]
fn a_listing_shows_what_may_be_fetched_in_order_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("b-folder")).unwrap();
    fs::create_dir_all(root.join(".git")).unwrap();
    fs::write(folder.path().join("secret"), "SECRET").unwrap();
    for name in ["z.txt", "a b&c.txt", "<img src=x>", "\u{e4}.txt", ".hidden"] {
        fs::write(root.join(name), "12345").unwrap();
    }
    fs::write(root.join(OsStr::from_bytes(b"latin\xe4")), "x").unwrap();
    symlink("../secret", root.join("out")).unwrap();
    symlink("z.txt", root.join("in")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (_handle, address) = serve(&root, |files| files.listing = true);
    let reply = get(address, "/");
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let links: Vec<&str> = reply.text().split("href=\"").skip(1).map(|link| link.split('"').next().unwrap()).collect();
    let wanted =
        ["./b-folder/", "./%3Cimg%20src=x%3E", "./a%20b%26c.txt", "./in", "./latin%E4", "./z.txt", "./%C3%A4.txt"];
    assert_eq!(links, wanted);
    assert!(!reply.text().contains("<img"));
    for link in &links[1..] {
        assert_eq!(get(address, link.trim_start_matches('.')).status, 200, "{link}");
    }
    assert!(get(address, "/b-folder/").text().contains("href=\"../\""));
    let mut client = Client::connect(address);
    let head = client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").head().unwrap();
    assert_eq!(head.header("content-length"), Some(reply.body.len().to_string().as_str()));
    fs::write(root.join("index.html"), "index").unwrap();
    assert_eq!(get(address, "/").text(), "index");
    let (_handle, address) = serve(&root, |_| {});
    assert_eq!(get(address, "/b-folder/").status, 404, "nothing is listed unless it is wished");
}

#[test]
fn links_are_followed_as_far_as_is_wished() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(folder.path().join("outside.txt"), "outside").unwrap();
    fs::write(root.join("real.txt"), "inside").unwrap();
    symlink("real.txt", root.join("in.txt")).unwrap();
    symlink(folder.path().join("outside.txt"), root.join("out.txt")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    for (symlinks, inside, outside) in
        [(Symlinks::None, 404, 404), (Symlinks::Inside, 200, 404), (Symlinks::Any, 200, 200)]
    {
        let (_handle, address) = serve(&root, |files| files.symlinks = symlinks);
        let statuses = ["/real.txt", "/in.txt", "/out.txt"].map(|path| get(address, path).status);
        assert_eq!(statuses, [200, inside, outside], "{symlinks:?}");
        assert_eq!(get(address, "/../outside.txt").status, 400);
        assert_eq!(get(address, "/magic/etc/passwd").status, 404, "{symlinks:?}");
    }
    // The root itself may be a link in every case.
    let linked = folder.path().join("current");
    symlink(&root, &linked).unwrap();
    let (_handle, address) = serve(&linked, |files| files.symlinks = Symlinks::None);
    assert_eq!(get(address, "/real.txt").text(), "inside");
}

#[test]
fn names_with_a_dot_are_shown_only_if_wished() {
    let folder = site();
    fs::create_dir(folder.path().join(".git")).unwrap();
    fs::write(folder.path().join(".git/config"), "dot").unwrap();
    let (_handle, address) = serve(folder.path(), |_| {});
    assert_eq!(get(address, "/.git/config").status, 404);
    let (_handle, address) = serve(folder.path(), |files| files.dotfiles = DotFiles::Show);
    assert_eq!(get(address, "/.git/config").text(), "dot");
    assert_eq!(get(address, "/.git/../ten.txt").status, 400);
}

#[test]
fn spellings_of_one_name_are_one_file() {
    let folder = site();
    fs::write(folder.path().join("\u{e4} %.txt"), "umlaut").unwrap();
    let (_handle, address) = serve(folder.path(), |_| {});
    for path in ["/%C3%A4%20%25.txt", "/%c3%a4%20%25%2etxt"] {
        for _ in 0..2 {
            assert_eq!(get(address, path).text(), "umlaut", "{path}");
        }
    }
    assert_eq!(get(address, "/%74en.txt").text(), "0123456789");
}
