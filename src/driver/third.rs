//! The ways to witnesses: the one that votes, and the one that the configuration wants in its place.
//!
//! Rule: each is spoken with by sockets and a session of its own, so that nothing late of one is taken for the other, and
//! no life of one ends the session with the other. The wanted one is only asked whether it is there.
//!
//! Not here: which of them votes (`cluster::voters`), seals (`links`).

use super::sockets::{self, Sockets};
use super::ways::Ways;
use crate::{
    cluster::{Incarnation, Member, Sessions},
    limits::{THIRD_PROBE, THIRD_PROBE_FRESH},
    time::{Duration, Instant},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// The way to one witness.
pub(super) struct Far {
    addresses: Vec<SocketAddr>,
    /// Where it is reached, and by which socket: the kernel picks the way.
    pub(super) ways: Vec<(usize, SocketAddr)>,
    pub(super) sessions: Sessions,
    pub(super) heard_at: Option<Instant>,
    /// What comes from each address. It answers on the ways on which it hears us.
    pub(super) watch: Ways,
}

/// The ways to those there are.
pub(super) struct Thirds {
    life: (Incarnation, Duration),
    pub(super) in_force: Option<Far>,
    pub(super) wanted: Option<Far>,
    /// Where the wanted one is; empty if none is wanted.
    addresses: Vec<SocketAddr>,
    next_probe: Instant,
}

impl Far {
    fn open(
        sockets: &mut Sockets,
        addresses: &[SocketAddr],
        (life, lease): (Incarnation, Duration),
    ) -> io::Result<Option<Self>> {
        if addresses.is_empty() {
            return Ok(None);
        }
        let mut ways = Vec::new();
        let mut families: [Option<usize>; 2] = [None; 2];
        for address in addresses {
            let family = &mut families[usize::from(address.is_ipv6())];
            let by = match family {
                Some(by) => *by,
                None => {
                    let any: IpAddr =
                        if address.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
                    *family.insert(sockets.add(sockets::bind(SocketAddr::new(any, 0))?)?)
                }
            };
            ways.push((by, *address));
        }
        let (addresses, sessions) = (addresses.to_vec(), Sessions::new(life));
        let watch = Ways::new(Member::Witness, ways.len(), lease);
        Ok(Some(Self { addresses, ways, sessions, heard_at: None, watch }))
    }

    fn close(self, sockets: &mut Sockets) {
        for (by, _) in self.ways {
            sockets.remove(by);
        }
    }

    /// On which way something came from there.
    pub(super) fn way_of(&self, from: SocketAddr) -> Option<usize> {
        let only = self.ways.len() == 1;
        self.ways.iter().position(|(_, address)| only || *address == from)
    }

    fn is_by(&self, by: usize) -> bool {
        self.ways.iter().any(|(own, _)| *own == by)
    }
}

impl Thirds {
    /// Nobody votes here yet; the witness at these addresses is wanted. With this life of ours, and the lease.
    pub(super) fn new(sockets: &mut Sockets, wanted: &[SocketAddr], life: (Incarnation, Duration)) -> io::Result<Self> {
        let addresses = wanted.to_vec();
        let wanted = Far::open(sockets, wanted, life)?;
        Ok(Self { life, in_force: None, wanted, addresses, next_probe: Instant::ZERO })
    }

    /// The witness at these addresses votes now; none if there are none.
    pub(super) fn turn(&mut self, sockets: &mut Sockets, addresses: &[SocketAddr]) -> io::Result<()> {
        if self.in_force.as_ref().map_or(&[][..], |far| &far.addresses) == addresses {
            return Ok(());
        }
        let old = self.in_force.take();
        if self.wanted.as_ref().is_some_and(|far| far.addresses == addresses) {
            self.in_force = self.wanted.take();
        } else {
            self.in_force = Far::open(sockets, addresses, self.life)?;
        }
        match old {
            Some(old) if old.addresses == self.addresses => self.wanted = Some(old),
            Some(old) => old.close(sockets),
            None => {}
        }
        if self.wanted.is_none() && self.addresses != addresses {
            self.wanted = Far::open(sockets, &self.addresses, self.life)?;
        }
        Ok(())
    }

    /// Whose socket this is; and whether its owner votes.
    pub(super) fn by(&mut self, by: usize) -> Option<(&mut Far, bool)> {
        let voting = self.in_force.iter_mut().map(|far| (far, true));
        voting.chain(self.wanted.iter_mut().map(|far| (far, false))).find(|(far, _)| far.is_by(by))
    }

    /// Whether the wanted one is to be asked now if it is there.
    pub(super) fn probe_is_due(&mut self, now: Instant) -> bool {
        let due = self.wanted.is_some() && now >= self.next_probe;
        if due {
            self.next_probe = now + THIRD_PROBE;
        }
        due
    }

    /// Whether the wanted one answers; `None` if no witness is wanted.
    pub(super) fn is_ready(&self, now: Instant) -> Option<bool> {
        if self.addresses.is_empty() {
            return None;
        }
        let far = self.wanted.as_ref().or(self.in_force.as_ref());
        let heard_at = far.filter(|far| far.addresses == self.addresses).and_then(|far| far.heard_at);
        Some(heard_at.is_some_and(|at| now.since(at) < THIRD_PROBE_FRESH))
    }
}
