//! What the tests share: a tier, a folder, a client of bytes, a server of bytes.

use hawser::{
    cluster::{GroupName, Name},
    config::{Front, HealthCheck, HealthKind, Listener, Route, RouteAction, Static, Upstream, Web},
    web::{Handle, Setup, Tier},
};
use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const ANY_PORT: &str = "127.0.0.1:0";

pub fn group() -> GroupName {
    Name::new("web").unwrap()
}

/// A tier of one thread and one listener, which belongs to the group `web`.
pub fn setup(routes: Vec<Route>, upstreams: Vec<Upstream>) -> Setup {
    let listener =
        Listener { address: ANY_PORT.parse().unwrap(), group: Some(group()), routes, front: Front::default() };
    Setup { web: Web { listeners: vec![listener], upstreams, threads: 1, ..Web::default() }, ..Setup::default() }
}

pub fn start(setup: Setup) -> (Handle, SocketAddr) {
    let handle = Tier::start(setup).unwrap();
    let address = handle.local_addrs()[0];
    (handle, address)
}

pub fn folder_route(path: &str, root: &Path) -> Route {
    files_route(path, Static::new(root.to_owned()))
}

pub fn files_route(path: &str, files: Static) -> Route {
    Route { path: path.to_owned(), action: RouteAction::Static(files) }
}

pub fn proxy_route(path: &str) -> Route {
    Route { path: path.to_owned(), action: RouteAction::Proxy { upstream: Name::new("app").unwrap() } }
}

/// The upstream `app`, not checked, with limits that a test can wait for.
pub fn upstream(servers: &[SocketAddr]) -> Upstream {
    Upstream {
        name: Name::new("app").unwrap(),
        servers: servers.to_vec(),
        health: HealthCheck {
            kind: HealthKind::None,
            interval: Duration::from_millis(20),
            timeout: Duration::from_secs(5),
            rise: 2,
            fall: 2,
        },
        connect_timeout: Duration::from_secs(5),
        response_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        http2: false,
        proxy_protocol: None,
    }
}

/// A folder with a small site.
pub fn site() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("index.html"), "<p>home</p>").unwrap();
    fs::write(folder.path().join("ten.txt"), "0123456789").unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/index.html"), "<p>sub</p>").unwrap();
    folder
}

/// A site that is served.
pub fn served_site() -> (TempDir, Handle, SocketAddr) {
    let folder = site();
    let (handle, address) = start(setup(vec![folder_route("/", folder.path())], vec![]));
    (folder, handle, address)
}

/// An application that is proxied, one server per script.
pub fn proxied(servers: &[&App]) -> (Handle, SocketAddr) {
    let servers: Vec<_> = servers.iter().map(|app| app.address).collect();
    start(setup(vec![proxy_route("/")], vec![upstream(&servers)]))
}

/// A connection that speaks bytes.
pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// A response, as it came.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// The head of the next response; its body is still to be read.
    pub fn head(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
                None => return Ok(Reply { status, headers, body: Vec::new() }),
            }
        }
    }

    /// The next response with its body; an error if that is not whole.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let mut reply = self.head()?;
        if matches!(reply.status, 100..=199 | 204 | 304) {
            return Ok(reply);
        }
        if reply.header("transfer-encoding").is_some() {
            while let Some(piece) = self.chunk()? {
                reply.body.extend(piece);
            }
        } else if let Some(length) = reply.header("content-length") {
            reply.body = vec![0; length.parse().unwrap()];
            self.reader.read_exact(&mut reply.body)?;
        } else {
            self.reader.read_to_end(&mut reply.body)?;
        }
        Ok(reply)
    }

    /// The next chunk of a chunked body; none at its end.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim_end(), 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let mut piece = vec![0; size + 2];
        self.reader.read_exact(&mut piece)?;
        piece.truncate(size);
        Ok((size > 0).then_some(piece))
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything until the other side closes.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).map(|_| rest)
    }
}

/// One request on a connection of its own.
pub fn ask(address: SocketAddr, request: &str) -> Reply {
    Client::connect(address).send(request).reply().unwrap()
}

pub fn get(address: SocketAddr, path: &str) -> Reply {
    get_with(address, path, "")
}

/// With more header lines, each ended by CRLF.
pub fn get_with(address: SocketAddr, path: &str, headers: &str) -> Reply {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n{headers}Connection: close\r\n\r\n"))
}

/// A server that speaks bytes, each connection on a thread of its own.
pub struct App {
    pub address: SocketAddr,
    /// Connections so far.
    pub connections: Arc<AtomicUsize>,
}

impl App {
    /// Runs `script` for each connection, which is closed when it returns.
    pub fn start(script: impl Fn(&mut Client) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(ANY_PORT).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (script, counted) = (Arc::new(script), Arc::clone(&connections));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_nodelay(true).unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let script = Arc::clone(&script);
                let reader = BufReader::new(stream.try_clone().unwrap());
                thread::spawn(move || script(&mut Client { stream, reader }));
            }
        });
        Self { address, connections }
    }

    /// Answers each request on a connection with `answer(head)`; the body of the request is not looked at.
    pub fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::start(move |client| {
            while let Some(head) = client.request_head() {
                client.send(answer(&head));
            }
        })
    }

    /// Answers each request with its own head as the body.
    pub fn echo() -> Self {
        Self::answering(ok)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Client {
    /// The head of a request; none when the other side has closed.
    pub fn request_head(&mut self) -> Option<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head).unwrap_or(0) == 0 {
                return None;
            }
        }
        Some(head)
    }
}

/// A response with `body`.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// An address where nobody listens: bound for as long as the tests run, so that nobody else gets it.
pub fn nobody() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&ANY_PORT.parse::<SocketAddr>().unwrap().into()).unwrap();
    Box::leak(Box::new(socket)).local_addr().unwrap().as_socket().unwrap()
}

/// Waits until something is so.
pub fn until(what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "not so within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs what the control runtime of a daemon would.
pub fn control<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
