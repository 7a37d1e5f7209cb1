//! Reads a TOML document key by key, and goes on after a fault: unknown keys and wrong types are all found at once.

use super::fault::{Report, Wrong, wrong};
use std::{ops::RangeInclusive, time::Duration};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A value and the line on which it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// One table of the document: remembers which keys were asked for.
pub(super) struct Section<'d> {
    table: &'d DeTable<'d>,
    /// As in `listener[1]`; empty for the document.
    pub(super) place: String,
    /// The line on which it begins.
    pub(super) line: usize,
    known: Vec<&'static str>,
}

type Value<'d> = &'d Spanned<DeValue<'d>>;

impl<'d> Section<'d> {
    pub(super) fn document(table: &'d DeTable<'d>) -> Self {
        Self { table, place: String::new(), line: 0, known: vec![] }
    }

    /// The full name of a key of this table.
    pub(super) fn place_of(&self, key: &str) -> String {
        if self.place.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place) }
    }

    /// The line on which the value of a key begins.
    pub(super) fn line_of(&self, report: &Report, key: &str) -> usize {
        let value = self.table.get(key);
        value.map_or(self.line, |value| report.line_of(value.span().start))
    }

    /// Whether the key was written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn take(&mut self, key: &'static str) -> Option<Value<'d>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// A text that `parse` understands.
    pub(super) fn parsed<T>(
        &mut self,
        report: &mut Report,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        let value = self.take(key)?;
        text_of(report, value, &self.place_of(key), &parse)
    }

    /// Any text that is not empty.
    pub(super) fn text(&mut self, report: &mut Report, key: &'static str) -> Option<At<String>> {
        self.parsed(report, key, not_empty)
    }

    /// One text or a list of texts; an empty list is a fault.
    pub(super) fn list<T>(
        &mut self,
        report: &mut Report,
        key: &'static str,
        max: usize,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<At<T>>> {
        let value = self.take(key)?;
        let place = self.place_of(key);
        let DeValue::Array(items) = value.get_ref() else {
            return text_of(report, value, &place, &parse).map(|one| vec![one]);
        };
        let line = report.line_of(value.span().start);
        if items.is_empty() {
            report.fault(line, &place, wrong("is empty", "write at least one"));
        }
        if items.len() > max {
            report.fault(line, &place, wrong(format!("holds {}", items.len()), format!("write at most {max}")));
        }
        let read = |(at, item)| text_of(report, item, &format!("{place}[{at}]"), &parse);
        Some(items.iter().take(max).enumerate().filter_map(read).collect())
    }

    /// A duration within limits.
    pub(super) fn duration(
        &mut self,
        report: &mut Report,
        key: &'static str,
        within: &RangeInclusive<Duration>,
    ) -> Option<At<Duration>> {
        let value = self.take(key)?;
        let place = self.place_of(key);
        if let DeValue::Integer(number) = value.get_ref() {
            let help = format!("write {key} = \"{0}ms\" or \"{0}s\"", number.as_str());
            report.fault(report.line_of(value.span().start), &place, wrong("has no unit", help));
            return None;
        }
        text_of(report, value, &place, &|text: &str| {
            let read = duration(text)?;
            if within.contains(&read) {
                return Ok(read);
            }
            let (low, high) = (show(*within.start()), show(*within.end()));
            Err(wrong(format!("{text} is out of bounds"), format!("write a time from {low} to {high}")))
        })
    }

    /// A whole number within limits.
    pub(super) fn number(
        &mut self,
        report: &mut Report,
        key: &'static str,
        within: RangeInclusive<u32>,
    ) -> Option<At<u32>> {
        let value = self.take(key)?;
        let line = report.line_of(value.span().start);
        let bounds = format!("write a number from {} to {}", within.start(), within.end());
        if let DeValue::Integer(number) = value.get_ref() {
            match u32::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) if within.contains(&number) => return Some(At { value: number, line }),
                Ok(_) | Err(_) => {
                    let what = format!("{} is out of bounds", number.as_str());
                    report.fault(line, &self.place_of(key), wrong(what, bounds));
                }
            }
        } else {
            report.fault(line, &self.place_of(key), wrong_type(value.get_ref(), "an integer", bounds));
        }
        None
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, report: &mut Report, key: &'static str) -> Option<At<bool>> {
        let value = self.take(key)?;
        let line = report.line_of(value.span().start);
        match value.get_ref().as_bool() {
            Some(value) => Some(At { value, line }),
            None => {
                let help = format!("write {key} = true or {key} = false");
                report.fault(line, &self.place_of(key), wrong_type(value.get_ref(), "a boolean", help));
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        report: &mut Report,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<At<T>> {
        self.parsed(report, key, |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
                let all: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                wrong(format!("\"{text}\" is not known"), format!("write {}", all.join(" or ")))
            })
        })
    }

    /// A table.
    pub(super) fn section(&mut self, report: &mut Report, key: &'static str) -> Option<Section<'d>> {
        let value = self.take(key)?;
        let place = self.place_of(key);
        match value.get_ref() {
            DeValue::Table(_) => sub_section(report, value, place),
            DeValue::Array(items) if items.iter().all(|item| item.get_ref().is_table()) && !items.is_empty() => {
                let line = report.line_of(items.first().map_or(0, |item| item.span().start));
                report.fault(line, &place, wrong("is written as a list", format!("write [{place}], once")));
                items.first().and_then(|item| sub_section(report, item, place))
            }
            DeValue::Array(_)
            | DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {
                let line = report.line_of(value.span().start);
                report.fault(line, &place, wrong_type(value.get_ref(), "a table", format!("write [{place}]")));
                None
            }
        }
    }

    /// The tables whose names nobody knows beforehand, all but those of these keys, with their names.
    pub(super) fn named_sections(&mut self, report: &mut Report, but: &[&str]) -> Vec<(At<String>, Section<'d>)> {
        let others = self
            .table
            .iter()
            .filter(|(key, value)| !but.contains(&key.get_ref().as_ref()) && value.get_ref().is_table());
        others
            .filter_map(|(key, value)| {
                let name = At { value: key.get_ref().to_string(), line: report.line_of(key.span().start) };
                let section = sub_section(report, value, self.place_of(key.get_ref()))?;
                Some((name, section))
            })
            .collect()
    }

    /// A table of texts whose keys nobody knows beforehand; numbers and booleans count as texts.
    pub(super) fn texts(&mut self, report: &mut Report, key: &'static str, max: usize) -> Vec<(At<String>, String)> {
        let Some(section) = self.section(report, key) else { return vec![] };
        if section.table.len() > max {
            let what = format!("holds {}", section.table.len());
            report.fault(section.line, &section.place, wrong(what, format!("write at most {max}")));
        }
        let mut texts = Vec::new();
        for (key, value) in section.table.iter().take(max) {
            let line = report.line_of(value.span().start);
            let text = match value.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                DeValue::Integer(number) => Some(number.as_str().to_owned()),
                DeValue::Boolean(flag) => Some(flag.to_string()),
                DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
            };
            match text.filter(|text| !text.contains(['\n', '\0'])) {
                Some(text) => texts.push((At { value: key.get_ref().to_string(), line }, text)),
                None => {
                    let fault = wrong("is not one line of text", "write it in quotes");
                    report.fault(line, &section.place_of(key.get_ref()), fault);
                }
            }
        }
        texts
    }

    /// A list of tables, `[[key]]`.
    pub(super) fn sections(&mut self, report: &mut Report, key: &'static str, max: usize) -> Vec<Section<'d>> {
        let Some(value) = self.take(key) else { return vec![] };
        let place = self.place_of(key);
        let line = report.line_of(value.span().start);
        let header = place.split('.').map(|part| part.split('[').next().unwrap_or(part)).collect::<Vec<_>>().join(".");
        let DeValue::Array(items) = value.get_ref() else {
            let help = format!("write [[{header}]] with two brackets");
            report.fault(line, &place, wrong_type(value.get_ref(), "a list of tables", help));
            return sub_section(report, value, format!("{place}[0]")).into_iter().collect();
        };
        if items.len() > max {
            report.fault(
                line,
                &place,
                wrong(format!("is there {} times", items.len()), format!("write at most {max}")),
            );
        }
        let mut sections = Vec::new();
        for (at, item) in items.iter().take(max).enumerate() {
            let place = format!("{place}[{at}]");
            if !item.get_ref().is_table() {
                let line = report.line_of(item.span().start);
                report.fault(line, &place, wrong_type(item.get_ref(), "a table", format!("write [[{header}]]")));
            }
            sections.extend(sub_section(report, item, place));
        }
        sections
    }

    /// Whether the key holds this very text: for `health = "none"`.
    pub(super) fn is_text(&self, key: &str, text: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().as_str() == Some(text))
    }

    /// Whether the key holds `true` or `false`, where it may be something else.
    pub(super) fn is_bool(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().as_bool().is_some())
    }

    /// Reports a key that must be there and is not.
    pub(super) fn missing(&self, report: &mut Report, key: &str, help: impl Into<String>) {
        if !self.has(key) {
            report.fault(self.line, &self.place, wrong(format!("{key} is missing"), help));
        }
    }

    /// As [`Section::finish`], for a table of which some keys are names.
    pub(super) fn finish_but(self, report: &mut Report, named: &[String]) {
        for key in self.table.keys().filter(|key| !self.known.contains(&key.get_ref().as_ref())) {
            if !named.iter().any(|name| name == key.get_ref()) {
                self.unknown(report, key);
            }
        }
    }

    fn unknown(&self, report: &mut Report, key: &Spanned<std::borrow::Cow<'_, str>>) {
        let help = match nearest(key.get_ref(), &self.known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("known here: {}", self.known.join(", ")),
        };
        report.fault(report.line_of(key.span().start), &self.place_of(key.get_ref()), wrong("unknown key", help));
    }

    /// Reports the keys that nobody asked for. A key that is known counts as asked for even if it was not needed.
    pub(super) fn finish(mut self, report: &mut Report, also_known: &[&'static str]) {
        self.known.extend_from_slice(also_known);
        for key in self.table.keys().filter(|key| !self.known.contains(&key.get_ref().as_ref())) {
            self.unknown(report, key);
        }
    }
}

