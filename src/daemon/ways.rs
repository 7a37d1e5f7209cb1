//! What is told of the ways to the other members: for `status`, and what to do when one carries nothing.

use crate::{
    admin::api::{Carries, Direction, Link, Status, WitnessWay},
    config::Config,
    driver::{self, DirectionView, Seen},
    time::Instant,
};

/// The links to the peer.
pub(super) fn links(config: &Config, seen: &Seen, now: Instant) -> Vec<Link> {
    let ours = config.my_node().links.iter();
    let pairs = ours.zip(&config.peer_node().links).zip(&seen.links).enumerate();
    pairs
        .map(|(at, ((from, to), way))| {
            let (from_peer, to_peer) = (direction(&way.from, now), direction(&way.to, now));
            Link {
                number: at + 1,
                from: from.to_string(),
                to: to.to_string(),
                up: from_peer.carries == Carries::Yes && to_peer.carries == Carries::Yes,
                heard_ms: from_peer.carried_ms,
                from_peer,
                to_peer,
            }
        })
        .collect()
}

/// The ways to the witness.
pub(super) fn to_witness(config: &Config, seen: &Seen, now: Instant) -> Vec<WitnessWay> {
    let ways = config.tiebreak.addresses().iter().zip(&seen.witness_ways);
    ways.map(|(to, way)| WitnessWay { to: to.to_string(), answers: direction(&way.from, now) }).collect()
}

fn direction(view: &DirectionView, now: Instant) -> Direction {
    Direction {
        carries: match view.carries {
            driver::Carries::Unknown => Carries::Unknown,
            driver::Carries::Yes => Carries::Yes,
            driver::Carries::No => Carries::No,
        },
        carried_ms: view.carried_at.map(|at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX)),
        losses: view.losses,
        unsteady: view.unsteady,
    }
}

/// What to do about links and ways that carry nothing, or cannot be counted on.
pub(super) fn advice(status: &Status) -> Vec<String> {
    let mut advice: Vec<String> = status.links.iter().filter_map(|link| link_advice(link, status)).collect();
    for way in &status.witness.ways {
        let witness = &status.witness.name;
        if way.answers.carries == Carries::No {
            advice.push(format!(
                "{witness} answers on another way, but not by {}: look at cable, switch and routes of that network",
                way.to
            ));
        } else if way.answers.unsteady {
            advice.push(format!("the way to {witness} by {} flaps: lost {} times", way.to, way.answers.losses));
        }
    }
    advice
}

fn link_advice(link: &Link, status: &Status) -> Option<String> {
    let (node, peer) = (&status.node, &status.peer.name);
    let name = format!("link {} ({} - {})", link.number, link.from, link.to);
    let one_way = |from, to, way_out, way_in| {
        format!(
            "{name} carries nothing from {from} to {to}, only the other way: look at what {from} sends ({way_out}: \
             route, neighbour entry, firewall) and at what {to} lets in ({way_in})"
        )
    };
    match (link.from_peer.carries, link.to_peer.carries) {
        (Carries::No, Carries::Yes) => Some(one_way(peer, node, &link.to, &link.from)),
        (Carries::Yes, Carries::No) => Some(one_way(node, peer, &link.from, &link.to)),
        (Carries::No, Carries::No | Carries::Unknown) => Some(format!(
            "{name} carries nothing in either direction: look at its cable, switch port and interface on both nodes"
        )),
        (Carries::Unknown, Carries::Yes | Carries::No | Carries::Unknown) | (Carries::Yes, Carries::Unknown) => None,
        (Carries::Yes, Carries::Yes) => {
            let losses = link.from_peer.losses.max(link.to_peer.losses);
            let unsteady = link.from_peer.unsteady || link.to_peer.unsteady;
            unsteady.then(|| {
                format!("{name} carries again, but was lost {losses} times: count on it when this line has gone")
            })
        }
    }
}
