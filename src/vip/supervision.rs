//! The worker's end of the link to its supervisor, and the words that both speak.
//!
//! A `SOCK_SEQPACKET` pair: each message is one postcard frame. The worker tells its addresses once, then a deadline at
//! each renewal. End of file is the news on this link that matters most: the other process is gone.
//!
//! Not here: what the supervisor does with the words (`supervisor::core`).

use crate::{
    cluster::{GroupName, Secret},
    config::Vip,
    limits::SUPERVISOR_FRAME_BYTES_MAX,
    time::Instant,
};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::{Errno, FdFlags},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::FromRawFd,
};

/// Environment variable that names the worker's file descriptor of the link, and the supervisor: `FD:PID`. The children
/// of a worker inherit it too, and must not take some descriptor of theirs for the link.
pub const SUPERVISOR_FD: &str = "HAWSER_SUPERVISOR_FD";

/// What a worker tells its supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// Once, at the start, before any address is added.
    Hello(Hello),
    /// The addresses of the group are, or are about to be, on this node, by a lease that ends at `until`.
    Arm {
        /// The group.
        group: GroupName,
        /// E, the end of the lease.
        until: Instant,
    },
    /// A dump showed that the addresses of the group are gone.
    Disarm {
        /// The group.
        group: GroupName,
    },
    /// The worker ends in order: it is not to be started again.
    Bye,
    /// With it comes a descriptor to keep open until the next worker is started.
    Keep,
}

/// Who the worker is, and what has to be done when it dies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The secret of its incarnation.
    pub secret: Secret,
    /// All configured addresses.
    pub vips: Vec<Vip>,
    /// Where the release notice goes: from which local address, to whom.
    pub notice: Vec<(SocketAddr, SocketAddr)>,
    /// The release notice, ready to be sent. Empty: there is none.
    pub notice_datagram: Vec<u8>,
}

/// The worker's end of the link.
#[derive(Debug)]
pub struct SupervisorLink {
    fd: OwnedFd,
}

impl SupervisorLink {
    /// The link that the supervisor handed to this process, if there is one. Call it once, before threads are started.
    ///
    /// # Errors
    /// If the variable is there, but does not name an open descriptor and the parent of this process: then the supervisor
    /// is gone already.
    pub fn from_environment() -> io::Result<Option<Self>> {
        let Ok(text) = std::env::var(SUPERVISOR_FD) else { return Ok(None) };
        let (number, supervisor) =
            text.split_once(':').ok_or_else(|| io::Error::other(format!("{text:?} is no FD:PID")))?;
        let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        if supervisor != parent.to_string() {
            return Err(io::Error::other("the supervisor that started this process is gone"));
        }
        let number = number.parse::<i32>().map_err(io::Error::other)?;
        #[expect(unsafe_code, reason = "a descriptor that came by exec has no owner yet")]
        // SAFETY: the supervisor opened this number for us and nobody else in this process knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        Ok(Some(Self { fd }))
    }

    /// A worker's end and the other end, for the supervisor and for tests.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self { fd: ours }, theirs))
    }

    /// Says one word. Never waits.
    ///
    /// # Errors
    /// `WouldBlock` if the supervisor does not read (stopped); anything else means that it is gone.
    pub fn say(&self, word: &Word) -> io::Result<()> {
        let frame = postcard::to_stdvec(word).map_err(io::Error::other)?;
        if frame.len() > SUPERVISOR_FRAME_BYTES_MAX {
            return Err(io::Error::other("too many addresses for one message to the supervisor"));
        }
        rustix::net::send(&self.fd, &frame, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }

    /// Lends the supervisor a descriptor, to keep open for as long as this process lives. The kernel takes 8 to 16 ms to
    /// close a packet socket (it waits for an RCU grace period); as the last holder, a killed worker would be dead only
    /// after that, and its release notice so much later.
    ///
    /// # Errors
    /// As [`SupervisorLink::say`].
    pub fn lend(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let frame = postcard::to_stdvec(&Word::Keep).map_err(io::Error::other)?;
        let fds = [fd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::sendmsg(&self.fd, &[IoSlice::new(&frame)], &mut ancillary, flags)?;
        Ok(())
    }

    /// Whether the supervisor has closed its end. To be asked when the descriptor is readable.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let mut byte = [0; 1];
        match rustix::net::recv(&self.fd, &mut byte, RecvFlags::DONTWAIT) {
            Ok((got, _)) => got == 0,
            Err(error) => error != Errno::AGAIN && error != Errno::INTR,
        }
    }

    /// Takes the descriptor out, to hand it to a child.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for SupervisorLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What a read on the supervisor's end gave.
#[derive(Debug)]
pub enum Heard {
    /// A word.
    Word(Word),
    /// A descriptor to keep.
    Lent(OwnedFd),
    /// Something that is not a word. Only a broken worker says such things.
    Garbage,
    /// Nothing more for now.
    Silence,
    /// The worker has closed its end.
    Closed,
}

/// Reads one word at the supervisor's end. Never waits.
#[must_use]
pub fn hear(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Heard {
    let whole = buffer.len();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let got = match rustix::net::recvmsg(fd, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags) {
        Ok(got) => got,
        Err(Errno::AGAIN | Errno::INTR) => return Heard::Silence,
        Err(_) => return Heard::Closed,
    };
    let mut lent = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            lent = fds.next();
        }
    }
    if got.bytes == 0 {
        return Heard::Closed;
    }
    if got.bytes > whole || got.flags.contains(ReturnFlags::TRUNC) {
        return Heard::Garbage;
    }
    match (postcard::from_bytes(buffer.get(..got.bytes).unwrap_or_default()), lent) {
        (Ok(Word::Keep), Some(fd)) => Heard::Lent(fd),
        (Ok(Word::Keep) | Err(_), _) => Heard::Garbage,
        (Ok(word), _) => Heard::Word(word),
    }
}
