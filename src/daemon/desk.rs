//! Answers the admin API of a node.

use super::{claims::Claims, fitness::Why, notes::Names, tiebreak, voters, ways};
use crate::{
    admin::{
        api::{Changed, Claimed, ConfirmFenced, Group, Peer, Remote, SetStandby, Status, Switchover, Voter},
        server::{Answer, Desk},
    },
    clock,
    cluster::{Command, Fitness, GroupName, Layers, Name, STATE_GROUP, engine::MemberView},
    config::{Config, HealthKind},
    driver::{DriverHandle, Seen},
    limits::{LATE_MINUTES, LEASE_MAX, LEASE_PER_LATENESS_MIN},
    replicate::{HistoryEntry, Standby, StateHandle},
    time::{Duration, Instant},
    web,
};
use std::sync::Arc;

/// What the answers are made from.
#[derive(Clone)]
pub(super) struct NodeDesk {
    pub(super) config: Arc<Config>,
    pub(super) names: Names,
    pub(super) driver: DriverHandle,
    pub(super) state: StateHandle,
    pub(super) web: web::Handle,
    pub(super) tiebreak: tiebreak::Handles,
    pub(super) layers: Layers,
    pub(super) why: Why,
    pub(super) claims: Claims,
    pub(super) started: Instant,
}

impl Desk for NodeDesk {
    fn status(&self) -> Answer<Status> {
        let this = self.clone();
        Box::pin(async move {
            let seen = this.driver.see().await.ok_or("the cluster thread is gone")?;
            Ok(this.status_of(&seen))
        })
    }

    fn history(&self) -> Vec<HistoryEntry> {
        self.state.history()
    }

    fn switchover(&self, wish: Switchover) -> Answer<Changed> {
        let this = self.clone();
        Box::pin(async move { this.move_group(&wish).await })
    }

    fn standby(&self, wish: SetStandby) -> Answer<Changed> {
        let this = self.clone();
        Box::pin(async move { this.set_standby(&wish).await })
    }

    fn confirm_fenced(&self, wish: ConfirmFenced) -> Answer<Changed> {
        let confirmed = self.tiebreak.confirm_fenced(wish.node);
        Box::pin(async move { confirmed })
    }
}

impl NodeDesk {
    async fn move_group(&self, wish: &Switchover) -> Result<Changed, String> {
        let seen = self.driver.see().await.ok_or("the cluster thread is gone")?;
        let view = seen.view.groups.iter().find(|g| g.name == wish.group);
        let Some(view) = view else {
            return Err(format!("there is no group {}: {}", wish.group, self.group_names()));
        };
        let Some(owner) = view.owner else {
            return Err(format!("nobody owns {} now; see hawser status", wish.group));
        };
        let Some(other) = owner.peer() else { return Err("a witness owns nothing".to_owned()) };
        let to = self.names.of(other);
        if let Some(wanted) = wish.to.filter(|wanted| *wanted != to) {
            return if wanted == self.names.of(owner) {
                Ok(Changed { text: format!("{} is on {wanted} already", wish.group), replicated: None })
            } else {
                Err(format!("there is no node {wanted}"))
            };
        }
        let here = owner == self.names.me;
        let (group, force) = (wish.group, wish.force);
        let command = if here { Command::Switchover { group, force } } else { Command::Fetch { group, force } };
        let from = self.names.of(owner);
        self.driver.command(command).await.map_err(|why| format!("cannot move {group} from {from} to {to}: {why}"))?;
        let text = if here { format!("{group} moved from {from} to {to}") } else { format!("{from} was asked") };
        Ok(Changed { text, replicated: None })
    }

    async fn set_standby(&self, wish: &SetStandby) -> Result<Changed, String> {
        let node = wish.node.unwrap_or(self.names.of(self.names.me));
        if !self.names.nodes.contains(&node) {
            let [a, b] = self.names.nodes;
            return Err(format!("there is no node {node}: they are {a} and {b}"));
        }
        if wish.on && !wish.force {
            self.may_stand_by(node).await?;
        }
        let on = if wish.on { Standby::On } else { Standby::Off };
        let written = self.state.set_standby(&node, on).await.map_err(|e| e.to_string())?;
        let what = if wish.on { "is in standby" } else { "may own groups again" };
        Ok(Changed { text: format!("{node} {what}"), replicated: Some(written.replicated) })
    }

