//! Which part of a file is asked for (RFC 9110 §14). Pure.
//!
//! One range is served. More than one, another unit or a malformed header: the whole file, as §14.2 allows.

use std::ops::Range;

/// What a `Range` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// The whole file.
    Whole,
    /// These bytes; not empty.
    Part(Range<u64>),
    /// Nothing that the file has.
    Beyond,
}

/// What `header` asks for of a file of `size` bytes.
pub(super) fn asked(header: &str, size: u64) -> Asked {
    parse(header).map_or(Asked::Whole, |wish| wish.of(size))
}

enum Wish {
    From(u64),
    FromTo(u64, u64),
    Last(u64),
}

impl Wish {
    fn of(self, size: u64) -> Asked {
        let part = match self {
            Self::From(first) => first..size,
            Self::FromTo(first, last) => first..last.saturating_add(1).min(size),
            Self::Last(length) => size.saturating_sub(length)..size,
        };
        if part.is_empty() { Asked::Beyond } else { Asked::Part(part) }
    }
}

fn parse(header: &str) -> Option<Wish> {
    let (unit, set) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
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
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_range_is_cut_at_the_end_of_the_file() {
        for (header, wanted) in [
            ("bytes=0-4", Asked::Part(0..5)),
            ("bytes=5-", Asked::Part(5..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-30", Asked::Part(0..10)),
            ("bytes=8-99999999999999999999999", Asked::Part(8..10)),
            ("Bytes = 0-0", Asked::Part(0..1)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=4-3", Asked::Whole),
            ("bytes=+1-3", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("lines=0-1", Asked::Whole),
            ("", Asked::Whole),
        ] {
            assert_eq!(asked(header, 10), wanted, "{header}");
        }
        assert_eq!(asked("bytes=0-", 0), Asked::Beyond);
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_file(header in "bytes=[0-9]{0,20}-[0-9]{0,20}", size in any::<u64>()) {
            if let Asked::Part(part) = asked(&header, size) {
                prop_assert!(part.start < part.end && part.end <= size);
            }
        }
    }
}
