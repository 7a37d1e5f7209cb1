//! `witness.toml`: where a witness listens, and for which clusters it votes.

use super::{
    Scene, address, check,
    draft::path,
    fault::{Report, wrong},
    values::{WitnessCluster, WitnessConfig},
    walk::{At, Section},
};
use crate::{cluster::Name, limits};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// Folder of what must survive, unless another is written.
const STATE_DIR: &str = "/var/lib/hawser-witness";

struct Entry {
    place: String,
    name: Option<At<Name>>,
    secret: Option<At<PathBuf>>,
}

/// Reads and checks the whole document.
pub(super) fn judge(report: &mut Report, mut file: Section<'_>, scene: &Scene<'_>) -> Option<WitnessConfig> {
    let dir = super::folder_of(scene.path);
    let witness = file.section(report, "witness");
    let clusters = file.sections(report, "cluster", limits::CLUSTERS_PER_WITNESS_MAX);
    if clusters.is_empty() {
        report.fault(0, "cluster", wrong("there is none", "write [[cluster]] with name and secret"));
    }
    file.finish(report, &[]);
    let entries: Vec<Entry> = clusters.into_iter().map(|cluster| read_cluster(report, cluster, dir)).collect();
    distinct(report, &entries);
    let (listen, state_dir) = read_witness(report, witness, dir);
    let clusters: Option<Vec<WitnessCluster>> = entries
        .into_iter()
        .map(|entry| Some(WitnessCluster { name: entry.name?.value, secret: entry.secret?.value }))
        .collect();
    Some(WitnessConfig { listen, state_dir, clusters: clusters? })
}

fn read_witness(report: &mut Report, section: Option<Section<'_>>, dir: &Path) -> (Vec<SocketAddr>, PathBuf) {
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, limits::PORT_DEFAULT));
    let Some(mut section) = section else { return (vec![everywhere], STATE_DIR.into()) };
    let listen = section.list(report, "listen", limits::LINKS_MAX, address::listen);
    let state = section.parsed(report, "state", |text| path(text, dir));
    section.finish(report, &[]);
    let listen = listen.unwrap_or_else(|| vec![At { value: everywhere, line: 0 }]);
    for (at, address) in listen.iter().enumerate() {
        if let Some(other) = listen.iter().take(at).find(|other| check::overlap(other.value, address.value)) {
            let what = format!("{} is covered by {} (line {})", address.value, other.value, other.line);
            report.fault(address.line, &format!("witness.listen[{at}]"), wrong(what, "leave one of them out"));
        }
    }
    let listen = listen.into_iter().map(|address| address.value).collect();
    (listen, state.map_or_else(|| STATE_DIR.into(), |state| state.value))
}

fn read_cluster(report: &mut Report, mut section: Section<'_>, dir: &Path) -> Entry {
    let name = section.parsed(report, "name", address::name);
    section.missing(report, "name", "write name = \"shop\"");
    let secret = section.parsed(report, "secret", |text| path(text, dir));
    section.missing(report, "secret", "write secret = \"shop.witness.key\", the file that `hawser init` made");
    let place = section.place.clone();
    section.finish(report, &[]);
    Entry { place, name, secret }
}

/// Each cluster once, with a secret of its own.
fn distinct(report: &mut Report, entries: &[Entry]) {
    for (at, entry) in entries.iter().enumerate() {
        for earlier in entries.iter().take(at) {
            if let (Some(name), Some(other)) = (entry.name, earlier.name)
                && name.value == other.value
            {
                let what = format!("\"{}\" is already {} (line {})", name.value, earlier.place, other.line);
                report.fault(name.line, &format!("{}.name", entry.place), wrong(what, "write each cluster once"));
            }
            if let (Some(secret), Some(other)) = (&entry.secret, &earlier.secret)
                && secret.value == other.value
            {
                let what = format!("is already the secret of {} (line {})", earlier.place, other.line);
                let help = "each cluster has a secret of its own";
                report.fault(secret.line, &format!("{}.secret", entry.place), wrong(what, help));
            }
        }
    }
}
