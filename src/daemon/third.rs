//! Where the third voter is no witness: who speaks for it, tied to the driver.

use super::{Failure, voters};
use crate::{
    cluster::{Event, Identity as Life, Incarnation, Input, Member, Third as Voter},
    config::{Config, Etcd, Tiebreak},
    driver::{DriverHandle, Hands, LocalThird, Note},
    tiebreak::etcd::{
        json::Folder,
        link::Settings,
        speaker::{Setup, Speaker},
        thread::{self, Handle},
    },
    trust::{self, ClusterId},
    vip::priority,
};

/// Who speaks for the third voter on this node; nobody where that is a witness.
pub(super) struct Third(Option<(Handle, Voter, Incarnation)>);

impl Third {
    /// Starts who speaks.
    ///
    /// # Errors
    /// If the files that the configuration names cannot be used.
    pub(super) fn start(config: &Config, id: ClusterId, me: Life, driver: &DriverHandle) -> Result<Self, Failure> {
        match &config.tiebreak {
            Tiebreak::Witness(_) | Tiebreak::Fence(_) | Tiebreak::Gateway(_) | Tiebreak::None => Ok(Self(None)),
            Tiebreak::Etcd(etcd) => {
                let life = Incarnation(u128::from_le_bytes(trust::random()));
                let handle = Self::etcd(config, etcd, (id, me, life), driver)?;
                Ok(Self(Some((handle, voters::third_of(&config.tiebreak), life))))
            }
        }
    }

    fn etcd(
        config: &Config,
        etcd: &Etcd,
        (id, me, life): (ClusterId, Life, Incarnation),
        driver: &DriverHandle,
    ) -> Result<Handle, Failure> {
        let folder = Folder::new(&etcd.prefix, config.cluster.name.as_str(), &id.to_string());
        let settings = Settings::new(etcd, folder).map_err(Failure::lasting)?;
        let (lease, interval) = (config.cluster.lease, config.cluster.interval);
        let speaker = Speaker::new(Setup { me, hash: trust::hash_secret, lease, interval });
        // One life: what etcd remembers outlives every process of ours.
        let from = Life { member: Member::Witness, incarnation: life, hash: None };
        let driver = driver.clone();
        let tell = async move |message| driver.tell_async(Input::Message { from, message }).await;
        let begin = || {
            let raised = priority::raise();
            tracing::debug!(raised, "the thread that asks etcd starts");
        };
        let members: Vec<String> = etcd.endpoints.iter().map(|e| e.address.to_string()).collect();
        tracing::info!(
            members = members.join(", "),
            "the third voter is an etcd: at most one node owns a group, as long as that etcd is not put back to a backup"
        );
        thread::spawn(settings, speaker, begin, tell).map_err(Failure::passing)
    }

    /// The driver tells it what is said to the third voter, and whether the peer is heard.
    pub(super) fn tie(&self, hands: Hands) -> Hands {
        let Some((handle, of, life)) = &self.0 else { return hands };
        let (ears, eyes) = (handle.clone(), handle.clone());
        let (mut note, mut thirds) = (hands.note, hands.thirds);
        thirds.push(LocalThird { of: of.clone(), life: *life, say: Box::new(move |message| ears.say(message)) });
        Hands {
            thirds,
            note: Box::new(move |told| {
                match &told {
                    Note::Event(Event::Silent(Member::First | Member::Second)) => eyes.peer_is_silent(true),
                    Note::Event(Event::Heard(Member::First | Member::Second)) => eyes.peer_is_silent(false),
                    Note::Event(_) | Note::Claimed(_) | Note::Way(_) | Note::Stopped => {}
                }
                note(told);
            }),
            ..hands
        }
    }

    /// Until it knows what was let go of; not for long.
    pub(super) async fn goodbye(&self) {
        if let Some((handle, ..)) = &self.0 {
            handle.goodbye().await;
        }
    }
}
