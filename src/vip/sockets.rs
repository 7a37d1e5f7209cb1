//! TCP sockets that are bound to virtual addresses: what they still have to say, and their end.
//!
//! `sock_diag(7)` by hand: the crate for it stands on an older netlink-packet-core. The structures are those of
//! `linux/inet_diag.h` and `linux/sock_diag.h`; numbers in network order only where they say `__be`.
//!
//! A dump walks the kernel's whole table of connections, some milliseconds on a machine with much memory. So there is
//! one walk for both families, by the older request, which takes `AF_UNSPEC`; and what a dump has found can be destroyed
//! without another one.

use super::netlink::{Channel, Raw, push_attribute};
use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_DUMP};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use std::{io, net::IpAddr};

const TCPDIAG_GETSOCK: u16 = 18;
const SOCK_DESTROY: u16 = 21;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_BC_JMP: u8 = 1;
const INET_DIAG_BC_S_COND: u8 = 7;
/// `sizeof(struct inet_diag_sockid)`: ports, addresses, interface, cookie.
const SOCKET_ID_BYTES: usize = 48;
/// `sizeof(struct inet_diag_msg)`.
const INET_DIAG_MSG_BYTES: usize = 72;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// Most sockets that are destroyed by one datagram.
const DESTROY_CHUNK: usize = 64;

// net/tcp_states.h
const TCP_SYN_RECV: u8 = 3;
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
const TCP_NEW_SYN_RECV: u8 = 12;

/// A TCP socket whose local address is virtual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    family: u8,
    state: u8,
    id: [u8; SOCKET_ID_BYTES],
    /// Bytes that the process has not read; of a listening socket, connections that it has not accepted.
    pub receive_queue: u32,
    /// Bytes that were not sent, or not acknowledged by the other side.
    pub send_queue: u32,
}

impl Tcp {
    /// Whether it waits for connections.
    #[must_use]
    pub const fn is_listening(&self) -> bool {
        self.state == TCP_LISTEN
    }

    /// Whether something is still on its way: a connection being made or not yet accepted, bytes unread, unsent or
    /// unacknowledged. An idle connection with empty queues is not busy.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        match self.state {
            TCP_SYN_RECV | TCP_NEW_SYN_RECV => true,
            TCP_LISTEN => self.receive_queue > 0,
            _ => self.receive_queue > 0 || self.send_queue > 0,
        }
    }
}

/// The kernel's table of sockets.
pub struct Sockets {
    channel: Channel,
}

impl Sockets {
    /// A socket to ask it with.
    ///
    /// # Errors
    /// If the kernel has no `sock_diag`.
    pub fn new() -> io::Result<Self> {
        Ok(Self { channel: Channel::new(NETLINK_SOCK_DIAG)? })
    }

    /// Whether this kernel lets us destroy sockets (`CONFIG_INET_DIAG_DESTROY`): asked by destroying one that cannot be.
    pub fn can_destroy(&mut self) -> bool {
        let request = Raw { kind: SOCK_DESTROY, payload: request_v2(AF_INET, u32::MAX, &[0xff; SOCKET_ID_BYTES]) };
        match self.channel.request(vec![request.message(NLM_F_ACK)]) {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        }
    }

    /// All TCP sockets bound to one of `vips`, without those that only wait for late segments. An IPv4 connection of a
    /// dual-stack listener is one of family `AF_INET6`.
    ///
    /// # Errors
    /// If the dump fails.
    pub fn bound_to(&mut self, vips: &[IpAddr]) -> io::Result<Vec<Tcp>> {
        if vips.is_empty() {
            return Ok(Vec::new());
        }
        let states = !(1_u32 << TCP_TIME_WAIT | 1 << TCP_CLOSE);
        let mut payload = request_v1(states);
        push_attribute(&mut payload, &DefaultNla::new(INET_DIAG_REQ_BYTECODE, filter(vips)));
        let request = Raw { kind: TCPDIAG_GETSOCK, payload }.message(NLM_F_DUMP);
        self.channel.dump(&request, |answer| (answer.kind == TCPDIAG_GETSOCK).then(|| parse(answer.payload))?)
    }

    /// Destroys the connections among `found`; the other sides are told by a reset, as long as the address is there.
    /// Listening sockets are left alone, and one that has gone meanwhile is no error.
    ///
    /// # Errors
    /// If the kernel cannot do it.
    pub fn destroy(&mut self, found: &[Tcp]) -> io::Result<()> {
        let connections: Vec<&Tcp> = found.iter().filter(|socket| !socket.is_listening()).collect();
        for some in connections.chunks(DESTROY_CHUNK) {
            let requests = some.iter().map(|socket| {
                Raw { kind: SOCK_DESTROY, payload: request_v2(socket.family, u32::MAX, &socket.id) }.message(0)
            });
            self.channel.send(requests.collect())?;
            // Without the flag for acknowledgements the kernel answers only failures.
            let mut failed = None;
            while self.channel.read(|answer| failed = failed.take().or(answer.error()))? {}
            if let Some(error) = failed
                && error.raw_os_error() == Some(libc::EOPNOTSUPP)
            {
                return Err(error);
            }
        }
        Ok(())
    }
}

/// `struct inet_diag_req` for sockets of any address in one of `states`.
fn request_v1(states: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4 + SOCKET_ID_BYTES];
    bytes.extend(states.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes
}

/// `struct inet_diag_req_v2`.
fn request_v2(family: u8, states: u32, id: &[u8; SOCKET_ID_BYTES]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + SOCKET_ID_BYTES);
    bytes.extend([family, IPPROTO_TCP, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

/// `struct inet_diag_msg`.
pub(super) fn parse(payload: &[u8]) -> Option<Tcp> {
    let bytes: &[u8; INET_DIAG_MSG_BYTES] = payload.first_chunk()?;
    let number = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    Some(Tcp {
        family: bytes[0],
        state: bytes[1],
        id: *bytes.get(4..)?.first_chunk()?,
        receive_queue: number(56)?,
        send_queue: number(60)?,
    })
}

/// A program that accepts the sockets whose local address is one of `vips`: per address a condition, and behind it a
/// jump to the end, which accepts. The last condition jumps four bytes past the end, which refuses.
fn filter(vips: &[IpAddr]) -> Vec<u8> {
    let blocks: Vec<Vec<u8>> = vips.iter().map(|vip| host_condition(*vip)).collect();
    let last = blocks.len() - 1;
    let total: usize = blocks.iter().map(|block| block.len() + 8).sum::<usize>() - 4;
    let mut program = Vec::with_capacity(total);
    for (index, block) in blocks.iter().enumerate() {
        let length = block.len() + 4;
        push_operation(&mut program, INET_DIAG_BC_S_COND, length, length + 4);
        program.extend(block);
        if index != last {
            let rest = total - program.len();
            push_operation(&mut program, INET_DIAG_BC_JMP, 4, rest);
        }
    }
    program
}

/// `struct inet_diag_bc_op`.
fn push_operation(program: &mut Vec<u8>, code: u8, yes: usize, no: usize) {
    program.push(code);
    program.push(u8::try_from(yes).unwrap_or(u8::MAX));
    program.extend(u16::try_from(no).unwrap_or(u16::MAX).to_ne_bytes());
}

/// `struct inet_diag_hostcond` with any port.
fn host_condition(vip: IpAddr) -> Vec<u8> {
    let (family, octets) = match vip {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    };
    let bits = u8::try_from(octets.len() * 8).unwrap_or(u8::MAX);
    let mut bytes = vec![family, bits, 0, 0];
    bytes.extend((-1_i32).to_ne_bytes());
    bytes.extend(octets);
    bytes
}
