//! Static files.

use crate::{kit::*, secure::*};
use bytes::Bytes;
use hawser::config::Front;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::symlink,
    time::{Duration, SystemTime},
};

#[test]
fn a_file_comes_with_its_type_length_and_validators() {
    let (folder, _handle, address) = served_site();
    let reply = get(address, "/ten.txt");
    assert_eq!((reply.status, reply.text()), (200, "0123456789"));
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(reply.header("content-length"), Some("10"));
    assert_eq!(reply.header("accept-ranges"), Some("bytes"));
    assert_eq!(reply.header("server"), Some("hawser"));
    assert!(reply.header("date").is_some());
    let modified = fs::metadata(folder.path().join("ten.txt")).unwrap().modified().unwrap();
    assert_eq!(reply.header("last-modified"), Some(httpdate::fmt_http_date(modified).as_str()));
    assert!(reply.header("etag").is_some_and(|etag| etag.starts_with('"')));
}

#[test]
fn the_etag_does_not_depend_on_the_machine() {
    let (one, _first, first) = served_site();
    let (two, _second, second) = served_site();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    for folder in [&one, &two] {
        let file = fs::File::options().write(true).open(folder.path().join("ten.txt")).unwrap();
        file.set_modified(time).unwrap();
    }
    let etags = [first, second].map(|address| get(address, "/ten.txt").header("etag").unwrap().to_owned());
    assert_eq!(etags[0], etags[1]);
}

#[test]
fn a_directory_shows_its_index_and_wants_its_slash() {
    let (_folder, _handle, address) = served_site();
    assert_eq!(get(address, "/").text(), "<p>home</p>");
    assert_eq!(get(address, "/sub/").text(), "<p>sub</p>");
    let reply = get(address, "/sub?a=b");
    assert_eq!((reply.status, reply.header("location")), (301, Some("/sub/?a=b")));
}

#[test]
fn a_redirect_stays_on_the_host() {
    let (folder, _handle, address) = served_site();
    fs::create_dir(folder.path().join("evil.com")).unwrap();
    assert_eq!(get(address, "/evil.com").header("location"), Some("/evil.com/"));
    for path in ["//evil.com", "/%2fevil.com", "/\\evil.com", "///evil.com", "/sub//"] {
        let reply = get(address, path);
        assert_eq!((reply.status, reply.header("location")), (404, None), "{path}");
    }
}

#[test]
fn head_is_get_without_the_body() {
    let (_folder, _handle, address) = served_site();
    let mut client = Client::connect(address);
    let head = client.send("HEAD /ten.txt HTTP/1.1\r\nHost: a\r\n\r\n").head().unwrap();
    let get = client.send("GET /ten.txt HTTP/1.1\r\nHost: a\r\n\r\n").reply().unwrap();
    let fields = |reply: &Reply| {
        let mut fields = reply.headers.clone();
        fields.retain(|(name, _)| name != "date");
        fields
    };
    assert_eq!((head.status, fields(&head)), (200, fields(&get)));
    assert_eq!(get.text(), "0123456789");
    let missing = client.send("HEAD /none HTTP/1.1\r\nHost: a\r\n\r\n").head().unwrap();
    assert_eq!(missing.status, 404);
    assert!(missing.header("content-length").is_some_and(|length| length != "0"));
}

#[test]
fn other_methods_are_told_which_are_allowed() {
    let (_folder, _handle, address) = served_site();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let reply = ask(address, &format!("{method} /ten.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy"));
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
}

#[test]
fn what_is_not_there_is_a_short_page() {
    let (_folder, _handle, address) = served_site();
    for path in ["/none", "/ten.txt/", "/ten.txt/x", "/sub/none", &format!("/{}", "x".repeat(5000))] {
        let reply = get(address, path);
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(reply.text().contains("404") && reply.body.len() < 400);
    }
}

