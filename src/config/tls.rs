//! What comes before HTTP on a listener: `tls` with its certificates, `hsts`, `proxy_protocol`.
//!
//! ```toml
//! tls = { cert = "shop.crt", key = "shop.key" }   # one certificate in one line
//!
//! [listener.tls]                                   # or whatever else there is to say
//! client_ca = "staff-ca.crt"
//!
//! [[listener.certificate]]                         # and more certificates
//! cert = "blog.crt"
//! key = "blog.key"
//! ```

use super::{
    Machine, Scene,
    draft::{Draft, Listener, path},
    fault::{Report, Wrong, wrong},
    values::{self, CertificateFiles, ClientAuth, ClientNeed, RouteAction, TlsVersion},
    walk::{At, Section},
};
use crate::{
    limits,
    trust::site::{Trouble, Which},
};
use ipnet::IpNet;
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A year: what the lists of browsers ask for.
const HSTS: &str = "max-age=31536000";

/// What comes before HTTP on a listener, read.
#[derive(Default)]
pub(super) struct Front {
    pub(super) tls: Option<Tls>,
    hsts: Option<At<Option<String>>>,
    pub(super) proxy_from: Vec<At<IpNet>>,
}

pub(super) struct Tls {
    place: String,
    line: usize,
    certificates: Vec<Certificate>,
    min_version: TlsVersion,
    client_ca: Option<At<PathBuf>>,
    client_auth: Option<At<ClientNeed>>,
}

struct Certificate {
    place: String,
    cert: Option<At<PathBuf>>,
    key: Option<At<PathBuf>>,
}

pub(super) fn read(report: &mut Report, listener: &mut Section<'_>, dir: &Path) -> Front {
    let section = listener.section(report, "tls");
    let more = listener.sections(report, "certificate", limits::CERTIFICATES_MAX);
    let written = section.is_some() || !more.is_empty();
    let mut tls = Tls {
        place: listener.place_of("tls"),
        line: listener.line,
        certificates: Vec::new(),
        min_version: TlsVersion::Tls12,
        client_ca: None,
        client_auth: None,
    };
    if let Some(section) = section {
        read_section(report, section, dir, &mut tls);
    }
    tls.certificates.extend(more.into_iter().map(|mut section| {
        let certificate = read_certificate(report, &mut section, dir);
        section.finish(report, &[]);
        certificate
    }));
    if written && tls.certificates.is_empty() {
        let help = "write tls = { cert = \"shop.crt\", key = \"shop.key\" }, or [[listener.certificate]]";
        report.fault(tls.line, &tls.place, wrong("has no certificate", help));
    }
    let hsts = read_hsts(report, listener);
    if let Some(hsts) = hsts.as_ref().filter(|_| !written) {
        let help = "write it at the listener with tls: browsers believe it there only (RFC 6797 §7.2)";
        report.fault(hsts.line, &listener.place_of("hsts"), wrong("is for listeners with tls", help));
    }
    let proxy_from = listener.list(report, "proxy_protocol", limits::PROXY_NETWORKS_MAX, network);
    Front { tls: written.then_some(tls), hsts, proxy_from: proxy_from.unwrap_or_default() }
}

fn read_section(report: &mut Report, mut section: Section<'_>, dir: &Path, tls: &mut Tls) {
    tls.line = section.line;
    if section.has("cert") || section.has("key") {
        tls.certificates.push(read_certificate(report, &mut section, dir));
    }
    let versions = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
    let min_version = section.choice(report, "min_version", &versions);
    tls.min_version = min_version.map_or(TlsVersion::Tls12, |version| version.value);
    tls.client_ca = section.parsed(report, "client_ca", |text| path(text, dir));
    let needs = [("required", ClientNeed::Required), ("optional", ClientNeed::Optional)];
    tls.client_auth = section.choice(report, "client_auth", &needs);
    if let Some(auth) = tls.client_auth.as_ref().filter(|_| !section.has("client_ca")) {
        let help = "write client_ca = \"ca.crt\" beside it: the CA that signed the clients' certificates";
        report.fault(auth.line, &section.place_of("client_auth"), wrong("needs a client_ca", help));
    }
    section.finish(report, &["cert", "key"]);
}

fn read_certificate(report: &mut Report, section: &mut Section<'_>, dir: &Path) -> Certificate {
    let cert = section.parsed(report, "cert", |text| path(text, dir));
    section.missing(
        report,
        "cert",
        "write cert = \"shop.crt\": the site's certificate, then those that signed it, in PEM",
    );
    let key = section.parsed(report, "key", |text| path(text, dir));
    section.missing(report, "key", "write key = \"shop.key\": the key of the certificate, in PEM");
    Certificate { place: section.place.clone(), cert, key }
}

/// `true`, `false`, or the value of the header.
fn read_hsts(report: &mut Report, listener: &mut Section<'_>) -> Option<At<Option<String>>> {
    if listener.is_bool("hsts") {
        let flag = listener.flag(report, "hsts")?;
        return Some(At { value: flag.value.then(|| HSTS.to_owned()), line: flag.line });
    }
    let text = listener.parsed(report, "hsts", |text| {
        let seconds = text.strip_prefix("max-age=").map(|rest| rest.split(';').next().unwrap_or_default().trim());
        let fine = seconds.is_some_and(|s| !s.is_empty() && s.len() < 12 && s.bytes().all(|b| b.is_ascii_digit()))
            && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let help = "write hsts = true (a year), or the header's value: \"max-age=63072000; includeSubDomains\"";
        if fine { Ok(text.to_owned()) } else { Err(wrong(format!("\"{text}\" is no such header"), help)) }
    })?;
    Some(At { value: Some(text.value), line: text.line })
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, Wrong> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let net = net.map_err(|_| wrong(format!("\"{text}\" is not a network"), "write \"10.0.0.0/8\" or an address"))?;
    if net.addr() != net.network() {
        return Err(wrong(format!("{net} is an address in {}", net.trunc()), format!("write \"{}\"", net.trunc())));
    }
    if net.prefix_len() == 0 {
        let help = "write the networks of the proxies in front: whoever is in them can pose as any client";
        return Err(wrong(format!("{net} is everybody"), help));
    }
    Ok(net)
}

