//! `hawser check`: every fault of a configuration, and of the keys beside it.

use super::{
    EXIT_CONFIG,
    args::{CheckArgs, RunArgs, WitnessArgs},
    out,
};
use crate::{
    config::{
        self, Checked, Config, Etcd, Fault, Faults, Machine, Onlooker, Scene, ThisMachine, Tiebreak, WitnessConfig,
    },
    trust::{Identity, Keyring, TrustError, keyring::Purpose, outside::Outside, pki},
};
use serde::Serialize;
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

/// What was found in one file.
#[derive(Serialize)]
struct Finding {
    file: PathBuf,
    ok: bool,
    /// What the file describes, in a line; empty if it has faults.
    summary: String,
    faults: Vec<Fault>,
    /// Faults beyond those listed.
    omitted: usize,
    warnings: Vec<Fault>,
}

/// `hawser check`.
pub(crate) fn check(args: &CheckArgs) -> ExitCode {
    let machine: Option<&dyn Machine> = if args.offline { None } else { Some(&Onlooker) };
    let findings: Vec<Finding> = args.files.iter().map(|file| look(file, machine)).collect();
    if args.json {
        match serde_json::to_string_pretty(&findings) {
            Ok(text) => out::line(text),
            Err(error) => out::error(error),
        }
    } else {
        findings.iter().for_each(tell);
    }
    if findings.iter().all(|finding| finding.ok) { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONFIG) }
}

/// The configuration of this node for `run` and `worker`; faults and warnings are printed.
///
/// # Errors
/// The exit code, after all faults were told.
pub(crate) fn load(args: &RunArgs) -> Result<Config, ExitCode> {
    let refuse = |faults: &Faults| {
        tell_all(&faults.file, &faults.faults, faults.omitted, &faults.warnings);
        ExitCode::from(EXIT_CONFIG)
    };
    let me = match args.node {
        Some(node) => Ok(node),
        None => Identity::name_in(folder_of(&args.config)),
    };
    let name = me.as_ref().ok().copied();
    let scene = Scene { path: &args.config, me: name, machine: Some(&ThisMachine) };
    let checked = config::load(&scene).map_err(|faults| refuse(&faults))?;
    match me {
        Ok(_) => {
            tell_all(&args.config, &[], 0, &checked.warnings);
            Ok(checked.config)
        }
        Err(error) => {
            out::error(format_args!("cannot tell which node this machine is: {error}; or name it with --node"));
            Err(ExitCode::from(EXIT_CONFIG))
        }
    }
}

/// The configuration of a witness; faults and warnings are printed.
///
/// # Errors
/// The exit code, after all faults were told.
pub(crate) fn load_witness(args: &WitnessArgs) -> Result<WitnessConfig, ExitCode> {
    let scene = Scene { path: &args.config, me: None, machine: Some(&ThisMachine) };
    match config::load_witness(&scene) {
        Ok(checked) => {
            tell_all(&args.config, &[], 0, &checked.warnings);
            Ok(checked.config)
        }
        Err(faults) => {
            tell_all(&faults.file, &faults.faults, faults.omitted, &faults.warnings);
            Err(ExitCode::from(EXIT_CONFIG))
        }
    }
}

fn tell(finding: &Finding) {
    tell_all(&finding.file, &finding.faults, finding.omitted, &finding.warnings);
    if finding.ok {
        out::line(format_args!("{}: ok: {}", finding.file.display(), finding.summary));
    }
}

fn tell_all(file: &Path, faults: &[Fault], omitted: usize, warnings: &[Fault]) {
    for fault in faults {
        out::note(config::located(file, fault));
    }
    if omitted > 0 {
        out::note(format_args!("{}: and {omitted} more", file.display()));
    }
    for fault in warnings {
        let warning = Fault { what: format!("warning: {}", fault.what), ..fault.clone() };
        out::note(config::located(file, &warning));
    }
}