#[test]
fn no_path_leaves_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("root");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(outside.path().join("secret"), "SECRET").unwrap();
    fs::write(root.join(".htpasswd"), "SECRET").unwrap();
    symlink("../secret", root.join("up")).unwrap();
    symlink(outside.path().join("secret"), root.join("absolute")).unwrap();
    symlink("../..", root.join("sub/out")).unwrap();
    symlink("/proc/self/root/etc/passwd", root.join("magic")).unwrap();
    let (_handle, address) = start(setup(vec![folder_route("/", &root), folder_route("/m", &root)], vec![]));
    let ups = [
        "..",
        "%2e%2e",
        ".%2e",
        "%2E.",
        "%252e%252e",
        "..%2f..",
        "%2e%2e%2f",
        "..%5c",
        "..%00",
        "\u{2025}",
        "%c0%ae%c0%ae",
    ];
    let mut paths: Vec<String> =
        ["/up", "/absolute", "/sub/out/secret", "/sub/out/root/.htpasswd", "/magic", "/.htpasswd", "/%2ehtpasswd"]
            .map(str::to_owned)
            .to_vec();
    for up in ups {
        for before in ["", "/sub", "/sub/..", "/m", "/m/sub", "/.well-known"] {
            paths.push(format!("{before}/{up}/secret"));
            paths.push(format!("{before}/{up}/{up}/secret"));
            paths.push(format!("{before}/{up}secret"));
        }
    }
    for path in paths {
        let mut client = Client::connect(address);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        let answer = String::from_utf8_lossy(&client.rest().unwrap()).into_owned();
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        assert!(matches!(status.as_str(), "400" | "404"), "{path}: {answer}");
        assert!(!answer.contains("SECRET") && !answer.contains("root:"), "{path}");
    }
}

#[test]
fn a_link_within_the_root_is_followed() {
    let (folder, _handle, address) = served_site();
    symlink("ten.txt", folder.path().join("link.txt")).unwrap();
    symlink("../ten.txt", folder.path().join("sub/link.txt")).unwrap();
    assert_eq!(get(address, "/link.txt").text(), "0123456789");
    assert_eq!(get(address, "/sub/link.txt").text(), "0123456789");
}

#[test]
fn a_root_that_is_a_swapped_link_shows_the_new_release() {
    let folder = tempfile::tempdir().unwrap();
    for release in ["one", "two"] {
        fs::create_dir(folder.path().join(release)).unwrap();
        fs::write(folder.path().join(release).join("index.html"), release).unwrap();
    }
    let current = folder.path().join("current");
    symlink("one", &current).unwrap();
    let (_handle, address) = start(setup(vec![folder_route("/", &current)], vec![]));
    assert_eq!(get(address, "/").text(), "one");
    symlink("two", folder.path().join("next")).unwrap();
    fs::rename(folder.path().join("next"), &current).unwrap();
    until("the new release is shown", || get(address, "/").text() == "two");
}

#[test]
fn well_known_is_shown_and_encoded_names_are_found() {
    let (folder, _handle, address) = served_site();
    fs::create_dir_all(folder.path().join(".well-known")).unwrap();
    fs::write(folder.path().join(".well-known/x"), "known").unwrap();
    fs::write(folder.path().join("a b+\u{e4}.txt"), "encoded").unwrap();
    assert_eq!(get(address, "/.well-known/x").text(), "known");
    assert_eq!(get(address, "/a%20b+%C3%A4.txt?query").text(), "encoded");
}

#[test]
fn a_pipe_or_a_socket_is_not_served() {
    let (folder, _handle, address) = served_site();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    assert_eq!(get(address, "/pipe").status, 404);
    assert_eq!(get(address, "/socket").status, 404);
}

#[test]
fn a_route_prefix_is_mounted_on_its_folder_and_the_longest_wins() {
    let (outer, inner) = (site(), site());
    fs::write(inner.path().join("ten.txt"), "inner").unwrap();
    let routes = vec![folder_route("/", outer.path()), folder_route("/docs", inner.path())];
    let (_handle, address) = start(setup(routes, vec![]));
    assert_eq!(get(address, "/docs/ten.txt").text(), "inner");
    assert_eq!(get(address, "/%64ocs/ten.txt").text(), "inner");
    assert_eq!(get(address, "/ten.txt").text(), "0123456789");
    assert_eq!(get(address, "/docs").header("location"), Some("/docs/"));
    assert_eq!(get(address, "/docsx/ten.txt").status, 404);
}

