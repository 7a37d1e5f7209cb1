//! `hawser init`: a folder for each member of a new cluster, and what to do with them.

use super::{
    args::{InitArgs, MemberArg},
    out,
};
use crate::{
    config::{self, Scene, TiebreakKind},
    limits::PORT_DEFAULT,
    trust::pki::{self, Blueprint},
};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

/// `hawser init`.
pub(crate) fn init(args: &InitArgs) -> ExitCode {
    let [first, second] = args.nodes.as_slice() else {
        out::error(format_args!("a cluster has two nodes, and {} was given: write --node twice", args.nodes.len()));
        return ExitCode::from(2);
    };
    let node_config = node_config(args);
    let witness_config = args.witness.as_ref().map(|witness| (witness.name, witness_config(args, witness)));
    // The files are checked before anything is made: a fault in them is a fault in the arguments.
    let scene = Scene { path: Path::new(pki::NODE_CONFIG), me: None, machine: None };
    let checked = config::check(&node_config, &scene).map(|checked| checked.warnings);
    let faults = checked.and_then(|warnings| match &witness_config {
        Some((_, text)) => config::check_witness(text, &scene).map(|_| warnings),
        None => Ok(warnings),
    });
    match faults {
        Ok(warnings) => warnings.iter().for_each(|warning| out::note(format_args!("hawser: warning: {warning}"))),
        Err(faults) => {
            out::error("this would make a configuration with faults, so nothing was made");
            faults.faults.iter().for_each(|fault| out::note(format_args!("  {fault}")));
            return ExitCode::from(2);
        }
    }
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(args.cluster.as_str()));
    let plan = Blueprint {
        cluster: args.cluster,
        nodes: [first.name, second.name],
        witness: witness_config.as_ref().map(|(name, text)| (*name, text.as_str())),
        node_config: &node_config,
    };
    match pki::build(&plan, &out, SystemTime::now()) {
        Ok(()) => {
            out::line(next_steps(args, &out));
            ExitCode::SUCCESS
        }
        Err(error) => {
            out::error(format_args!("cannot make cluster {}: {error}", args.cluster));
            ExitCode::FAILURE
        }
    }
}

/// What is used to speak to an etcd by https: its CA, and what is shown to it. They are copied beside `hawser.toml`.
const ETCD_FILES: [&str; 3] = ["etcd-ca.pem", "etcd-client.pem", "etcd-client.key"];

fn is_secure(args: &InitArgs) -> bool {
    args.etcd.iter().any(|url| url.starts_with("https:"))
}

const fn tiebreak(args: &InitArgs) -> TiebreakKind {
    if args.witness.is_some() {
        TiebreakKind::Witness
    } else if !args.etcd.is_empty() {
        TiebreakKind::Etcd
    } else if !args.gateways.is_empty() {
        TiebreakKind::Gateway
    } else {
        TiebreakKind::None
    }
}

/// The `hawser.toml` of both nodes.
fn node_config(args: &InitArgs) -> String {
    let mut text = format!(
        "# Cluster \"{0}\": the same file on both nodes. `hawser check` tells every fault of it.\n\n\
         [cluster]\nname = \"{0}\"\n",
        args.cluster
    );
    let kind = tiebreak(args);
    if let Some(caveat) = kind.caveat() {
        text += &format!("# What this does not protect from: {caveat}.\n");
    }
    if kind != TiebreakKind::Witness {
        text += &format!("tiebreak = \"{}\"\n", kind.word());
    }
    for node in &args.nodes {
        text += &format!("\n[[node]]\nname = \"{}\"\nlinks = {}\n", node.name, addresses(node));
    }
    if let Some(witness) = &args.witness {
        text += &format!("\n[witness]\nname = \"{}\"\naddress = {}\n", witness.name, addresses(witness));
    } else if !args.etcd.is_empty() {
        text += &format!("\n[etcd]\nendpoints = {}\n", list(args.etcd.iter()));
        if is_secure(args) {
            let [ca, cert, key] = ETCD_FILES;
            text += &format!("ca = \"{ca}\"\n# Shown to etcd; leave both out if it asks for none.\n");
            text += &format!("cert = \"{cert}\"\nkey = \"{key}\"\n");
        }
    } else if !args.gateways.is_empty() {
        text += &format!("\n[gateway]\naddresses = {}\n", list(args.gateways.iter()));
    }
    if args.vips.is_empty() {
        text += "\n# The address that moves between the nodes.\n# [[group]]\n# name = \"web\"\n\
                 # vip = [{ address = \"192.0.2.10/24\", interface = \"eth0\" }]\n";
    } else {
        text += "\n[[group]]\nname = \"web\"\nvip = [\n";
        for vip in &args.vips {
            text += &format!("  {{ address = \"{}\", interface = {:?} }},\n", vip.address, vip.interface);
        }
        text += "]\n";
    }
    let listen: BTreeSet<SocketAddr> = args.vips.iter().map(|vip| SocketAddr::new(vip.address.addr(), 80)).collect();
    let listen = if listen.is_empty() { "\"0.0.0.0:80\"".to_owned() } else { list(listen.iter()) };
    text += &format!("\n[[listener]]\naddress = {listen}\nroot = \"/srv/www\"\n");
    text += "\n# Instead of files, or beside them: forward to an application.\n# [[listener.route]]\n# path = \"/api/\"\n\
             # upstream = \"app\"\n#\n# [[upstream]]\n# name = \"app\"\n# servers = [\"127.0.0.1:8080\"]\n\
             # health = { http = \"/healthz\" }\n";
    text
}