/// Holds the files against each other, and the listeners.
pub(super) fn judge(report: &mut Report, draft: &Draft, scene: &Scene<'_>) {
    for listener in &draft.listeners {
        redirects(report, draft, listener);
        let (Some(tls), Some(machine)) = (&listener.front.tls, scene.machine) else { continue };
        tls.certificates.iter().for_each(|certificate| look(report, certificate, machine));
        if let Some(ca) = &tls.client_ca
            && let Err(trouble) = machine.client_ca(&ca.value)
        {
            tell(report, &trouble, ca.line, &format!("{}.client_ca", tls.place), machine);
        }
    }
    if let (Some(keys), Some(machine)) = (&draft.web.ticket_keys, scene.machine)
        && let Err(trouble) = machine.ticket_keys(&keys.value)
    {
        tell(report, &trouble, keys.line, "web.ticket_keys", machine);
    }
}

fn look(report: &mut Report, certificate: &Certificate, machine: &dyn Machine) {
    let (Some(cert), Some(key)) = (&certificate.cert, &certificate.key) else { return };
    let place = |which: &str| format!("{}.{which}", certificate.place);
    match machine.certificate(&cert.value, &key.value) {
        Err(trouble) => {
            let (line, which) = match trouble.which {
                Which::Key => (key.line, "key"),
                Which::Certificate | Which::ClientCa | Which::TicketKeys => (cert.line, "cert"),
            };
            tell(report, &trouble, line, &place(which), machine);
        }
        Ok((facts, standing)) => {
            let shown = cert.value.display();
            if let Some(trouble) = standing.trouble() {
                let what = format!("{shown} {trouble}");
                report.warn(cert.line, &place("cert"), wrong(what, "renew it: the new file is taken up by itself"));
            }
            if facts.names.is_empty() {
                let what = format!("{shown} has no DNS name");
                let help = "no browser believes it; the name must be in the certificate's subjectAltName";
                report.warn(cert.line, &place("cert"), wrong(what, help));
            }
        }
    }
}

/// A fault; a mere warning if somebody looks who need not be allowed to.
fn tell(report: &mut Report, trouble: &Trouble, line: usize, place: &str, machine: &dyn Machine) {
    if trouble.not_permitted && machine.may_be_denied() {
        let help = "it was not checked: run as root to check it, too";
        return report.warn(line, place, wrong(trouble.what.clone(), help));
    }
    report.fault(line, place, wrong(trouble.what.clone(), trouble.help.clone()));
}

/// Whoever is sent to https must find it there.
fn redirects(report: &mut Report, draft: &Draft, listener: &Listener) {
    let ports = |listener: &Listener| listener.addresses.iter().map(|address| address.value.port()).collect::<Vec<_>>();
    for route in &listener.routes {
        let RouteAction::ToHttps { port } = route.action.value else { continue };
        let place = format!("{}.redirect", route.place);
        if listener.front.tls.is_some() {
            let what = "is at a listener with tls: it is https already";
            report.fault(route.action.line, &place, wrong(what, "write it at the listener of port 80"));
        } else if !draft.listeners.iter().any(|other| other.front.tls.is_some() && ports(other).contains(&port)) {
            let what = format!("no listener of this file has tls at port {port}");
            report.warn(route.action.line, &place, wrong(what, "write one, or redirect = \"https:PORT\""));
        }
    }
}

/// `https`, or `https:8443`.
pub(super) fn redirect(text: &str) -> Result<u16, Wrong> {
    let port = match text.strip_prefix("https") {
        Some("") => Some(443),
        Some(rest) => rest.strip_prefix(':').and_then(|port| port.parse().ok()).filter(|port| *port != 0),
        None => None,
    };
    port.ok_or_else(|| {
        wrong(format!("\"{text}\" is nowhere to redirect to"), "write redirect = \"https\", or \"https:8443\"")
    })
}

impl Front {
    /// The values, once for all addresses of the listener. `None` if a part of them is missing, which was reported.
    pub(super) fn assemble(self) -> Option<values::Front> {
        let tls = match self.tls {
            None => None,
            Some(tls) => Some(Arc::new(tls.assemble()?)),
        };
        let proxy_from = self.proxy_from.into_iter().map(|net| net.value).collect();
        Some(values::Front { tls, hsts: self.hsts.and_then(|hsts| hsts.value), proxy_from })
    }
}

impl Tls {
    fn assemble(self) -> Option<values::Tls> {
        let files = |certificate: Certificate| {
            Some(CertificateFiles { cert: certificate.cert?.value, key: certificate.key?.value })
        };
        let need = self.client_auth.map_or(ClientNeed::Required, |auth| auth.value);
        Some(values::Tls {
            certificates: self.certificates.into_iter().map(files).collect::<Option<_>>()?,
            min_version: self.min_version,
            clients: self.client_ca.map(|ca| ClientAuth { ca: ca.value, need }),
        })
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
