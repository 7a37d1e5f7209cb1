//! The gate: the kernel hears and answers for a virtual address only while a timer of its own runs.
//!
//! An address is guarded as long as it is configured, and open as long as its element in a set with timeouts lives: the
//! rules are in [`ruleset`]. So a lease ends even when every process of this machine stands still.
//!
//! Rules that this module keeps:
//! - A renewal is **delete and add in one batch**. Timeouts are relative: a renewal that was frozen between the clock and
//!   the call would open the gate again after the lease. The delete of an element that has timed out fails, and takes the
//!   add with it.
//! - The first opening finds no element, so it is short ([`GATE_FIRST`]), and the renewal follows.
//! - The clock is read right before and right after each call. Later than the end, or more than a guard apart: shut.
//! - What need not fail does not: the kernel waits for an RCU grace period, tens of milliseconds, when it takes a batch
//!   back.
//! - A timeout is never less than two ticks: the kernel rounds down to ticks, and zero ticks mean *no* timeout.
//!
//! Not here: whose address it is, and until when (`keeper`).

mod ruleset;

use self::ruleset::{Adding, Message, Set};
use super::netlink::{Answer, Channel};
use crate::{
    clock,
    limits::{GATE_FIRST, GUARD},
    time::{Duration, Instant},
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NlasIterator};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily, none::ControlMessage};
use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::time::{ClockId, clock_getres};
use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

/// `NFNL_SUBSYS_NFTABLES` (`linux/netfilter/nfnetlink.h`).
const NFTABLES: u16 = 10;
/// `NFNLGRP_NFTABLES` (`linux/netfilter/nfnetlink.h`).
const NFNLGRP_NFTABLES: u32 = 7;
/// `NFT_MSG_DELTABLE`, `DELCHAIN`, `DELRULE`, `DELSET` (`linux/netfilter/nf_tables.h`).
const DELETIONS: [u16; 4] = [2, 5, 8, 11];
/// `struct nfgenmsg`.
const NFGENMSG_BYTES: usize = 4;
/// `NFTA_TABLE_NAME`, and the attribute with which chains, rules and sets name their table.
const NFTA_TABLE: u16 = 1;

/// What a gate call has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Open until the end that was given, at the latest.
    Open,
    /// Shut: too late, or the element was not as it should be. Whoever still has a lease may open anew.
    Shut,
}

/// The gate of this node.
pub struct Gate {
    channel: Channel,
    monitor: Channel,
    guarded: Vec<IpAddr>,
    tick: Duration,
}

impl Gate {
    /// Sets the gate up with all `vips` shut, in the place of one of an earlier run: at no moment is one of them open.
    ///
    /// # Errors
    /// If this kernel has no nftables with inet and arp tables and timeouts, or `CAP_NET_ADMIN` is missing.
    pub fn set_up(vips: &[IpAddr]) -> io::Result<Self> {
        let mut monitor = Channel::new(NETLINK_NETFILTER)?;
        monitor.join(NFNLGRP_NFTABLES)?;
        let mut guarded = vips.to_vec();
        guarded.sort_unstable();
        guarded.dedup();
        // A coarse clock moves once per tick: its resolution is the tick.
        let tick = clock_getres(ClockId::MonotonicCoarse);
        let tick = Duration::from_nanos(u64::try_from(tick.tv_nsec).unwrap_or(0)).max(Duration::from_millis(1));
        let channel = Channel::new(NETLINK_NETFILTER)?;
        monitor.ignore(channel.port())?;
        let mut gate = Self { channel, monitor, guarded, tick };
        gate.restore(&[])?;
        Ok(gate)
    }

    /// Sets it up again, with `open` open for a moment: they are to be renewed at once.
    ///
    /// # Errors
    /// If the kernel refuses. What was there before is still there then.
    pub fn restore(&mut self, open: &[IpAddr]) -> io::Result<()> {
        let mut messages = ruleset::set_up(&self.guarded);
        messages.extend(ruleset::add(Set::Open, open, Some(GATE_FIRST), Adding::Any));
        self.batch(messages)
    }

    /// Removes what an earlier run or this one has set up. Nothing is guarded then.
    ///
    /// # Errors
    /// If the kernel refuses, or has no nftables.
    pub fn remove() -> io::Result<()> {
        batch(&mut Channel::new(NETLINK_NETFILTER)?, ruleset::tear_down())
    }

    /// How long before the end of a lease the gate is to shut: [`GUARD`], and no less than two ticks, because a timeout
    /// may be noticed that late.
    #[must_use]
    pub fn guard(&self) -> Duration {
        GUARD.max(2 * self.tick)
    }

