//! Small files in memory, and text that was compressed: for each web thread, bounded in bytes.
//!
//! How stale may it be? A file is sent for [`FILE_FRESH`] without looking at the disk. The next request after that opens
//! it anew below its root, as if nothing were known, and compares device, inode, size and both times to the nanosecond;
//! only if all are the same, the bytes in memory stay. A file that was changed just before it was read may have changed
//! once more within the same tick of the kernel's clock: until that is out of the question its bytes are read anew, too.

use super::{accept::Coding, compress, find::Opened, types};
use crate::{
    config::Static,
    limits::{
        COMPRESS_BYTES_MAX, COMPRESS_BYTES_MIN, FILE_FRESH, FILE_KEPT_BYTES_MAX, FILE_KEPT_OVERHEAD, FILE_SETTLED,
    },
    time::Instant,
    web::{conditional::Validators, open::Stamp},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use quick_cache::{Equivalent, Weighter, unsync::Cache};
use std::{
    cell::{Cell, OnceCell, RefCell},
    fmt,
    hash::{Hash, Hasher},
    path::PathBuf,
    rc::Rc,
    time::SystemTime,
};

/// The files that one web thread has in memory.
pub(in crate::web) struct Shelf {
    kept: RefCell<Cache<Key, Kept, ByBytes>>,
    bytes_max: u64,
    /// Compressions that run.
    running: Cell<usize>,
}

/// Most compressions that one thread lets run at a time; who comes meanwhile gets the text as it is.
const RUNNING_MAX: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    route: usize,
    path: Box<[u8]>,
}

#[derive(PartialEq, Eq)]
struct KeyRef<'a>(usize, &'a [u8]);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        KeyRef(self.route, &self.path).hash(state);
    }
}

impl Hash for KeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.0);
        state.write(self.1);
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.0 == key.route && *self.1 == *key.path
    }
}

/// A resource as it was weighed: it grows, and the cache must subtract what it has added.
#[derive(Debug, Clone)]
struct Kept {
    resource: Rc<Resource>,
    weight: u64,
}

impl Kept {
    fn new(key: &Key, resource: &Rc<Resource>) -> Self {
        let weight = FILE_KEPT_OVERHEAD + key.path.len() as u64 + resource.bytes();
        Self { resource: Rc::clone(resource), weight }
    }
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Key, Kept> for ByBytes {
    fn weight(&self, _: &Key, kept: &Kept) -> u64 {
        kept.weight
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl Shelf {
    /// For so many bytes.
    pub(in crate::web) fn new(bytes_max: u64) -> Rc<Self> {
        /// What it is prepared for; more of smaller ones fit, too.
        const USUAL_BYTES: u64 = 16 * 1024;
        const USUAL_MAX: u64 = 1 << 16;
        let usual = usize::try_from((bytes_max / USUAL_BYTES).min(USUAL_MAX)).unwrap_or(0);
        let kept = RefCell::new(Cache::with_weighter(usual, bytes_max, ByBytes));
        Rc::new(Self { kept, bytes_max, running: Cell::new(0) })
    }

    /// What is known of a path, without a look at the disk.
    pub(super) fn fresh(&self, route: usize, path: &[u8], now: Instant) -> Option<Rc<Resource>> {
        let kept = self.kept.borrow();
        let resource = &kept.get(&KeyRef(route, path))?.resource;
        (now.since(resource.looked.get()) <= FILE_FRESH).then(|| Rc::clone(resource))
    }

    /// What was found at a path: the resource in memory, if it is still that.
    pub(super) fn place(
        &self,
        route: usize,
        path: &[u8],
        opened: &Opened,
        rules: &Static,
        now: (Instant, SystemTime),
    ) -> Rc<Resource> {
        let stamps = opened.forms.each_ref().map(|form| form.as_ref().map(|form| form.stamp));
        let mut kept = self.kept.borrow_mut();
        if let Some(Kept { resource, .. }) = kept.get(&KeyRef(route, path))
            && resource.settled
            && resource.stamps == stamps
            && resource.path == opened.path
        {
            resource.looked.set(now.0);
            return Rc::clone(resource);
        }
        let resource = Rc::new(Resource::new(opened.path.clone(), stamps, rules, now, self.share()));
        if resource.can_be_kept() {
            let key = Key { route, path: path.into() };
            let fresh = Kept::new(&key, &resource);
            kept.insert(key, fresh);
        } else {
            kept.remove(&KeyRef(route, path));
        }
        resource
    }

    /// Puts the bytes of a form into memory.
    pub(super) fn hold(&self, route: usize, path: &[u8], resource: &Rc<Resource>, coding: Coding, held: Held) {
        if let Some(place) = resource.held.borrow_mut().get_mut(coding.index()) {
            *place = held;
        }
        let mut kept = self.kept.borrow_mut();
        // Weighed anew, unless it has gone meanwhile.
        if kept.get(&KeyRef(route, path)).is_some_and(|there| Rc::ptr_eq(&there.resource, resource)) {
            let key = Key { route, path: path.into() };
            let grown = Kept::new(&key, resource);
            kept.insert(key, grown);
        }
    }

    /// The right to compress something now. None: others are at it.
    pub(super) fn compressing(&self, resource: &Rc<Resource>, coding: Coding) -> Option<Compressing<'_>> {
        if self.running.get() >= RUNNING_MAX || !matches!(resource.held(coding), Held::Nothing) {
            return None;
        }
        self.running.set(self.running.get() + 1);
        resource.set(coding, Held::Running);
        Some(Compressing { shelf: self, resource: Rc::clone(resource), coding })
    }

    /// One file may take so much of the memory.
    const fn share(&self) -> u64 {
        self.bytes_max / 8
    }
}

/// Ends with the compression, also when its client has gone.
pub(super) struct Compressing<'a> {
    shelf: &'a Shelf,
    resource: Rc<Resource>,
    coding: Coding,
}

impl Drop for Compressing<'_> {
    fn drop(&mut self) {
        self.shelf.running.set(self.shelf.running.get() - 1);
        if matches!(self.resource.held(self.coding), Held::Running) {
            self.resource.set(self.coding, Held::Nothing);
        }
    }
}

