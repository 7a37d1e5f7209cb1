//! Binds listening sockets, and says what to do when that fails.

use crate::limits::{KEEPALIVE_AFTER, KEEPALIVE_INTERVAL, WEB_BACKLOG, WEB_CONNECTIONS_MAX, WEB_FILES_SPARE};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::{
    fmt, fs,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
};

/// An address that could not be listened on. Nothing was changed.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, cause } = self;
        write!(f, "cannot listen on {address}: ")?;
        if cause.kind() == ErrorKind::PermissionDenied {
            return f.write_str(
                "permission denied: ports below 1024 need the capability CAP_NET_BIND_SERVICE (systemd: \
                 AmbientCapabilities=CAP_NET_BIND_SERVICE; else: setcap cap_net_bind_service+ep, or a port from 1024)",
            );
        }
        if cause.kind() == ErrorKind::AddrInUse {
            let holder = holder_of(*address).map_or("another program (`ss -ltnp` shows it)".into(), |holder| holder);
            return write!(f, "the port is already taken by {holder}: stop it, or choose another port");
        }
        cause.fmt(f)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Listens on `address`, which need not be on this machine yet. Several sockets may share it, one per thread.
///
/// # Errors
/// If the kernel refuses.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    open(address).map_err(|cause| BindError { address, cause })
}

/// Makes sure that nobody listens on `address`. The kernel would let a second program of the same user share it, and
/// give it half of the connections.
///
/// # Errors
/// If somebody does, or the kernel refuses the address.
pub fn check_free(address: SocketAddr) -> Result<(), BindError> {
    let alone = || {
        let socket = freebind(address)?;
        socket.bind(&address.into())?;
        socket.listen(0)
    };
    alone().map_err(|cause| BindError { address, cause })
}

/// A socket that takes an address which is not here. What is left of closed connections does not keep it from that.
fn freebind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = freebind(address)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit both.
    socket.set_tcp_nodelay(true)?;
    keep_alive(&socket)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(WEB_BACKLOG)?;
    Ok(socket.into())
}

/// Lets the kernel find out when the other end of a silent connection is gone.
pub(crate) fn keep_alive(socket: &impl AsFd) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// Raises the number of open files to what is allowed, and tells how many client connections fit. Each may need a
/// second file, for a server or for what it reads.
#[must_use]
pub fn raise_open_files() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = 2 * WEB_CONNECTIONS_MAX as u64 + WEB_FILES_SPARE;
    let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted)).max(current.unwrap_or(wanted));
    let files = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(_) => current.unwrap_or(wanted),
    };
    let fit = files.saturating_sub(WEB_FILES_SPARE.min(files / 2)) / 2;
    usize::try_from(fit).unwrap_or(WEB_CONNECTIONS_MAX).min(WEB_CONNECTIONS_MAX)
}

/// Which process listens on the port: looked up in `/proc`, as far as it may be read.
fn holder_of(address: SocketAddr) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|table| table.lines().skip(1).find_map(|line| listening_inode(line, address.port())))?;
    fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path()).find_map(|process| {
        let pid: u32 = process.file_name()?.to_str()?.parse().ok()?;
        let holds = fs::read_dir(process.join("fd")).ok()?.flatten().any(|fd| is_socket(&fd.path(), inode));
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        holds.then(|| format!("{} (pid {pid})", name.trim()))
    })
}

/// The inode in a line of `/proc/net/tcp`, if the line is of a socket that listens on `port`.
fn listening_inode(line: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let its_port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    (state == LISTEN && its_port == port).then(|| fields.nth(5)?.parse().ok())?
}

fn is_socket(fd: &Path, inode: u64) -> bool {
    fs::metadata(fd).is_ok_and(|file| file.ino() == inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_table_gives_the_inode_of_the_listener() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 x";
        assert_eq!(listening_inode(line, 8080), Some(4242));
        assert_eq!(listening_inode(line, 8081), None);
        assert_eq!(listening_inode(&line.replace(" 0A ", " 01 "), 8080), None);
    }
}
