//! Sees on the switch who answers for a virtual address: asks by ARP every few milliseconds and notes who replies.
//!
//! Rules of the measurement:
//! - Each question comes from another sender address of a pool, and an ARP reply names the asker's address: so each
//!   reply belongs to exactly one question, however late it comes (within a turn of the pool).
//! - A question that two machines answered is a *double answer*, and counts until the next question.
//! - An address that goes from A to B and back within [`FLAP`] counts as double for that whole time, too: no lease
//!   ends and begins again so fast, so A never let go.
//! - Gratuitous ARP (sender and target are the address) is an announcement and no answer; it is counted apart.

use super::error::{Attempt, Error, Result};
use super::lab::{Host, Mac};
use super::netns::Netns;
use crate::clock;
use crate::time::{Duration, Instant};
use arrayvec::ArrayVec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Time between two questions.
pub const PACE: Duration = Duration::from_millis(4);
/// There and back in less than this was never given up.
pub const FLAP: Duration = Duration::from_millis(50);
/// Sender addresses that take turns: a reply may be this many questions late.
const POOL: u8 = 64;
const POOL_FIRST: u8 = 128;
/// Most questions remembered: eight minutes of them.
const ASKS_MAX: usize = 120_000;
const ANNOUNCES_MAX: usize = 10_000;
/// Different machines noted per question; more are as bad as these.
const ANSWERS_MAX: usize = 4;

/// One question, and who answered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// When it was asked.
    pub at: Instant,
    /// The different machines that replied.
    pub answers: ArrayVec<Mac, ANSWERS_MAX>,
}

/// A gratuitous ARP frame for the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// When it was seen.
    pub at: Instant,
    /// Who sent it.
    pub by: Mac,
}

/// What was on the wire in some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sighting {
    /// How many questions were asked.
    pub asks: usize,
    /// How long two machines answered.
    pub double: Duration,
    /// Who answered, in order; each change once.
    pub holders: Vec<Mac>,
    /// Announcements seen.
    pub announcements: usize,
    /// The longest time between two questions: what may have been missed.
    pub blind: Duration,
}

impl Sighting {
    /// The names of those who answered, in order.
    #[must_use]
    pub fn holder_names(&self) -> Vec<String> {
        let name = |mac: &Mac| Host::with_mac(*mac).map_or_else(|| format!("{mac:02x?}"), |host| host.name().into());
        self.holders.iter().map(name).collect()
    }
}

/// Judges questions, which must be in the order in which they were asked.
#[must_use]
pub fn judge(asks: &[Ask]) -> Sighting {
    let mut sighting = Sighting { asks: asks.len(), ..Sighting::default() };
    let mut turns: Vec<(Mac, Instant, Instant)> = Vec::new(); // who, first and last question answered
    for (at, ask) in asks.iter().enumerate() {
        let next = asks.get(at + 1).map_or(ask.at + PACE, |next| next.at);
        sighting.blind = sighting.blind.max(next.since(ask.at));
        if ask.answers.len() > 1 {
            sighting.double += next.since(ask.at);
        }
        if let [only] = ask.answers.as_slice() {
            match turns.last_mut() {
                Some((holder, _, last)) if holder == only => *last = ask.at,
                Some(_) | None => turns.push((*only, ask.at, ask.at)),
            }
        }
    }
    for turn in turns.windows(3) {
        if let [(a, _, left), (_, first, last), (back, returned, _)] = turn
            && a == back
            && returned.since(*left) < FLAP
        {
            sighting.double += last.since(*first) + PACE;
        }
    }
    sighting.holders = turns.into_iter().map(|(holder, _, _)| holder).collect();
    sighting
}

#[derive(Debug, Default)]
struct Log {
    asks: VecDeque<Ask>,
    announcements: VecDeque<Announcement>,
}

/// A thread in the observer's network that asks until it is dropped.
#[derive(Debug)]
pub struct Observer {
    log: Arc<Mutex<Log>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Observer {
    /// Starts to ask for `address` on `eth0` of `network`, with the hardware address `mac` of that interface.
    ///
    /// # Errors
    /// If there is no packet socket to be had.
    pub fn start(network: &Netns, mac: Mac, address: Ipv4Addr) -> Result<Self> {
        let wire = network.run(|| Wire::open("eth0", mac, address))?.or_cannot("open a packet socket")?;
        let log = Arc::new(Mutex::new(Log::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (thread_log, thread_stop) = (Arc::clone(&log), Arc::clone(&stop));
        let thread = network.spawn("observer", move || {
            if let Err(refusal) = watch(&wire, &thread_log, &thread_stop) {
                tracing::error!(%refusal, "the observer went blind");
            }
        })?;
        Ok(Self { log, stop, thread: Some(thread) })
    }

    /// What was seen in a span of time. Waits until the last question of it can have been answered.
    ///
    /// # Errors
    /// If the observer has ended, so that nothing can be said.
    pub fn between(&self, from: Instant, to: Instant) -> Result<Sighting> {
        std::thread::sleep(clock::now().until(to + PACE * 5));
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(Error::new("the observer ended by itself"));
        }
        let within = |at: Instant| from <= at && at <= to;
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let asks: Vec<Ask> = log.asks.iter().filter(|ask| within(ask.at)).cloned().collect();
        let announcements = log.announcements.iter().filter(|announcement| within(announcement.at)).count();
        drop(log);
        Ok(Sighting { announcements, ..judge(&asks) })
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(_) | Ok(Err(_))) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the observer did not end well");
        }
    }
}

