//! Looks at the files of certificates now and then, and takes up what has changed.
//!
//! By their stamps, not by a watch of the kernel: files may be links, or on file systems that tell nothing. A pair of
//! which one file has been written and the other not yet is no fault: what cannot be used is told when it is still there
//! at the next look.

use super::{All, Certificates, Terms, build, chosen, files, view::is_lasting};
use crate::{clock, limits::CERTIFICATE_LOOK};
use std::{os::unix::fs::MetadataExt, path::PathBuf, sync::Arc};
use tokio::time::timeout;

/// Files as they are: device, inode, length, time of change of content and of anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<[i64; 7]>>);

impl Stamps {
    /// Follows links, so that a link that points elsewhere counts as a change.
    pub(super) fn of(files: &[PathBuf]) -> Self {
        let signed = u64::cast_signed;
        let stamp = |file: &PathBuf| {
            let file = std::fs::metadata(file).ok()?;
            let times = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
            let [mtime, mtime_ns, ctime, ctime_ns] = times;
            Some([signed(file.dev()), signed(file.ino()), signed(file.size()), mtime, mtime_ns, ctime, ctime_ns])
        };
        Self(files.iter().map(stamp).collect())
    }
}

/// Why a look is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// It is time.
    Now,
    /// Somebody asked: what is wrong is told at once.
    Asked,
}

/// Looks until it is dropped. To be spawned on the control runtime.
pub async fn run(certificates: Certificates) {
    if certificates.0.terms.is_empty() {
        return std::future::pending().await;
    }
    tell_standing(&certificates.0);
    loop {
        let look = match timeout(CERTIFICATE_LOOK, certificates.0.look.notified()).await {
            Ok(()) => Look::Asked,
            Err(_) => Look::Now,
        };
        let all = Arc::clone(&certificates.0);
        let looked = tokio::task::spawn_blocking(move || {
            all.terms.iter().for_each(|terms| terms.refresh(&all, look));
            tell_standing(&all);
        });
        if let Err(error) = looked.await {
            tracing::error!(%error, "looking at the certificates failed");
        }
    }
}

impl Terms {
    /// Takes up changed files. What cannot be used changes nothing.
    fn refresh(&self, all: &All, look: Look) {
        let stamps = Stamps::of(&files(&self.config, all.ticket_keys.as_deref()));
        let (same, waiting) = {
            let seen = self.seen();
            (seen.stamps == stamps, seen.refused.is_none() && seen.pending)
        };
        if same && !waiting && look == Look::Now {
            return;
        }
        let built = chosen(&all.secrets, all.ticket_keys.as_deref()).and_then(|secrets| build(&self.config, &secrets));
        let listeners = &self.addresses;
        let mut seen = self.seen();
        match built {
            Ok((server, facts)) => {
                let changed = !same || seen.pending;
                self.server.store(server);
                seen.told = vec![None; facts.len()];
                (seen.facts, seen.loaded, seen.refused, seen.pending) = (facts, clock::wall(), None, false);
                if changed {
                    tracing::info!(?listeners, "certificates changed: taken up");
                }
            }
            // Perhaps only half of it is written.
            Err(_) if !same && look == Look::Now => (seen.pending, seen.refused) = (true, None),
            Err(trouble) => {
                let trouble = trouble.to_string();
                if seen.refused.as_ref() != Some(&trouble) {
                    tracing::error!(?listeners, "changed certificates are not used, the old ones stay: {trouble}");
                }
                (seen.pending, seen.refused) = (true, Some(trouble));
            }
        }
        seen.stamps = stamps;
    }
}

/// Tells of certificates that have expired or soon will, once each time that it changes; in days, so daily at most.
fn tell_standing(all: &All) {
    let now = clock::wall();
    for terms in &all.terms {
        let mut seen = terms.seen();
        let standings: Vec<_> = seen.facts.iter().map(|facts| facts.standing(now)).collect();
        for (at, standing) in standings.into_iter().enumerate() {
            let (Some(files), Some(told)) = (terms.config.certificates.get(at), seen.told.get_mut(at)) else {
                continue;
            };
            if told.replace(standing) == Some(standing) {
                continue;
            }
            let file = files.cert.display();
            match standing.trouble() {
                Some(trouble) if is_lasting(standing) => tracing::error!("certificate {file} {trouble}"),
                Some(trouble) => tracing::warn!("certificate {file} {trouble}"),
                None => {}
            }
        }
    }
}
