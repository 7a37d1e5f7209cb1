//! Which form of a file a client takes (RFC 9110 §12.5.3). Pure.

use crate::limits::HEADERS_MAX;
use http::{HeaderMap, HeaderValue, header};

/// How the bytes of a file are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As they are.
    Identity,
    Brotli,
    Zstd,
    Gzip,
}

impl Coding {
    /// All, in the order in which the server likes them best.
    pub(super) const ALL: [Self; 4] = [Self::Brotli, Self::Zstd, Self::Gzip, Self::Identity];

    /// Its place in tables.
    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// Its name in `Content-Encoding`; nothing for the bytes as they are.
    pub(super) const fn token(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Brotli => Some("br"),
            Self::Zstd => Some("zstd"),
            Self::Gzip => Some("gzip"),
        }
    }

    /// What a file that is coded so has behind its name.
    pub(super) const fn extension(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Brotli => ".br",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        }
    }
}

/// What a client takes, by coding, in thousandths. None: it did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Accepted([Option<u16>; 4]);

impl Accepted {
    /// What the request says.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut accepted = Self::default();
        let mut others = None;
        let values = headers.get_all(header::ACCEPT_ENCODING).iter();
        let elements = values.filter_map(|value: &HeaderValue| value.to_str().ok()).flat_map(|text| text.split(','));
        for element in elements.take(HEADERS_MAX) {
            let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
            let Some(weight) = weight(parameters) else { continue };
            let is = |token: &str| name.trim().eq_ignore_ascii_case(token);
            let coding = match () {
                () if is("br") => Coding::Brotli,
                () if is("zstd") => Coding::Zstd,
                () if is("gzip") || is("x-gzip") => Coding::Gzip,
                () if is("identity") => Coding::Identity,
                () if is("*") => {
                    others = Some(weight);
                    continue;
                }
                () => continue,
            };
            accepted.0[coding.index()] = Some(weight);
        }
        if others.is_some() {
            for weight in &mut accepted.0 {
                *weight = weight.or(others);
            }
        }
        accepted
    }

    /// The coding that the client likes best of those there are, and of equals the one that the server does. The bytes
    /// as they are, if it takes none: better than nothing.
    pub(super) fn best(self, there: impl Fn(Coding) -> bool) -> Coding {
        let mut best = (Coding::Identity, 0);
        for coding in Coding::ALL.into_iter().filter(|coding| there(*coding)) {
            // As they are, they are taken by who does not mention it, and liked less than anything mentioned.
            let weight = self.0[coding.index()].map_or(0, |weight| 2 * weight);
            let weight = if coding == Coding::Identity && self.0[coding.index()].is_none() { 1 } else { weight };
            if weight > best.1 {
                best = (coding, weight);
            }
        }
        best.0
    }
}

/// `q=0.5` as 500; 1000 if there is none; none if it is malformed, and the element says nothing then.
fn weight(parameters: &str) -> Option<u16> {
    let mut weight = 1000;
    for parameter in parameters.split(';').map(str::trim).filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("q") {
            weight = thousandths(value.trim())?;
        }
    }
    Some(weight)
}

/// RFC 9110 §12.4.2: `0`, `1`, and up to three digits behind the point.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1") || fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    let weight = if whole == "1" { 1000 + fraction } else { fraction };
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(header: Option<&str>, there: &[Coding]) -> Coding {
        let headers = header.map(|text| (header::ACCEPT_ENCODING, text.parse().unwrap()));
        Accepted::of(&headers.into_iter().collect())
            .best(|coding| coding == Coding::Identity || there.contains(&coding))
    }

    #[test]
    fn the_client_chooses_and_of_equals_the_server() {
        use Coding::{Brotli, Gzip, Identity, Zstd};
        let all = [Brotli, Zstd, Gzip];
        for (header, there, wanted) in [
            (None, &all[..], Identity),
            (Some(""), &all[..], Identity),
            (Some("gzip, deflate, br, zstd"), &all[..], Brotli),
            (Some("gzip, deflate, br, zstd"), &[Zstd, Gzip][..], Zstd),
            (Some("GZIP"), &all[..], Gzip),
            (Some("x-gzip"), &all[..], Gzip),
            (Some("br;q=0.1, gzip;q=0.9"), &all[..], Gzip),
            (Some("br ; Q=0.5 , gzip;q=0.499"), &all[..], Brotli),
            (Some("br;q=0, *"), &all[..], Zstd),
            (Some("*"), &all[..], Brotli),
            (Some("*;q=0"), &all[..], Identity),
            (Some("gzip;q=0"), &all[..], Identity),
            (Some("identity, gzip;q=0.5"), &all[..], Identity),
            (Some("identity;q=0, gzip;q=0.001"), &all[..], Gzip),
            (Some("identity;q=0"), &[][..], Identity),
            (Some("gzip;q=2, br;q=x"), &all[..], Identity),
            (Some("deflate, compress"), &all[..], Identity),
        ] {
            assert_eq!(best(header, there), wanted, "{header:?} of {there:?}");
        }
    }

    #[test]
    fn a_weight_is_read_as_the_standard_writes_it() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("1", Some(1000)),
            ("0.", Some(0)),
            ("0.5", Some(500)),
            ("0.123", Some(123)),
            ("1.000", Some(1000)),
            ("1.001", None),
            ("0.1234", None),
            (".5", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(thousandths(text), wanted, "{text}");
        }
    }
}
