//! Finds what a path names below a root: the file itself, its coded forms beside it, or a directory.

use super::{accept::Coding, types};
use crate::{
    config::Static,
    web::{
        open::{File, Root, Wait},
        path::Named,
    },
};
use rustix::{fs::FileType, io::Errno};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::task::spawn_blocking;

/// What a path names.
#[derive(Debug)]
pub(super) enum Found {
    File(Box<Opened>),
    /// A directory, named without its slash.
    Directory,
    /// A directory without an index, which may be listed.
    Listed(File, PathBuf),
}

/// A file, open in every form there is.
#[derive(Debug)]
pub(super) struct Opened {
    /// Its name below the root.
    pub(super) path: PathBuf,
    /// By coding; the file as it is is always there.
    pub(super) forms: [Option<File>; 4],
}

/// Looks for what is named.
///
/// # Errors
/// What the kernel says. `NOENT` also for what is neither a file nor a directory.
pub(super) async fn find(rules: &Arc<Static>, named: Named) -> Result<Found, Errno> {
    match look(rules, &named, Wait::Never) {
        Err(Errno::AGAIN | Errno::INVAL) => {
            let rules = Arc::clone(rules);
            spawn_blocking(move || look(&rules, &named, Wait::Disk)).await.unwrap_or(Err(Errno::IO))
        }
        found => found,
    }
}

fn look(rules: &Static, named: &Named, wait: Wait) -> Result<Found, Errno> {
    let root = Root::open(&rules.root, rules.symlinks, wait)?;
    if named.directory {
        return look_for_index(&root, rules, &named.path);
    }
    let file = root.file(&named.path)?;
    match file.kind {
        FileType::RegularFile => opened(&root, rules, named.path.clone(), file),
        FileType::Directory => Ok(Found::Directory),
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Errno::NOENT),
    }
}

fn look_for_index(root: &Root, rules: &Static, directory: &Path) -> Result<Found, Errno> {
    for name in &rules.index {
        let path = directory.join(name);
        match root.file(&path) {
            Ok(file) if file.kind == FileType::RegularFile => return opened(root, rules, path, file),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    if !rules.listing {
        return Err(Errno::NOENT);
    }
    let file = root.file(directory)?;
    if file.kind == FileType::Directory { Ok(Found::Listed(file, directory.to_owned())) } else { Err(Errno::NOTDIR) }
}

/// Opens the coded forms beside a file, too. Types that are not worth coding have none.
fn opened(root: &Root, rules: &Static, path: PathBuf, file: File) -> Result<Found, Errno> {
    let mut opened = Opened { path, forms: [const { None }; 4] };
    if rules.precompressed && types::is_compressible(&types::content_type(&opened.path, rules)) {
        for coding in Coding::ALL.into_iter().filter(|coding| *coding != Coding::Identity) {
            let mut name: OsString = opened.path.clone().into();
            name.push(coding.extension());
            match root.file(Path::new(&name)) {
                Ok(form) if form.kind == FileType::RegularFile && is_of(&form, &file) => {
                    opened.forms[coding.index()] = Some(form);
                }
                Err(error @ (Errno::AGAIN | Errno::INVAL)) => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
    }
    opened.forms[Coding::Identity.index()] = Some(file);
    Ok(Found::File(Box::new(opened)))
}

/// Whether a coded form was made of what the file is now: it is not older. Copying a tree may turn the order around
/// within moments.
fn is_of(form: &File, file: &File) -> bool {
    const COPIED_WITHIN: Duration = Duration::from_secs(2);
    form.stamp.size > 0 && form.stamp.modified + COPIED_WITHIN >= file.stamp.modified
}
