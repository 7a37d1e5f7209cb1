//! What decides when the nodes do not see each other: `[fence]`, `[fence.NODE]`, `[gateway]`.

use super::{
    check::Scene,
    draft::Draft,
    fault::{Report, Wrong, wrong},
    values::{self, FenceDevice, Node},
    walk::{At, Section, nearest},
};
use crate::limits;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Component, Path, PathBuf},
    time::Duration,
};

/// `[fence]`.
pub(super) struct Fence {
    common: Device,
    nodes: Vec<(At<String>, Device)>,
    head_start: Duration,
    timeout: Duration,
}

struct Device {
    place: String,
    line: usize,
    agent: Option<At<PathBuf>>,
    options: Vec<(At<String>, String)>,
}

/// `[gateway]`.
pub(super) struct Gateway {
    place: String,
    addresses: Vec<At<IpAddr>>,
    need: Option<At<u32>>,
}

pub(super) fn read_fence(report: &mut Report, mut section: Section<'_>) -> Fence {
    let head_start = section.duration(report, "head_start", &(Duration::ZERO..=limits::HEAD_START_MAX));
    let timeout = section.duration(report, "timeout", &(Duration::from_secs(1)..=limits::FENCE_TIMEOUT_MAX));
    let named = section.named_sections(report, &["options"]);
    let nodes: Vec<_> = named.into_iter().map(|(name, section)| (name, read_device(report, section, &[]))).collect();
    // Names of nodes are keys of this table; whether they are names of nodes is looked at later.
    let known: Vec<String> = nodes.iter().map(|(name, _)| name.value.clone()).collect();
    let common = read_device(report, section, &known);
    let seconds = |value: Option<At<Duration>>, default| value.map_or(default, |at| at.value);
    Fence {
        common,
        nodes,
        head_start: seconds(head_start, limits::HEAD_START_DEFAULT),
        timeout: seconds(timeout, limits::FENCE_TIMEOUT_DEFAULT),
    }
}

fn read_device(report: &mut Report, mut section: Section<'_>, named: &[String]) -> Device {
    let agent = section.parsed(report, "agent", agent);
    let options = section.texts(report, "options", limits::FENCE_OPTIONS_MAX);
    for (key, _) in options.iter().filter(|(key, _)| key.value == "action" || key.value.contains(['=', '\n'])) {
        let place = format!("{}.options.{}", section.place, key.value);
        report.fault(key.line, &place, wrong("cannot be an option", "hawser itself says what is to be done"));
    }
    let (place, line) = (section.place.clone(), section.line);
    section.finish_but(report, named);
    Device { place, line, agent, options }
}

/// A path, or a name that is looked for where fence agents are.
fn agent(text: &str) -> Result<PathBuf, Wrong> {
    let path = PathBuf::from(text);
    let plain = path.components().count() == 1 && matches!(path.components().next(), Some(Component::Normal(_)));
    if text.contains('\0') || !(path.is_absolute() || plain) {
        return Err(wrong(
            format!("\"{text}\" is no program"),
            "write a name like \"fence_ipmilan\", or a path that begins with /",
        ));
    }
    Ok(path)
}

pub(super) fn read_gateway(report: &mut Report, mut section: Section<'_>) -> Gateway {
    let addresses = section.list(report, "addresses", limits::GATEWAYS_MAX, |text| {
        text.parse::<IpAddr>().ok().filter(|ip| !ip.is_unspecified() && !ip.is_multicast()).ok_or_else(|| {
            wrong(format!("\"{text}\" is not the address of a machine"), "write one like \"10.0.0.254\"")
        })
    });
    section.missing(report, "addresses", "write addresses = [\"10.0.0.254\"]");
    let most = u32::try_from(limits::GATEWAYS_MAX).unwrap_or(u32::MAX);
    let need = section.number(report, "need", 1..=most);
    let place = section.place.clone();
    section.finish(report, &[]);
    Gateway { place, addresses: addresses.unwrap_or_default(), need }
}

/// What needs more than one key.
pub(super) fn judge(report: &mut Report, draft: &Draft, scene: &Scene<'_>) {
    let kind = draft.cluster.tiebreak;
    if let Some(wait) = draft.cluster.boot_wait.filter(|_| !kind.is_local()) {
        report.warn(wait.line, "cluster.boot_wait", wrong("has no effect with this tiebreak", "leave it out"));
    }
    if let Some(fence) = &draft.fence {
        fence.judge(report, draft, scene);
    }
    if let Some(gateway) = &draft.gateway {
        gateway.judge(report, draft);
    }
}

