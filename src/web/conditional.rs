//! Whether a client already has what it asks for (RFC 9110 §13). Pure.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::time::{Duration, SystemTime};

/// What tells one state of a file from another.
#[derive(Debug, Clone)]
pub(super) struct Validators {
    /// Strong, and the same on both nodes: made of size and time of change, not of the inode.
    pub(super) etag: HeaderValue,
    /// In whole seconds.
    pub(super) modified: SystemTime,
}

/// How a conditional request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As if it had no conditions.
    Send,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

impl Validators {
    /// Of a file of `size` bytes that was changed at `modified`, to the nanosecond, in the coding of that name: each
    /// coding has bytes of its own (RFC 9110 §8.8.3.3).
    pub(super) fn of(size: u64, modified: SystemTime, coding: Option<&str>) -> Self {
        let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (dash, coding) = coding.map_or(("", ""), |coding| ("-", coding));
        let etag = format!("\"{:x}-{size:x}{dash}{coding}\"", since.as_nanos());
        Self {
            etag: HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"\"")),
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        }
    }

    /// RFC 9110 §13.2.2, steps 1 to 4.
    pub(super) fn verdict(&self, headers: &HeaderMap) -> Verdict {
        if headers.contains_key(header::IF_MATCH) {
            if !self.listed(headers, header::IF_MATCH, Compare::Strong) {
                return Verdict::Failed;
            }
        } else if date(headers, header::IF_UNMODIFIED_SINCE).is_some_and(|date| self.modified > date) {
            return Verdict::Failed;
        }
        if headers.contains_key(header::IF_NONE_MATCH) {
            if self.listed(headers, header::IF_NONE_MATCH, Compare::Weak) {
                return Verdict::NotModified;
            }
        } else if date(headers, header::IF_MODIFIED_SINCE).is_some_and(|date| self.modified <= date) {
            return Verdict::NotModified;
        }
        Verdict::Send
    }

    /// Whether a `Range` is to be honoured (RFC 9110 §13.1.5). A date counts only if the file did not change in the
    /// second before `now`: it could change once more under the same date.
    pub(super) fn may_resume(&self, headers: &HeaderMap, now: SystemTime) -> bool {
        let Some(condition) = headers.get(header::IF_RANGE) else { return true };
        if condition == self.etag {
            return true;
        }
        let settled = now.duration_since(self.modified).is_ok_and(|age| age >= Duration::from_secs(2));
        settled && date(headers, header::IF_RANGE) == Some(self.modified)
    }

    fn listed(&self, headers: &HeaderMap, name: HeaderName, compare: Compare) -> bool {
        let etag = self.etag.as_bytes();
        headers.get_all(name).iter().any(|value| {
            value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|tag| match compare {
                _ if tag == b"*" => true,
                Compare::Strong => tag == etag,
                Compare::Weak => tag.strip_prefix(b"W/").unwrap_or(tag) == etag,
            })
        })
    }
}

/// RFC 9110 §8.8.3.2.
#[derive(Clone, Copy)]
enum Compare {
    Strong,
    Weak,
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    headers.get(name)?.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: &str = "Thu, 01 Jan 1970 00:01:40 GMT";
    const BEFORE: &str = "Thu, 01 Jan 1970 00:01:39 GMT";

    fn file() -> Validators {
        Validators::of(10, SystemTime::UNIX_EPOCH + Duration::from_millis(100_250), None)
    }

    fn headers(list: &[(HeaderName, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn conditions_are_tried_in_the_order_of_the_standard() {
        let file = file();
        let etag = file.etag.to_str().unwrap().to_owned();
        let weak = format!("\"x\", W/{etag}");
        for (list, wanted) in [
            (vec![], Verdict::Send),
            (vec![(header::IF_NONE_MATCH, etag.as_str())], Verdict::NotModified),
            (vec![(header::IF_NONE_MATCH, weak.as_str())], Verdict::NotModified),
            (vec![(header::IF_NONE_MATCH, "*")], Verdict::NotModified),
            (vec![(header::IF_NONE_MATCH, "\"x\"")], Verdict::Send),
            (vec![(header::IF_NONE_MATCH, "\"x\""), (header::IF_MODIFIED_SINCE, DAY)], Verdict::Send),
            (vec![(header::IF_MODIFIED_SINCE, DAY)], Verdict::NotModified),
            (vec![(header::IF_MODIFIED_SINCE, BEFORE)], Verdict::Send),
            (vec![(header::IF_MODIFIED_SINCE, "nonsense")], Verdict::Send),
            (vec![(header::IF_MATCH, etag.as_str())], Verdict::Send),
            (vec![(header::IF_MATCH, weak.as_str())], Verdict::Failed),
            (vec![(header::IF_MATCH, etag.as_str()), (header::IF_NONE_MATCH, etag.as_str())], Verdict::NotModified),
            (vec![(header::IF_UNMODIFIED_SINCE, BEFORE)], Verdict::Failed),
            (vec![(header::IF_UNMODIFIED_SINCE, DAY)], Verdict::Send),
        ] {
            assert_eq!(file.verdict(&headers(&list)), wanted, "{list:?}");
        }
    }

    #[test]
    fn each_coding_has_a_tag_of_its_own() {
        let tag = |coding| Validators::of(10, SystemTime::UNIX_EPOCH, coding).etag;
        assert_eq!(tag(None), "\"0-a\"");
        assert_eq!(tag(Some("br")), "\"0-a-br\"");
    }

    #[test]
    fn a_download_is_resumed_only_if_the_file_is_the_same() {
        let file = file();
        let etag = file.etag.to_str().unwrap().to_owned();
        let weak = format!("W/{etag}");
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(200);
        let soon = SystemTime::UNIX_EPOCH + Duration::from_secs(101);
        let resume = |value: &str, now| file.may_resume(&headers(&[(header::IF_RANGE, value)]), now);
        assert!(file.may_resume(&HeaderMap::new(), later));
        assert!(resume(&etag, later));
        assert!(!resume(&weak, later));
        assert!(!resume("\"x\"", later));
        assert!(resume(DAY, later));
        assert!(!resume(DAY, soon));
        assert!(!resume(BEFORE, later));
    }
}
