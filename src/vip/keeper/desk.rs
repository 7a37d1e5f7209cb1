//! The keeper's thread: one poll loop that hears everything and hands it to the groups.

use super::{
    KeeperError, KeeperSetup, Shared,
    post::{Post, Tools},
};
use crate::{
    alarm::Alarm,
    clock,
    cluster::{Layers, Report},
    config::GateMode,
    limits::{SHUTDOWN_PATIENCE, TAKE_AWAY_REPEAT},
    time::Instant,
    vip::{
        addresses::{Addresses, News},
        gate::Gate,
        netlink::{Link, Routing},
        packet::{ClaimWatch, Speech, Wire},
        priority,
        rivals::Rivals,
        sockets::Sockets,
        supervision::Word,
    },
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::AsFd,
};
use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, mpsc},
};

/// Most news of the addresses' thread that wait here.
const NEWS_MAX: usize = 256;
/// Most claims of other machines that are looked at in one round.
const CLAIMS_PER_ROUND_MAX: usize = 64;

pub(super) struct Desk {
    posts: Vec<Post>,
    tools: Tools,
    shared: Arc<Shared>,
    news: mpsc::Receiver<News>,
    watches: Vec<ClaimWatch>,
    alarm: Alarm,
    /// What was last reported as the reason why this node cannot hold addresses.
    unable: Option<String>,
    /// The gate is to be set up again then.
    restore_gate_at: Instant,
    /// When the orderly end gives up waiting.
    stop_by: Option<Instant>,
}

/// Which descriptors had something to say.
#[derive(Default)]
struct Ready {
    wake: bool,
    gate: bool,
    supervisor: bool,
    watches: Vec<bool>,
}

impl Desk {
    /// The gate first, then the left-overs: at no moment is an address both there and open.
    pub(super) fn new(setup: KeeperSetup, shared: Arc<Shared>) -> Result<(Self, Layers), KeeperError> {
        let failed = |what| move |cause| KeeperError::Kernel { what, cause };
        let posts: Vec<Post> = setup.groups.into_iter().map(Post::new).collect();
        let ips: Vec<IpAddr> = posts.iter().flat_map(|post| post.ips.iter().copied()).collect();
        let gate = set_up_gate(setup.gate, &ips)?;
        let mut sockets = Sockets::new().ok();
        let sock_destroy = sockets.as_mut().is_some_and(Sockets::can_destroy);
        for event in remove_left_overs(&ips, sockets.as_mut()).map_err(failed("remove addresses of an earlier run"))? {
            (setup.report)(Report::Event(event));
        }
        let (tell, news) = mpsc::sync_channel(NEWS_MAX);
        let to_wake = Arc::clone(&shared);
        let members = posts.iter().map(Post::member).collect();
        let addresses = Addresses::spawn(members, setup.lease, move |one| {
            // Without a receiver the keeper has ended, and this thread is about to.
            drop(tell.send(one));
            to_wake.wake();
        })
        .map_err(failed("start the addresses' thread"))?;
        let wire = Wire::new().map_err(capability("CAP_NET_RAW", "open a packet socket"))?;
        if let Some(link) = &setup.supervisor {
            link.lend(wire.fd()).map_err(failed("lend the supervisor a descriptor"))?;
        }
        let alarm = Alarm::new().map_err(failed("make a timer"))?;
        priority::raise();
        let layers =
            Layers { supervisor: setup.supervisor.is_some(), gate: gate.is_some(), lifetime: true, sock_destroy };
        let tools = Tools {
            gate,
            sockets,
            addresses,
            supervisor: setup.supervisor,
            wire,
            links: Vec::new(),
            rivals: Rivals::default(),
            quiet: setup.quiet,
            report: setup.report,
        };
        let desk = Self {
            posts,
            tools,
            shared,
            news,
            watches: Vec::new(),
            alarm,
            unable: None,
            restore_gate_at: Instant::NEVER,
            stop_by: None,
        };
        Ok((desk, layers))
    }

    pub(super) fn run(&mut self) {
        // Without a supervisor from the start is a choice; one that dies takes everything with it.
        let mut may_hold = true;
        loop {
            self.take_orders();
            may_hold &= self.stop_by.is_none();
            for post in &mut self.posts {
                post.advance(&mut self.tools, may_hold);
            }
            self.restore_gate();
            self.tell_unable();
            if self.is_over() {
                return self.finish();
            }
            let ready = self.wait(may_hold);
            may_hold &= self.hear(&ready);
        }
    }

