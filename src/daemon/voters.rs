//! Who votes, between configuration, promise file and people.
//!
//! Not here: when the voters change (`cluster::engine`).

use super::{Failure, notes::Names};
use crate::{
    admin::api,
    cluster::{Member, Members, Memory, Obstacle, Third, View},
    config::{Config, Tiebreak},
    trust,
};
use std::{net::SocketAddr, sync::Arc};

/// What a node that votes alone is not protected from.
pub(super) const ALONE: &str = "this node votes alone: nobody takes over when it fails; and if it was one of two before and its \
                                disk is a new one, it does not know that the other may serve";
/// What two that must agree are not protected from.
pub(super) const PAIR: &str = "both nodes must agree while the voters change: if one of them fails now, nobody serves until it is \
                               back";

/// Who is to vote.
pub(super) fn wanted(config: &Config) -> Members {
    config.alone.map_or_else(|| Members::Trio(third_of(&config.tiebreak)), Members::Solo)
}

/// Which third voter a tiebreak is.
pub(super) fn third_of(tiebreak: &Tiebreak) -> Third {
    match tiebreak {
        Tiebreak::Witness(witness) => Third::Witness { name: witness.name, addresses: witness.addresses.clone() },
        Tiebreak::Etcd(etcd) => {
            let members: Vec<String> = etcd.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
            Third::Etcd(trust::digest(format!("{} {}", members.join(" "), etcd.prefix).as_bytes()))
        }
        Tiebreak::Fence(_) => Third::Fence,
        Tiebreak::Gateway(_) => Third::Gateway,
        Tiebreak::None => Third::None,
    }
}

/// The configuration, once for each third voter that may be in force, as if it had named that one.
pub(super) fn spoken_for(config: &Arc<Config>, memory: Option<&Memory>) -> Vec<Arc<Config>> {
    let in_force = memory.and_then(|memory| memory.sets.in_force.as_ref());
    let mut all: Vec<Arc<Config>> = Vec::new();
    if config.alone.is_none() {
        all.push(Arc::clone(config));
    }
    let mut others = config.others.clone();
    if config.alone.is_some() {
        others.push(config.tiebreak.clone());
    }
    others.retain(|tiebreak| !matches!(tiebreak, Tiebreak::None));
    if in_force.and_then(|set| set.members.third()) == Some(&Third::None) {
        others.push(Tiebreak::None);
    }
    for tiebreak in others {
        if !all.iter().any(|known| third_of(&known.tiebreak) == third_of(&tiebreak)) {
            all.push(Arc::new(Config { tiebreak, ..(**config).clone() }));
        }
    }
    all
}

/// Where the witness in force is reached.
pub(super) fn witness_of(memory: &Memory) -> Vec<SocketAddr> {
    match memory.sets.in_force.as_ref().and_then(|set| set.members.third()) {
        Some(Third::Witness { addresses, .. }) => addresses.clone(),
        Some(Third::Etcd(_) | Third::Fence | Third::Gateway | Third::None) | None => Vec::new(),
    }
}

/// The members of the file are those of the configuration.
///
/// # Errors
/// If the configuration names as the first node the one that is the second in the file.
pub(super) fn check(config: &Config, memory: Option<&Memory>) -> Result<(), Failure> {
    let in_force = memory.and_then(|memory| memory.sets.in_force.as_ref());
    if config.has_no_peer() && in_force.is_some_and(|set| set.members == Members::Solo(Member::Second)) {
        return Err(Failure::lasting(format!(
            "{} was the second of two nodes, and the file makes it the first: keep the [[node]] that has left above it, \
             with leaves = true",
            config.my_node().name
        )));
    }
    Ok(())
}

/// For people.
pub(super) fn in_words(members: &Members, names: &Names) -> String {
    let [first, second] = names.nodes;
    match members {
        Members::Trio(Third::Witness { name, .. }) => format!("{first}, {second} and {name}"),
        Members::Trio(third) => format!("{first} and {second}, with {}", third.word()),
        Members::Pair => format!("{first} and {second}, both must agree"),
        Members::Solo(Member::First) => format!("{first} alone"),
        Members::Solo(Member::Second | Member::Witness) => format!("{second} alone"),
    }
}

/// The word of `cluster.tiebreak` for what is in force.
pub(super) const fn word(members: &Members) -> &'static str {
    match members {
        Members::Trio(Third::Witness { .. }) => "witness",
        Members::Trio(Third::Etcd(_)) => "etcd",
        Members::Trio(Third::Fence) => "fence",
        Members::Trio(Third::Gateway) => "gateway",
        Members::Trio(Third::None) => "none",
        Members::Pair => "pair",
        Members::Solo(_) => "alone",
    }
}

/// The set in force.
pub(super) fn members(view: &View) -> &Members {
    view.sets.in_force.as_ref().map_or(&view.wanted, |set| &set.members)
}

/// What `status` shows.
pub(super) fn view(view: &View, names: &Names) -> api::Voters {
    let members = members(view);
    let changes = *members != view.wanted || view.sets.next.is_some();
    let obstacle = view.obstacle.filter(|_| changes);
    api::Voters {
        generation: view.sets.in_force.as_ref().map_or(0, |set| set.generation),
        in_force: in_words(members, names),
        wanted: changes.then(|| in_words(&view.wanted, names)),
        waits_for: obstacle.map(|obstacle| waits_for(obstacle, view, names)),
        needs: obstacle.filter(|obstacle| needs_somebody(*obstacle)).map(|obstacle| {
            let wanted = in_words(&view.wanted, names);
            format!("the voters do not change to {wanted}: {}", waits_for(obstacle, view, names))
        }),
        alone: matches!(members, Members::Solo(_)),
    }
}

const fn needs_somebody(obstacle: Obstacle) -> bool {
    match obstacle {
        Obstacle::PeerSilent | Obstacle::ConfigDiffers | Obstacle::ThirdHere | Obstacle::ThirdThere => true,
        Obstacle::NoMemory
        | Obstacle::Silence
        | Obstacle::Leases
        | Obstacle::LeaverOwns
        | Obstacle::PeerChooses
        | Obstacle::PeerFollows
        | Obstacle::NotReady => false,
    }
}

fn waits_for(obstacle: Obstacle, view: &View, names: &Names) -> String {
    let me = names.of(names.me);
    let peer = names.me.peer().map_or(me, |peer| names.of(peer));
    let third = view.wanted.third().map_or("the third voter", Third::word);
    match obstacle {
        Obstacle::PeerSilent => format!("{peer} is not heard"),
        Obstacle::ConfigDiffers => format!("{peer} runs another configuration: copy hawser.toml, restart it"),
        Obstacle::NoMemory => "a node has no memory of its votes yet".to_owned(),
        Obstacle::Silence => format!("{me} gives no votes yet after its start"),
        Obstacle::ThirdHere => format!("{third} does not answer {me}"),
        Obstacle::ThirdThere => format!("{third} does not answer {peer}"),
        Obstacle::Leases => "leases that rest on the voters of before run out".to_owned(),
        Obstacle::LeaverOwns => "the node that leaves hands its groups over".to_owned(),
        Obstacle::PeerChooses => format!("{peer} goes first"),
        Obstacle::PeerFollows => format!("{peer} is told of the next step"),
        Obstacle::NotReady => format!("{me} is being stopped, or cannot write"),
    }
}
