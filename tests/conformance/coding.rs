//! Files in the form that a client takes: coded beforehand, coded on the fly, or as they are.

use crate::kit::*;
use hawser::config::{Static, Web};
use std::{
    fs,
    io::Read,
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime},
};

const TEXT: &str = "a line of text that comes again and again\n";

fn text() -> String {
    TEXT.repeat(400)
}

fn take(address: SocketAddr, path: &str, coding: &str) -> Reply {
    get_with(address, path, &format!("Accept-Encoding: {coding}\r\n"))
}

fn plain(reply: &Reply) -> String {
    let mut text = String::new();
    match reply.header("content-encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(&*reply.body).read_to_string(&mut text).unwrap(),
        Some("br") => brotli::Decompressor::new(&*reply.body, 4096).read_to_string(&mut text).unwrap(),
        other => {
            assert_eq!(other, None, "nobody asked for that");
            return reply.text().to_owned();
        }
    };
    text
}

fn serve(folder: &Path, change: impl FnOnce(&mut Static)) -> (hawser::web::Handle, SocketAddr) {
    let mut files = Static::new(folder.to_owned());
    change(&mut files);
    start(setup(vec![files_route("/", files)], vec![]))
}

#[test]
fn text_is_compressed_for_who_takes_it() {
    let folder = site();
    fs::write(folder.path().join("a.css"), text()).unwrap();
    let (_handle, address) = serve(folder.path(), |_| {});
    for (accepted, coding) in [
        ("gzip, deflate, br, zstd", Some("br")),
        ("gzip", Some("gzip")),
        ("br;q=0.1, gzip;q=0.2", Some("gzip")),
        ("gzip;q=0, br;q=0", None),
        ("zstd", None),
        ("", None),
    ] {
        // Made, and then from memory.
        for _ in 0..2 {
            let reply = take(address, "/a.css", accepted);
            assert_eq!((reply.status, reply.header("content-encoding")), (200, coding), "{accepted}");
            assert_eq!(reply.header("content-length"), Some(reply.body.len().to_string().as_str()));
            assert_eq!(reply.header("vary"), Some("accept-encoding"));
            assert_eq!(reply.header("content-type"), Some("text/css; charset=utf-8"));
            assert!(plain(&reply) == text() && (coding.is_none() || reply.body.len() < 1000));
        }
    }
}

#[test]
fn each_form_has_its_own_tag_and_a_head_like_its_get() {
    let folder = site();
    fs::write(folder.path().join("a.css"), text()).unwrap();
    let (_handle, address) = serve(folder.path(), |_| {});
    let etags: Vec<String> =
        ["", "gzip", "br"].iter().map(|c| take(address, "/a.css", c).header("etag").unwrap().to_owned()).collect();
    assert!(etags[0] != etags[1] && etags[1] != etags[2] && etags[0] != etags[2], "{etags:?}");
    for (coding, etag) in ["", "gzip", "br"].iter().zip(&etags) {
        let headers = format!("Accept-Encoding: {coding}\r\nIf-None-Match: {etag}\r\n");
        let reply = get_with(address, "/a.css", &headers);
        assert_eq!((reply.status, reply.header("etag")), (304, Some(etag.as_str())), "{coding}");
        assert_eq!((reply.header("vary"), reply.header("content-type")), (Some("accept-encoding"), None));
        let other = get_with(address, "/a.css", &format!("Accept-Encoding: {coding}\r\nIf-None-Match: \"x\"\r\n"));
        assert_eq!(other.status, 200);
        let head = |method: &str| {
            let mut client = Client::connect(address);
            client.send(format!("{method} /a.css HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n"));
            let mut reply = client.head().unwrap();
            reply.headers.retain(|(name, _)| name != "date");
            reply.headers.sort();
            reply.headers
        };
        assert_eq!(head("HEAD"), head("GET"), "{coding}");
    }
}

#[test]
fn what_gains_nothing_is_left_alone() {
    let folder = site();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    // Xorshift: nothing repeats.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[4]
    };
    let noise: Vec<u8> = (0..3000).map(|_| noise()).collect();
    write("a.png", text().as_bytes());
    write("a.gz", text().as_bytes());
    write("short.css", b"p{}");
    write("noise.css", &noise);
    write("kept.css", text().as_bytes());
    let (_handle, address) = serve(folder.path(), |files| {
        files.cache_control = vec![("kept.css".to_owned(), "public, no-transform".to_owned())];
    });
    for name in ["/a.png", "/a.gz", "/short.css", "/noise.css", "/kept.css"] {
        for _ in 0..2 {
            let reply = take(address, name, "br, gzip");
            assert_eq!((reply.status, reply.header("content-encoding")), (200, None), "{name}");
        }
    }
    assert_eq!(take(address, "/kept.css", "br").header("cache-control"), Some("public, no-transform"));
    let (_handle, address) = serve(folder.path(), |files| files.compress = false);
    assert_eq!(take(address, "/noise.css", "br").header("vary"), None);
}