    /// Somebody must be left to own the groups.
    async fn may_stand_by(&self, node: Name) -> Result<(), String> {
        let seen = self.driver.see().await.ok_or("the cluster thread is gone")?;
        let me = self.names.of(self.names.me);
        let other = self.names.nodes.into_iter().find(|n| *n != node).unwrap_or(node);
        let (ready, why) = if other == me {
            let fit = seen.view.fitness == Fitness::Fit;
            (fit && !seen.view.standby, if fit { "is in standby itself" } else { "is not fit" })
        } else {
            let peer = seen.view.members.iter().find(|m| Some(m.member) == self.names.me.peer());
            match peer {
                Some(p) if !p.heard => (false, "is not heard"),
                Some(p) if p.standby => (false, "is in standby itself"),
                Some(p) => (p.fitness == Some(Fitness::Fit), "is not fit"),
                None => (false, "is not heard"),
            }
        };
        // The flag that another command has just set is heard of a heartbeat later.
        let (ready, why) = if self.state.is_standby(&other) { (false, "is in standby itself") } else { (ready, why) };
        if ready {
            return Ok(());
        }
        Err(format!("{other} {why}: nobody would own the groups; --force does it all the same"))
    }

    fn group_names(&self) -> String {
        let names: Vec<&str> = self.config.groups.iter().map(|g| g.name.as_str()).collect();
        format!("there is {}", names.join(", "))
    }

    fn status_of(&self, seen: &Seen) -> Status {
        let now = clock::now();
        let view = &seen.view;
        let members = voters::members(view);
        let find = |member| view.members.iter().find(|m| m.member == member);
        let peer = view.me.peer().and_then(find);
        let witness = find(crate::cluster::Member::Witness);
        let heard = |m: Option<&MemberView>| m.is_some_and(|m| m.heard);
        let heard_ms = |m: Option<&MemberView>| m.and_then(|m| m.heard_at).map(|at| millis(now.since(at)));
        let trip = |m: Option<&MemberView>| m.filter(|m| m.heard).and_then(|m| m.round_trip).map(fine_millis);
        let unfit_because = if view.fitness == Fitness::Fit { Vec::new() } else { self.why.list() };
        let mut status = Status {
            cluster: self.config.cluster.name,
            node: self.names.of(view.me),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_secs: now.since(self.started).as_secs(),
            fitness: view.fitness,
            unfit_because,
            standby: view.standby,
            groups: self.groups(seen, now),
            claims: self.claims(now),
            peer: Peer {
                name: self.config.peer_node().name,
                connected: heard(peer),
                fitness: peer.and_then(|p| p.fitness),
                standby: peer.is_some_and(|p| p.standby),
                config_agrees: peer.is_none_or(|p| p.config_agrees),
                round_trip_ms: trip(peer),
                heard_ms: heard_ms(peer),
            },
            witness: Remote {
                name: members.third().and_then(|third| Name::new(third.word()).ok()).unwrap_or(self.names.witness),
                connected: heard(witness),
                round_trip_ms: trip(witness),
                heard_ms: heard_ms(witness),
                ways: ways::to_witness(&self.config, seen, now),
            },
            tiebreak: voters::word(members).to_owned(),
            tiebreak_state: self.tiebreak.view(now, members),
            voters: voters::view(view, &self.names),
            links: ways::links(&self.config, seen, now),
            layers: self.layers,
            voter: Voter {
                silent_ms: view.silent_until.map(|until| millis(now.until(until))),
                lost: view.recall.lost(),
            },
            lease_ms: millis(self.config.cluster.lease),
            interval_ms: millis(self.config.cluster.interval),
            worst_tick_ms: fine_millis(view.worst_late),
            recent_tick_ms: fine_millis(view.recent_late),
            refused: seen.refused.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
            state: self.state.view(),
            web: self.web_view(),
            advice: Vec::new(),
        };
        status.advice = advice(&status);
        status
    }

