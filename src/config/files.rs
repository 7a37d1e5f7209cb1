//! What a route to files says beside its root: how the folder is shown.

use super::{
    fault::{Report, Wrong, wrong},
    values::{DotFiles, Static, Symlinks},
    walk::{At, Section},
};
use crate::limits;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The keys, beside `root`.
pub(super) const KEYS: [&str; 9] =
    ["index", "fallback", "listing", "symlinks", "dotfiles", "precompressed", "compress", "types", "cache_control"];

/// Reads them; what is not written is as in [`Static::new`].
pub(super) fn read(report: &mut Report, section: &mut Section<'_>, root: PathBuf) -> Static {
    let usual = Static::new(root);
    let symlinks = [("none", Symlinks::None), ("inside", Symlinks::Inside), ("any", Symlinks::Any)];
    let dotfiles = [("hide", DotFiles::Hide), ("show", DotFiles::Show)];
    let index = section.list(report, "index", limits::ROUTES_MAX, file_name);
    let fallback = section.parsed(report, "fallback", below_root);
    let flag = |section: &mut Section<'_>, report: &mut Report, key, usual| {
        section.flag(report, key).map_or(usual, |flag: At<bool>| flag.value)
    };
    Static {
        index: index.map_or(usual.index, |names| names.into_iter().map(|name| name.value).collect()),
        fallback: fallback.map(|path| path.value),
        listing: flag(section, report, "listing", usual.listing),
        symlinks: section.choice(report, "symlinks", &symlinks).map_or(usual.symlinks, |symlinks| symlinks.value),
        dotfiles: section.choice(report, "dotfiles", &dotfiles).map_or(usual.dotfiles, |dotfiles| dotfiles.value),
        precompressed: flag(section, report, "precompressed", usual.precompressed),
        compress: flag(section, report, "compress", usual.compress),
        types: types(report, section),
        cache_control: cache_control(report, section),
        root: usual.root,
    }
}

fn file_name(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text == "." || text == ".." || text.contains(['/', '\0']) {
        let help = "write a name without a folder, like \"index.html\"";
        return Err(wrong(format!("\"{text}\" is not a file name"), help));
    }
    Ok(text.to_owned())
}

/// A file by its path below the root; a slash in front means nothing.
fn below_root(text: &str) -> Result<PathBuf, Wrong> {
    let path = text.strip_prefix('/').unwrap_or(text);
    match path.split('/').find_map(|name| file_name(name).err()) {
        Some(_) => {
            Err(wrong(format!("\"{text}\" is not a file below the root"), "write its path there, like \"index.html\""))
        }
        None => Ok(Path::new(path).to_owned()),
    }
}

fn types(report: &mut Report, section: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut types = BTreeMap::new();
    let place = section.place_of("types");
    for (extension, kind) in section.texts(report, "types", limits::FILE_RULES_MAX) {
        let place = format!("{place}.{}", extension.value);
        let name = extension.value.strip_prefix('.').unwrap_or(&extension.value).to_ascii_lowercase();
        if name.is_empty() || name.contains(['.', '/']) {
            let what = format!("\"{}\" is not an extension", extension.value);
            report.fault(extension.line, &place, wrong(what, "write what is behind the last dot, like wasm"));
        } else if !is_media_type(&kind) {
            let what = format!("\"{kind}\" is not a media type");
            report.fault(extension.line, &place, wrong(what, "write one like \"application/wasm\""));
        } else {
            types.insert(name, kind);
        }
    }
    types
}

/// RFC 9110 §8.3.1, parameters as they are.
fn is_media_type(text: &str) -> bool {
    let (kind, parameters) = text.split_once(';').unwrap_or((text, ""));
    let token = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    kind.split_once('/').is_some_and(|(first, second)| token(first) && token(second)) && is_header_text(parameters)
}

fn is_header_text(text: &str) -> bool {
    text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

fn cache_control(report: &mut Report, section: &mut Section<'_>) -> Vec<(String, String)> {
    let mut rules = Vec::new();
    let place = section.place_of("cache_control");
    for (pattern, value) in section.texts(report, "cache_control", limits::FILE_RULES_MAX) {
        let place = format!("{place}.{}", pattern.value);
        let inner_slash = !pattern.value.starts_with('/') && pattern.value.contains('/');
        if pattern.value.is_empty() || inner_slash {
            let what = format!("\"{}\" is not a pattern", pattern.value);
            let help = "write one for names, like \"*.css\", or for paths below the route, like \"/assets/*\"";
            report.fault(pattern.line, &place, wrong(what, help));
        } else if !is_header_text(&value) || !value.bytes().any(|byte| byte.is_ascii_alphabetic()) {
            let what = format!("\"{value}\" is not a value of Cache-Control");
            report.fault(pattern.line, &place, wrong(what, "write one like \"public, max-age=3600\""));
        } else {
            rules.push((pattern.value, value));
        }
    }
    rules.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
    rules
}