#[test]
fn a_coded_file_beside_the_file_is_sent_in_its_place() {
    let folder = site();
    let write = |name: &str, bytes: &str| fs::write(folder.path().join(name), bytes).unwrap();
    write("a.css", &text());
    write("a.css.br", "of brotli");
    write("a.css.zst", "of zstd");
    write("a.css.gz", "of gzip");
    write("a.png", "a picture");
    write("a.png.gz", "of gzip");
    let (_handle, address) = serve(folder.path(), |_| {});
    for (accepted, coding, body) in [
        ("gzip, br, zstd", Some("br"), "of brotli"),
        ("gzip, zstd", Some("zstd"), "of zstd"),
        ("gzip", Some("gzip"), "of gzip"),
    ] {
        let reply = take(address, "/a.css", accepted);
        assert_eq!((reply.header("content-encoding"), reply.text()), (coding, body), "{accepted}");
        assert_eq!(reply.header("content-type"), Some("text/css; charset=utf-8"));
        assert_eq!(reply.header("vary"), Some("accept-encoding"));
    }
    assert!(take(address, "/a.css", "").text() == text());
    assert_eq!(take(address, "/a.png", "gzip").text(), "a picture");
    let part = get_with(address, "/a.css", "Accept-Encoding: gzip\r\nRange: bytes=3-\r\n");
    assert_eq!((part.status, part.header("content-encoding"), part.text()), (206, Some("gzip"), "gzip"));
    // By its own name it is a file like any other.
    assert_eq!(get(address, "/a.css.gz").header("content-type"), Some("application/gzip"));
    let (_handle, address) = serve(folder.path(), |files| (files.precompressed, files.compress) = (false, false));
    assert!(take(address, "/a.css", "br").text() == text());
}

#[test]
fn a_coded_file_that_is_older_than_its_original_is_not_sent() {
    let folder = site();
    fs::write(folder.path().join("a.css"), text()).unwrap();
    fs::write(folder.path().join("a.css.gz"), "of yesterday").unwrap();
    let yesterday = SystemTime::now() - Duration::from_secs(24 * 3600);
    let file = fs::File::options().write(true).open(folder.path().join("a.css.gz")).unwrap();
    file.set_modified(yesterday).unwrap();
    let (_handle, address) = serve(folder.path(), |_| {});
    assert!(plain(&take(address, "/a.css", "gzip")) == text());
}

#[test]
fn a_part_of_what_would_be_compressed_is_one_of_the_file_as_it_is() {
    let folder = site();
    fs::write(folder.path().join("a.css"), text()).unwrap();
    let (_handle, address) = serve(folder.path(), |_| {});
    let coded = take(address, "/a.css", "br").header("etag").unwrap().to_owned();
    let part = get_with(address, "/a.css", "Accept-Encoding: br\r\nRange: bytes=2-5\r\n");
    assert_eq!((part.status, part.header("content-encoding"), part.text()), (206, None, "line"));
    // Never spliced into bytes of another form.
    let resumed =
        get_with(address, "/a.css", &format!("Accept-Encoding: br\r\nRange: bytes=2-5\r\nIf-Range: {coded}\r\n"));
    assert_eq!(resumed.status, 200);
}

#[test]
fn a_file_that_changes_is_shown_and_compressed_anew() {
    let folder = site();
    let path = folder.path().join("a.css");
    fs::write(&path, text()).unwrap();
    let (_handle, address) = serve(folder.path(), |_| {});
    for round in 0..3 {
        let now = format!("{round}{}", text());
        fs::write(&path, &now).unwrap();
        for coding in ["br", "gzip", ""] {
            until("the change is shown", || plain(&take(address, "/a.css", coding)) == now);
        }
    }
    fs::remove_file(&path).unwrap();
    until("it is gone", || take(address, "/a.css", "br").status == 404);
}

#[test]
fn without_memory_for_files_they_are_read_each_time() {
    let folder = site();
    fs::write(folder.path().join("a.css"), text()).unwrap();
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    setup.web = Web { file_cache_bytes: 0, ..setup.web };
    let (_handle, address) = start(setup);
    for _ in 0..2 {
        let reply = take(address, "/a.css", "br");
        assert_eq!((reply.header("content-encoding"), reply.header("vary")), (None, None));
        assert!(reply.text() == text());
    }
    // What was changed is seen by the very next request.
    fs::write(folder.path().join("a.css"), "p{}").unwrap();
    assert_eq!(get(address, "/a.css").text(), "p{}");
}

#[test]
fn many_files_go_through_a_small_memory_and_all_come_right() {
    let folder = site();
    for number in 0..200 {
        fs::write(folder.path().join(format!("{number}.css")), format!("{number}\n{}", text())).unwrap();
    }
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    setup.web.file_cache_bytes = 300_000;
    let (_handle, address) = start(setup);
    for _ in 0..2 {
        for number in 0..200 {
            let coding = ["gzip", "br", ""][number % 3];
            let reply = take(address, &format!("/{number}.css"), coding);
            assert!(plain(&reply) == format!("{number}\n{}", text()), "{number}");
        }
    }
}
