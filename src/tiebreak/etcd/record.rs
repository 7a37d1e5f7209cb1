//! What etcd holds for one group: to whom the third vote is promised, and whether that is doubted. Pure.

use crate::cluster::{Incarnation, Member, SecretHash, Term};
use crate::time::Duration;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

/// Number of the change that made a record what it is; zero if there is none.
pub type Revision = u64;

/// The record of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Record {
    /// The highest term that was voted in, or owned.
    pub highest: Term,
    /// To whom the vote is promised.
    pub holder: Option<Holder>,
    /// Somebody doubts that the holder lives.
    pub doubt: Option<Doubt>,
}

/// To whom the vote is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The node.
    pub member: Member,
    /// Its life.
    pub life: Incarnation,
    /// In which term.
    pub term: Term,
    /// Hash of the secret whose disclosure ends the promise.
    pub hash: Option<SecretHash>,
    /// For how long a doubt must stand: the longest that this life asked for.
    pub hold: Duration,
}

/// Who doubts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// The node.
    pub by: Member,
    /// It is fit: an unfit holder is in its way.
    pub fit: bool,
}

impl Record {
    /// The same group, promised anew.
    #[must_use]
    pub fn held_by(&self, holder: Holder) -> Self {
        Self { highest: self.highest.max(holder.term), holder: Some(holder), doubt: None }
    }

    /// The same group, promised to nobody.
    #[must_use]
    pub const fn released(&self) -> Self {
        Self { highest: self.highest, holder: None, doubt: None }
    }

    /// The same record, doubted.
    #[must_use]
    pub const fn doubted(&self, by: Member, fit: bool) -> Self {
        Self { doubt: Some(Doubt { by, fit }), ..*self }
    }

    /// As it is written in etcd: JSON, for people too.
    #[must_use]
    pub fn to_text(&self) -> String {
        let holder = self.holder.map(|h| HolderText {
            node: word(h.member).to_owned(),
            life: HEXLOWER.encode(&h.life.0.to_be_bytes()),
            term: h.term.0,
            hash: h.hash.map(|hash| HEXLOWER.encode(&hash.0)),
            hold_ns: u64::try_from(h.hold.as_nanos()).unwrap_or(u64::MAX),
        });
        let doubt = self.doubt.map(|d| DoubtText { by: word(d.by).to_owned(), fit: d.fit });
        let text = RecordText { version: VERSION, highest: self.highest.0, holder, doubt };
        serde_json::to_string(&text).unwrap_or_default()
    }

    /// Reads what is written in etcd.
    ///
    /// # Errors
    /// If it is nothing that this hawser writes. It must not be changed then.
    pub fn from_text(text: &[u8]) -> Result<Self, Unreadable> {
        let text: RecordText = serde_json::from_slice(text).map_err(|e| Unreadable(e.to_string()))?;
        if text.version != VERSION {
            return Err(Unreadable(format!("version {} is not known", text.version)));
        }
        let holder = text.holder.map(|h| {
            Some(Holder {
                member: member(&h.node)?,
                life: Incarnation(u128::from_be_bytes(bytes(&h.life)?)),
                term: Term(h.term),
                hash: h.hash.map(|hash| bytes(&hash).map(SecretHash).ok_or(())).transpose().ok()?,
                hold: Duration::from_nanos(h.hold_ns),
            })
        });
        let doubt = text.doubt.map(|d| Some(Doubt { by: member(&d.by)?, fit: d.fit }));
        match (holder, doubt) {
            (Some(None), _) | (_, Some(None)) => Err(Unreadable("a node, life or hash is none".to_owned())),
            (holder, doubt) => {
                Ok(Self { highest: Term(text.highest), holder: holder.flatten(), doubt: doubt.flatten() })
            }
        }
    }
}

/// Why a record could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(pub String);

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct RecordText {
    version: u32,
    highest: u64,
    holder: Option<HolderText>,
    doubt: Option<DoubtText>,
}

#[derive(Serialize, Deserialize)]
struct HolderText {
    node: String,
    life: String,
    term: u64,
    hash: Option<String>,
    hold_ns: u64,
}

#[derive(Serialize, Deserialize)]
struct DoubtText {
    by: String,
    fit: bool,
}

const fn word(member: Member) -> &'static str {
    match member {
        Member::First => "first",
        Member::Second => "second",
        Member::Witness => "witness",
    }
}

fn member(word: &str) -> Option<Member> {
    match word {
        "first" => Some(Member::First),
        "second" => Some(Member::Second),
        _ => None,
    }
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let holder = Holder {
            member: Member::Second,
            life: Incarnation(7),
            term: Term(4),
            hash: Some(SecretHash([9; 32])),
            hold: Duration::from_millis(550),
        };
        Record { highest: Term(6), holder: Some(holder), doubt: Some(Doubt { by: Member::First, fit: true }) }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for record in [record(), Record::default(), record().released(), Record { doubt: None, ..record() }] {
            assert_eq!(Record::from_text(record.to_text().as_bytes()), Ok(record));
        }
    }

    #[test]
    fn what_hawser_never_writes_is_not_read() {
        let good = record().to_text();
        for (from, to) in [("\"version\":1", "\"version\":2"), ("second", "witness"), ("0909", "zz09"), ("{", "")] {
            assert!(good.contains(from), "{from} in {good}");
            let spoilt = good.replacen(from, to, 1);
            assert!(Record::from_text(spoilt.as_bytes()).is_err(), "{spoilt}");
        }
    }
}
