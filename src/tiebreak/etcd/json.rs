//! Questions and answers as etcd's JSON gateway takes and gives them (`POST /v3/kv/txn`). Pure.
//!
//! A question that changes nothing is one transaction of reads, which every etcd carries out linearizably and without
//! writing. One that changes something holds a transaction of its own for each change, so that all of them are decided
//! at one moment and none spoils another.

use super::record::{Record, Revision};
use super::speaker::{Item, Question, Seen};
use crate::cluster::GroupName;
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt;

/// Where the records of a cluster are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(String);

impl Folder {
    /// The keys of a cluster begin so. `id` tells it from another cluster of that name, and from an earlier one.
    #[must_use]
    pub fn new(prefix: &str, cluster: &str, id: &str) -> Self {
        Self(format!("{prefix}/{cluster}.{id}/"))
    }

    /// The key of a group's record.
    #[must_use]
    pub fn key(&self, group: GroupName) -> String {
        format!("{}{group}", self.0)
    }
}

/// Why an answer is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Garbled {
    /// It is not what etcd answers to such a question.
    Shape(String),
    /// What lies under a key was not written by this hawser.
    Record(String, String),
}

impl fmt::Display for Garbled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(what) => write!(f, "cannot understand its answer: {what}"),
            Self::Record(key, what) => write!(f, "what is under {key} is no record of this hawser: {what}"),
        }
    }
}

impl std::error::Error for Garbled {}

