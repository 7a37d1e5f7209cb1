//! Which parts of a file are asked for (RFC 9110 §14). Pure.
//!
//! Parts that touch each other are sent as one, so that all parts together are never longer than the file. More parts
//! than a limit, another unit or a malformed header: the whole file, as §14.2 allows.

use crate::limits::RANGES_MAX;
use arrayvec::ArrayVec;
use std::ops::Range;

/// Parts of a file: not empty, none touches another, in the order in which they were asked for.
pub(super) type Parts = ArrayVec<Range<u64>, RANGES_MAX>;

/// What a `Range` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// The whole file.
    Whole,
    /// These parts; at least one.
    Parts(Box<Parts>),
    /// Nothing that the file has.
    Beyond,
}

/// What `header` asks for of a file of `size` bytes.
pub(super) fn asked(header: &str, size: u64) -> Asked {
    let Some(wishes) = parse(header) else { return Asked::Whole };
    let parts: Parts = wishes.into_iter().map(|wish| wish.of(size)).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { Asked::Beyond } else { Asked::Parts(Box::new(joined(parts))) }
}

/// Joins what overlaps or adjoins (RFC 9110 §15.3.7.2), into the place of the first of them.
fn joined(parts: Parts) -> Parts {
    let mut ordered: ArrayVec<(usize, Range<u64>), RANGES_MAX> = parts.into_iter().enumerate().collect();
    ordered.sort_by_key(|(_, part)| part.start);
    let mut joined: ArrayVec<(usize, Range<u64>), RANGES_MAX> = ArrayVec::new();
    for (order, part) in ordered {
        match joined.last_mut() {
            Some((first, before)) if part.start <= before.end => {
                before.end = before.end.max(part.end);
                *first = order.min(*first);
            }
            Some(_) | None => joined.push((order, part)),
        }
    }
    joined.sort_by_key(|(order, _)| *order);
    joined.into_iter().map(|(_, part)| part).collect()
}

enum Wish {
    From(u64),
    FromTo(u64, u64),
    Last(u64),
}

impl Wish {
    fn of(self, size: u64) -> Range<u64> {
        match self {
            Self::From(first) => first..size,
            Self::FromTo(first, last) => first..last.saturating_add(1).min(size),
            Self::Last(length) => size.saturating_sub(length)..size,
        }
    }
}

fn parse(header: &str) -> Option<ArrayVec<Wish, RANGES_MAX>> {
    let (unit, set) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut wishes = ArrayVec::new();
    // Empty elements of a list mean nothing (RFC 9110 §5.6.1.2).
    for element in set.split(',').map(str::trim).filter(|element| !element.is_empty()) {
        wishes.try_push(wish(element)?).ok()?;
    }
    (!wishes.is_empty()).then_some(wishes)
}

fn wish(element: &str) -> Option<Wish> {
    let (first, last) = element.split_once('-')?;
    match (first, last) {
        ("", last) => number(last).map(Wish::Last),
        (first, "") => number(first).map(Wish::From),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Wish::FromTo(first, last))
        }
    }
}

/// Digits only: `parse` of the standard library takes a sign, too. What is too large is the largest.
fn number(digits: &str) -> Option<u64> {
    let fine = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    fine.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::single_range_in_vec_init, reason = "a list of one part")]

    use super::*;
    use proptest::prelude::*;

    fn parts(list: &[Range<u64>]) -> Asked {
        Asked::Parts(Box::new(list.iter().cloned().collect()))
    }

    #[test]
    fn a_range_is_cut_at_the_end_of_the_file() {
        for (header, wanted) in [
            ("bytes=0-4", parts(&[0..5])),
            ("bytes=5-", parts(&[5..10])),
            ("bytes=-3", parts(&[7..10])),
            ("bytes=-30", parts(&[0..10])),
            ("bytes=8-99999999999999999999999", parts(&[8..10])),
            ("Bytes = 0-0", parts(&[0..1])),
            ("bytes=10-", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=10-,-0", Asked::Beyond),
            ("bytes=4-3", Asked::Whole),
            ("bytes=+1-3", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=0-1,4-3", Asked::Whole),
            ("lines=0-1", Asked::Whole),
            ("", Asked::Whole),
        ] {
            assert_eq!(asked(header, 10), wanted, "{header}");
        }
        assert_eq!(asked("bytes=0-", 0), Asked::Beyond);
    }

    #[test]
    fn several_ranges_come_in_their_order_and_what_touches_is_one() {
        for (header, wanted) in [
            ("bytes=0-1,3-4", parts(&[0..2, 3..5])),
            ("bytes=6-7, 0-1 ,,", parts(&[6..8, 0..2])),
            ("bytes=0-1,2-3", parts(&[0..4])),
            ("bytes=6-7,0-3,2-5", parts(&[0..8])),
            ("bytes=9-9,0-3,3-5", parts(&[9..10, 0..6])),
            ("bytes=0-,0-,0-,0-", parts(&[0..10])),
            ("bytes=0-1,20-30", parts(&[0..2])),
        ] {
            assert_eq!(asked(header, 10), wanted, "{header}");
        }
        let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
        assert_eq!(asked(&many(RANGES_MAX), 10), parts(&[0..1]));
        assert_eq!(asked(&many(RANGES_MAX + 1), 10), Asked::Whole);
    }

    proptest! {
        #[test]
        fn all_parts_together_are_within_the_file(
            header in "bytes=[0-9]{0,3}-[0-9]{0,3}(,[0-9]{0,3}-[0-9]{0,20}){0,9}", size in 0..2000_u64,
        ) {
            if let Asked::Parts(mut parts) = asked(&header, size) {
                parts.sort_by_key(|part| part.start);
                prop_assert!(!parts.is_empty());
                prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
                prop_assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }
    }
}