fn witness_config(args: &InitArgs, witness: &MemberArg) -> String {
    let everywhere = |address: &SocketAddr| match address {
        SocketAddr::V4(v4) => format!("0.0.0.0:{}", v4.port()),
        SocketAddr::V6(v6) => format!("[::]:{}", v6.port()),
    };
    let listen: BTreeSet<String> = witness.addresses.iter().map(everywhere).collect();
    format!(
        "# A witness votes for one cluster or many: add a [[cluster]] for each.\n\n\
         [witness]\nlisten = {}\n\n[[cluster]]\nname = \"{}\"\nsecret = \"{}\"\n",
        list(listen.iter()),
        args.cluster,
        pki::witness_secret(args.cluster)
    )
}

fn list(items: impl Iterator<Item = impl std::fmt::Display>) -> String {
    let items: Vec<String> = items.map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", items.join(", "))
}

/// Addresses as a person writes them: without the port if it is the usual one.
fn addresses(member: &MemberArg) -> String {
    list(member.addresses.iter().map(|address| match address.port() {
        PORT_DEFAULT => address.ip().to_string(),
        _ => address.to_string(),
    }))
}

/// What was made, and what to type now.
fn next_steps(args: &InitArgs, out: &Path) -> String {
    let out = out.display();
    let host = |member: &MemberArg| match member.addresses.first().map(SocketAddr::ip) {
        Some(address) => address.to_string(),
        None => member.name.to_string(),
    };
    let width = args.nodes.iter().chain(&args.witness).map(|member| member.name.as_str().len()).max().unwrap_or(2);
    let mut text = format!("made cluster {} in {out}\n", args.cluster);
    let mut row = |name: &str, what: &str| writeln!(text, "  {name:width$}  {what}").unwrap_or(());
    row("ca", "the cluster's own CA: keep it safe, and off the nodes");
    for node in &args.nodes {
        row(node.name.as_str(), "certificate, keys and hawser.toml of this node");
    }
    if let Some(witness) = &args.witness {
        row(witness.name.as_str(), "secret and witness.toml of the witness");
    }
    text += "\nnext:\n";
    let mut copy = |member: &MemberArg, to: &str| {
        let (name, host) = (member.name, host(member));
        // scp takes an IPv6 address in brackets, ssh without.
        let remote = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        text += &format!("  ssh root@{host} install -d -m 700 {to} && scp -p {out}/{name}/* root@{remote}:{to}/\n");
    };
    args.nodes.iter().for_each(|node| copy(node, "/etc/hawser"));
    if let Some(witness) = &args.witness {
        copy(witness, "/etc/hawser-witness");
    }
    if is_secure(args) {
        let files = ETCD_FILES.join(", ");
        text += &format!("\n  on both nodes:    put {files} of your etcd into /etc/hawser (the key: chmod 600)");
    }
    text += "\n  on both nodes:    hawser check && systemctl enable --now hawser             (or: hawser run)\n";
    if args.witness.is_some() {
        text += "  on the witness:   systemctl enable --now hawser-witness                     (or: hawser witness)\n";
    }
    text += "  then on a node:   hawser status";
    if args.witness.is_some() {
        text += "\n\nA witness that runs already: copy only the .key file, and add this cluster to its witness.toml.";
    }
    text
}
