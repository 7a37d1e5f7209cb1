//! Puts addresses on interfaces and takes them off, by rtnetlink, on a thread of its own.
//!
//! The kernel's rtnl lock can hold a call up for seconds (a firewall reload, a container engine). Only this thread waits
//! for it: the keeper goes on renewing gates meanwhile.
//!
//! Hears: what each group wants (newest wins), and the kernel's multicast news of addresses and interfaces. Tells the
//! keeper what is so, read back from a dump.
//! An address is added with a lifetime, so the kernel deletes it should this process be gone; it is renewed once a second
//! while its lease runs, and put right if someone else removed or changed it (`upkeep`).

use super::{
    netlink::{Lasting, Link, Present, Routing},
    upkeep::{Deed, inspect, is_right},
};
use crate::{
    clock,
    cluster::GroupName,
    config::Vip,
    limits::{ADDRESS_RENEWAL, ADDRESS_RETRY, MEND_REST, MEND_TOLD_EVERY, TAKE_AWAY_REPEAT},
    time::{Duration, Instant},
};
use futures_util::StreamExt;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, CacheInfo},
};
use netlink_sys::AsyncSocket as _;
use rtnetlink::{Handle, MulticastGroup};
use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};
use tokio::sync::Notify;

/// Room for news while this thread waits in a dump.
const RECEIVE_BUFFER_BYTES: usize = 1024 * 1024;

/// What one group wants of its addresses.
#[derive(Debug, Clone)]
struct Want {
    /// Which wish this is: comes back with what became of it.
    generation: u64,
    hold: bool,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum News {
    /// All addresses of the group are in place.
    Placed(GroupName, u64),
    /// One of them was refused; it is tried again.
    Refused(GroupName, u64, String),
    /// A dump showed none of them.
    Gone(GroupName, u64),
    /// The interfaces of this machine, at the start and after each change.
    Links(Vec<Link>),
    /// For people.
    Event(String),
}

/// A group as this thread knows it.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: GroupName,
    pub(super) vips: Vec<Vip>,
    /// The end of the lease, in nanoseconds since boot: nothing is renewed later.
    pub(super) until: Arc<AtomicU64>,
}

#[derive(Default)]
struct Shared {
    wants: Mutex<BTreeMap<GroupName, Want>>,
    changed: Notify,
    stop: AtomicBool,
}

/// The keeper's end.
pub(super) struct Addresses {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Addresses {
    /// Starts the thread. `tell` is called on it and must not wait for the caller of the other functions here.
    ///
    /// # Errors
    /// If the sockets or the thread cannot be made.
    pub(super) fn spawn(
        members: Vec<Member>,
        lease: Duration,
        tell: impl Fn(News) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connection = {
            let _entered = runtime.enter();
            Connections::new()?
        };
        let routing = Routing::new()?;
        let members = members.into_iter().map(|member| (member.name, Slot::new(member))).collect();
        let mut clerk = Clerk {
            shared: theirs,
            members,
            links: Vec::new(),
            mend_at: Instant::NEVER,
            mended_at: Instant::ZERO,
            told_at: BTreeMap::new(),
            handle: connection.handle.clone(),
            routing,
            lease,
            tell,
        };
        let thread = std::thread::Builder::new()
            .name("addresses".into())
            .spawn(move || runtime.block_on(async move { clerk.run(connection).await }))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Wants the addresses of a group in place.
    pub(super) fn hold(&self, group: GroupName, generation: u64) {
        self.want(group, Want { generation, hold: true });
    }

    /// Wants them gone.
    pub(super) fn drop(&self, group: GroupName, generation: u64) {
        self.want(group, Want { generation, hold: false });
    }

    fn want(&self, group: GroupName, want: Want) {
        self.shared.wants.lock().unwrap_or_else(PoisonError::into_inner).insert(group, want);
        self.shared.changed.notify_one();
    }

    /// Ends the thread. What is in place stays in place.
    pub(super) fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has ended the process already.
            drop(thread.join());
        }
    }
}