/// The body of a question.
#[must_use]
pub fn encode(folder: &Folder, question: &Question) -> Vec<u8> {
    let operation = |(group, item): &(GroupName, Item)| {
        let key = BASE64.encode(folder.key(*group).as_bytes());
        let read = json!({ "request_range": { "key": key } });
        match item {
            Item::Read => read,
            Item::Swap(revision, record) => {
                let compare =
                    json!({ "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string() });
                let value = BASE64.encode(record.to_text().as_bytes());
                let put = json!({ "request_put": { "key": key, "value": value } });
                json!({ "request_txn": { "compare": [compare], "success": [put], "failure": [read] } })
            }
        }
    };
    let operations: Vec<Value> = question.items.iter().map(operation).collect();
    json!({ "success": operations }).to_string().into_bytes()
}

/// The records that an answer tells of, in the order of the question.
///
/// # Errors
/// If it is no answer to this question.
pub fn decode(folder: &Folder, question: &Question, body: &[u8]) -> Result<Vec<Seen>, Garbled> {
    let answer: Txn = serde_json::from_slice(body).map_err(|e| Garbled::Shape(e.to_string()))?;
    let revision = answer.header.as_ref().and_then(|h| number(h.revision.as_ref()));
    let revision = revision.ok_or_else(|| Garbled::Shape("it names no revision".to_owned()))?;
    if answer.responses.len() != question.items.len() {
        return Err(Garbled::Shape(format!("{} parts for {}", answer.responses.len(), question.items.len())));
    }
    question
        .items
        .iter()
        .zip(&answer.responses)
        .map(|((group, item), part)| {
            let key = folder.key(*group);
            match item {
                Item::Read => part.range(&key),
                Item::Swap(_, record) => part.swapped(&key, *record, revision),
            }
        })
        .collect()
}

#[derive(Deserialize)]
struct Txn {
    header: Option<Header>,
    #[serde(default)]
    succeeded: bool,
    #[serde(default)]
    responses: Vec<Part>,
}

#[derive(Deserialize)]
struct Header {
    revision: Option<Value>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(alias = "responseRange")]
    response_range: Option<Range>,
    #[serde(alias = "responsePut")]
    response_put: Option<Value>,
    #[serde(alias = "responseTxn")]
    response_txn: Option<Txn>,
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    key: String,
    #[serde(alias = "modRevision")]
    mod_revision: Option<Value>,
    #[serde(default)]
    value: String,
}

impl Part {
    fn range(&self, key: &str) -> Result<Seen, Garbled> {
        let shape = |what: &str| Garbled::Shape(what.to_owned());
        let range = self.response_range.as_ref().ok_or_else(|| shape("a read without its answer"))?;
        let Some(pair) = range.kvs.first() else { return Ok(Seen { revision: 0, record: None }) };
        if BASE64.decode(pair.key.as_bytes()).ok().as_deref() != Some(key.as_bytes()) {
            return Err(shape("the answer is about another key"));
        }
        let revision = number(pair.mod_revision.as_ref()).filter(|revision| *revision > 0);
        let revision = revision.ok_or_else(|| shape("a key without a revision"))?;
        let value = BASE64.decode(pair.value.as_bytes()).map_err(|e| Garbled::Shape(e.to_string()))?;
        let record = Record::from_text(&value).map_err(|why| Garbled::Record(key.to_owned(), why.0))?;
        Ok(Seen { revision, record: Some(record) })
    }

    fn swapped(&self, key: &str, record: Record, revision: Revision) -> Result<Seen, Garbled> {
        let shape = |what: &str| Garbled::Shape(what.to_owned());
        let inner = self.response_txn.as_ref().ok_or_else(|| shape("a change without its answer"))?;
        let part = inner.responses.first().ok_or_else(|| shape("a change without its outcome"))?;
        match (inner.succeeded, &part.response_put) {
            (true, Some(_)) => Ok(Seen { revision, record: Some(record) }),
            (true, None) => Err(shape("a change that was made and not made")),
            (false, _) => part.range(key),
        }
    }
}

/// A number of 64 bits, which JSON carries as a text.
fn number(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_u64(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Incarnation, Member, Name, Term};
    use crate::tiebreak::etcd::record::Holder;
    use crate::time::Duration;

    fn folder() -> Folder {
        Folder::new("/hawser", "shop", "01ab")
    }

    fn record() -> Record {
        let hold = Duration::from_millis(550);
        let life = Incarnation(1);
        Record::default().held_by(Holder { member: Member::First, life, term: Term(3), hash: None, hold })
    }

    fn question() -> Question {
        let [web, state] = ["web", "state"].map(|name| Name::new(name).unwrap());
        Question { number: 1, items: vec![(web, Item::Swap(7, record())), (state, Item::Read)] }
    }

    /// What an etcd 3.4.23 answered, with our record as the value.
    fn answer(change: &str, read: &str) -> String {
        format!(
            r#"{{"header":{{"cluster_id":"1","member_id":"4","revision":"9","raft_term":"2"}},"succeeded":true,
            "responses":[{{"response_txn":{{"header":{{}},{change}}}}},
            {{"response_range":{{"header":{{"revision":"9"}}{read}}}}}]}}"#
        )
    }

    fn pair(key: &str, revision: u64, value: &str) -> String {
        let [key, value] = [key, value].map(|text| BASE64.encode(text.as_bytes()));
        format!(r#","kvs":[{{"key":"{key}","mod_revision":"{revision}","version":"1","value":"{value}"}}],"count":"1""#)
    }

    const MADE: &str = r#""succeeded":true,"responses":[{"response_put":{"header":{"revision":"9"}}}]"#;

    #[test]
    fn a_question_is_one_transaction() {
        let body: Value = serde_json::from_slice(&encode(&folder(), &question())).unwrap();
        let key = BASE64.encode(b"/hawser/shop.01ab/web");
        let change = &body["success"][0]["request_txn"];
        assert_eq!(change["compare"][0]["key"], Value::String(key));
        assert_eq!(change["compare"][0]["mod_revision"], "7");
        assert!(change["failure"][0]["request_range"].is_object(), "who comes too late is told what is there");
        assert!(body["success"][1]["request_range"].is_object());
        assert!(body.get("compare").is_none(), "one change does not depend on another");
    }

    #[test]
    fn a_change_that_was_made_has_the_revision_of_the_answer() {
        let seen = decode(&folder(), &question(), answer(MADE, "").as_bytes()).unwrap();
        assert_eq!(seen[0], Seen { revision: 9, record: Some(record()) });
        assert_eq!(seen[1], Seen { revision: 0, record: None });
    }

    #[test]
    fn a_change_that_came_too_late_tells_what_is_there() {
        let there = record().doubted(Member::Second, true);
        let key = "/hawser/shop.01ab/web";
        let late = format!(
            r#""responses":[{{"response_range":{{"header":{{"revision":"9"}}{}}}}}]"#,
            pair(key, 8, &there.to_text())
        );
        let seen = decode(&folder(), &question(), answer(&late, "").as_bytes()).unwrap();
        assert_eq!(seen[0], Seen { revision: 8, record: Some(there) });
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_none() {
        let state = pair("/hawser/shop.01ab/state", 5, &record().to_text());
        let good = answer(MADE, &state);
        assert!(decode(&folder(), &question(), good.as_bytes()).is_ok());
        for bad in [
            String::new(),
            r#"{"error":"etcdserver: request timed out","code":14}"#.to_owned(),
            answer(MADE, &pair("/hawser/shop.01ab/web", 5, &record().to_text())),
            answer(MADE, &pair("/hawser/shop.01ab/state", 0, &record().to_text())),
            answer(MADE, &pair("/hawser/shop.01ab/state", 5, "something else")),
            answer(r#""succeeded":true,"responses":[{"response_range":{}}]"#, &state),
            answer(r#""responses":[]"#, &state),
            good.replace("response_range", "response_delete_range"),
            good.replace("\"revision\":\"9\"", "\"revision\":\"x\""),
        ] {
            assert!(decode(&folder(), &question(), bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
