//! What a person may type: one tree of verbs, from which help, man pages and completions come.

use crate::cluster::Name;
use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// Where a node's configuration is, unless another file is named.
pub const CONFIG_DEFAULT: &str = "/etc/hawser/hawser.toml";
/// Where a witness's configuration is, unless another file is named.
pub const WITNESS_CONFIG_DEFAULT: &str = "/etc/hawser-witness/witness.toml";
/// Where a node's daemon answers, unless another socket is named.
pub const SOCKET_DEFAULT: &str = "/run/hawser/admin.sock";

/// Two Linux machines, one highly available web service.
///
/// Two nodes hold one virtual address: whatever dies, hangs or is cut off, one of them answers, and never both.
/// A third machine, the witness, only votes.
#[derive(Debug, Parser)]
#[command(name = "hawser", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// What is to be done.
    #[command(subcommand)]
    pub verb: Verb,
}

const AFTER_HELP: &str = "\
See it work on this machine alone:
  hawser demo
  hawser serve .

Make a cluster of two machines:
  hawser init --cluster shop --node n1=10.0.0.1 --node n2=10.0.0.2 \\
      --witness w=10.0.0.9 --vip 192.0.2.10/24@eth0
  hawser check && hawser run        on each node, with its folder in /etc/hawser
  hawser status

Exit codes: 0 done, 1 failed, 2 wrong arguments (of `status`: something needs a look), 78 faults in the configuration.";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a node: hold addresses, serve, and watch the peer.
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// The process that a node's supervisor starts.
    #[command(hide = true)]
    Worker(RunArgs),
    /// Run a witness: the third vote, for one cluster or many.
    #[command(after_help = WITNESS_HELP)]
    Witness(WitnessArgs),
    /// Make a cluster: a CA, and a folder for each member to copy over.
    #[command(after_help = INIT_HELP)]
    Init(InitArgs),
    /// Check configuration files, and tell every fault with its line.
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Show who owns what, and what is wrong.
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Move a group to the other node, without a failed request that ends within `drain`.
    #[command(after_help = SWITCHOVER_HELP)]
    Switchover(SwitchoverArgs),
    /// Take a node out: it owns nothing until `unstandby`.
    #[command(after_help = "Examples:\n  hawser standby             this node\n  hawser standby n2")]
    Standby(StandbyArgs),
    /// Let a node own groups again.
    #[command(after_help = "Examples:\n  hawser unstandby\n  hawser unstandby n2")]
    Unstandby(UnstandbyArgs),
    /// Say that a node is powered off, so that this one may take its groups (tiebreak "fence" only).
    #[command(after_help = CONFIRM_FENCED_HELP)]
    ConfirmFenced(ConfirmFencedArgs),
    /// Show what changed hands, when, and why.
    #[command(after_help = "Examples:\n  hawser history\n  hawser history --all\n  hawser history -n 5 --json")]
    History(HistoryArgs),
    /// Serve a folder by HTTP: no cluster, no configuration.
    #[command(after_help = "Examples:\n  hawser serve .\n  hawser serve /srv/www --listen 0.0.0.0:80")]
    Serve(ServeArgs),
    /// A whole cluster on this machine, in network namespaces: kill things and watch.
    #[command(after_help = DEMO_HELP)]
    Demo(crate::demo::DemoArgs),
    /// Print completions for a shell.
    #[command(after_help = "Example:\n  hawser completions bash > /usr/share/bash-completion/completions/hawser")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print a man page.
    #[command(after_help = "Examples:\n  hawser man > hawser.1\n  hawser man switchover | man -l -")]
    Man {
        /// The verb that the page is about; the whole command if left out.
        verb: Option<String>,
    },
}

const RUN_HELP: &str = "\
Which node this machine is, the certificate beside the configuration says. \
Needs the capabilities NET_ADMIN, NET_RAW and, for ports below 1024, NET_BIND_SERVICE.

Examples:
  hawser run
  hawser run --config ./hawser.toml

Signals: TERM hand over and end, a second TERM end now.";

const WITNESS_HELP: &str = "\
Put it on a machine that does not die with a node: a small VM, a router, a NAS. \
It holds no address, needs no capability and stores a few bytes. One witness votes for many clusters: add a [[cluster]] for each.

Example:
  hawser witness --config /etc/hawser-witness/witness.toml";

const INIT_HELP: &str = "\
Where an etcd runs anyway, write --etcd for each of its members in the place of --witness. Without a third machine write --gateway or --no-witness in the place of --witness: the README says what each protects \
from. For \"fence\" begin with --no-witness and add what config/pair-fence.toml shows. \
Each member is NAME=ADDRESS, or NAME=ADDRESS,ADDRESS with two networks between the nodes: \
link i of one node talks to link i of the other. Nothing that is there is overwritten.