    fn take_orders(&mut self) {
        let (intents, announce, stop) = {
            let mut orders = self.shared.orders();
            (std::mem::take(&mut orders.intents), std::mem::take(&mut orders.announce), orders.stop)
        };
        for post in &mut self.posts {
            if let Some(intent) = intents.get(&post.name) {
                post.set(*intent, &mut self.tools);
            }
            if announce.contains(&post.name) {
                post.schedule.again(clock::now());
            }
        }
        if stop && self.stop_by.is_none() {
            self.stop_by = Some(clock::now() + SHUTDOWN_PATIENCE);
        }
    }

    /// Sleeps until something is to be heard or done.
    fn wait(&mut self, may_hold: bool) -> Ready {
        let now = clock::now();
        let wakes = self.posts.iter().map(|post| post.next_wake(now, may_hold));
        let next = wakes.chain(self.stop_by).fold(self.restore_gate_at, Instant::min);
        if let Err(error) = self.alarm.set(next) {
            self.tools.event(format!("cannot set a timer: {error}"));
        }
        let mut fds = vec![PollFd::new(&self.shared.wake, PollFlags::IN), PollFd::new(&self.alarm, PollFlags::IN)];
        fds.extend(self.tools.gate.iter().map(|gate| PollFd::from_borrowed_fd(gate.as_fd(), PollFlags::IN)));
        fds.extend(self.tools.supervisor.iter().map(|link| PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN)));
        fds.extend(self.watches.iter().map(|watch| PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)));
        if poll(&mut fds, None).is_err() {
            // A signal. Everything is looked at again.
            return Ready::default();
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let wake = ready.next().unwrap_or(false);
        ready.next();
        Ready {
            wake,
            gate: self.tools.gate.is_some() && ready.next().unwrap_or(false),
            supervisor: self.tools.supervisor.is_some() && ready.next().unwrap_or(false),
            watches: ready.collect(),
        }
    }

    /// Hears what there is. False if the supervisor is gone.
    fn hear(&mut self, ready: &Ready) -> bool {
        if ready.wake {
            let mut counter = [0; 8];
            rustix::io::read(&self.shared.wake, &mut counter).ok();
        }
        while let Ok(news) = self.news.try_recv() {
            self.hear_news(news);
        }
        if ready.gate && self.tools.gate.as_mut().is_some_and(Gate::is_disturbed) {
            self.restore_gate_at = Instant::ZERO;
        }
        let watches = self.watches.iter().zip(&ready.watches).filter(|(_, ready)| **ready);
        for (watch, _) in watches {
            for (mac, ip) in std::iter::from_fn(|| watch.next()).take(CLAIMS_PER_ROUND_MAX) {
                if self.tools.links.iter().all(|link| link.mac != Some(mac)) {
                    self.posts.iter_mut().for_each(|post| post.conflict(mac, ip, &mut self.tools));
                }
            }
        }
        if ready.supervisor && self.tools.supervisor.as_ref().is_some_and(|link| link.is_gone()) {
            self.tools.supervisor = None;
            (self.tools.report)(Report::SupervisorGone);
            return false;
        }
        true
    }

    fn hear_news(&mut self, news: News) {
        match news {
            News::Placed(group, generation) => {
                self.posts.iter_mut().filter(|post| post.name == group).for_each(|post| post.placed(generation));
            }
            News::Refused(group, generation, why) => {
                if let Some(post) = self.posts.iter_mut().find(|post| post.name == group) {
                    post.refused(generation, why);
                }
            }
            News::Gone(group, generation) => {
                if let Some(post) = self.posts.iter_mut().find(|post| post.name == group) {
                    post.gone(generation, &mut self.tools);
                }
            }
            News::Links(links) => self.links_changed(links),
            News::Event(text) => self.tools.event(text),
        }
    }

    /// Announces what came up, and hears claims where it must.
    fn links_changed(&mut self, links: Vec<Link>) {
        let before = std::mem::replace(&mut self.tools.links, links);
        let now = clock::now();
        let find = |links: &[Link], name: &str| links.iter().find(|link| link.name == name).cloned();
        for post in &mut self.posts {
            let came_up = |name: &str| {
                find(&self.tools.links, name).is_some_and(|link| link.came_up_since(find(&before, name).as_ref()))
            };
            if post.is_open() && post.vips.iter().any(|vip| came_up(&vip.interface)) {
                post.schedule.again(now);
            }
        }
        let mut wanted: BTreeMap<(u32, Speech), Vec<IpAddr>> = BTreeMap::new();
        for vip in self.posts.iter().flat_map(|post| &post.vips) {
            let link = self.tools.links.iter().find(|link| link.name == vip.interface && link.mac.is_some());
            if let Some(link) = link {
                let ip = vip.address.addr();
                wanted.entry((link.index, Speech::of(ip))).or_default().push(ip);
            }
        }
        self.watches.retain(|watch| wanted.remove(&watch.place()).is_some());
        for ((index, speech), ips) in wanted {
            match ClaimWatch::new(index, speech, &ips) {
                Ok(watch) => {
                    self.tools.lend(watch.as_fd());
                    self.watches.push(watch);
                }
                Err(error) => self.tools.event(format!("cannot watch for other machines with our addresses: {error}")),
            }
        }
    }

    /// Sets the gate up again after someone removed it. Until that has worked it is tried again and again.
    fn restore_gate(&mut self) {
        let now = clock::now();
        if now < self.restore_gate_at {
            return;
        }
        let open: Vec<IpAddr> = self.posts.iter().flat_map(|post| post.open_ips(&self.tools, now)).copied().collect();
        let Some(gate) = &mut self.tools.gate else { return };
        if let Err(error) = gate.restore(&open) {
            self.restore_gate_at = now + TAKE_AWAY_REPEAT;
            return self.tools.event(format!("someone removed the gate and it cannot be set up again: {error}"));
        }
        self.restore_gate_at = Instant::NEVER;
        self.posts.iter_mut().for_each(|post| post.gate_restored(&mut self.tools));
        self.tools.event("someone removed the gate (nft flush ruleset?); set up again".into());
    }

    fn tell_unable(&mut self) {
        let refused = || self.posts.iter().find_map(Post::trouble).map(str::to_owned);
        let reason = self.link_trouble().or_else(refused);
        if reason != self.unable {
            self.unable.clone_from(&reason);
            (self.tools.report)(Report::Unable(reason));
        }
    }

    fn link_trouble(&self) -> Option<String> {
        if self.tools.links.is_empty() {
            return None;
        }
        self.posts.iter().flat_map(|post| &post.vips).find_map(|vip| {
            let name = &vip.interface;
            match self.tools.links.iter().find(|link| link.name == *name) {
                None => Some(format!("there is no interface {name}")),
                Some(link) if !link.up => Some(format!("interface {name} is down")),
                Some(link) if !link.carrier => Some(format!("interface {name} has no carrier")),
                Some(_) => None,
            }
        })
    }

    fn is_over(&self) -> bool {
        self.stop_by.is_some_and(|by| self.posts.iter().all(Post::is_gone) || clock::now() >= by)
    }

    /// The orderly end: the gate goes only if nothing is left that it would guard.
    fn finish(&mut self) {
        // The other thread must not wait for us while we wait for it.
        self.news = mpsc::sync_channel(0).1;
        self.tools.addresses.stop();
        if !self.posts.iter().all(Post::is_gone) {
            return self.tools.event("addresses did not go in time; the supervisor takes them away".into());
        }
        if self.tools.gate.take().is_some()
            && let Err(error) = Gate::remove()
        {
            self.tools.event(format!("cannot remove the gate: {error}"));
        }
        self.tools.tell_supervisor(&Word::Bye);
    }
}