impl Fence {
    fn judge(&self, report: &mut Report, draft: &Draft, scene: &Scene<'_>) {
        let nodes: Vec<&str> = draft.nodes.iter().filter_map(|n| n.name.as_ref()).map(|n| n.value.as_str()).collect();
        for (name, device) in self.nodes.iter().filter(|(name, _)| !nodes.contains(&name.value.as_str())) {
            let help = match nearest(&name.value, &nodes) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("known here: agent, options, head_start, timeout, {}", nodes.join(", ")),
            };
            report.fault(name.line, &device.place, wrong("is neither a key nor a node", help));
        }
        for node in &nodes {
            let own = self.nodes.iter().find(|(name, _)| name.value == *node).map(|(_, device)| device);
            let Some(own) = own else {
                let help = format!("write [fence.{node}] with the options that name {node} to the device");
                report.fault(self.common.line, "fence", wrong(format!("does not say how {node} is powered off"), help));
                continue;
            };
            match own.agent.as_ref().or(self.common.agent.as_ref()) {
                None => {
                    let help = "write agent = \"fence_ipmilan\" in [fence]";
                    report.fault(own.line, &own.place, wrong("has no agent", help));
                }
                Some(agent) if scene.machine.is_some() && find(&agent.value).is_none() => {
                    let what = format!("there is no program {} on this machine", agent.value.display());
                    let help = "fencing would fail: install it (the packages are called fence-agents)";
                    report.warn(agent.line, &format!("{}.agent", own.place), wrong(what, help));
                }
                Some(_) => {}
            }
        }
        if let [(first, one), (_, other)] = self.nodes.as_slice() {
            let same = |a: &Device, b: &Device| {
                let texts = |device: &Device| -> BTreeMap<String, String> {
                    device.options.iter().map(|(key, text)| (key.value.clone(), text.clone())).collect()
                };
                texts(a) == texts(b) && a.agent.as_ref().map(|a| &a.value) == b.agent.as_ref().map(|b| &b.value)
            };
            if same(one, other) {
                let what = format!("says the same as {}: a node would power itself off", other.place);
                report.fault(first.line, &one.place, wrong(what, "write what names each node to the device"));
            }
        }
    }

    pub(super) fn assemble(self, nodes: &[Node; 2]) -> Option<values::Fence> {
        let device = |node: &Node| {
            let own = self.nodes.iter().find(|(name, _)| name.value == node.name.as_str()).map(|(_, device)| device)?;
            let agent = own.agent.as_ref().or(self.common.agent.as_ref())?.value.clone();
            let all = self.common.options.iter().chain(&own.options);
            Some(FenceDevice { agent, options: all.map(|(key, text)| (key.value.clone(), text.clone())).collect() })
        };
        let [first, second] = nodes;
        let devices = [device(first)?, device(second)?];
        Some(values::Fence { devices, head_start: self.head_start, timeout: self.timeout })
    }
}

impl Gateway {
    fn judge(&self, report: &mut Report, draft: &Draft) {
        for (at, address) in self.addresses.iter().enumerate() {
            let place = format!("{}.addresses[{at}]", self.place);
            if let Some(other) = self.addresses.iter().take(at).find(|other| other.value == address.value) {
                let what = format!("{} is already there (line {})", address.value, other.line);
                report.fault(address.line, &place, wrong(what, "write each address once"));
            }
            let links = draft.nodes.iter().flat_map(|node| &node.addresses).map(|link| link.value.ip());
            let vips = draft.groups.iter().flat_map(|g| &g.vips).filter_map(|vip| Some(vip.address?.value.addr()));
            if links.chain(vips).any(|ip| ip == address.value) || address.value.is_loopback() {
                let what = format!("{} is an address of the nodes themselves", address.value);
                let help = "write the address of a machine that both need: the router";
                report.fault(address.line, &place, wrong(what, help));
            }
        }
        if let Some(need) = self.need.filter(|need| usize::try_from(need.value).is_ok_and(|n| n > self.addresses.len()))
        {
            let what = format!("{} of {} addresses can never answer", need.value, self.addresses.len());
            report.fault(
                need.line,
                &format!("{}.need", self.place),
                wrong(what, "write more addresses, or a smaller number"),
            );
        }
    }

    pub(super) fn assemble(self) -> Option<values::Gateway> {
        let need = usize::try_from(self.need.map_or(1, |need| need.value)).ok()?;
        Some(values::Gateway { addresses: self.addresses.into_iter().map(|at| at.value).collect(), need })
    }
}

/// Where a fence agent is: a path as it is, a name in the folders where the distributions put them.
#[must_use]
pub fn find(agent: &Path) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
    let candidates = folders.into_iter().map(|folder| Path::new(folder).join(agent));
    // Joined to a folder, an absolute path stays what it is.
    candidates.into_iter().find(|path| path.is_file())
}