type Messages = futures_util::stream::BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

/// One connection for requests, one for the kernel's news.
struct Connections {
    handle: Handle,
    news: Messages,
}

impl Connections {
    fn new() -> io::Result<Self> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (mut watch, _, news) = rtnetlink::new_multicast_connection(&groups)?;
        watch.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER_BYTES)?;
        let (requests, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(watch);
        tokio::spawn(requests);
        Ok(Self { handle, news: news.map(|(message, _)| message).boxed() })
    }
}

/// A group and what was done for it.
struct Slot {
    member: Member,
    want: Want,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// As wanted, and told.
    Done,
    /// To be tried at this instant.
    Due(Instant),
}

impl Slot {
    const fn new(member: Member) -> Self {
        Self { member, want: Want { generation: 0, hold: false }, state: State::Done }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.member.vips.iter().map(|vip| vip.address.addr()).collect()
    }

    /// Whether the addresses are to be there now.
    fn is_held(&self, now: Instant) -> bool {
        self.want.hold && now < Instant::from_nanos(self.member.until.load(Ordering::Acquire))
    }
}

/// What the kernel's news ask for.
#[derive(Debug, Clone, Copy, Default)]
struct Stale {
    addresses: bool,
    links: bool,
}

/// Does the work.
struct Clerk<T: Fn(News)> {
    shared: Arc<Shared>,
    members: BTreeMap<GroupName, Slot>,
    links: Vec<Link>,
    /// When what somebody else did is to be put right.
    mend_at: Instant,
    /// When that was last done.
    mended_at: Instant,
    /// What people were told lately of deeds of others.
    told_at: BTreeMap<String, Instant>,
    handle: Handle,
    routing: Routing,
    lease: Duration,
    tell: T,
}

impl<T: Fn(News)> Clerk<T> {
    async fn run(&mut self, mut connections: Connections) {
        self.look_at_links();
        let mut renewal = tokio::time::interval_at(tokio::time::Instant::now() + ADDRESS_RENEWAL, ADDRESS_RENEWAL);
        renewal.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let shared = Arc::clone(&self.shared);
        while !shared.stop.load(Ordering::Acquire) {
            let retry = self.carry_out().await.min(self.mend_if_due().await);
            tokio::select! {
                biased;
                () = shared.changed.notified() => {}
                message = connections.news.next() => {
                    let mut stale = message.as_ref().map_or(Stale { addresses: true, links: true }, |m| self.judge(m));
                    // A burst is answered once.
                    while let Some(Some(more)) = futures_util::FutureExt::now_or_never(connections.news.next()) {
                        let another = self.judge(&more);
                        stale = Stale { addresses: stale.addresses || another.addresses, links: stale.links || another.links };
                    }
                    if stale.links { self.look_at_links(); }
                    if stale.addresses { self.mend_at = self.mend_at.min(self.mended_at + MEND_REST); }
                }
                _ = renewal.tick() => self.renew().await,
                () = tokio::time::sleep(retry) => {}
            }
        }
    }