fn capability(name: &'static str, what: &'static str) -> impl Fn(io::Error) -> KeeperError {
    move |cause| match cause.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => KeeperError::Capability(name),
        _ => KeeperError::Kernel { what, cause },
    }
}

/// Sets the gate up, or removes the one of an earlier run that had it.
fn set_up_gate(mode: GateMode, ips: &[IpAddr]) -> Result<Option<Gate>, KeeperError> {
    match mode {
        GateMode::On => match Gate::set_up(ips) {
            Ok(gate) => Ok(Some(gate)),
            Err(cause) if cause.raw_os_error() == Some(libc::EPERM) => Err(KeeperError::Capability("CAP_NET_ADMIN")),
            Err(cause) => Err(KeeperError::NoGate(cause)),
        },
        GateMode::Off => {
            // A kernel without nftables has none that could be in the way.
            drop(Gate::remove());
            Ok(None)
        }
    }
}

/// Removes addresses that an earlier run has left; what there is to say about it.
fn remove_left_overs(ips: &[IpAddr], sockets: Option<&mut Sockets>) -> io::Result<Vec<String>> {
    let mut routing = Routing::new()?;
    let left = routing.present(ips)?;
    if left.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(sockets) = sockets {
        // Best effort: without it clients of the earlier run wait longer.
        drop(sockets.bound_to(ips).and_then(|found| sockets.destroy(&found)));
    }
    if !routing.delete_all(ips)? {
        return Err(io::Error::other("they are still there"));
    }
    Ok(left.iter().map(|one| format!("{} of an earlier run was still here and was removed", one.address)).collect())
}