fn watch(wire: &Wire, log: &Mutex<Log>, stop: &AtomicBool) -> io::Result<()> {
    let mut next = clock::now();
    let mut turn = 0;
    let mut frame = [0; 128];
    while !stop.load(Ordering::Relaxed) {
        let now = clock::now();
        if now >= next {
            next = (next + PACE).max(now); // a late start is not made up for by a burst
            turn = (turn + 1) % POOL;
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            if log.asks.len() == ASKS_MAX {
                log.asks.pop_front();
            }
            log.asks.push_back(Ask { at: now, answers: ArrayVec::new() });
            drop(log);
            wire.ask(turn)?;
        }
        wait(&wire.socket, clock::now().until(next))?;
        loop {
            match (&wire.socket).read(&mut frame) {
                Ok(length) => note(wire, log, turn, frame.get(..length).unwrap_or_default()),
                Err(empty) if empty.kind() == io::ErrorKind::WouldBlock => break,
                Err(other) => return Err(other),
            }
        }
    }
    Ok(())
}

fn wait(socket: &Socket, at_most: Duration) -> io::Result<()> {
    let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(at_most.subsec_nanos()) };
    match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(refusal) => Err(refusal.into()),
    }
}

fn note(wire: &Wire, log: &Mutex<Log>, turn: u8, frame: &[u8]) {
    let Some(arp) = Arp::parse(frame) else { return };
    if arp.sender != wire.address {
        return;
    }
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    if arp.target == wire.address {
        if log.announcements.len() == ANNOUNCES_MAX {
            log.announcements.pop_front();
        }
        log.announcements.push_back(Announcement { at: clock::now(), by: arp.sender_mac });
    } else if arp.operation == REPLY
        && let Some(asked) = wire.turn_of(arp.target)
    {
        let questions_ago = usize::from((turn + POOL - asked) % POOL);
        let Some(at) = log.asks.len().checked_sub(1 + questions_ago) else { return };
        if let Some(ask) = log.asks.get_mut(at)
            && !ask.answers.contains(&arp.sender_mac)
            && !ask.answers.is_full()
        {
            ask.answers.push(arp.sender_mac);
        }
    }
}

const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// `ETH_P_ARP`, as on the wire.
const ETHERTYPE_ARP: u16 = 0x0806;

/// RFC 826, for Ethernet and IPv4.
struct Arp {
    operation: u16,
    sender_mac: Mac,
    sender: Ipv4Addr,
    target: Ipv4Addr,
}

impl Arp {
    fn parse(frame: &[u8]) -> Option<Self> {
        let (_ethernet, arp) = frame.split_at_checked(14)?;
        let (kind, arp) = arp.split_first_chunk::<6>()?;
        let (operation, arp) = arp.split_first_chunk::<2>()?;
        let (sender_mac, arp) = arp.split_first_chunk::<6>()?;
        let (sender, arp) = arp.split_first_chunk::<4>()?;
        let (_target_mac, arp) = arp.split_first_chunk::<6>()?;
        let (target, _padding) = arp.split_first_chunk::<4>()?;
        (*kind == [0, 1, 8, 0, 6, 4]).then(|| Self {
            operation: u16::from_be_bytes(*operation),
            sender_mac: *sender_mac,
            sender: Ipv4Addr::from(*sender),
            target: Ipv4Addr::from(*target),
        })
    }
}

/// A packet socket for ARP on one interface.
#[derive(Debug)]
struct Wire {
    socket: Socket,
    mac: Mac,
    address: Ipv4Addr,
}

impl Wire {
    fn open(interface: &str, mac: Mac, address: Ipv4Addr) -> io::Result<Self> {
        let protocol = Protocol::from(i32::from(ETHERTYPE_ARP.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
        let index = nix::net::if_::if_nametoindex(interface)?;
        socket.bind(&link_address(index)?)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, mac, address })
    }

    /// The address that asks at this turn: in the network of the observed address.
    fn asker(&self, turn: u8) -> [u8; 4] {
        let [a, b, c, _] = self.address.octets();
        [a, b, c, POOL_FIRST + turn]
    }