    /// A server that nobody ever checks is told as not checked.
    fn web_view(&self) -> web::View {
        let mut view = self.web.view();
        let unchecked = |name: &str| {
            let mut upstreams = self.config.web.upstreams.iter();
            upstreams.any(|u| u.name.as_str() == name && matches!(u.health.kind, HealthKind::None))
        };
        let never = view.upstreams.iter_mut().filter(|upstream| unchecked(&upstream.name));
        never.flat_map(|upstream| &mut upstream.servers).for_each(|server| server.checked = false);
        view
    }

    fn groups(&self, seen: &Seen, now: Instant) -> Vec<Group> {
        let vips = |name: GroupName| {
            let group = self.config.groups.iter().find(|g| g.name == name);
            let vips = group.map(|g| g.vips.as_slice()).unwrap_or_default();
            vips.iter().map(|v| format!("{} on {}", v.address, v.interface)).collect()
        };
        seen.view
            .groups
            .iter()
            .map(|g| Group {
                name: g.name,
                owner: g.owner.map(|owner| self.names.of(owner)),
                role: g.role,
                term: g.term,
                lease_left_ms: g.lease_until.map(|until| millis(now.until(until))),
                for_secs: g.since.map(|since| now.since(since).as_secs()),
                witnessed: g.witnessed,
                vips: vips(g.name),
            })
            .collect()
    }

    fn claims(&self, now: Instant) -> Vec<Claimed> {
        let shown = self.claims.lately(now).into_iter().map(|(claim, ago)| Claimed {
            group: claim.group,
            address: claim.address,
            mac: claim.station(),
            ago_ms: millis(ago),
        });
        shown.collect()
    }
}

/// What somebody at three in the morning should know.
fn advice(status: &Status) -> Vec<String> {
    let mut advice = Vec::new();
    let (peer, witness) = (&status.peer, &status.witness);
    if status.voters.alone {
        // It needs nobody.
    } else if status.tiebreak == "pair" {
        advice.push(voters::PAIR.to_owned());
    } else if !peer.connected && !witness.connected {
        advice
            .push("neither peer nor third voter is heard: this node cannot own anything; look at its links".to_owned());
    } else if !peer.connected {
        advice.push(format!(
            "{0} is not heard: there is no standby; if {0} runs, `hawser status` there tells on which links it hears {1}",
            peer.name, status.node
        ));
    } else if !witness.connected {
        advice.push(format!("the third voter {} is not heard: if a node fails now, nobody takes over", witness.name));
    }
    advice.extend(status.tiebreak_state.needs.clone());
    advice.extend(status.claims.iter().map(|Claimed { address, mac, ago_ms, .. }| {
        let ago = Duration::from_millis(*ago_ms).as_secs();
        format!(
            "{mac} claims {address}, which this node holds (told {ago} s ago): find that machine by its hardware address \
             and take the address off it; visitors may be led astray until then"
        )
    }));
    advice.extend(status.voters.needs.clone());
    if status.voter.lost && status.voters.alone {
        let (node, ms) = (status.node, status.voter.silent_ms.unwrap_or_default());
        let left = Duration::from_millis(ms).as_secs_f64();
        advice.push(format!(
            "{node} has no memory of its votes, and nobody who could tell it: it begins when the longest lease is over, in {left:.1} s"
        ));
    } else if status.voter.lost {
        let whom = if status.tiebreak_state.stand.is_some() { String::new() } else { format!(" and {}", witness.name) };
        advice.push(format!(
            "this node has no memory of its votes (first start, a new disk, or a damaged promise file: see the log): it \
             votes once it has heard {}{whom}",
            peer.name
        ));
    }
    if !peer.config_agrees {
        advice.push(format!(
            "{} runs another configuration (members, timing, groups or addresses differ): copy hawser.toml, restart one",
            peer.name
        ));
    }
    match vacancy(status) {
        Some(why) => advice.push(why),
        None => advice.extend(not_both(status)),
    }
    let dead =
        |upstream: &&web::health::UpstreamView| !upstream.servers.is_empty() && upstream.servers.iter().all(|s| !s.up);
    for upstream in status.web.upstreams.iter().filter(dead) {
        advice.push(format!("no server of upstream {} is up: its requests are answered with an error", upstream.name));
    }
    advice.extend(web::tls::advice(&status.web.tls));
    advice.extend(ways::advice(status));
    if !status.layers.supervisor {
        advice.push("no supervisor: a crash costs a whole lease".to_owned());
    }
    if !status.layers.gate {
        advice.push("the gate is off: a hung node answers until its addresses' lifetime ends".to_owned());
    }
    advice.extend(late(status));
    advice
}

