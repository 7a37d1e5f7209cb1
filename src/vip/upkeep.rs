//! What is wrong with the addresses that are held, as the kernel shows them. Pure.
//!
//! An address is right if it is on its interface, with its prefix length, with our lifetime: one that somebody made
//! last for ever would outlive its lease. Nowhere else may it be.
//!
//! Not here: how it is put right (`addresses`).

use super::netlink::{Lasting, Link, Present};
use crate::config::Vip;
use std::fmt;

/// What somebody else has done to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deed {
    /// It is gone from where it is to be.
    Removed(Vip),
    /// It lasts longer than it may, or may be picked as a source address.
    Prolonged(Vip),
    /// It is there with another prefix length, or somewhere else.
    Strayed(Vip, Present, String),
}

impl Deed {
    /// The address that is to be there.
    pub(super) const fn vip(&self) -> &Vip {
        match self {
            Self::Removed(vip) | Self::Prolonged(vip) | Self::Strayed(vip, ..) => vip,
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Vip { address, interface } = self.vip();
        match self {
            Self::Removed(_) => write!(f, "{address} was removed from {interface} by someone else and put back"),
            Self::Prolonged(_) => {
                write!(f, "the lifetime of {address} on {interface} was changed by someone else and set back")
            }
            Self::Strayed(_, seen, place) => write!(
                f,
                "{} was put on {place} by someone else and removed; {address} belongs on {interface}",
                seen.address
            ),
        }
    }
}

/// Whether this is right, as far as it goes: some address of this machine.
pub(super) fn is_right(vips: &[Vip], links: &[Link], one: &Lasting, lifetime_secs: u32) -> bool {
    let ours = |vip: &&Vip| vip.address.addr() == one.present.address.addr();
    vips.iter().filter(ours).all(|vip| is_in_place(vip, links, one) && !is_prolonged(one, lifetime_secs))
}

/// What is wrong with these addresses: first what strayed, because it may be in the way of what is to be there.
pub(super) fn inspect(vips: &[Vip], links: &[Link], seen: &[Lasting], lifetime_secs: u32) -> Vec<Deed> {
    let (mut strays, mut others) = (Vec::new(), Vec::new());
    for vip in vips {
        let same = seen.iter().filter(|one| one.present.address.addr() == vip.address.addr());
        let (here, elsewhere): (Vec<&Lasting>, Vec<&Lasting>) = same.partition(|one| is_in_place(vip, links, one));
        for one in elsewhere {
            let link = links.iter().find(|link| link.index == one.present.interface);
            let place = link.map_or_else(|| format!("interface {}", one.present.interface), |link| link.name.clone());
            strays.push(Deed::Strayed(vip.clone(), one.present, place));
        }
        match here.first() {
            None => others.push(Deed::Removed(vip.clone())),
            Some(one) if is_prolonged(one, lifetime_secs) => others.push(Deed::Prolonged(vip.clone())),
            Some(_) => {}
        }
    }
    strays.append(&mut others);
    strays
}

fn is_in_place(vip: &Vip, links: &[Link], one: &Lasting) -> bool {
    let its_link = links.iter().any(|link| link.index == one.present.interface && link.name == vip.interface);
    its_link && one.present.address == vip.address
}

const fn is_prolonged(one: &Lasting, lifetime_secs: u32) -> bool {
    one.valid_secs > lifetime_secs || one.preferred_secs > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: u32 = 2;

    fn link(name: &str, index: u32) -> Link {
        Link { index, name: name.into(), mac: None, up: true, carrier: true, carrier_ups: 1 }
    }

    fn vip(address: &str) -> Vip {
        Vip { address: address.parse().unwrap(), interface: "eth0".into() }
    }

    fn seen(address: &str, interface: u32, valid_secs: u32) -> Lasting {
        let present = Present { address: address.parse().unwrap(), interface };
        Lasting { present, preferred_secs: 0, valid_secs }
    }

    fn deeds(wanted: &[&str], seen: &[Lasting]) -> Vec<String> {
        let vips: Vec<Vip> = wanted.iter().map(|address| vip(address)).collect();
        let links = [link("eth0", 2), link("eth1", 3)];
        let deeds = inspect(&vips, &links, seen, LIFETIME);
        let right = seen.iter().all(|one| is_right(&vips, &links, one, LIFETIME));
        assert_eq!(right, !deeds.iter().any(|deed| !matches!(deed, Deed::Removed(_))), "{deeds:?}");
        deeds.iter().map(Deed::to_string).collect()
    }

    #[test]
    fn an_address_in_its_place_with_its_lifetime_is_left_alone() {
        let others = [seen("192.0.2.1/24", 2, u32::MAX), seen("192.0.2.11/32", 3, u32::MAX)];
        for left in 0..=LIFETIME {
            let seen = [seen("192.0.2.10/32", 2, left), seen("2001:db8::10/128", 2, left), others[0], others[1]];
            assert_eq!(deeds(&["192.0.2.10/32", "2001:db8::10/128"], &seen), [""; 0]);
        }
    }

    #[test]
    fn what_was_done_to_an_address_is_named() {
        let wanted = ["192.0.2.10/32"];
        assert_eq!(deeds(&wanted, &[]), ["192.0.2.10/32 was removed from eth0 by someone else and put back"]);
        let prolonged = "the lifetime of 192.0.2.10/32 on eth0 was changed by someone else and set back";
        for valid in [LIFETIME + 1, u32::MAX] {
            assert_eq!(deeds(&wanted, &[seen("192.0.2.10/32", 2, valid)]), [prolonged]);
        }
        let picked = Lasting { preferred_secs: 1, ..seen("192.0.2.10/32", 2, 1) };
        assert_eq!(deeds(&wanted, &[picked]), [prolonged]);
    }

    #[test]
    fn what_strayed_is_dealt_with_before_the_address_is_put_back() {
        let told = deeds(&["192.0.2.10/32"], &[seen("192.0.2.10/24", 2, 1), seen("192.0.2.10/32", 3, 1)]);
        assert_eq!(
            told,
            [
                "192.0.2.10/24 was put on eth0 by someone else and removed; 192.0.2.10/32 belongs on eth0",
                "192.0.2.10/32 was put on eth1 by someone else and removed; 192.0.2.10/32 belongs on eth0",
                "192.0.2.10/32 was removed from eth0 by someone else and put back",
            ]
        );
    }
}