    fn turn_of(&self, asker: Ipv4Addr) -> Option<u8> {
        (0..POOL).find(|turn| self.asker(*turn) == asker.octets())
    }

    fn ask(&self, turn: u8) -> io::Result<()> {
        let mut frame = Vec::with_capacity(42);
        frame.extend([0xff; 6]);
        frame.extend(self.mac);
        frame.extend(ETHERTYPE_ARP.to_be_bytes());
        frame.extend([0, 1, 8, 0, 6, 4]);
        frame.extend(REQUEST.to_be_bytes());
        frame.extend(self.mac);
        frame.extend(self.asker(turn));
        frame.extend([0; 6]);
        frame.extend(self.address.octets());
        self.socket.send(&frame).map(drop)
    }
}

/// Where a packet socket for ARP is bound to.
#[expect(unsafe_code, reason = "no crate here makes a sockaddr_ll")]
fn link_address(index: u32) -> io::Result<SockAddr> {
    let mut storage = SockAddrStorage::zeroed();
    let index = i32::try_from(index).map_err(io::Error::other)?;
    // SAFETY: sockaddr_ll is a socket address of the kernel's, and smaller than the storage; zeros are valid in it, the
    // family says which one it is, and the length is its own.
    unsafe {
        let link = storage.view_as::<libc::sockaddr_ll>();
        link.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
        link.sll_protocol = ETHERTYPE_ARP.to_be();
        link.sll_ifindex = index;
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
        Ok(SockAddr::new(storage, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::lab::Lab;
    use crate::demo::testing::in_sandbox;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
    const A: Mac = [2, 0, 0, 0, 0, 0xa];
    const B: Mac = [2, 0, 0, 0, 0, 0xb];

    /// One question every 4 ms; `x`: both answered, `.`: nobody.
    fn asks(answers: &str) -> Vec<Ask> {
        let ask = |(at, who): (usize, char)| {
            let answers: &[Mac] = match who {
                'a' => &[A],
                'b' => &[B],
                'x' => &[A, B],
                _ => &[],
            };
            Ask { at: Instant::from_millis(1000 + 4 * at as u64), answers: answers.iter().copied().collect() }
        };
        answers.chars().enumerate().map(ask).collect()
    }

    #[test]
    fn a_clean_move_is_never_double() {
        let sighting = judge(&asks("aaaa...bbbb"));
        assert_eq!((sighting.double, sighting.holders, sighting.asks), (Duration::ZERO, vec![A, B], 11));
        assert_eq!(judge(&asks("aaabbb")).double, Duration::ZERO);
    }

    #[test]
    fn questions_with_two_answers_count_until_the_next_one() {
        assert_eq!(judge(&asks("aaxxbb")).double, Duration::from_millis(8));
    }

    #[test]
    fn there_and_back_at_once_was_never_given_up() {
        assert_eq!(judge(&asks("aaabbaa")).double, Duration::from_millis(8));
        let an_honest_return = format!("aaa{}aaa", "b".repeat(50));
        assert_eq!(judge(&asks(&an_honest_return)).double, Duration::ZERO);
    }

    #[test]
    fn short_and_foreign_frames_are_not_arp() {
        assert!(Arp::parse(&[0; 41]).is_none());
        assert!(Arp::parse(&[0; 42]).is_none());
    }

    #[test]
    fn two_machines_with_one_address_are_seen_and_one_alone_is_not() {
        in_sandbox("demo::observer::tests::two_machines_with_one_address_are_seen_and_one_alone_is_not", || {
            let lab = Lab::new().unwrap();
            lab.add_address(Host::N1, VIP.into(), 24).unwrap();
            let observer = Observer::start(lab.host(Host::Observer), Host::Observer.mac(), VIP).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            let alone = clock::now();
            std::thread::sleep(Duration::from_millis(300));
            let before = clock::now();
            lab.add_address(Host::N2, VIP.into(), 24).unwrap();
            let both = clock::now();
            std::thread::sleep(Duration::from_millis(300));
            let both_until = clock::now();
            lab.remove_address(Host::N1, VIP.into()).unwrap();
            let moved = clock::now();
            std::thread::sleep(Duration::from_millis(200));

            let sighting = observer.between(alone, before).unwrap();
            assert_eq!((sighting.double, sighting.holder_names()), (Duration::ZERO, vec!["n1".to_owned()]));
            assert!(sighting.asks > 30, "{sighting:?}");
            let sighting = observer.between(alone, clock::now()).unwrap();
            assert!(sighting.double + PACE * 2 + sighting.blind >= both_until.since(both), "{sighting:?}");
            assert!(sighting.double <= moved.since(before) + PACE * 2 + sighting.blind, "{sighting:?}");
            let sighting = observer.between(moved, clock::now()).unwrap();
            assert_eq!((sighting.double, sighting.holder_names()), (Duration::ZERO, vec!["n2".to_owned()]));
        });
    }
}