    /// Opens shut addresses until `end`: for [`GATE_FIRST`], then by a renewal.
    ///
    /// # Errors
    /// If the kernel refuses for another reason than the state of the elements. The addresses are shut then.
    pub fn open(&mut self, vips: &[IpAddr], end: Instant) -> io::Result<Door> {
        let first =
            self.timed(vips, end, |left| ruleset::add(Set::Open, vips, Some(left.min(GATE_FIRST)), Adding::Anew))?;
        match first {
            Door::Open => self.renew(vips, end),
            Door::Shut => Ok(Door::Shut),
        }
    }

    /// Keeps open addresses open until `end`; does not open shut ones.
    ///
    /// # Errors
    /// As [`Gate::open`].
    pub fn renew(&mut self, vips: &[IpAddr], end: Instant) -> io::Result<Door> {
        self.timed(vips, end, |left| {
            let mut messages = ruleset::delete(Set::Open, vips);
            messages.extend(ruleset::add(Set::Open, vips, Some(left), Adding::Anew));
            messages
        })
    }

    /// Shuts addresses, whether they are open or not.
    ///
    /// # Errors
    /// If the kernel refuses: they shut by themselves then.
    pub fn shut(&mut self, vips: &[IpAddr]) -> io::Result<()> {
        self.batch(ruleset::clear(Set::Open, vips))
    }

    /// Drops the first packets of new TCP connections to these addresses for a time; clients repeat them.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn squeeze(&mut self, vips: &[IpAddr], time: Duration) -> io::Result<()> {
        let mut messages = ruleset::clear(Set::Squeeze, vips);
        messages.extend(ruleset::add(Set::Squeeze, vips, Some(time.max(2 * self.tick)), Adding::Any));
        self.batch(messages)
    }

    /// Lets new connections in again.
    ///
    /// # Errors
    /// If the kernel refuses: it ends by itself then.
    pub fn end_squeeze(&mut self, vips: &[IpAddr]) -> io::Result<()> {
        self.batch(ruleset::clear(Set::Squeeze, vips))
    }

    /// Whether someone else has deleted something of the gate (`nft flush ruleset`), or news were lost. To be asked when
    /// the descriptor is readable.
    pub fn is_disturbed(&mut self) -> bool {
        let mut disturbed = false;
        loop {
            match self.monitor.read(|answer| disturbed |= is_deletion_of_ours(&answer)) {
                Ok(true) => {}
                Ok(false) => return disturbed,
                // Overrun: what was lost may have been that.
                Err(_) => disturbed = true,
            }
        }
    }

    /// One call, with the clock read right before and right after it.
    fn timed(&mut self, vips: &[IpAddr], end: Instant, make: impl Fn(Duration) -> Vec<Message>) -> io::Result<Door> {
        if vips.is_empty() {
            return Ok(Door::Open);
        }
        let before = clock::now();
        let left = before.until(end);
        if left < 2 * self.tick {
            self.shut(vips)?;
            return Ok(Door::Shut);
        }
        let result = self.batch(make(left));
        let after = clock::now();
        match result {
            Ok(()) if after < end && after.since(before) <= GUARD => return Ok(Door::Open),
            Ok(()) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EEXIST)) => {}
            Err(error) => {
                self.shut(vips)?;
                return Err(error);
            }
        }
        self.shut(vips)?;
        Ok(Door::Shut)
    }

    fn batch(&mut self, messages: Vec<Message>) -> io::Result<()> {
        batch(&mut self.channel, messages)
    }
}

impl AsFd for Gate {
    /// Readable when someone changed the rules of this machine.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}

/// Sends messages that take effect together or not at all.
fn batch(channel: &mut Channel, mut messages: Vec<Message>) -> io::Result<()> {
    let Some(last) = messages.last_mut() else { return Ok(()) };
    last.header.flags |= NLM_F_ACK;
    messages.insert(0, control(ControlMessage::BatchBegin));
    messages.push(control(ControlMessage::BatchEnd));
    channel.request(messages)
}

fn control(inner: ControlMessage) -> Message {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES);
    let mut message = NetlinkMessage::from(NetfilterMessage::new(header, inner));
    message.header.flags = NLM_F_REQUEST;
    message
}

pub(super) fn is_deletion_of_ours(answer: &Answer<'_>) -> bool {
    let deletes = answer.kind >> 8 == NFTABLES && DELETIONS.contains(&(answer.kind & 0xff));
    deletes
        && NlasIterator::new(answer.payload.get(NFGENMSG_BYTES..).unwrap_or_default())
            .flatten()
            .any(|attribute| attribute.kind() == NFTA_TABLE && attribute.value().starts_with(ruleset::TABLE.as_bytes()))
}
