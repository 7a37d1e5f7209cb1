//! Parts of files.

use crate::kit::*;
use std::fs;

/// What a multipart body holds: `Content-Range` and bytes of each part.
fn parts(reply: &Reply) -> Vec<(String, Vec<u8>)> {
    let kind = reply.header("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let (dash, end) = (format!("--{boundary}\r\n"), format!("\r\n--{boundary}--\r\n"));
    let find = |bytes: &[u8], text: &str| bytes.windows(text.len()).position(|window| window == text.as_bytes());
    let mut parts = Vec::new();
    let mut rest = &reply.body[..];
    let closing = find(rest, &end).unwrap();
    assert_eq!(closing + end.len(), rest.len(), "nothing comes behind the last boundary");
    rest = rest[..closing].strip_prefix(dash.as_bytes()).unwrap();
    loop {
        let separator = format!("\r\n{dash}");
        let next = find(rest, &separator);
        let part = &rest[..next.unwrap_or(rest.len())];
        let head_end = find(part, "\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&part[..head_end]).unwrap();
        let range = head.lines().find_map(|line| line.strip_prefix("Content-Range: ")).unwrap();
        assert!(head.lines().any(|line| line.starts_with("Content-Type: ")), "{head}");
        parts.push((range.to_owned(), part[head_end + 4..].to_vec()));
        match next {
            Some(at) => rest = &rest[at + separator.len()..],
            None => return parts,
        }
    }
}

#[test]
fn several_ranges_come_as_one_multipart_body() {
    let (folder, _handle, address) = served_site();
    // In memory, and from the disk.
    let large: Vec<u8> = (0..600_000_u32).map(|index| (index % 251) as u8).collect();
    fs::write(folder.path().join("large.bin"), &large).unwrap();
    fs::write(folder.path().join("small.bin"), &large[..1000]).unwrap();
    for (name, bytes) in [("/small.bin", &large[..1000]), ("/large.bin", &large[..])] {
        let size = bytes.len();
        let reply = get_with(address, name, "Range: bytes=500-599, 0-0, -10\r\n");
        assert_eq!(reply.status, 206);
        assert_eq!(reply.header("content-length"), Some(reply.body.len().to_string().as_str()));
        assert_eq!(reply.header("content-range"), None);
        let part = |start: usize, end: usize| (format!("bytes {start}-{}/{size}", end - 1), bytes[start..end].to_vec());
        assert_eq!(parts(&reply), [part(500, 600), part(0, 1), part(size - 10, size)], "{name}");
    }
    let reply = get_with(address, "/large.bin", "Range: bytes=1-299999,400000-599998\r\n");
    let bodies: Vec<Vec<u8>> = parts(&reply).into_iter().map(|(_, body)| body).collect();
    assert!(bodies == [&large[1..300_000], &large[400_000..599_999]]);
}

#[test]
fn ranges_never_make_a_response_longer_than_the_file() {
    let (_folder, _handle, address) = served_site();
    let ranges = |list: &str| get_with(address, "/ten.txt", &format!("Range: bytes={list}\r\n"));
    let joined = ranges("0-,0-,0-,0-,1-,2-");
    assert_eq!(
        (joined.status, joined.header("content-range"), joined.text()),
        (206, Some("bytes 0-9/10"), "0123456789")
    );
    let adjoining = ranges("4-5,0-3");
    assert_eq!((adjoining.header("content-range"), adjoining.text()), (Some("bytes 0-5/10"), "012345"));
    let only_one_is_there = ranges("50-60,8-");
    assert_eq!((only_one_is_there.header("content-range"), only_one_is_there.text()), (Some("bytes 8-9/10"), "89"));
    let too_many = ranges(&vec!["0-0"; 2000].join(","));
    assert_eq!((too_many.status, too_many.text()), (200, "0123456789"));
    let none = ranges("50-60,70-");
    assert_eq!((none.status, none.header("content-range")), (416, Some("bytes */10")));
}

#[test]
fn a_range_of_a_request_that_is_no_get_is_ignored() {
    let (_folder, _handle, address) = served_site();
    let mut client = Client::connect(address);
    let head = client.send("HEAD /ten.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n").head().unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
}