#[test]
fn a_single_range_is_served() {
    let (_folder, _handle, address) = served_site();
    for (range, status, said, body) in [
        ("0-3", 206, "bytes 0-3/10", "0123"),
        ("8-", 206, "bytes 8-9/10", "89"),
        ("-3", 206, "bytes 7-9/10", "789"),
        ("5-500", 206, "bytes 5-9/10", "56789"),
    ] {
        let reply = get_with(address, "/ten.txt", &format!("Range: bytes={range}\r\n"));
        assert_eq!((reply.status, reply.header("content-range"), reply.text()), (status, Some(said), body), "{range}");
    }
    let beyond = get_with(address, "/ten.txt", "Range: bytes=10-\r\n");
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10")));
    for whole in ["bytes=3-1", "lines=1-2", "nonsense"] {
        let reply = get_with(address, "/ten.txt", &format!("Range: {whole}\r\n"));
        assert_eq!((reply.status, reply.text()), (200, "0123456789"), "{whole}");
    }
}

#[test]
fn a_resumed_download_is_never_spliced_from_two_files() {
    let (folder, _handle, address) = served_site();
    let etag = get(address, "/ten.txt").header("etag").unwrap().to_owned();
    let resume =
        |condition: &str| get_with(address, "/ten.txt", &format!("Range: bytes=5-\r\nIf-Range: {condition}\r\n"));
    assert_eq!((resume(&etag).status, resume(&etag).text()), (206, "56789"));
    fs::write(folder.path().join("ten.txt"), "abcdefghij!").unwrap();
    until("the new file is shown", || get(address, "/ten.txt").header("etag") != Some(&etag));
    assert_eq!((resume(&etag).status, resume(&etag).text()), (200, "abcdefghij!"));
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let (_folder, _handle, address) = served_site();
    let first = get(address, "/ten.txt");
    let (etag, modified) = (first.header("etag").unwrap(), first.header("last-modified").unwrap());
    for condition in [format!("If-None-Match: {etag}"), format!("If-Modified-Since: {modified}")] {
        let reply = get_with(address, "/ten.txt", &format!("{condition}\r\n"));
        assert_eq!((reply.status, reply.header("etag")), (304, Some(etag)), "{condition}");
    }
    assert_eq!(get_with(address, "/ten.txt", "If-Match: \"other\"\r\n").status, 412);
    assert_eq!(get_with(address, "/ten.txt", &format!("If-Match: {etag}\r\n")).status, 200);
}

#[test]
fn a_large_file_comes_whole() {
    let (folder, _handle, address) = served_site();
    let bytes: Vec<u8> = (0..3_000_001_u32).map(|index| (index % 251) as u8).collect();
    fs::write(folder.path().join("large.bin"), &bytes).unwrap();
    let reply = get(address, "/large.bin");
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    assert!(reply.body == bytes);
    let part = get_with(address, "/large.bin", "Range: bytes=100000-2999999\r\n");
    assert!(part.status == 206 && part.body == bytes[100_000..3_000_000]);
}

#[test]
fn a_large_file_that_is_read_slowly_comes_whole_and_what_follows_it_too() {
    let (folder, _handle, address) = served_site();
    let bytes: Vec<u8> = (0..9_000_001_u32).map(|index| (index % 253) as u8).collect();
    fs::write(folder.path().join("large.bin"), &bytes).unwrap();
    let mut client = Client::connect(address);
    client.send("GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\nGET /ten.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send("GET /large.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=5-8000004\r\n\r\n");
    assert_eq!(client.head().unwrap().header("content-length"), Some("9000001"));
    let mut read = Vec::new();
    while read.len() < bytes.len() {
        // Odd sizes, so that no write ends where a read does.
        read.extend(client.bytes(70_001.min(bytes.len() - read.len())));
        std::thread::sleep(Duration::from_micros(300));
    }
    assert!(read == bytes);
    assert_eq!(client.reply().unwrap().text(), "0123456789");
    let part = client.reply().unwrap();
    assert!(part.status == 206 && part.body == bytes[5..8_000_005]);
}

#[test]
fn a_large_file_comes_whole_by_http2() {
    let (folder, _handle, address) = served_site();
    let bytes: Vec<u8> = (0..3_000_001_u32).map(|index| (index % 251) as u8).collect();
    fs::write(folder.path().join("large.bin"), &bytes).unwrap();
    let read = control(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get(format!("http://{address}/large.bin")).body(Empty::<Bytes>::new()).unwrap();
        sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes()
    });
    assert!(read == bytes);
}