fn look(file: &Path, machine: Option<&dyn Machine>) -> Finding {
    let found = read(file).and_then(|text| {
        if config::is_witness(&text) {
            let checked = config::check_witness(&text, &Scene { path: file, me: None, machine })?;
            let warnings = if machine.is_some() { secrets_of(file, &checked)? } else { vec![] };
            Ok((describe_witness(&checked.config), [checked.warnings, warnings].concat()))
        } else {
            let me = machine.and_then(|_| Identity::name_in(folder_of(file)).ok());
            let checked = config::check(&text, &Scene { path: file, me, machine })?;
            let keys = if machine.is_some() { keys_of(file, &checked.config)? } else { vec![] };
            Ok((describe(&checked.config), [checked.warnings, keys].concat()))
        }
    });
    let file = file.to_owned();
    match found {
        Ok((summary, warnings)) => Finding { file, ok: true, summary, faults: vec![], omitted: 0, warnings },
        Err(Faults { faults, warnings, omitted, .. }) => {
            Finding { file, ok: false, summary: String::new(), faults, omitted, warnings }
        }
    }
}

/// Here a file is an argument of its own, not one of `--config`.
fn read(file: &Path) -> Result<String, Faults> {
    if matches!(file.try_exists(), Ok(false)) {
        let help = "make one with `hawser init`, or give the file: hawser check FILE";
        return Err(refuse(file, about("there is no such file", help)));
    }
    config::read(file)
}

/// Looks at all that a node's file needs beside itself, and tells what is wrong with any of it.
fn keys_of(file: &Path, config: &Config) -> Result<Vec<Fault>, Faults> {
    let etcd = match &config.tiebreak {
        Tiebreak::Etcd(etcd) => keys_for_etcd(file, etcd),
        Tiebreak::Witness(_) | Tiebreak::Fence(_) | Tiebreak::Gateway(_) | Tiebreak::None => Ok(vec![]),
    };
    match (identity_of(file, config), etcd) {
        (Ok(warnings), Ok(more)) => Ok([warnings, more].concat()),
        (Err(faults), Err(more)) => Err(Faults { faults: [faults.faults, more.faults].concat(), ..faults }),
        (Err(faults), Ok(_)) | (Ok(_), Err(faults)) => Err(faults),
    }
}

/// Looks at the CA's certificate, and at what is shown to etcd.
fn keys_for_etcd(file: &Path, etcd: &Etcd) -> Result<Vec<Fault>, Faults> {
    let Some(ca) = &etcd.ca else { return Ok(vec![]) };
    let shown = etcd.identity.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
    let holds = match Outside::load(ca, shown) {
        Ok(outside) => outside.holds,
        Err(error) => return not_permitted(file, &error),
    };
    let (Some((cert, _)), Some((from, until))) = (shown, holds) else { return Ok(vec![]) };
    Ok(validity(cert, (from, until), "make a new one, or etcd will not let this node in").into_iter().collect())
}

/// A warning about a certificate that does not hold now.
fn validity(cert: &Path, (from, until): (SystemTime, SystemTime), advice: &str) -> Option<Fault> {
    let now = SystemTime::now();
    let what = match () {
        () if now < from => "is not valid yet",
        () if until < now => "has expired",
        () => return None,
    };
    let name = cert.file_name().unwrap_or(cert.as_os_str()).display();
    Some(about(format!("{name} {what}"), format!("is this machine's clock right? else {advice}")))
}