fn sub_section<'d>(report: &Report, value: Value<'d>, place: String) -> Option<Section<'d>> {
    let table = value.get_ref().as_table()?;
    Some(Section { table, place, line: report.line_of(value.span().start), known: vec![] })
}

fn text_of<T>(
    report: &mut Report,
    value: Value<'_>,
    place: &str,
    parse: &impl Fn(&str) -> Result<T, Wrong>,
) -> Option<At<T>> {
    let line = report.line_of(value.span().start);
    let parsed = match value.get_ref().as_str() {
        Some(text) => parse(text),
        None => Err(wrong_type(value.get_ref(), "a string", "write it in quotes")),
    };
    match parsed {
        Ok(value) => Some(At { value, line }),
        Err(wrong) => {
            report.fault(line, place, wrong);
            None
        }
    }
}

fn not_empty(text: &str) -> Result<String, Wrong> {
    if text.is_empty() { Err(wrong("is empty", "write something, or leave the key out")) } else { Ok(text.to_owned()) }
}

fn wrong_type(value: &DeValue<'_>, needed: &str, help: impl Into<String>) -> Wrong {
    let article = if matches!(value, DeValue::Integer(_) | DeValue::Array(_)) { "an" } else { "a" };
    wrong(format!("is {article} {}, and {needed} is needed", value.type_str()), help)
}

