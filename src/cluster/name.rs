//! Who is who: members, groups, terms, incarnations.

use crate::limits::NAME_BYTES_MAX;
use arrayvec::ArrayString;
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr};

/// One of the three voters. Nodes own groups; the witness owns nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Member {
    /// The first node of the configuration; its terms are odd.
    First,
    /// The second node of the configuration; its terms are even.
    Second,
    /// The third voter.
    Witness,
}

impl Member {
    /// All three.
    pub const ALL: [Self; 3] = [Self::First, Self::Second, Self::Witness];

    /// The other node; the witness has none.
    #[must_use]
    pub const fn peer(self) -> Option<Self> {
        match self {
            Self::First => Some(Self::Second),
            Self::Second => Some(Self::First),
            Self::Witness => None,
        }
    }

    /// The two other members.
    #[must_use]
    pub const fn others(self) -> [Self; 2] {
        match self {
            Self::First => [Self::Second, Self::Witness],
            Self::Second => [Self::First, Self::Witness],
            Self::Witness => [Self::First, Self::Second],
        }
    }

    /// 0, 1 or 2, for tables.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
            Self::Witness => 2,
        }
    }
}

/// The name of a group, node or cluster: 1 to 32 of `a-z 0-9 - _ .`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(ArrayString<NAME_BYTES_MAX>);

/// The name of a group.
pub type GroupName = Name;

/// The group whose owner writes the replicated state; it is always there and has no addresses.
pub const STATE_GROUP: &str = "state";

impl Name {
    /// A name.
    ///
    /// # Errors
    /// If it is empty, longer than 32 bytes, or holds other characters than `a-z 0-9 - _ .`.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let fine = !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'));
        match ArrayString::from(text) {
            Ok(name) if fine => Ok(Self(name)),
            Ok(_) | Err(_) => Err(NameError(text.chars().take(NAME_BYTES_MAX + 8).collect())),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().to_owned()
    }
}

/// A text that cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError(String);

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a name: use 1 to {NAME_BYTES_MAX} of a-z 0-9 - _ .", self.0)
    }
}

impl std::error::Error for NameError {}

/// A number that grows with every change of a group's owner: odd terms are the first node's, even ones the second's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Term(pub u64);

impl Term {
    /// No honest count gets so far: what is higher was made up, and would leave no higher one.
    pub const MAX: Self = Self(1 << 62);

    /// Whether this can be a term of that member's.
    #[must_use]
    pub const fn belongs_to(self, member: Member) -> bool {
        self.0 <= Self::MAX.0
            && match member {
                Member::First => self.0 % 2 == 1,
                Member::Second => self.0 != 0 && self.0.is_multiple_of(2),
                Member::Witness => false,
            }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One life of a worker or a witness: 128 random bits, new at each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u128);

/// The secret of an incarnation, known to its supervisor: whoever shows it says that the worker is dead and its
/// addresses are gone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Stands for one virtual address in what the engines say to each other: CRC-32 of its 16 octets (IPv4 as `::ffff:a.b.c.d`).
/// No two IPv4 addresses share one, nor do two IPv6 addresses of one /96.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AddressMark(pub [u8; 4]);

impl AddressMark {
    /// The mark of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let octets = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Self(crc32fast::hash(&octets).to_be_bytes())
    }
}

/// SHA-256 of a [`Secret`]; stored in each promise to that incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretHash(pub [u8; 32]);