/// Looks at the certificate, key and secret beside a node's file, if there are any.
fn identity_of(file: &Path, config: &Config) -> Result<Vec<Fault>, Faults> {
    let dir = folder_of(file);
    if !dir.join(pki::NODE_CERT).exists() {
        let what = format!("there is no {} beside it", pki::NODE_CERT);
        return Ok(vec![about(what, "`hawser run` needs the folder that `hawser init` made")]);
    }
    let identity = match Identity::load(dir) {
        Ok(identity) => identity,
        Err(error) => return not_permitted(file, &error),
    };
    if identity.keyring().cluster() != config.cluster.name {
        let what = format!("the secret beside it is of cluster \"{}\"", identity.keyring().cluster());
        return Err(refuse(file, about(what, "copy the folder that `hawser init` made for this cluster")));
    }
    let facts = identity.facts();
    let times = (facts.not_before, facts.not_after);
    Ok(validity(Path::new(pki::NODE_CERT), times, "make a new certificate").into_iter().collect())
}

/// Looks at the secrets that a witness's file names.
fn secrets_of(file: &Path, checked: &Checked<WitnessConfig>) -> Result<Vec<Fault>, Faults> {
    let mut warnings = Vec::new();
    for cluster in &checked.config.clusters {
        match Keyring::load(&cluster.secret, Purpose::Witness) {
            Ok(ring) if ring.cluster() == cluster.name => {}
            Ok(ring) => {
                let what = format!("{} is of cluster \"{}\"", cluster.secret.display(), ring.cluster());
                return Err(refuse(file, about(what, format!("name the secret of \"{}\"", cluster.name))));
            }
            Err(error) => warnings.extend(not_permitted(file, &error)?),
        }
    }
    Ok(warnings)
}

/// Whoever may not read a secret is told so, and no more: checking needs no root.
fn not_permitted(file: &Path, error: &TrustError) -> Result<Vec<Fault>, Faults> {
    match error {
        TrustError::Io { cause, .. } if cause.kind() == ErrorKind::PermissionDenied => {
            Ok(vec![about(error.to_string(), "keys were not checked: run as root to check them too")])
        }
        TrustError::Io { .. }
        | TrustError::TooOpen { .. }
        | TrustError::Content { .. }
        | TrustError::Exists(_)
        | TrustError::SameName(_)
        | TrustError::Crypto(_) => Err(refuse(file, about(error.to_string(), ""))),
    }
}

fn about(what: impl Into<String>, help: impl Into<String>) -> Fault {
    Fault { line: 0, place: String::new(), what: what.into(), help: help.into() }
}

fn refuse(file: &Path, fault: Fault) -> Faults {
    Faults { file: file.to_owned(), faults: vec![fault], warnings: vec![], omitted: 0 }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn describe(config: &Config) -> String {
    let members = match config.alone {
        Some(alone) => format!("{} alone (nobody takes over when it fails)", config.nodes[alone.index().min(1)].name),
        None => {
            let [first, second] = &config.nodes;
            format!("{} and {}, {}", first.name, second.name, describe_tiebreak(&config.tiebreak))
        }
    };
    let caveat = config.tiebreak.kind().caveat().filter(|_| config.alone.is_none());
    let vips = config.groups.iter().map(|group| group.vips.len()).sum();
    format!(
        "cluster {} of {members}; {} with {}; {}, {}{}",
        config.cluster.name,
        count(config.groups.len(), "group"),
        count(vips, "vip"),
        count(config.web.listeners.len(), "listener"),
        count(config.web.upstreams.len(), "upstream"),
        caveat.map(|caveat| format!("; mind that {caveat}")).unwrap_or_default(),
    )
}

fn describe_tiebreak(tiebreak: &Tiebreak) -> String {
    match tiebreak {
        Tiebreak::Witness(witness) => format!("witness {}", witness.name),
        Tiebreak::Etcd(etcd) => format!("etcd of {}", count(etcd.endpoints.len(), "member")),
        Tiebreak::Fence(_) | Tiebreak::Gateway(_) | Tiebreak::None => format!("tiebreak {}", tiebreak.kind().word()),
    }
}

fn describe_witness(config: &WitnessConfig) -> String {
    let names: Vec<&str> = config.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    format!("witness of {}: {}", count(names.len(), "cluster"), names.join(", "))
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