    /// Does what is due; how long until something is due again.
    async fn carry_out(&mut self) -> Duration {
        for (group, want) in self.shared.wants.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(slot) = self.members.get_mut(group)
                && slot.want.generation != want.generation
            {
                slot.want = want.clone();
                slot.state = State::Due(Instant::ZERO);
            }
        }
        let now = clock::now();
        let due: Vec<GroupName> = self
            .members
            .iter()
            .filter(|(_, slot)| matches!(slot.state, State::Due(at) if at <= now))
            .map(|(name, _)| *name)
            .collect();
        for name in due {
            self.carry_out_one(name).await;
        }
        let now = clock::now();
        let next = self.members.values().filter_map(|slot| match slot.state {
            State::Due(at) => Some(now.until(at)),
            State::Done => None,
        });
        next.min().unwrap_or(ADDRESS_RENEWAL)
    }

    async fn carry_out_one(&mut self, name: GroupName) {
        let Some(slot) = self.members.get(&name) else { return };
        let (want, vips, addresses) = (slot.want.clone(), slot.member.vips.clone(), slot.addresses());
        let held = slot.is_held(clock::now());
        let (news, state) = if !want.hold {
            match self.take_off(&addresses).await {
                Ok(true) => (News::Gone(name, want.generation), State::Done),
                Ok(false) => (News::Event(format!("addresses of {name} are still there")), later(TAKE_AWAY_REPEAT)),
                Err(error) => {
                    (News::Event(format!("cannot take away addresses of {name}: {error}")), later(ADDRESS_RETRY))
                }
            }
        } else if !held {
            // The lease is over: the keeper says at once that they are to go, or that it was renewed after all.
            return self.set_state(name, later(TAKE_AWAY_REPEAT));
        } else {
            match self.put_on(&vips).await {
                Ok(()) => (News::Placed(name, want.generation), State::Done),
                Err(why) => (News::Refused(name, want.generation, why), later(ADDRESS_RETRY)),
            }
        };
        self.set_state(name, state);
        (self.tell)(news);
    }

    fn set_state(&mut self, name: GroupName, state: State) {
        if let Some(slot) = self.members.get_mut(&name) {
            slot.state = state;
        }
    }

    /// Adds addresses, or renews their lifetimes.
    async fn put_on(&mut self, vips: &[Vip]) -> Result<(), String> {
        for vip in vips {
            let describe =
                |why: &dyn std::fmt::Display| format!("cannot hold {} on {}: {why}", vip.address, vip.interface);
            if !self.links.iter().any(|link| link.name == vip.interface) {
                self.look_at_links();
            }
            let link = self.links.iter().find(|link| link.name == vip.interface);
            let index = link.ok_or_else(|| describe(&"no such interface"))?.index;
            self.put_on_one(index, vip).await.map_err(|error| describe(&error))?;
        }
        Ok(())
    }

    async fn put_on_one(&self, index: u32, vip: &Vip) -> io::Result<()> {
        let mut lifetime = CacheInfo::default();
        // Never picked as a source address, and gone by itself.
        lifetime.ifa_preferred = 0;
        lifetime.ifa_valid = self.lifetime_secs();
        let (address, prefix) = (vip.address.addr(), vip.address.prefix_len());
        let mut request = self.handle.address().add(index, address, prefix).replace();
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::CacheInfo(lifetime));
        if address.is_ipv6() {
            // No second of waiting for duplicate address detection: the lease says that there is no duplicate.
            attributes.push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute));
        }
        request.execute().await.map_err(into_io)
    }

    /// The lease, rounded up, and one renewal.
    fn lifetime_secs(&self) -> u32 {
        u32::try_from((self.lease + ADDRESS_RENEWAL).as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX)
    }

    /// Deletes addresses from every interface, and reads back: whether none is left.
    async fn take_off(&mut self, addresses: &[IpAddr]) -> io::Result<bool> {
        for present in self.routing.present(addresses)? {
            self.take_off_one(&present).await?;
        }
        Ok(self.routing.present(addresses)?.is_empty())
    }

    async fn take_off_one(&self, present: &Present) -> io::Result<()> {
        match self.handle.address().del(present.message()).execute().await.map_err(into_io) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Renews the lifetimes of what is held. What is wrong is told first: a renewal would put it right silently.
    async fn renew(&mut self) {
        self.mend().await;
        let now = clock::now();
        let held: Vec<(GroupName, Vec<Vip>)> = self
            .members
            .values()
            .filter(|slot| slot.state == State::Done && slot.is_held(now))
            .map(|slot| (slot.member.name, slot.member.vips.clone()))
            .collect();
        for (name, vips) in held {
            if let Err(why) = self.put_on(&vips).await {
                self.refuse(name, why);
            }
        }
    }

    /// Puts right what someone else has done, if that is due; how long until it is. Whoever does it again and again is
    /// answered again and again, but not in a loop without a pause.
    async fn mend_if_due(&mut self) -> Duration {
        if clock::now() >= self.mend_at {
            self.mend().await;
        }
        clock::now().until(self.mend_at)
    }

    async fn mend(&mut self) {
        let now = clock::now();
        (self.mend_at, self.mended_at) = (Instant::NEVER, now);
        let seen = match self.routing.addresses() {
            Ok(seen) => seen,
            Err(error) => return (self.tell)(News::Event(format!("cannot read addresses: {error}"))),
        };
        let held = self.members.values().filter(|slot| slot.state == State::Done && slot.is_held(now));
        let deeds: Vec<(GroupName, Vec<Deed>)> = held
            .map(|slot| (slot.member.name, inspect(&slot.member.vips, &self.links, &seen, self.lifetime_secs())))
            .collect();
        for (name, deeds) in deeds {
            for deed in deeds {
                match self.undo(&deed).await {
                    Ok(()) => self.tell_deed(&deed),
                    Err(why) => {
                        self.refuse(name, why);
                        break;
                    }
                }
            }
        }
    }

    async fn undo(&mut self, deed: &Deed) -> Result<(), String> {
        match deed {
            Deed::Removed(vip) | Deed::Prolonged(vip) => self.put_on(std::slice::from_ref(vip)).await,
            Deed::Strayed(vip, present, place) => self.take_off_one(present).await.map_err(|error| {
                format!(
                    "cannot hold {} on {}: {} is on {place}, and does not go: {error}",
                    vip.address, vip.interface, present.address
                )
            }),
        }
    }

    fn tell_deed(&mut self, deed: &Deed) {
        let (now, text) = (clock::now(), deed.to_string());
        self.told_at.retain(|_, at| now.since(*at) < MEND_TOLD_EVERY);
        if !self.told_at.contains_key(&text) {
            self.told_at.insert(text.clone(), now);
            (self.tell)(News::Event(text));
        }
    }

    /// Tells of a refusal of what was in place, and tries again soon.
    fn refuse(&mut self, name: GroupName, why: String) {
        self.set_state(name, later(ADDRESS_RETRY));
        if let Some(slot) = self.members.get(&name) {
            (self.tell)(News::Refused(name, slot.want.generation, why));
        }
    }

    fn look_at_links(&mut self) {
        match self.routing.links() {
            Ok(links) if links == self.links => {}
            Ok(links) => {
                self.links.clone_from(&links);
                (self.tell)(News::Links(links));
            }
            Err(error) => (self.tell)(News::Event(format!("cannot read interfaces: {error}"))),
        }
    }

    /// What has to be looked at again after a message of the kernel.
    fn judge(&self, message: &NetlinkMessage<RouteNetlinkMessage>) -> Stale {
        if let NetlinkPayload::Overrun(_) = message.payload {
            // News were lost: look at everything.
            return Stale { addresses: true, links: true };
        }
        let NetlinkPayload::InnerMessage(news) = &message.payload else { return Stale::default() };
        if let RouteNetlinkMessage::DelAddress(gone) = news {
            let gone = Present::from_message(gone).map(|gone| gone.address.addr());
            let ours = |slot: &Slot| gone.is_some_and(|gone| slot.addresses().contains(&gone));
            return Stale { addresses: self.members.values().any(ours), links: false };
        }
        if let RouteNetlinkMessage::NewAddress(new) = news {
            // Also what this thread does itself is told here, and right.
            let wrong = |slot: &Slot| {
                Lasting::from_message(new)
                    .is_some_and(|new| !is_right(&slot.member.vips, &self.links, &new, self.lifetime_secs()))
            };
            return Stale { addresses: self.members.values().any(wrong), links: false };
        }
        let links = matches!(news, RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_));
        Stale { addresses: false, links }
    }
}

fn later(after: Duration) -> State {
    State::Due(clock::now() + after)
}

fn into_io(error: rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(message) = error { message.to_io() } else { io::Error::other(error) }
}