/// A duration with units: `500ms`, `10s`, `1m 30s`.
fn duration(text: &str) -> Result<Duration, Wrong> {
    let help = "write a number with a unit, like \"500ms\", \"10s\" or \"1m 30s\"";
    let read: Option<jiff::SignedDuration> = text.parse().ok();
    read.and_then(|read| Duration::try_from(read).ok())
        .ok_or_else(|| wrong(format!("\"{text}\" is not a duration"), help))
}

/// A duration as a person would write it.
pub(super) fn show(duration: Duration) -> String {
    match (duration.as_secs(), duration.as_millis()) {
        (seconds, millis) if u128::from(seconds) * 1000 != millis => format!("{millis}ms"),
        (seconds, _) if seconds >= 3600 && seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        (seconds, _) if seconds >= 60 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        (seconds, _) => format!("{seconds}s"),
    }
}

/// The candidate that a person most likely meant.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let word: String = word.chars().take(64).collect();
    let close = |candidate: &&&str| {
        let allowed = 1 + candidate.len().max(word.len()) / 4;
        strsim::damerau_levenshtein(&word, candidate) <= allowed || (word.len() > 2 && candidate.starts_with(&word))
    };
    let mut near: Vec<&&str> = candidates.iter().filter(close).collect();
    near.sort_by_key(|candidate| strsim::damerau_levenshtein(&word, candidate));
    near.first().map(|near| **near)
}