/// What a path leads to, in one state: its forms, and what is sent before their bytes.
pub(super) struct Resource {
    path: PathBuf,
    stamps: [Option<Stamp>; 4],
    looked: Cell<Instant>,
    settled: bool,
    share: u64,
    kind: HeaderValue,
    cache_control: Option<HeaderValue>,
    /// May be compressed on the fly.
    compressible: bool,
    held: RefCell<[Held; 4]>,
    heads: [OnceCell<Head>; 4],
}

/// What is in memory of a form.
#[derive(Debug, Clone)]
pub(super) enum Held {
    Nothing,
    Bytes(Bytes),
    /// It is being made.
    Running,
    /// It would be no shorter.
    Pointless,
}

/// What is sent before the bytes of a form.
pub(super) struct Head {
    pub(super) validators: Validators,
    /// All but the length.
    pub(super) headers: HeaderMap,
}

impl Resource {
    fn new(
        path: PathBuf,
        stamps: [Option<Stamp>; 4],
        rules: &Static,
        (now, wall): (Instant, SystemTime),
        share: u64,
    ) -> Self {
        let kind = types::content_type(&path, rules);
        let cache_control = types::cache_control(&path, rules);
        let size = stamps[Coding::Identity.index()].map_or(0, |stamp| stamp.size);
        let worth = (COMPRESS_BYTES_MIN..=COMPRESS_BYTES_MAX.min(share)).contains(&size);
        let compressible =
            rules.compress && worth && types::is_compressible(&kind) && types::may_transform(cache_control.as_ref());
        // A time to come is no settled one.
        let settled = |stamp: &Stamp| wall.duration_since(stamp.changed).is_ok_and(|age| age >= FILE_SETTLED);
        Self {
            settled: stamps.iter().flatten().all(settled),
            path,
            stamps,
            looked: Cell::new(now),
            share,
            kind,
            cache_control,
            compressible,
            held: RefCell::new([const { Held::Nothing }; 4]),
            heads: [const { OnceCell::new() }; 4],
        }
    }

    fn bytes(&self) -> u64 {
        let held = self.held.borrow();
        held.iter().map(|held| if let Held::Bytes(bytes) = held { bytes.len() as u64 } else { 0 }).sum()
    }

    fn can_be_kept(&self) -> bool {
        self.compressible || self.stamps.iter().flatten().any(|stamp| self.is_small(stamp.size))
    }

    /// Whether a form of this size is kept in memory.
    pub(super) fn is_small(&self, size: u64) -> bool {
        size <= FILE_KEPT_BYTES_MAX.min(self.share)
    }

    /// Whether it is sent in different forms to different clients.
    pub(super) fn is_negotiated(&self) -> bool {
        self.compressible || self.stamps.iter().flatten().nth(1).is_some()
    }

    /// The size of a form, if it is one on the disk.
    pub(super) fn size(&self, coding: Coding) -> Option<u64> {
        self.stamps.get(coding.index()).copied().flatten().map(|stamp| stamp.size)
    }

    /// Whether a form can be had. Parts of what is compressed on the fly cannot.
    pub(super) fn offers(&self, coding: Coding, whole: bool) -> bool {
        let made = || match self.held(coding) {
            Held::Nothing | Held::Bytes(_) => true,
            Held::Running | Held::Pointless => false,
        };
        self.size(coding).is_some() || (whole && self.compressible && compress::can(coding) && made())
    }

    /// What is in memory of a form.
    pub(super) fn held(&self, coding: Coding) -> Held {
        self.held.borrow().get(coding.index()).cloned().unwrap_or(Held::Nothing)
    }

    fn set(&self, coding: Coding, held: Held) {
        if let Some(place) = self.held.borrow_mut().get_mut(coding.index()) {
            *place = held;
        }
    }

    /// What is sent before the bytes of a form.
    pub(super) fn head(&self, coding: Coding) -> &Head {
        self.heads[coding.index()].get_or_init(|| self.make_head(coding))
    }

    fn make_head(&self, coding: Coding) -> Head {
        let stamp = self.stamps[coding.index()].or(self.stamps[Coding::Identity.index()]);
        let (size, modified) = stamp.map_or((0, SystemTime::UNIX_EPOCH), |stamp| (stamp.size, stamp.modified));
        let validators = Validators::of(size, modified, coding.token());
        let mut headers = HeaderMap::with_capacity(12);
        headers.insert(header::SERVER, HeaderValue::from_static("hawser"));
        headers.insert(header::CONTENT_TYPE, self.kind.clone());
        headers.insert(header::ETAG, validators.etag.clone());
        if let Ok(modified) = HeaderValue::from_str(&httpdate::fmt_http_date(validators.modified)) {
            headers.insert(header::LAST_MODIFIED, modified);
        }
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Some(token) = coding.token() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(token));
        }
        if self.is_negotiated() {
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        if let Some(value) = &self.cache_control {
            headers.insert(header::CACHE_CONTROL, value.clone());
        }
        Head { validators, headers }
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource").field("path", &self.path).finish_non_exhaustive()
    }
}
