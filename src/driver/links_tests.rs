//! Two nodes' links on loopback, and strangers among them.

use super::super::ways::{Carries, Direction};
use super::*;
use crate::{
    clock,
    cluster::{GroupName, Name, Term},
    config::{self, Scene},
    limits::DATAGRAM_BYTES_MAX,
    trust::{ClusterId, new_incarnation, new_secret, random},
};
use std::{net::Ipv4Addr, path::Path, time::Duration};
use tokio::time::timeout;

/// Addresses of this test alone: loopback is a whole /8.
fn addresses() -> [Ipv4Addr; 3] {
    let [a, b] = random::<2>();
    [1, 2, 3].map(|last| Ipv4Addr::new(127, a | 1, b, last))
}

fn node(name: &str, [n1, n2, w]: [Ipv4Addr; 3]) -> Config {
    let text = format!(
        "[cluster]\nname = \"t\"\n[[node]]\nname = \"n1\"\nlinks = [\"{n1}\"]\n[[node]]\nname = \"n2\"\n\
         links = [\"{n2}\"]\n[witness]\nname = \"w\"\naddress = \"{w}\"\n"
    );
    let scene = Scene { path: Path::new("hawser.toml"), me: Some(Name::new(name).unwrap()), machine: None };
    config::check(&text, &scene).unwrap().config
}

fn links(config: &Config, ring: &Keyring) -> Links {
    Links::new(bind(config).unwrap(), config, ring, new_incarnation(), clock::now()).unwrap()
}

fn ring() -> Keyring {
    Keyring::new(Name::new("t").unwrap(), ClusterId([7; 8]), [9; 32])
}

fn offer() -> Message {
    Message::Offer { group: GroupName::new("web").unwrap(), term: Term(3) }
}

/// Takes one datagram; the bytes, and what came of them.
async fn one(links: &mut Links) -> (Vec<u8>, Option<Arrival>) {
    let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
    let (by, from, length) = timeout(Duration::from_secs(5), links.receive(&mut buffer)).await.expect("a datagram");
    let bytes = buffer[..length].to_vec();
    let arrival = links.take(clock::now(), by, from, &bytes);
    (bytes, arrival)
}

/// Greets until each believes the other.
async fn acquainted(a: &mut Links, b: &mut Links) {
    a.send(Member::Second, Message::Hello);
    a.flush(clock::now());
    assert!(one(b).await.1.is_none(), "nothing is believed before it has echoed our life");
    assert!(matches!(one(a).await.1, Some(Arrival::Messages(_, said)) if said == [Message::Hello]));
    a.send(Member::Second, Message::Hello);
    a.flush(clock::now());
    assert!(matches!(one(b).await.1, Some(Arrival::Messages(_, said)) if said == [Message::Hello]));
}

#[tokio::test]
async fn a_message_counts_once_each_life_has_echoed_the_other() {
    let addresses = addresses();
    let (first, second) = (node("n1", addresses), node("n2", addresses));
    let (mut a, mut b) = (links(&first, &ring()), links(&second, &ring()));
    acquainted(&mut a, &mut b).await;
    b.send(Member::First, offer());
    b.flush(clock::now());
    let Some(Arrival::Messages(from, messages)) = one(&mut a).await.1 else { panic!("the message did not arrive") };
    assert_eq!((from.member, messages), (Member::Second, vec![offer()]));
    assert!(a.links(clock::now())[0].from.carried_at.is_some());
}

#[tokio::test]
async fn garbage_replays_and_foreign_clusters_are_counted_and_have_no_effect() {
    let addresses = addresses();
    let (first, second) = (node("n1", addresses), node("n2", addresses));
    let (mut a, mut b) = (links(&first, &ring()), links(&second, &ring()));
    acquainted(&mut a, &mut b).await;
    b.send(Member::First, offer());
    b.flush(clock::now());
    let (recorded, arrival) = one(&mut a).await;
    assert!(arrival.is_some());

    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = first.my_node().links[0];
    let mut damaged = recorded.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let mut foreign = Vec::new();
    let other = Keyring::new(Name::new("t").unwrap(), ClusterId([8; 8]), [9; 32]);
    Sealer::new(&other, Member::Second, new_incarnation()).seal(Kind::Engine, b"x", &mut foreign).unwrap();
    let mut forged = Vec::new();
    let guess = Keyring::new(Name::new("t").unwrap(), ClusterId([7; 8]), [1; 32]);
    Sealer::new(&guess, Member::Second, new_incarnation()).seal(Kind::Engine, b"x", &mut forged).unwrap();
    let mut posing = Vec::new();
    Sealer::new(&ring().for_witness(), Member::Second, new_incarnation())
        .seal(Kind::Engine, b"x", &mut posing)
        .unwrap();
    let cases: [(&str, &[u8]); 7] = [
        ("replayed", &recorded),
        ("bad_seal", &damaged),
        ("foreign_cluster", &foreign),
        ("bad_seal", &forged),
        ("bad_seal", &posing),
        ("length", b"hello"),
        ("version", &[0; 200]),
    ];
    for (reason, datagram) in cases {
        let before = a.refusals().totals().get(reason).copied().unwrap_or(0);
        stranger.send_to(datagram, to).unwrap();
        assert!(one(&mut a).await.1.is_none(), "{reason}");
        assert_eq!(a.refusals().totals().get(reason).copied().unwrap_or(0), before + 1, "{reason}");
    }
}