Example:
  hawser init --cluster shop --node n1=10.0.0.1,10.1.0.1 --node n2=10.0.0.2,10.1.0.2 \\
      --witness w=10.0.0.9 --vip 192.0.2.10/24@eth0";

const CHECK_HELP: &str = "\
All faults are told at once, each with its line and what to write instead. Exit code 78 if there is one. \
Keys and certificates beside a file are looked at too.

Examples:
  hawser check
  hawser check --offline config/*.toml";

const STATUS_HELP: &str = "\
Exit codes: 0 all is well, 1 no daemon answers, 2 something needs a look: each line with an exclamation mark says what, \
and what to do. With --json 0 if a daemon answers; what needs a look is in .advice.

Examples:
  hawser status
  hawser status --watch
  hawser status --json | jq .groups";

const SWITCHOVER_HELP: &str = "\
Requests in flight end on the old owner, new ones begin on the new one. \
Refused if the peer cannot serve; --force moves all the same.

Examples:
  hawser switchover --dry-run
  hawser switchover web --to n2";

const CONFIRM_FENCED_HELP: &str = "\
For when the fence device cannot be asked, and `hawser status` says that it waits for you. Look at the machine first: \
if it runs and you say that it is off, both nodes answer for the addresses. It holds until that node is heard again, \
and is written to the history.

Example:
  hawser confirm-fenced n2 --yes";

const DEMO_HELP: &str = "\
Needs no root. Without --stay a tour: it breaks one thing after the other and prints how long the address was silent.

Examples:
  hawser demo
  hawser demo --stay
  hawser demo --list
  hawser demo --profile fast --soak 10m
  hawser demo --fault worker-kill --repeat 10 --json";

/// `hawser run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The configuration; certificates and secrets are beside it.
    #[arg(long, short, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    pub config: PathBuf,
    /// Which node this machine is, instead of what its certificate says.
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub node: Option<Name>,
}

/// `hawser witness`.
#[derive(Debug, Clone, Args)]
pub struct WitnessArgs {
    /// The configuration; relative paths in it begin at its folder.
    #[arg(long, short, value_name = "FILE", default_value = WITNESS_CONFIG_DEFAULT)]
    pub config: PathBuf,
}

/// `hawser init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// The cluster's name.
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub cluster: Name,
    /// A node: its name, and one address per link. Twice.
    #[arg(long = "node", value_name = "NAME=ADDRESS[,ADDRESS]", value_parser = member, required = true)]
    pub nodes: Vec<MemberArg>,
    /// The witness: its name, and where the nodes reach it.
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = member, required_unless_present_any = ["etcd", "gateways", "no_witness"])]
    pub witness: Option<MemberArg>,
    /// An etcd votes instead of a witness: a member of it, like https://10.0.0.7:2379. Once for each member.
    #[arg(long = "etcd", value_name = "URL", conflicts_with = "witness")]
    pub etcd: Vec<String>,
    /// No third machine votes: a router that both nodes need must answer instead. May be repeated.
    #[arg(long = "gateway", value_name = "ADDRESS", conflicts_with_all = ["witness", "etcd"])]
    pub gateways: Vec<IpAddr>,
    /// No third machine votes: tiebreak "none". Both nodes answer while their network is cut in two.
    #[arg(long, conflicts_with_all = ["witness", "etcd", "gateways"])]
    pub no_witness: bool,
    /// A virtual address, and the interface that carries it on both nodes.
    #[arg(long = "vip", value_name = "ADDRESS/PREFIX@INTERFACE", value_parser = vip)]
    pub vips: Vec<VipArg>,
    /// Where the folders are made; must not exist, or be empty.
    #[arg(long, value_name = "DIR", help = "Where the folders are made [default: ./CLUSTER]")]
    pub out: Option<PathBuf>,
}

/// `NAME=ADDRESS[,ADDRESS]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberArg {
    /// Its name.
    pub name: Name,
    /// Its addresses; port 7707 unless written.
    pub addresses: Vec<SocketAddr>,
}

/// `ADDRESS/PREFIX@INTERFACE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VipArg {
    /// The address.
    pub address: IpNet,
    /// The interface.
    pub interface: String,
}

/// `hawser check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The files: of nodes or of witnesses.
    #[arg(value_name = "FILE", default_value = CONFIG_DEFAULT)]
    pub files: Vec<PathBuf>,
    /// The files are for another machine: do not look for interfaces, folders and keys on this one.
    #[arg(long)]
    pub offline: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Where a daemon answers.
#[derive(Debug, Clone, Args)]
pub struct SocketArg {
    /// The daemon's socket.
    #[arg(long, value_name = "PATH", default_value = SOCKET_DEFAULT)]
    pub socket: PathBuf,
}

/// `hawser status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Print it again whenever it changes.
    #[arg(long, short)]
    pub watch: bool,
    /// Where the daemon answers.
    #[command(flatten)]
    pub socket: SocketArg,
}

/// `hawser switchover`.
#[derive(Debug, Clone, Args)]
pub struct SwitchoverArgs {
    /// The group; may be left out if there is only one.
    #[arg(value_name = "GROUP", value_parser = name)]
    pub group: Option<Name>,
    /// The node that is to own it; the other one if left out.
    #[arg(long, value_name = "NODE", value_parser = name)]
    pub to: Option<Name>,
    /// Move even to a node that is not ready.
    #[arg(long)]
    pub force: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Wait until the new owner serves (the default).
    #[arg(long, overrides_with = "no_wait")]
    pub wait: bool,
    /// Do not wait: return as soon as the move has begun.
    #[arg(long, overrides_with = "wait")]
    pub no_wait: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Where the daemon answers.
    #[command(flatten)]
    pub socket: SocketArg,
}

/// `hawser standby`.
#[derive(Debug, Clone, Args)]
pub struct StandbyArgs {
    /// The node; this one if left out.
    #[arg(value_name = "NODE", value_parser = name)]
    pub node: Option<Name>,
    /// Even if nobody is left to own the groups.
    #[arg(long)]
    pub force: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the daemon answers.
    #[command(flatten)]
    pub socket: SocketArg,
}

/// `hawser unstandby`.
#[derive(Debug, Clone, Args)]
pub struct UnstandbyArgs {
    /// The node; this one if left out.
    #[arg(value_name = "NODE", value_parser = name)]
    pub node: Option<Name>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the daemon answers.
    #[command(flatten)]
    pub socket: SocketArg,
}

/// `hawser confirm-fenced`.
#[derive(Debug, Clone, Args)]
pub struct ConfirmFencedArgs {
    /// The node that is off.
    #[arg(value_name = "NODE", value_parser = name)]
    pub node: Name,
    /// You have looked, and it is off.
    #[arg(long)]
    pub yes: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the daemon answers.
    #[command(flatten)]
    pub socket: SocketArg,
}

/// `hawser history`.
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Show the internal group `state` too: which node writes the replicated state.
    #[arg(long, short)]
    pub all: bool,
    /// How many transitions, the latest last.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    pub count: usize,
    /// Where the daemon answers.
    #[command(flatten)]
    pub socket: SocketArg,
}

/// `hawser serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// The folder.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Where to listen.
    #[arg(long, short, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|e| e.to_string())
}

fn member(text: &str) -> Result<MemberArg, String> {
    let (called, addresses) = text.split_once('=').ok_or("write NAME=ADDRESS, like n1=10.0.0.1")?;
    let address = |text: &str| {
        let with_port = text.parse::<SocketAddr>();
        with_port
            .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, crate::limits::PORT_DEFAULT)))
            .map_err(|_| format!("\"{text}\" is not an address; names are not looked up: write one like 10.0.0.1"))
    };
    Ok(MemberArg { name: name(called)?, addresses: addresses.split(',').map(address).collect::<Result<_, _>>()? })
}

fn vip(text: &str) -> Result<VipArg, String> {
    let (address, interface) = text.split_once('@').ok_or("write ADDRESS/PREFIX@INTERFACE, like 192.0.2.10/24@eth0")?;
    let parsed = address.parse::<IpNet>().or_else(|_| address.parse::<IpAddr>().map(IpNet::from));
    let address = parsed.map_err(|_| format!("\"{address}\" is not an address; write one like 192.0.2.10/24"))?;
    Ok(VipArg { address, interface: interface.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_of_arguments_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_that_a_person_types_is_explained_with_an_example() {
        for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("hawser {}", verb.get_name())), "{}", verb.get_name());
            for argument in verb.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", verb.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn a_member_is_a_name_and_its_addresses() {
        let parsed = member("n1=10.0.0.1,[fd00::1]:9").unwrap();
        assert_eq!(parsed.name.as_str(), "n1");
        assert_eq!(parsed.addresses, ["10.0.0.1:7707".parse().unwrap(), "[fd00::1]:9".parse().unwrap()]);
        for bad in ["n1", "n1=", "=10.0.0.1", "N1=10.0.0.1", "n1=host", "n1=10.0.0.1,"] {
            assert!(member(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_later_of_wait_and_no_wait_wins() {
        let parse = |args: &[&str]| {
            let Verb::Switchover(args) = Cli::try_parse_from(args).unwrap().verb else { panic!("another verb") };
            args.no_wait
        };
        assert!(!parse(&["hawser", "switchover"]));
        assert!(parse(&["hawser", "switchover", "web", "--no-wait"]));
        assert!(!parse(&["hawser", "switchover", "--no-wait", "--wait"]));
    }
}
