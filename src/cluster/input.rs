//! What the engine is told, and what it wants done.

use super::desk::WriteId;
use super::event::Event;
use super::intent::Report;
use super::message::{Fitness, Message};
use super::name::{GroupName, Member, Secret};
use super::timing::Timing;
use super::voter::{Identity, Memory};

/// What the engine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A message of an incarnation that is believed.
    Message {
        /// The sender.
        from: Identity,
        /// What it says.
        message: Message,
    },
    /// An incarnation that is believed has said something in another voter set.
    Apart(Identity),
    /// Whether the third voter that the configuration wants answers.
    ThirdReady(bool),
    /// The secret of a dead incarnation was shown.
    Notice(Secret),
    /// The write is on disk.
    Persisted(WriteId),
    /// The disk has failed, finally.
    StoreFailed,
    /// How far this node can serve.
    Fitness(Fitness),
    /// Whether the operator wants this node to own nothing.
    Standby(bool),
    /// From the keeper of the addresses.
    Report(Report),
    /// The configured lease and interval are others now. A longer lease is in force once a promise that long could be
    /// remembered.
    Timing(Timing),
    /// No request that began before the drain is in progress any more.
    Drained(GroupName),
    /// From an operator.
    Command(CommandId, Command),
}

/// Numbers commands, so that their answers find their way back.
pub type CommandId = u64;

/// What an operator can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Move a group that this node owns to the peer.
    Switchover {
        /// The group.
        group: GroupName,
        /// Even if the peer says that it is unfit.
        force: bool,
    },
    /// Ask the peer, who owns a group, to move it here.
    Fetch {
        /// The group.
        group: GroupName,
        /// Even if this node is unfit.
        force: bool,
    },
    /// Hand over or let go of everything, then say [`Action::Stopped`].
    Stop,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum CommandRefusal {
    /// No such group.
    UnknownGroup,
    /// This node does not own the group.
    NotOwner,
    /// The peer is not heard.
    PeerSilent,
    /// The peer is not fit.
    PeerUnfit,
    /// The peer is in standby.
    PeerStandby,
    /// The other node is no member of the cluster.
    NoMember,
    /// The peer runs another configuration.
    ConfigDiffers,
    /// A move is under way.
    Busy,
    /// This node is in standby, or cannot serve.
    NotReady,
    /// The peer did not take it.
    NotTaken,
    /// The lease was lost on the way.
    Lost,
}

impl std::fmt::Display for CommandRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnknownGroup => "there is no such group",
            Self::NotOwner => "nobody owns the group who could hand it over",
            Self::NotReady => "the node that is to take the group is in standby, or cannot serve",
            Self::PeerSilent => "the peer is not heard",
            Self::PeerUnfit => "the peer is not fit; --force moves the group all the same",
            Self::PeerStandby => "the peer is in standby; `hawser unstandby` it first",
            Self::NoMember => "the other node is not a member of the cluster yet, or no longer",
            Self::ConfigDiffers => {
                "the nodes run different configurations: copy hawser.toml and restart one; --force moves all the same"
            }
            Self::Busy => "a move of this group is under way",
            Self::NotTaken => "the peer did not take the group; it stays here",
            Self::Lost => "the lease was lost on the way",
        })
    }
}

/// What the engine wants done, once, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send this, on every link.
    Send(Member, Message),
    /// Write this, then tell [`Input::Persisted`].
    Persist(WriteId, Memory),
    /// Responses of the group's listeners say goodbye (or no longer). When none that began before is in progress,
    /// tell [`Input::Drained`].
    Drain(GroupName, bool),
    /// Announce the group's addresses again.
    Announce(GroupName),
    /// Something happened.
    Event(Event),
    /// The command's answer.
    Answer(CommandId, Result<(), CommandRefusal>),
    /// Everything is let go of; the process may end.
    Stopped,
}