/// The lease is too short for a machine that is so busy, or sleeps so long.
fn late(status: &Status) -> Option<String> {
    let (recent, factor) = (status.recent_tick_ms, f64::from(LEASE_PER_LATENESS_MIN));
    #[expect(clippy::cast_precision_loss, reason = "a lease is a small number of milliseconds")]
    let lease = status.lease_ms as f64;
    let wanted = recent * factor;
    let remedy = if wanted <= LEASE_MAX.as_secs_f64() * 1000.0 {
        format!("give the machine more time, or make the lease {wanted:.0} ms or longer ({factor} times as long)")
    } else {
        "no lease is long enough for that: find out what stops this machine".to_owned()
    };
    (wanted > lease).then(|| {
        format!(
            "the cluster thread was called {recent:.0} ms late in the last {LATE_MINUTES} minutes, and the lease is {} ms: \
             {remedy}",
            status.lease_ms
        )
    })
}

/// Why nobody serves, as far as it is known here.
fn vacancy(status: &Status) -> Option<String> {
    let (node, peer) = (&status.node, &status.peer);
    let vacant = status.groups.iter().filter(|g| g.owner.is_none() && g.name.as_str() != STATE_GROUP);
    let vacant: Vec<&str> = vacant.map(|g| g.name.as_str()).collect();
    if vacant.is_empty() {
        return None;
    }
    let vacant = vacant.join(", ");
    if !peer.connected {
        // Whether the peer owns them nobody knows here.
        return status.standby.then(|| {
            format!(
                "{node} is in standby and {} is not heard: perhaps nobody owns {vacant}; `hawser unstandby {node}` \
                 lets this node own it",
                peer.name
            )
        });
    }
    if status.standby && peer.standby {
        return Some(format!("nobody owns {vacant}: both nodes are in standby; `hawser unstandby {node}` ends that"));
    }
    let mut causes: Vec<String> = Vec::new();
    causes.extend(hindrance(*node, status.standby, Some(status.fitness), &status.unfit_because));
    causes.extend(hindrance(peer.name, peer.standby, peer.fitness, &[]));
    causes.extend(match status.voter {
        Voter { lost: true, .. } => Some(format!("{node} waits for what the others remember of its votes")),
        Voter { silent_ms: Some(ms @ 1..), .. } => {
            let left = Duration::from_millis(ms).as_secs_f64();
            Some(format!("{node} gives no vote for {left:.1} s more after its start"))
        }
        Voter { .. } => None,
    });
    if causes.is_empty() {
        causes.push("an election is under way, or others give no votes yet after their start".to_owned());
    }
    Some(format!("nobody owns {vacant}: {}", causes.join("; ")))
}

/// Somebody serves, but one of the nodes could not.
fn not_both(status: &Status) -> Option<String> {
    let (node, peer) = (&status.node, &status.peer);
    let here =
        hindrance(*node, status.standby, Some(status.fitness), &status.unfit_because).filter(|_| !status.standby);
    let there = hindrance(peer.name, peer.standby, peer.fitness, &[]).filter(|_| peer.connected && !peer.standby);
    let causes: Vec<String> = here.into_iter().chain(there).collect();
    (!causes.is_empty()).then(|| format!("not both nodes can serve: {}", causes.join("; ")))
}

/// What keeps a node from owning anything.
fn hindrance(name: Name, standby: bool, fitness: Option<Fitness>, why: &[String]) -> Option<String> {
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
    match fitness {
        _ if standby => Some(format!("{name} is in standby (`hawser unstandby {name}` ends that)")),
        Some(Fitness::Unable) => Some(format!("{name} cannot serve{why}")),
        Some(Fitness::Unfit) => Some(format!("{name} is not fit{why}")),
        Some(Fitness::Fit) | None => None,
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn fine_millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}