/// By every way in: some send from the page cache, and what must be sealed first does not.
#[test]
fn a_large_file_comes_whole_by_tls_and_behind_a_proxy_header_too() {
    const HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.10 50000 443\r\n";
    const LARGE: &str = "GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const PART: &str = "GET /large.bin HTTP/1.1\r\nHost: localhost\r\nRange: bytes=100000-2999999\r\n\r\n";
    let (folder, authority) = (site(), Authority::new());
    let text: String = (0..3_000_001_u32).map(|index| char::from(b' ' + (index % 89) as u8)).collect();
    fs::write(folder.path().join("large.bin"), &text).unwrap();
    let mut setup = setup(vec![folder_route("/", folder.path())], vec![]);
    let announced = Front { proxy_from: vec!["127.0.0.0/8".parse().unwrap()], ..Front::default() };
    let both = Front { proxy_from: announced.proxy_from.clone(), ..front(authority.tls()) };
    for front in [announced, front(authority.tls()), both] {
        setup.web.listeners.push(listener(&setup, front));
    }
    let (handle, _) = start(setup);
    let ways = handle.local_addrs();
    let mut client = Client::connect(ways[1]);
    client.send([HEADER, LARGE.as_bytes(), PART.as_bytes()].concat());
    assert!(client.reply().unwrap().text() == text);
    assert!(client.reply().unwrap().text() == &text[100_000..3_000_000]);
    for (way, before) in [(ways[2], &b""[..]), (ways[3], HEADER)] {
        let mut stream = secure_after(way, before, &authority.client(BOTH), "localhost").unwrap();
        let (head, body) = exchange(&mut stream, LARGE).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 ") && body == text, "{head}");
        let (head, body) = exchange(&mut stream, PART).unwrap();
        assert!(head.starts_with("HTTP/1.1 206 ") && body == text[100_000..3_000_000], "{head}");
    }
    // What went out is counted as it went, whoever wrote it.
    let (sent, whole) = (handle.totals().bytes_out, 3 * (3_000_001 + 2_900_000));
    assert!((whole..whole + 6000).contains(&sent), "{sent} bytes for {whole}");
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_does_not_pass_as_whole() {
    let (folder, handle, address) = served_site();
    let path = folder.path().join("large.bin");
    // More than the kernel's buffers on both sides take.
    fs::File::create(&path).unwrap().set_len(256 << 20).unwrap();
    for version in ["1.1", "1.0"] {
        let mut client = Client::connect(address);
        client.send(format!("GET /large.bin HTTP/{version}\r\nHost: a\r\n\r\n"));
        assert_eq!(client.head().unwrap().status, 200);
        fs::File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
        let mut sink = vec![0; 1 << 16];
        let error = loop {
            match client.stream.read(&mut sink) {
                Ok(0) => panic!("the response of HTTP/{version} ended as if it were whole"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        fs::File::options().write(true).open(&path).unwrap().set_len(256 << 20).unwrap();
    }
    assert_eq!(handle.totals().broken, 2);
}

#[test]
fn a_file_on_a_file_system_in_memory_is_served() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let bytes = vec![7; 500_000];
    fs::write(folder.path().join("large.bin"), &bytes).unwrap();
    fs::write(folder.path().join("small.bin"), &bytes[..100]).unwrap();
    let (_handle, address) = start(setup(vec![folder_route("/", folder.path())], vec![]));
    assert!(get(address, "/large.bin").body == bytes);
    assert!(get(address, "/small.bin").body == bytes[..100]);
}

#[test]
fn a_file_that_is_not_in_the_page_cache_is_served() {
    let (folder, _handle, address) = served_site();
    let bytes = vec![b'x'; 1_000_000];
    let path = folder.path().join("cold.bin");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&bytes).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert!(get(address, "/cold.bin").body == bytes);
}