#[tokio::test]
async fn a_notice_is_let_through_without_a_seal_but_only_for_this_cluster() {
    let addresses = addresses();
    let first = node("n1", addresses);
    let mut a = links(&first, &ring());
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let secret = new_secret();
    for (cluster, passes) in [(ClusterId([7; 8]), true), (ClusterId([8; 8]), false)] {
        stranger.send_to(&Notice { cluster, secret }.encode(), first.my_node().links[0]).unwrap();
        let arrival = one(&mut a).await.1;
        assert_eq!(matches!(arrival, Some(Arrival::Notice(told)) if told == secret), passes);
    }
}

#[tokio::test]
async fn a_life_that_was_replaced_never_comes_back() {
    let addresses = addresses();
    let (first, second) = (node("n1", addresses), node("n2", addresses));
    let mut a = links(&first, &ring());
    let mut old = links(&second, &ring());
    acquainted(&mut a, &mut old).await;
    old.send(Member::First, offer());
    old.flush(clock::now());
    let (recorded, _) = one(&mut a).await;
    drop(old);
    let mut new = links(&second, &ring());
    new.send(Member::First, Message::Hello);
    new.flush(clock::now());
    assert!(one(&mut a).await.1.is_none());
    assert!(one(&mut new).await.1.is_some());
    new.send(Member::First, offer());
    new.flush(clock::now());
    assert!(one(&mut a).await.1.is_some());
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&recorded, first.my_node().links[0]).unwrap();
    assert!(one(&mut a).await.1.is_none(), "a recorded datagram of the life before");
}

/// A node with two links.
fn two_linked(name: &str, [n1, n2, w]: [Ipv4Addr; 3]) -> Config {
    let second = |first: Ipv4Addr| Ipv4Addr::from(u32::from(first) + 100);
    let text = format!(
        "[cluster]\nname = \"t\"\n[[node]]\nname = \"n1\"\nlinks = [\"{n1}\", \"{}\"]\n[[node]]\nname = \"n2\"\n\
         links = [\"{n2}\", \"{}\"]\n[witness]\nname = \"w\"\naddress = \"{w}\"\n",
        second(n1),
        second(n2)
    );
    let scene = Scene { path: Path::new("hawser.toml"), me: Some(Name::new(name).unwrap()), machine: None };
    config::check(&text, &scene).unwrap().config
}

/// What one says on both links, the other takes; but what comes by a link that loses.
async fn say(from: &mut Links, to: &mut Links, now: Instant, loses: Option<usize>) {
    from.send(if to.identity().0 == Member::First { Member::First } else { Member::Second }, offer());
    from.flush(now);
    let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
    for _ in 0..2 {
        let (by, sender, length) = timeout(Duration::from_secs(5), to.receive(&mut buffer)).await.expect("a datagram");
        if Some(by) != loses {
            to.take(now, by, sender, &buffer[..length]);
        }
    }
}

#[tokio::test]
async fn each_node_learns_from_the_other_on_which_links_it_is_heard() {
    let addresses = addresses();
    let (first, second) = (two_linked("n1", addresses), two_linked("n2", addresses));
    let (mut a, mut b) = (links(&first, &ring()), links(&second, &ring()));
    // Greetings on both links, until each believes the other; they are answered at once, and those answers taken.
    let mut now = clock::now();
    for _ in 0..20 {
        a.send(Member::Second, Message::Hello);
        a.flush(now);
        b.send(Member::First, Message::Hello);
        b.flush(now);
        for links in [&mut a, &mut b] {
            while let Ok((_, arrival)) = timeout(Duration::from_millis(20), one(links)).await {
                drop(arrival);
            }
        }
    }
    let both = |links: &Links, now| -> Vec<(Carries, Carries)> {
        links.links(now).iter().map(|way| (way.from.carries, way.to.carries)).collect()
    };
    // The second link loses what comes from the first node.
    for loses in [None, Some(1), None] {
        for _ in 0..40 {
            now = now.max(clock::now()) + Duration::from_millis(25);
            say(&mut a, &mut b, now, loses).await;
            say(&mut b, &mut a, now, None).await;
        }
        let (yes, lost) = ((Carries::Yes, Carries::Yes), if loses.is_some() { Carries::No } else { Carries::Yes });
        assert_eq!(both(&a, now), [yes, (Carries::Yes, lost)]);
        assert_eq!(both(&b, now), [yes, (lost, Carries::Yes)]);
    }
    let told = |events: Vec<WayEvent>| -> Vec<(usize, Direction)> {
        events.iter().map(|event| (event.way, event.direction)).collect()
    };
    assert_eq!(told(a.way_events()), [(1, Direction::To)], "lost; it is not trusted yet to be back");
    assert_eq!(told(b.way_events()), [(1, Direction::From)]);
    assert!(a.links(now)[1].to.unsteady && b.links(now)[1].from.unsteady);
    assert_eq!(a.refusals().totals().get("replayed"), None, "a copy by another link is no replay");
}
